"""One list of promises, kept by every path that computes the recurrence.

Compiled, plain, with tanh, with each part left out, as layer and as stack.
"""

import importlib
import warnings

import pytest
import torch

from fairseq_sru.modules import SRU, SRULayer, SRUpp, SRUppLayer, pool
from fairseq_sru.ops import recurrence, recurrence_ref, recurrence_tanh

recurrence_module = importlib.import_module("fairseq_sru.ops.recurrence")

L, B, D = 6, 3, 4
#: left, right and everywhere; the second sentence is nothing but padding
PAD = torch.tensor([[True, True, False], [True, True, False], [False, True, True],
                    [False, True, False], [False, True, True], [False, True, True]])


def bits(pattern: int) -> float:
    """A float32 from its bits."""
    return torch.tensor([pattern], dtype=torch.int32).view(torch.float32)[0]


#: in quiet and in signalling dress, with low and with high bits set
NANS = [bits(0x7FC00000), bits(0x7F800001), bits(-1), bits(-0x400000)]
BEHIND = [*NANS, torch.tensor(float("inf")), torch.tensor(float("-inf")), torch.tensor(3e38)]


class Operator:
    """The recurrence as a function."""

    bidirectional = False

    def __init__(self, function, highway="x", weight_c=True, without_extension=False, **options):
        self.function, self.options = function, options
        self.highway, self.without_extension = highway, without_extension
        self.bidirectional = options.get("bidirectional", False)
        generator = torch.Generator().manual_seed(1)
        self.parameters = [torch.randn(2, D, generator=generator) for _ in range(2)]
        if not weight_c:
            self.parameters[0] = None

    def inputs(self, length=L, batch=B):
        generator = torch.Generator().manual_seed(2)
        blocks = 4 if self.highway == "block" else 3
        u = torch.randn(length, batch, blocks, D, generator=generator)
        x = torch.randn(length, batch, D, generator=generator)
        return [u, x] if self.highway == "x" else [u]

    def __call__(self, inputs, c0, pad):
        u, x = inputs if len(inputs) == 2 else (inputs[0], None)
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.without_extension:
                patch.setattr(recurrence_module, "operators", lambda device: None)
            return self.function(u, x, *self.parameters, c0=c0, pad=pad, **self.options)


