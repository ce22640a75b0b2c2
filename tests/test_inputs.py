"""Inputs, padding, contexts and masks of other shapes or types are one line."""

import pytest
import torch

from fairseq_sru.modules import SRU, SRULayer, SRUpp, SRUppLayer, pool
from fairseq_sru.ops import attention, recurrence, recurrence_tanh
from fairseq_sru.ops.attention import attention_mask


@pytest.mark.parametrize("wrong", [torch.zeros(3, 2), torch.zeros(2, 2, dtype=torch.bool)])
def test_padding_has_a_shape_and_a_type(wrong):
    stack, x = SRUpp(4, 4, 4), torch.zeros(3, 2, 4)
    with pytest.raises(ValueError, match="^pad must be"):
        stack(x, pad=wrong)
    for read in (lambda: stack(x, context=x, context_pad=wrong),
                 lambda: stack.start(2, x, wrong)):
        with pytest.raises(ValueError, match="^context_pad must be"):
            read()


STACKS = {
    "sru": lambda **options: SRU(4, 4, **options),
    "srupp": lambda **options: SRUpp(4, 4, 4, **options),
}


@pytest.mark.parametrize("options", [
    {}, {"project_input": True}, {"layer_norm": "pre"}, {"bidirectional": True}])
@pytest.mark.parametrize("name", STACKS)
def test_inputs_have_the_type_of_the_parameters(name, options):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        stack = STACKS[name](**options).to(dtype)
        for other in {torch.float32, torch.float64, torch.bfloat16, torch.float16} - {dtype}:
            with pytest.raises(ValueError, match=f"input is {other}, the parameters are {dtype}"):
                stack(torch.zeros(3, 2, 4, dtype=other))
    with torch.autocast("cpu", torch.bfloat16):
        assert STACKS[name](**options)(torch.zeros(3, 2, 4, dtype=torch.bfloat16))[0].shape[0] == 3


@pytest.mark.parametrize("shape", [(3, 4), (5, 3, 4), (2, 4), (5, 2, 3)])
def test_a_context_has_a_shape(shape):
    with pytest.raises(ValueError, match=r"^context must be \(S, 2, [4D]\), got "):
        SRUpp(4, 4, 4)(torch.zeros(3, 2, 4), context=torch.zeros(shape))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(3, 3), (5, 5), (2, 5), (5, 3), (2, 3, 5)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_masks_have_a_shape(shape, causal, dtype):
    mask, x = torch.ones(shape, dtype=dtype), torch.zeros(3, 2, 4)
    with pytest.raises(ValueError, match="^mask must be broadcastable to "):
        SRUpp(4, 4, 4)(x, context=x[:2], mask=mask, causal=causal)
    if shape != (2, 3, 5):  # of two heads
        with pytest.raises(ValueError, match="^mask must be broadcastable to "):
            attention(x, torch.cat([x, x[:2]]), torch.cat([x, x[:2]]), mask)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.complex64])
@pytest.mark.parametrize("causal", [False, True])
def test_masks_of_stacks_have_a_type(dtype, causal):
    with pytest.raises(ValueError, match="^mask must be bool"):
        SRUpp(4, 4, 4)(torch.zeros(3, 2, 4), mask=torch.ones(3, 3).to(dtype), causal=causal)


@pytest.mark.parametrize("name", STACKS)
def test_both_directions_are_not_read_token_by_token(name):
    with pytest.raises(ValueError, match="a bidirectional stack reads whole sequences"):
        STACKS[name](bidirectional=True).start(2)


@pytest.mark.parametrize("lengths", [(-1, 0), (3, -1)])
def test_lengths_are_not_negative(lengths):
    length, context_length = lengths
    for causal in False, True:
        with pytest.raises(ValueError, match="^lengths must be at least 0"):
            attention_mask(length, context_length=context_length, causal=causal)


