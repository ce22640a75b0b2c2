"""The decoding step's attention kernel equals attention with a mask, in every type and layout."""

import pytest
import torch

from fairseq_sru.ops import step_attention
from fairseq_sru.ops.attention import additive, attention
from fairseq_sru.ops.extension import COMPILED

pytestmark = pytest.mark.skipif(not COMPILED, reason="fairseq_sru_ext is not built")

SHAPES = [  # sentences, beam, slots, size, heads
    (3, 4, 9, 32, 1), (2, 5, 37, 28, 4), (1, 1, 1, 5, 1), (4, 1, 130, 66, 2), (2, 3, 6, 256, 1),
]


def inputs(sentences, beam, slots, size, heads, dtype=torch.float64):
    torch.manual_seed(slots)
    q = torch.randn(1, sentences * beam, size, dtype=dtype)
    cache = torch.randn(sentences, 2 * slots, 2 * size, dtype=dtype)[:, :slots]
    seen = torch.rand(sentences * beam, 2 * slots) < 0.5
    seen[:, 0] = True
    mask = additive(seen, dtype)[:, :slots].unflatten(0, (sentences, beam)).unsqueeze(1)
    return q, cache, mask, torch.tensor([0.7], dtype=dtype)


def plain(q, cache, mask, alpha, heads):
    sentences, _, beam, _ = mask.shape
    k, v = cache.transpose(0, 1).chunk(2, dim=-1)
    a, _ = attention(q.view(sentences, beam, -1).transpose(0, 1), k, v, mask, heads)
    return q + alpha * a.transpose(0, 1).reshape(q.shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_float64(shape):
    args = inputs(*shape)
    y, weights = step_attention(*args, shape[-1])
    assert weights is None
    torch.testing.assert_close(y, plain(*args, shape[-1]), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_low_precision_is_no_worse_than_pytorch(shape, dtype):
    args = inputs(*shape, dtype)
    heads = shape[-1]
    exact = plain(*(t.double() for t in args), heads)
    ours = (step_attention(*args, heads)[0].double() - exact).abs().max()
    theirs = (plain(*args, heads).double() - exact).abs().max()
    assert ours <= 2 * theirs + torch.finfo(dtype).eps


def test_extreme_scores_and_masked_infinities():
    q, cache, mask, alpha = inputs(2, 2, 8, 16, 1)
    cache[:, 1] = 1e4
    torch.testing.assert_close(step_attention(q, cache, mask, alpha)[0],
                               plain(q, cache, mask, alpha, 1), atol=1e-9, rtol=1e-9)
    mask[..., 3] = torch.finfo(mask.dtype).min / 2
    y = step_attention(q, cache, mask, alpha)[0]
    cache[:, 3] = float("nan")  # nobody looks there
    assert torch.equal(step_attention(q, cache, mask, alpha)[0], y)


def test_weights_and_gradients_go_the_slow_way():
    q, cache, mask, alpha = inputs(3, 2, 5, 8, 2)
    y, weights = step_attention(q, cache, mask, alpha, 2, need_weights=True)
    assert weights.shape == (3, 2, 2, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, 2, dtype=q.dtype))
    torch.testing.assert_close(y, step_attention(q, cache, mask, alpha, 2)[0])
    q.requires_grad_()
    step_attention(q, cache, mask, alpha, 2)[0].sum().backward()
    assert q.grad is not None


def test_operator_checks_its_arguments():
    q, cache, mask, _ = inputs(2, 2, 4, 6, 1)
    rows, seen = q[0], mask.flatten(0, 2)
    op = torch.ops.fairseq_sru.step_attention
    torch.library.opcheck(op, (rows, cache, seen, 0.5, 1), test_utils="test_faketensor")
    for wrong, message in [
        ((rows[:3], cache, seen, 0.5, 1), "do not fit"),
        ((rows, cache[..., :10], seen, 0.5, 1), "do not fit"),
        ((rows, cache, seen, 0.5, 4), "4 heads do not divide 6"),
        ((rows[:, ::2], cache[..., :6], seen, 0.5, 1), "must be contiguous"),
    ]:
        with pytest.raises(ValueError, match=message):
            op(*wrong)
    with pytest.raises(TypeError, match="they must agree"):
        op(rows.float(), cache, seen, 0.5, 1)
