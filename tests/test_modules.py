"""SRU and SRU++ layers and stacks: options, start values, padding, memory, and no fairseq."""

import importlib
import math
import subprocess
import sys

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from fairseq_sru.modules import SRU, SRUpp, SRUppLayer
from fairseq_sru.modules.placement import attention_layers

attention_module = importlib.import_module("fairseq_sru.ops.attention")


def stacks():
    yield SRU(6, 6, 3)
    yield SRU(5, 6, 2, proj_size=3, bidirectional=True, layer_norm="post")
    yield SRU(5, 6, 2, highway=False, weight_c=False, layer_norm="pre")
    yield SRUpp(6, 6, 4, 3, alpha_init=0.7)
    yield SRUpp(
        5, 6, 4, 2, num_heads=2, alpha_init=0.7, bidirectional=True, attention_norm=False)
    yield SRUpp(
        5, 6, 4, 3, attention="every:2", alpha_init=0.7, layer_norm="pre", project_input=True)
    yield SRUpp(5, 6, 4, 2, attention="none", layer_norm="post", rescale=True, highway=False)


STACKS = [pytest.param(stack.double(), id=f"{i}") for i, stack in enumerate(stacks())]


@pytest.mark.parametrize("options", [{}, {"forget_bias": 2.0}, {"bidirectional": True}])
@pytest.mark.parametrize("build, highway_bias", [(SRU, 0.0), (SRUpp, -2.0)])
def test_gates_start_at_their_biases(build, highway_bias, options):
    sizes = (5, 6, 4) if build is SRUpp else (5, 6)
    for layer in build(*sizes, num_layers=2, **options).layers:
        forget, reset = layer.recurrence.bias
        assert forget.eq(options.get("forget_bias", 0.0)).all()
        assert reset.eq(highway_bias).all()


@pytest.mark.parametrize("stack", STACKS)
def test_padding_changes_nothing(stack):
    """Alone, or among others padded left and right by any amount: equal to 1e-12."""
    torch.manual_seed(0)
    sentences = [torch.randn(n, 1, stack.input_size, dtype=torch.float64) for n in (4, 1, 6)]
    alone = [stack(s)[0] for s in sentences]
    for length in (6, 9):
        for side in ("left", "right"):
            batch = torch.full((length, 3, stack.input_size), 9.0, dtype=torch.float64)
            pad = torch.ones(length, 3, dtype=torch.bool)
            spans = []
            for i, s in enumerate(sentences):
                start = 0 if side == "right" else length - len(s)
                spans.append(slice(start, start + len(s)))
                batch[spans[i], i] = s[:, 0]
                pad[spans[i], i] = False
            h = stack(batch, pad=pad)[0]
            for i, span in enumerate(spans):
                torch.testing.assert_close(h[span, i], alone[i][:, 0], rtol=0, atol=1e-12)
            assert not h[pad].any()


@pytest.mark.parametrize("stack", STACKS)
def test_a_fully_padded_sentence_is_finite(stack):
    x = torch.randn(3, 2, stack.input_size, dtype=torch.float64, requires_grad=True)
    pad = torch.tensor([[True, False]] * 3)
    stack(x, pad=pad)[0].sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in stack.parameters())
    stack.zero_grad()


@pytest.mark.parametrize("layer_norm", [None, "pre", "post"])
@pytest.mark.parametrize("attention", ["all", "none", "last:1"])
def test_segments_with_memory_equal_the_whole(attention, layer_norm):
    """Carrying cells and layer inputs gives what one long causal pass gives."""
    torch.manual_seed(0)
    stack = SRUpp(6, 6, 4, 3, attention=attention, alpha_init=0.7, layer_norm=layer_norm).double()
    x = torch.randn(11, 2, 6, dtype=torch.float64)
    whole = stack(x, causal=True)
    c, memory, h = None, None, []
    for start, end in ((0, 3), (3, 4), (4, 11)):
        out = stack(x[start:end], c0=c, context=memory, causal=True)
        c, h = out.c, h + [out.h]
        memory = out.inputs if memory is None else [
            torch.cat(pair) for pair in zip(memory, out.inputs)]
    torch.testing.assert_close(torch.cat(h), whole.h, rtol=0, atol=1e-12)
    torch.testing.assert_close(c, whole.c, rtol=0, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 2])