def test_masks_of_other_types():
    q = torch.zeros(3, 2, 4)
    with pytest.raises(ValueError, match="mask must be bool"):
        attention(q, q, q, torch.ones(3, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="padding must be bool"):
        attention_mask(3, torch.zeros(3, 2))
    with pytest.raises(ValueError, match="num_heads must divide"):
        attention(q, q, q, num_heads=3)


@pytest.mark.parametrize("placement", ["all", "none"])
@pytest.mark.parametrize("wrong", [[2], [-1], 1, None, "1", [None]])
def test_wanted_weights_are_those_of_layers(placement, wrong):
    stack = SRUpp(4, 4, 4, 2, attention=placement)
    with pytest.raises(ValueError, match="^need_weights must be True, False or layers from 0 to 1"):
        stack(torch.zeros(3, 2, 4), need_weights=wrong)
    with pytest.raises(ValueError, match="^need_weights must be"):
        stack.step(torch.zeros(1, 2, 4), stack.start(2), need_weights=wrong)


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("shape", [(1, 3, 4), (1, 1, 4), (1, 2, 3), (2, 4)])
def test_a_step_has_the_rows_of_its_state(name, shape):
    stack = STACKS[name]()
    state = stack.start(2)
    with pytest.raises(ValueError, match="^input must be"):
        stack.step(torch.zeros(shape), state)
    assert stack.step(torch.zeros(1, 2, 4), state)[0].shape == (1, 2, 4)


def test_masks_are_checked_where_nothing_attends():
    with pytest.raises(ValueError, match="^mask must be broadcastable to "):
        SRUpp(4, 4, 4, attention="none")(torch.zeros(3, 2, 4), mask=torch.ones(4, 4))


@pytest.mark.parametrize("need_weights", [False, True])
def test_nan_in_a_mask_is_not_a_row_that_sees_nothing(need_weights):
    q, mask = torch.zeros(3, 2, 4), torch.zeros(3, 3)
    mask[1] = torch.nan
    out, _ = attention(q, q, q, mask, need_weights=need_weights)
    assert out[1].isnan().all() and out[[0, 2]].isfinite().all()


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_pooling_has_shapes(pooling):
    h = torch.zeros(3, 2, 4)
    for wrong in (torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.bool)):
        with pytest.raises(ValueError, match="^pad must be"):
            pool(h, wrong, pooling)
    with pytest.raises(ValueError, match="^h must be"):
        pool(h[0], None, pooling)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("length", [0, 3])
@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_a_sequence_without_a_step_is_pooled_to_zeros(pooling, length, bidirectional):
    h = torch.randn(length, 2, 4, requires_grad=True)
    pad = torch.zeros(length, 2, dtype=torch.bool)
    pad[:, 1] = True
    pooled = pool(h, pad, pooling, bidirectional)
    (grad,) = torch.autograd.grad(pooled.sum(), h)
    assert pooled.shape == (2, 4) and not pooled[1].any() and not grad[:, 1].any()
    assert pooled.isfinite().all() and grad.isfinite().all()
    assert bool(pooled[0].any()) == (length > 0)


@pytest.mark.parametrize("build", [
    lambda: SRUpp(4, 4, 4, bidirectional=True),
    lambda: SRUpp(4, 4, 4, bidirectional=True, attention="none"),
    lambda: SRUppLayer(4, 4, 4, bidirectional=True)])
def test_the_future_is_not_masked_where_the_recurrence_reads_it(build):
    with pytest.raises(ValueError, match="bidirectional"):
        build()(torch.zeros(3, 2, 4), causal=True)


@pytest.mark.parametrize("context, message", [
    ([torch.zeros(3, 2, 4), torch.zeros(2, 2, 4)], "one length"),
    ("ab", "must be a tensor"),
    ([1, 2], "must be a tensor"),
    ([None], "one tensor for each"),
    (torch.zeros(3, 2, 4).double(), "context is torch.float64"),
    (torch.zeros(3, 2, 4).long(), "context is torch.int64"),
])
def test_contexts_fit(context, message):
    with pytest.raises((ValueError, TypeError), match=message):
        SRUpp(4, 4, 4)(torch.zeros(3, 2, 4), context=context)