class Module:
    """A layer or a stack."""

    def __init__(self, build, layers=None, context=False, without_extension=False, **options):
        torch.manual_seed(3)
        self.module = build()
        self.layers, self.context, self.options = layers, context, options
        self.without_extension = without_extension
        self.bidirectional = getattr(self.module, "output_size", D) != D
        self.parameters = list(self.module.parameters())

    def inputs(self, length=L, batch=B):
        generator = torch.Generator().manual_seed(2)
        x = torch.randn(length, batch, D, generator=generator)
        return [x, torch.randn(length, batch, D, generator=generator)] if self.context else [x]

    def __call__(self, inputs, c0, pad):
        if c0 is not None and self.layers is not None:
            size = self.module.output_size
            c0 = c0.repeat(1, size // D).expand(self.layers, -1, -1)
        options = dict(self.options)
        if self.context:
            options.update(context=inputs[1], context_pad=pad)
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.without_extension:
                patch.setattr(recurrence_module, "operators", lambda device: None)
            return self.module(inputs[0], c0=c0, pad=pad, **options)[:2]


def srupp(**options):
    return lambda: SRUpp(D, D, D, 2, alpha_init=1.0, **options)


PATHS = {
    "compiled": lambda: Operator(recurrence),
    "compiled, both ways": lambda: Operator(recurrence, bidirectional=True),
    "compiled, highway in u": lambda: Operator(recurrence, highway="block"),
    "compiled, no highway": lambda: Operator(recurrence, highway=None),
    "compiled, no v": lambda: Operator(recurrence, weight_c=False),
    "loop": lambda: Operator(recurrence_ref),
    "loop, both ways": lambda: Operator(recurrence_ref, bidirectional=True),
    "loop, highway in u": lambda: Operator(recurrence_ref, highway="block"),
    "loop, no highway, no v": lambda: Operator(recurrence_ref, highway=None, weight_c=False),
    "without the extension": lambda: Operator(recurrence, without_extension=True),
    "tanh": lambda: Operator(recurrence_tanh),
    "tanh, both ways": lambda: Operator(recurrence_tanh, bidirectional=True),
    "tanh, highway in u": lambda: Operator(recurrence_tanh, highway="block"),
    "tanh, no highway, no v": lambda: Operator(recurrence_tanh, highway=None, weight_c=False),
    "tanh, without the extension": lambda: Operator(recurrence_tanh, without_extension=True),
    "SRU layer": lambda: Module(lambda: SRULayer(D, D)),
    "SRU layer, pre-norm, projection": lambda: Module(lambda: SRULayer(D, D, 2, layer_norm="pre")),
    "SRU layer, tanh, post-norm": lambda: Module(
        lambda: SRULayer(D, D, layer_norm="post", tanh=True)),
    "SRU++ layer": lambda: Module(lambda: SRUppLayer(D, D, D, attention=False)),
    "SRU": lambda: Module(lambda: SRU(D, D, 2), layers=2),
    "SRU, both ways": lambda: Module(lambda: SRU(D, D, 2, bidirectional=True), layers=2),
    "SRU, without the extension": lambda: Module(
        lambda: SRU(D, D, 2), layers=2, without_extension=True),
    "SRU, tanh, no highway": lambda: Module(
        lambda: SRU(D, D, 2, tanh=True, highway=False), layers=2),
    "SRU++": lambda: Module(srupp(), layers=2),
    "SRU++, both ways, two heads": lambda: Module(
        srupp(bidirectional=True, num_heads=2), layers=2),
    "SRU++, causal": lambda: Module(srupp(layer_norm="pre"), layers=2, causal=True),
    "SRU++, a window": lambda: Module(
        srupp(layer_norm="post"), layers=2, causal=True, window=1),
    "SRU++, weights": lambda: Module(srupp(), layers=2, need_weights=True),
    "SRU++, checkpointing": lambda: Module(srupp(checkpoint_activations=True), layers=2),
    "SRU++, source": lambda: Module(srupp(), layers=2, context=True, causal=True),
    "SRU++, source, without the extension": lambda: Module(
        srupp(), layers=2, context=True, causal=True, without_extension=True),
}


@pytest.fixture(params=PATHS)
def path(request):
    return PATHS[request.param]()


def c0():
    return torch.randn(B, D, generator=torch.Generator().manual_seed(4))


def outputs_and_gradients(path, inputs, state, pad):
    """Outputs, then gradients of a random projection of them by inputs, state and parameters."""
    leaves = [t.detach().clone().requires_grad_() for t in (*inputs, state)]
    parameters = [p.requires_grad_() for p in path.parameters if p is not None]
    outputs = path(leaves[:-1], leaves[-1], pad)
    generator = torch.Generator().manual_seed(5)
    loss = sum((y * torch.randn(y.shape, generator=generator)).sum() for y in outputs)
    grads = torch.autograd.grad(loss, [*leaves, *parameters], allow_unused=True)
    return [y.detach() for y in outputs], grads


@pytest.mark.parametrize("number", range(len(BEHIND)))
def test_nothing_behind_padding_is_read(path, number):
    """Neither in outputs and states, nor in gradients; a padded step has output and gradient 0."""
    clean = [t.masked_fill(PAD.view(L, B, *[1] * (t.dim() - 2)), 0) for t in path.inputs()]
    dirty = [t.clone() for t in clean]
    for t in dirty:
        t[PAD] = BEHIND[number]
    expected = outputs_and_gradients(path, clean, c0(), PAD)
    actual = outputs_and_gradients(path, dirty, c0(), PAD)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    (h, c), grads = actual
    assert not h[PAD].any()
    assert all(t.isfinite().all() for t in (h, c, *(g for g in grads if g is not None)))
    assert not any(g[PAD].any() for g in grads[: len(clean)] if g is not None)
    with torch.no_grad():  # another kernel's path
        for y, wanted in zip(path(dirty, c0(), PAD), (h, c)):
            torch.testing.assert_close(y, wanted)


@pytest.mark.parametrize("number", range(len(NANS)))
@pytest.mark.parametrize("grad", [False, True])
def test_nan_stays_in_its_sentence_and_is_not_lost(path, number, grad):
    inputs = path.inputs()
    clean = [t.detach() for t in path(inputs, c0(), None)]
    for block in range(inputs[0].size(2) if inputs[0].dim() == 4 else 1):
        dirty = [t.clone() for t in inputs]
        dirty[0][3, 1, block] = NANS[number]
        with torch.set_grad_enabled(grad):
            h, c = (t.detach() for t in path([t.requires_grad_(grad) for t in dirty], c0(), None))
        for y, wanted in ((h, clean[0]), (c, clean[1])):
            sentence = y.dim() - 2
            others = torch.tensor([0, 2])
            assert torch.equal(y.index_select(sentence, others),
                               wanted.index_select(sentence, others))
        assert h[3, 1].isnan().all()
        if block in (0, 2):
            assert c.select(c.dim() - 2, 1).isnan().all()


@pytest.mark.parametrize("shape", [(0, B), (L, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("padded", [False, True])
def test_empty_inputs(path, shape, padded):
    state = c0()[: shape[1]]
    pad = torch.zeros(shape, dtype=torch.bool) if padded else None
    (h, c), grads = outputs_and_gradients(path, path.inputs(*shape), state, pad)
    assert h.shape[:2] == shape and c.size(-2) == shape[1]
    assert all(t.isfinite().all() for t in (h, c, *(g for g in grads if g is not None)))
    if shape[0] == 0 and shape[1]:
        assert torch.equal(c[..., :D], state.expand_as(c[..., :D]))


@pytest.mark.parametrize("layout", ["transposed", "every other", "expanded"])
def test_strides_change_nothing(path, layout):
    inputs = path.inputs()
    if layout == "expanded":
        inputs = [t[:, :1].expand_as(t) for t in inputs]
    dense = [t.contiguous() for t in inputs]
    strided = {
        "transposed": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
        "every other": lambda t: torch.stack([t, -t], -1).flatten(-2)[..., ::2],
        "expanded": lambda t: t[:, :1].expand_as(t),
    }[layout]
    pad = PAD.t().contiguous().t()
    torch.testing.assert_close(
        [t.detach() for t in path([strided(t) for t in dense], strided(c0()[None])[0], pad)],
        [t.detach() for t in path(dense, c0() if layout != "expanded" else strided(
            c0()[None])[0].contiguous(), PAD)])


def test_batch_mates_and_padding_change_nothing(path):
    """A sentence alone, and the same between others and padding."""
    inputs, pad = path.inputs(), PAD.clone()
    pad[3, 2] = True  # a window counts padding within a sentence
    h, c = (t.detach() for t in path(inputs, c0(), pad))
    for sentence in (0, 2):
        real = ~pad[:, sentence]
        alone = [t[real, sentence : sentence + 1] for t in inputs]
        h_alone, c_alone = (t.detach() for t in path(alone, c0()[sentence : sentence + 1], None))
        torch.testing.assert_close(h[real, sentence], h_alone[:, 0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            c.select(c.dim() - 2, sentence), c_alone.select(c.dim() - 2, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize("behind", BEHIND, ids=str)
def test_pooling_reads_nothing_behind_padding(pooling, behind):
    pad = PAD.clone()
    pad[0, 1] = False
    pad[:, 2] = torch.tensor([False, False, False, True, True, True])
    h = torch.randn(L, B, D).masked_fill(pad.unsqueeze(-1), 0).requires_grad_()
    dirty = h.detach().clone()
    dirty[pad] = behind
    dirty.requires_grad_()
    ours, wanted = (pool(t, pad, pooling, bidirectional=True) for t in (dirty, h))
    torch.testing.assert_close(ours, wanted, rtol=0, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(ours.sum(), dirty), torch.autograd.grad(wanted.sum(), h))


def test_a_source_behind_padding_is_not_decoded():
    torch.manual_seed(0)
    stack = SRUpp(D, D, D, 2, alpha_init=1.0)
    source, x = torch.randn(L, B, D), torch.randn(1, B, D)
    dirty = source.clone()
    dirty[PAD] = float("nan")
    with torch.no_grad():
        wanted, ours = (
            stack.step(x, stack.start(B, context, PAD))[0] for context in (source, dirty))
    assert torch.equal(ours, wanted) and ours.isfinite().all()