def test_a_causal_stack_without_padding_builds_no_mask(heads, monkeypatch):
    stack = SRUpp(6, 8, 4, 2, num_heads=heads, alpha_init=0.7, project_input=True).double()
    x = torch.randn(7, 3, 6, dtype=torch.float64)
    masked = stack(x, mask=torch.ones(7, 7).tril().bool()).h
    monkeypatch.setattr(attention_module, "attention_mask", None)
    torch.testing.assert_close(stack(x, causal=True).h, masked, rtol=0, atol=1e-12)


def test_steps_equal_the_whole():
    torch.manual_seed(0)
    stack = SRUpp(5, 6, 4, 3, num_heads=2, attention="every:2", alpha_init=0.7,
                  project_input=True).double().eval()
    x = torch.randn(9, 4, 5, dtype=torch.float64)
    context = torch.randn(7, 2, 6, dtype=torch.float64)
    context_pad = torch.zeros(7, 2, dtype=torch.bool)
    context_pad[4:, 1] = True
    twice = torch.tensor([0, 0, 1, 1])
    whole = stack(x, context=context[:, twice], context_pad=context_pad[:, twice], causal=True,
                  need_weights=True)
    state = stack.start(4, context, context_pad)
    for t in range(len(x)):
        h, weights = stack.step(x[t : t + 1], state, need_weights=True)
        torch.testing.assert_close(h[0], whole.h[t], rtol=0, atol=1e-12)
        on_source = weights[1][..., :7].transpose(1, 2).reshape(4, 2, 7)
        torch.testing.assert_close(on_source, whole.weights[1][:, :, t, :7], rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [0, 1, 4, 8, 30])
@pytest.mark.parametrize("layer_norm", [None, "pre"])
def test_steps_in_a_window_equal_the_band(window, layer_norm):
    """Among others the source slides out of the window; hypotheses are reordered at random, and
    from step 9 on those of a sentence are no neighbours."""
    torch.manual_seed(0)
    stack = SRUpp(6, 6, 4, 3, num_heads=2, attention="1,3", alpha_init=0.7,
                  layer_norm=layer_norm).double().eval()
    context = torch.randn(5, 2, 6, dtype=torch.float64)
    context_pad = torch.zeros(5, 2, dtype=torch.bool)
    context_pad[3:, 1] = True
    rows = torch.tensor([0, 0, 0, 1, 1, 1])  # sentence of each hypothesis
    x = torch.randn(1, 6, 6, dtype=torch.float64)
    state = stack.start(6, context, context_pad, window)
    for step in range(20):
        h, _ = stack.step(x[-1:], state)
        whole = stack(x, context=context[:, rows], context_pad=context_pad[:, rows], causal=True,
                      window=window)
        torch.testing.assert_close(h[0], whole.h[-1], rtol=0, atol=1e-10)
        order = torch.tensor([2, 0, 0, 4, 5, 5]) if step < 9 else torch.randint(len(rows), (5,))
        state.reorder(order)
        rows = rows[order]
        x = torch.cat([x[:, order], torch.randn(1, len(rows), 6, dtype=torch.float64)])


@torch.inference_mode()
def test_a_window_bounds_memory_and_copies():
    stack = SRUpp(6, 6, 4, 1, alpha_init=0.7).eval()
    state = stack.start(1, window=10)
    storages = []
    for step in range(1000):
        stack.step(torch.randn(1, 1, 6), state)
        values = state.caches[0].values
        assert values.shape == (1, min(step + 1, 11), 8)
        storages.append(values.untyped_storage())
        assert storages[-1].nbytes() <= 2 * 12 * 8 * 4
    moves = sum(a.data_ptr() != b.data_ptr() for a, b in zip(storages, storages[1:]))
    assert moves <= 1000 / 10


def test_without_attention_nothing_grows_with_the_square_of_the_length():
    """A causal mask of this length alone would take 10 GB."""
    stack = SRUpp(2, 2, 2, 1, attention="none").eval()
    with torch.no_grad():
        assert stack(torch.randn(100_000, 1, 2), causal=True).h.isfinite().all()
    state = stack.start(2)
    for _ in range(50):
        stack.step(torch.randn(1, 2, 2), state)
    assert state.grow().shape == (2, 1, 1, 1)