@pytest.mark.parametrize("context", [
    torch.zeros(3, 2, 3), torch.zeros(2, 4), torch.zeros(3, 2, 4).double(), "ab"])
def test_decoding_starts_from_a_context_that_fits(context):
    with pytest.raises((ValueError, TypeError), match="^context "):
        SRUpp(4, 4, 4).start(2, context)


def test_a_context_has_the_size_of_the_layers_that_attend():
    stack = SRUpp(3, 5, 4, attention="last:1")
    x, context = torch.randn(1, 2, 3), torch.randn(4, 2, 5)
    whole = stack(x, context=context).h
    step, _ = stack.step(x, stack.start(2, context))
    torch.testing.assert_close(step, whole)
    with pytest.raises(ValueError, match=r"^context must be \(S, B, 5\)"):
        stack.start(2, context[..., :3])


def test_a_step_has_a_state_of_its_layers():
    stack, x = SRUpp(4, 4, 4), torch.zeros(1, 2, 4)
    with pytest.raises(TypeError, match="^state must be of start"):
        stack.step(x, None)
    with pytest.raises(ValueError, match="^state must be of 2 layers, got 3"):
        stack.step(x, SRUpp(4, 4, 4, 3).start(2))
    for other in SRU(4, 4), SRUpp(4, 4, 4, attention="last:1"):
        with pytest.raises(ValueError, match="^state must be of a stack in which the same layers"):
            stack.step(x, other.start(2))
    with pytest.raises(ValueError, match="^input is torch.float64"):
        stack.step(x.double(), stack.start(2))


@pytest.mark.parametrize("layer", [SRULayer(4, 4), SRUppLayer(4, 4, 4)], ids=["sru", "srupp"])
def test_layers_have_shapes(layer):
    x = torch.zeros(3, 2, 4)
    for wrong in (x[0], x[..., :3], x.long()):
        with pytest.raises(ValueError, match="^input must be"):
            layer(wrong)
    with pytest.raises(ValueError, match="^pad must be"):
        layer(x, None, torch.zeros(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="^c0 must be"):
        layer(x, torch.zeros(3, 4))


@pytest.mark.parametrize("name", ["mask", "context_pad"])
def test_what_is_no_tensor(name):
    x = torch.zeros(3, 2, 4)
    with pytest.raises(TypeError, match=f"^{name} must be a tensor, got list"):
        SRUpp(4, 4, 4)(x, context=x, **{name: [[True]]})


def test_attention_has_shapes():
    x = torch.zeros(3, 2, 4)
    for k, v in ((x[:, :1], x[:, :1]), (x[..., :2], x[..., :2]), (x, x[:2]), (x[0], x[0])):
        with pytest.raises(ValueError, match="^q must be"):
            attention(x, k, v)
    with pytest.raises(ValueError, match="^causal needs"):
        attention(x, x[:2], x[:2], causal=True)
    with pytest.raises(ValueError, match="^mask must be None besides"):
        attention(x, x, x, torch.ones(3, 3, dtype=torch.bool), causal=True)
    for name in ("causal", "need_weights"):
        with pytest.raises(ValueError, match=f"^{name} must be True or False"):
            attention(x, x, x, **{name: "no"})


@pytest.mark.parametrize("function", [recurrence, recurrence_tanh])
@pytest.mark.parametrize("name, wrong, error", [
    ("u", [1.0], TypeError), ("bias", None, TypeError), ("c0", [0.0], TypeError),
    ("scale", "1", ValueError), ("scale", None, ValueError), ("scale", 1j, ValueError),
    ("scale", True, ValueError), ("bidirectional", "no", ValueError),
    ("bidirectional", 1, ValueError)])
def test_the_recurrence_says_what_it_wants(function, name, wrong, error):
    given = dict(u=torch.zeros(3, 2, 3, 4), x=None, weight_c=None, bias=torch.zeros(2, 4))
    with pytest.raises(error, match=f"^{name} must be "):
        function(**{**given, name: wrong})