@pytest.mark.parametrize("window", [None, 2])
def test_gradients_through_steps_are_those_of_the_whole(window):
    torch.manual_seed(0)
    stack = SRUpp(6, 6, 4, 2, alpha_init=0.7).double()
    x, context = (torch.randn(n, 2, 6, dtype=torch.float64, requires_grad=True) for n in (5, 3))
    whole = stack(x, context=context, causal=True, window=window).h
    state = stack.start(2, context, window=window)
    steps = torch.cat([stack.step(token, state)[0] for token in x.split(1)])
    leaves = [x, context, *stack.parameters()]
    expected, found = (torch.autograd.grad(h.square().sum(), leaves) for h in (whole, steps))
    for one, other in zip(expected, found):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@torch.inference_mode()
def test_caches_do_not_copy_themselves_at_every_step():
    stack = SRUpp(6, 6, 4, 1, alpha_init=0.7).eval()
    state = stack.start(4, torch.randn(3, 2, 6))
    moved = set()
    for _ in range(100):
        stack.step(torch.randn(1, 4, 6), state)
        moved.add(state.caches[0].values.data_ptr())
    assert len(moved) <= 8  # doubling: log2(200 slots)


@pytest.mark.parametrize("spec, expected", [
    ("all", {1, 2, 3, 4}), ("none", set()), ("every:2", {2, 4}), ("every:5", set()),
    ("last:1", {4}), ("last:9", {1, 2, 3, 4}), ("2,4", {2, 4}), ([1], {1}),
])
def test_attention_placement(spec, expected):
    assert attention_layers(spec, 4) == expected
    stack = SRUpp(6, 6, 4, 4, attention=spec)
    assert {i + 1 for i, layer in enumerate(stack.layers) if layer.alpha is not None} == expected


@pytest.mark.parametrize("spec", ["some", "every:0", "every:x", "last:", "1,9", "0", [5]])
def test_unknown_attention_placement_is_refused(spec):
    with pytest.raises(ValueError, match="attention"):
        SRUpp(6, 6, 4, 4, attention=spec)


@pytest.mark.parametrize("change, message", [
    (dict(num_heads=3), "num_heads"), (dict(proj_size=0), "proj_size"),
    (dict(layer_norm="both"), "layer_norm"),
])
def test_impossible_options_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SRUpp(**{**dict(input_size=6, hidden_size=6, proj_size=4), **change})


@pytest.mark.parametrize("kwargs, message", [
    (dict(x=torch.zeros(3, 2, 5)), "input must be"),
    (dict(pad=torch.zeros(2, 3, dtype=torch.bool)), "pad must be"),
    (dict(c0=torch.zeros(1, 2, 6)), "c0 must be"),
    (dict(context=[torch.zeros(3, 2, 6)]), "context must have"),
    (dict(context_pad=torch.zeros(3, 2, dtype=torch.bool)), "context_pad must be"),
])
def test_wrong_shapes_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SRUpp(6, 6, 4)(**{"x": torch.zeros(3, 2, 6), **kwargs})


@pytest.mark.parametrize("kwargs, message", [
    (dict(x=[[1.0]]), "input must be a tensor, got list"),
    (dict(x=torch.zeros(3, 2, 6).numpy()), "input must be a tensor, got ndarray"),
    (dict(c0=(torch.zeros(2, 2, 6), torch.zeros(2, 2, 6))), "c0 must be a tensor .*LSTM"),
    (dict(pad=[[False]]), "pad must be a tensor, got list"),
])
def test_what_is_no_tensor_is_refused(kwargs, message):
    with pytest.raises(TypeError, match=message):
        SRUpp(6, 6, 4)(**{"x": torch.zeros(3, 2, 6), **kwargs})


@pytest.mark.parametrize("kind", [SRU, SRUpp])
def test_messages_name_what_the_caller_gave(kind):
    stack = kind(6, 6, 4, batch_first=True)
    with pytest.raises(ValueError, match=r"input must be \(B, L, 6\), got \(3, 5, 7\)"):
        stack(torch.zeros(3, 5, 7))
    with pytest.raises(ValueError, match=r"pad must be \(3, 5\), got \(5, 3\)"):
        stack(torch.zeros(3, 5, 6), pad=torch.zeros(5, 3, dtype=torch.bool))
    packed = pack_sequence([torch.zeros(3, 7)])
    with pytest.raises(ValueError, match=r"input must be \(L, B, 6\)"):
        stack(packed)
    for tokens in torch.zeros(3, 5, 6).long(), pack_sequence([torch.zeros(3, 6).long()]):
        with pytest.raises(ValueError, match="floating point tensor, got torch.int64"):
            stack(tokens)


def test_start_values():
    """Spec section 3: SRU++ paper's initialisation."""
    torch.manual_seed(0)
    layer = SRUpp(64, 64, 32, 2, dropout=0.3).layers[0]
    for weight, gain in ((layer.q_proj.weight, 1), (layer.kv_proj.weight, 1),
                         (layer.out_proj.weight, math.sqrt(0.7))):
        bound = gain * math.sqrt(6 / sum(weight.shape))
        assert 0.95 * bound < weight.abs().max() <= bound
        assert abs(weight.var() / (bound**2 / 3) - 1) < 0.1
    v, b = layer.recurrence.weight_c, layer.recurrence.bias
    assert 0.9 < v.abs().max() <= 1 and abs(v.var() - 1 / 3) < 0.1
    assert not b[0].any() and (b[1] == -2).all()
    assert layer.alpha.item() == 0
    sru = SRU(64, 64).layers[0]
    assert abs(sru.out_proj.weight.var() * 64 - 1) < 0.1
    assert sru.recurrence.scale == math.sqrt(3)


def test_dropout_only_while_training():
    torch.manual_seed(0)
    stack = SRUpp(6, 6, 4, 2, alpha_init=1.0, dropout=0.5, attention_dropout=0.5)
    x = torch.randn(5, 2, 6)
    assert not torch.equal(stack(x).h, stack(x).h)
    stack.eval()
    assert torch.equal(stack(x).h, stack(x).h)
    assert stack.layers[0].recurrence.dropout == 0.5
    assert stack.layers[1].recurrence.dropout == 0.0


@pytest.mark.command
def test_modules_do_not_need_fairseq():
    program = ("import sys; sys.modules['fairseq'] = None\n"
               "import torch; from fairseq_sru.modules import SRU\n"
               "print(SRU(4, 4)(torch.zeros(3, 2, 4))[0].shape)")
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "[3, 2, 4]" in out.stdout, out.stderr


def test_checkpointing_changes_nothing_but_memory():
    options = dict(dropout=0.3, attention_dropout=0.2, alpha_init=1.0)
    plain = SRUpp(12, 12, 8, 3, **options).double()
    saving = SRUpp(12, 12, 8, 3, **options, checkpoint_activations=True).double()
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(9, 4, 12, dtype=torch.float64)
    kept, gradients = [], []
    for stack in (plain, saving):
        torch.manual_seed(5)
        sizes = []

        def count(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            out = stack(x, causal=True)
        kept.append(sum(sizes))
        (out.h.sum() + out.c.pow(2).sum()).backward()
        gradients.append([p.grad for p in stack.parameters()])
    for first, second in zip(*gradients):
        torch.testing.assert_close(first, second, atol=1e-12, rtol=1e-12)
    assert kept[1] < kept[0] / 4


def test_layers_compile_whole():
    torch.manual_seed(6)
    layer = SRUppLayer(8, 8, 4, alpha_init=1.0).double()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for length, batch in ((5, 3), (7, 2)):
        x = torch.randn(length, batch, 8, dtype=torch.float64)
        results = []
        for run in (layer, compiled):
            layer.zero_grad()
            h, c, _ = run(x)
            (h.sum() + c.sum()).backward()
            results.append([h, c, *(p.grad for p in layer.parameters())])
        for first, second in zip(*results):
            torch.testing.assert_close(first, second, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("projected, size", [(False, 16), (True, 8)])
def test_a_context_of_another_size_is_refused(projected, size):
    """Layer inputs where keys and values are due, and the other way round."""
    stack, x = SRUpp(8, 8, 8, 2), torch.randn(3, 2, 8)
    with pytest.raises(ValueError, match=rf"context must be \(S, 2, {24 - size}\), got "):
        stack.read(x, context=[torch.randn(4, 2, size)] * 2, causal=True, projected=projected)
