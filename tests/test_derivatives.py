"""Derivatives of any order and mode are those of the plain path or an error, no silent zero."""

import importlib
import warnings

import pytest
import torch
import torch.nn.functional as F
from conftest import needs_torch
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from fairseq_sru.modules import SRU, SRUpp
from fairseq_sru.ops import (
    attention,
    cross_entropy,
    divergence,
    dropout,
    linear,
    recurrence,
    recurrence_ref,
    recurrence_tanh,
    step_attention,
    varlen,
)
from fairseq_sru.ops.extension import COMPILED

derivatives, linear_module, recurrence_module, autograd_module = (
    importlib.import_module(f"fairseq_sru.ops.{name}")  # the package's names are the functions
    for name in ("derivatives", "linear", "recurrence", "recurrence_autograd"))

needs_extension = pytest.mark.skipif(not COMPILED, reason="fairseq_sru_ext is not built")


def draw(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


PAD = torch.tensor([[False, True], [False, False], [True, False]])


def tanh_ref(u, x, weight_c, bias, c0, pad, mask_c):
    """SRU paper, arXiv version 1, step by step."""
    h, c = [], c0
    for t in range(len(u)):
        f = torch.sigmoid(u[t, :, 0] + weight_c[0] * c + bias[0])
        r = torch.sigmoid(u[t, :, 1] + weight_c[1] * c + bias[1])
        padded = pad[t].unsqueeze(-1)
        c = torch.where(padded, c, f * c + (1 - f) * u[t, :, 2])
        h.append((x[t] + (c.tanh() - x[t]) * mask_c * r).masked_fill(padded, 0))
    return torch.stack(h), c


def full(function, **options):
    """The recurrence with everything that it can take."""
    def run(u, x, weight_c, bias, c0, mask_c):
        return function(u, x, weight_c, bias, c0, PAD, mask_c, **options)
    return run


def plain(function, **options):
    """The recurrence with as little as possible, whose highway input is a block of u."""
    def run(u, bias):
        return function(u, None, None, bias, **options)
    return run


def plain_attention(q, k, v):
    seen = torch.ones(3, 4, dtype=torch.bool).tril(1)
    scores = torch.einsum("lbc,sbc->bls", q, k) / 4**0.5
    weights = scores.masked_fill(~seen, -1e30).softmax(-1)
    return torch.einsum("bls,sbc->lbc", weights, v)


SEEN = torch.tensor([[0.0, 0.0, -1e30], [0.0, -1e30, 0.0]]).double().view(1, 1, 2, 3)


def plain_step(q, keys_values, alpha):
    k, v = keys_values[0].chunk(2, -1)
    return q + alpha * ((q[0] @ k.t() / 4**0.5 + SEEN[0, 0]).softmax(-1) @ v)


def sru(function_of):
    """A stack of frozen parameters, of its input and of some of its parameters."""
    torch.manual_seed(0)
    stack = function_of().double().requires_grad_(False)
    names = [name for name, p in stack.named_parameters() if p.numel() < 40][:3]

    def run(x, *parameters):
        chosen = dict(zip(names, parameters))
        return torch.func.functional_call(stack, chosen, (x,), {"pad": PAD})[:2]
    return run, [draw(3, 2, 4), *(dict(stack.named_parameters())[name] for name in names)]


FULL = [draw(3, 2, 3, 4), draw(3, 2, 4), draw(2, 4), draw(2, 4, seed=1), draw(2, 4, seed=2),
        draw(2, 4, seed=3)]
PLAIN = [draw(3, 2, 4, 4), draw(2, 4)]
ATTENTION = [draw(3, 2, 4), draw(4, 2, 4), draw(4, 2, 4, seed=1)]
STEP = [draw(1, 2, 4), draw(1, 3, 8), draw(1)]
SMALL = {"dtype": torch.float32}
TARGET = torch.tensor([2, 0, 4])


def plain_cross_entropy(logits):
    log_probs = logits.log_softmax(-1)
    real = TARGET != 0
    return (-log_probs.gather(-1, TARGET.unsqueeze(-1)).squeeze(-1) * real,
            -log_probs.mean(-1) * real)


def plain_divergence(p, q):
    return (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum(-1)


own_words = needs_torch(2, 5, why="it refuses forward mode in words of its own")

CASES = {  # function, the same by PyTorch's own operators, inputs
    "recurrence": (full(recurrence, scale=1.3), full(recurrence_ref, scale=1.3), FULL),
    "recurrence-both-ways": (
        plain(recurrence, bidirectional=True), plain(recurrence_ref, bidirectional=True), PLAIN),
    "recurrence_tanh": (full(recurrence_tanh), full(tanh_ref), FULL),
    "attention": (lambda *x: attention(*x, causal=True)[0], plain_attention, ATTENTION),
    "step_attention": (
        lambda q, kv, alpha: step_attention(q, kv, SEEN, alpha)[0], plain_step, STEP),
    "cross_entropy": (
        lambda logits: cross_entropy(logits, TARGET, ignore_index=0), plain_cross_entropy,
        [draw(3, 5)]),
    "divergence": (divergence, plain_divergence, [draw(3, 5), draw(3, 5, seed=1)]),
    "linear-of-few-rows": (linear, F.linear, [draw(2, 5, **SMALL), draw(3, 5, **SMALL)]),
    "linear-of-many-rows": (
        linear, F.linear, [draw(16, 5, **SMALL), draw(3, 5, **SMALL), draw(3, **SMALL)]),
}


def tupled(function):
    def run(*inputs):
        outputs = function(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)
    return run


def loss(function):
    """A scalar whose second derivatives are not zero."""
    return lambda *inputs: sum((y.pow(2) + y).sum() for y in tupled(function)(*inputs))


def every(inputs):
    return tuple(range(len(inputs)))


def leaves(inputs):
    return [x.detach().clone().requires_grad_() for x in inputs]


def tangents(inputs):
    return tuple(draw(*x.shape, seed=9, dtype=x.dtype) for x in inputs)


def penalty(function, inputs):
    """Of a gradient penalty, by backward()."""
    inputs = leaves(inputs)
    grads = torch.autograd.grad(loss(function)(*inputs), inputs, create_graph=True)
    sum(g.pow(2).sum() for g in grads).backward()
    return tuple(x.grad for x in inputs)


def third_order(function, inputs):
    inputs = leaves(inputs)
    value = loss(function)(*inputs)
    for _ in range(2):
        grads = torch.autograd.grad(value, inputs, create_graph=True)
        value = sum(g.pow(2).sum() for g in grads)
    return torch.autograd.grad(value, inputs)


def dual(function, inputs):
    """Forward mode of frozen inputs, outside torch.func."""
    with forward_ad.dual_level():
        outputs = tupled(function)(*map(forward_ad.make_dual, inputs, tangents(inputs)))
        return tuple(forward_ad.unpack_dual(y).tangent for y in outputs)


def dual_of_one(function, inputs):
    """Only the last input has a tangent, and the others require gradients."""
    with forward_ad.dual_level():
        *others, last = leaves(inputs)
        outputs = tupled(function)(*others, forward_ad.make_dual(last, tangents([last])[0]))
        found = [forward_ad.unpack_dual(y) for y in outputs]
        return tuple(torch.zeros_like(y) if t is None else t.detach() for y, t in found)


def batch_of_gradients(function, inputs):
    inputs = leaves(inputs)
    outputs = tupled(function)(*inputs)
    cotangents = [draw(3, *y.shape, dtype=y.dtype) for y in outputs]
    return torch.autograd.grad(outputs, inputs, cotangents, is_grads_batched=True)


def vmap(function, inputs):
    return torch.func.vmap(tupled(function))(*(torch.stack([x, x + 1]) for x in inputs))


def vmap_of_gradients(function, inputs):
    gradients = torch.func.grad(loss(function), every(inputs))
    return torch.func.vmap(gradients)(*(torch.stack([x, x + 1]) for x in inputs))


MODES = {
    "penalty": penalty,
    "third order": third_order,
    "dual": dual,
    "dual of one": dual_of_one,
    "batch of gradients": batch_of_gradients,
    "vmap": vmap,
    "vmap of gradients": vmap_of_gradients,
    "jvp": lambda f, x: torch.func.jvp(tupled(f), tuple(x), tangents(x))[1],
    "vjp": lambda f, x: torch.func.vjp(loss(f), *x)[1](torch.ones((), dtype=x[0].dtype)),
    "grad": lambda f, x: torch.func.grad(loss(f), every(x))(*x),
    "jacfwd": lambda f, x: torch.func.jacfwd(tupled(f))(*x),
    "jacrev": lambda f, x: torch.func.jacrev(tupled(f))(*x),
    "hessian": lambda f, x: torch.func.hessian(loss(f))(*x),
}
REFUSED = {  # by PyTorch's fused attention
    (case, mode) for case in ("attention", "step_attention") for mode in ("penalty", "third order")}


@pytest.mark.filterwarnings("ignore:derivatives in forward mode")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_equals_pytorchs_own_operators(case, mode):
    function, expected, inputs = CASES[case]
    if (case, mode) in REFUSED:
        with pytest.raises(RuntimeError, match="is not implemented"):
            MODES[mode](function, inputs)
        with sdpa_kernel(SDPBackend.MATH):
            actual = MODES[mode](function, inputs)
    else:
        actual = MODES[mode](function, inputs)
    tolerance = 1e-9 if inputs[0].dtype == torch.float64 else 1e-3
    torch.testing.assert_close(
        actual, MODES[mode](expected, inputs), rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings("ignore:derivatives in forward mode")
@pytest.mark.parametrize("mode", ["penalty", "dual", "jvp", "grad", "vmap of gradients"])
@pytest.mark.parametrize("stack", [
    lambda: SRU(4, 4, dropout=0.0), lambda: SRU(4, 2, bidirectional=True, tanh=True),
    lambda: SRUpp(4, 4, 4, alpha_init=1.0)], ids=["sru", "tanh", "srupp"])
def test_stacks_of_frozen_parameters(stack, mode, monkeypatch):
    function, inputs = sru(stack)
    with sdpa_kernel(SDPBackend.MATH):
        actual = MODES[mode](function, inputs)
        with monkeypatch.context() as patch:  # without any kernel
            patch.setattr(recurrence_module, "operators", lambda device: None)
            patch.setattr(linear_module, "COMPILED", False)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = MODES[mode](function, inputs)
    assert all(t.any() for t in actual)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@needs_extension
@pytest.mark.parametrize("mode", ["dual", "jvp", "penalty", "batch of gradients"])
def test_dropout_keeps_its_mask(mode):
    """Every derivative is zero where the output is, and 1 / (1 - p) elsewhere."""
    def seeded(x):
        torch.manual_seed(3)
        return dropout(x, 0.4)

    x = draw(7, 5).abs() + 1
    if mode == "batch of gradients":
        mask = seeded(x) / x
        (actual,) = batch_of_gradients(seeded, [x])
        expected = draw(3, 7, 5) * mask
    elif mode == "penalty":  # of loss y^2 + y
        mask = seeded(x) / x
        (actual,) = penalty(seeded, [x])
        expected = 2 * (2 * x * mask.pow(2) + mask) * 2 * mask.pow(2)
    else:
        with forward_ad.dual_level():  # which draws by PyTorch
            mask = seeded(x) / x
        (actual,) = MODES[mode](seeded, [x])
        expected = tangents([x])[0] * mask
    torch.testing.assert_close(actual, expected)


@pytest.mark.skipif(not COMPILED, reason="without the extension the loop runs, and says so itself")
def test_says_once_that_the_loop_runs():
    derivatives.warn_plain_loop.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            dual(*CASES["recurrence"][::2])
            penalty(*CASES["recurrence"][::2])
    assert [str(w.message).split(" have no")[0] for w in caught] == [
        "derivatives in forward mode, of second order and by torch.func"]


def test_first_order_runs_the_kernels(monkeypatch):
    monkeypatch.setattr(recurrence_module, "recurrence_ref", None)
    monkeypatch.setattr(autograd_module, "recurrence_ref", None)
    inputs = leaves(FULL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.autograd.grad(loss(CASES["recurrence"][0])(*inputs), inputs, create_graph=True)


@needs_extension
@pytest.mark.parametrize("used", [0, 1])
def test_output_without_gradient_costs_no_zeros_for_the_states(used):
    """A backward pass is given no gradient of the saved states, and may lack one of h or of c."""
    inputs = leaves(FULL)
    outputs = CASES["recurrence"][0](*inputs)
    expected = CASES["recurrence"][1](*inputs)
    torch.testing.assert_close(
        torch.autograd.grad(outputs[used].sum(), inputs, allow_unused=True),
        tuple(torch.zeros_like(x) if g is None else g for x, g in zip(inputs, torch.autograd.grad(
            expected[used].sum(), inputs, allow_unused=True))))


OP = torch.ops.fairseq_sru
#: operators called as such: recurrence_backward gets the states that recurrence saved
RAW = {
    "cross_entropy": lambda: (
        lambda logits: OP.cross_entropy(logits, TARGET, 0), [draw(3, 5)], ()),
    "cross_entropy_backward": lambda: (
        lambda a, b, logits, parts: OP.cross_entropy_backward(a, b, logits, TARGET, parts, 0),
        [draw(3), draw(3, seed=1), draw(3, 5), draw(3, 2)], ()),
    "divergence": lambda: (OP.divergence, [draw(3, 5), draw(3, 5, seed=1)], ()),
    "divergence_backward": lambda: (
        OP.divergence_backward,
        [draw(3), draw(3, 5), draw(3, 5, seed=1), draw(3, seed=2), draw(3, 2), draw(3, 2)], ()),
    "dropout": lambda: (OP.dropout, [draw(3, 4)], (0.5, 7)),
    "few_rows": lambda: (OP.few_rows, [draw(2, 5), draw(3, 5), draw(3)], ()),
    "recurrence": lambda: (OP.recurrence, FULL[:5], (None, None, 1.0, False, True)),
    "recurrence_backward": lambda: (
        lambda u, x, weight_c, bias, c0, h, c_last: OP.recurrence_backward(
            h, c_last, u, x, weight_c, bias, c0, None, None,
            OP.recurrence(*FULL[:5], None, None, 1.0, False, True)[2], 1.0, False),
        [*FULL[:5], draw(3, 2, 4, seed=5), draw(2, 4, seed=6)], ()),
    "step_attention": lambda: (
        OP.step_attention, [draw(2, 4), draw(1, 3, 8), SEEN.flatten(0, 2)], (0.5, 1)),
    "packed_product": lambda: (packed_product(), [draw(2, 5, **SMALL)], ()),
}


def packed_product():
    isa = OP.packed_isas(torch.float32)[0]
    matrix = torch.classes.fairseq_sru.PackedMatrix(draw(3, 5, **SMALL), None, isa)
    return lambda x: OP.packed_product(matrix, x, None)


BACKWARD = {"dropout", "recurrence", "recurrence_backward"}
#: they take a decoder, which has no gradients; their tensors are checked by the same kernel
TAKE_A_DECODER = {"decoder_logits", "search"}


@needs_extension
def test_every_operator_is_in_the_table():
    names = {name.removeprefix("fairseq_sru::") for name in torch._C._dispatch_get_all_op_names()
             if name.startswith("fairseq_sru::")}
    assert names - {"packed_isas"} == RAW.keys() | TAKE_A_DECODER
    for name in names - BACKWARD - {"packed_isas"}:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"fairseq_sru::{name}", "Autograd")


@needs_extension
@own_words
@pytest.mark.parametrize("name", RAW)
def test_operators_refuse_forward_mode(name):
    operator, tensors, rest = RAW[name]()
    for requires_grad in (False, True):
        for i in range(len(tensors)):
            with forward_ad.dual_level(), pytest.raises(
                    NotImplementedError, match="no derivative in forward mode|with forward mode"):
                inputs = [t.clone().requires_grad_(requires_grad) for t in tensors]
                inputs[i] = forward_ad.make_dual(inputs[i], torch.ones_like(tensors[i]))
                operator(*inputs, *rest)
    with pytest.raises(NotImplementedError, match="has no derivative in forward mode"):
        torch.func.jvp(lambda *x: operator(*x, *rest), tuple(tensors), tangents(tensors))


@needs_extension
@pytest.mark.parametrize("name", sorted(RAW.keys() - BACKWARD))
def test_operators_for_inference_refuse_gradients(name):
    operator, tensors, rest = RAW[name]()
    for i in range(len(tensors)):
        inputs = [t.clone().requires_grad_(i == j) for j, t in enumerate(tensors)]
        with pytest.raises(NotImplementedError, match=f"{name} has no derivative as such"):
            operator(*inputs, *rest)
        with torch.no_grad():
            operator(*inputs, *rest)


@needs_extension
@pytest.mark.filterwarnings("ignore:derivatives in forward mode")
def test_gradients_of_gradients_of_the_operators():
    u, bias = (t.clone().requires_grad_() for t in PLAIN)
    assert torch.autograd.gradgradcheck(
        lambda u, bias: OP.recurrence(u, None, None, bias, None, PAD, None, 1.0, True, True)[:2],
        (u, bias))
    x = draw(3, 4).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: OP.dropout(x, 0.5, 7), (x,))


def test_packed_attention_refuses_second_derivatives():
    pad = torch.tensor([[False, True], [False, False], [True, False]])
    packing = varlen.Packing.of(pad)
    x = draw(6, 4).requires_grad_()
    y = varlen.Reorder.apply(x, packing.order, packing.inverse)
    (grad,) = torch.autograd.grad(y.pow(2).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        grad.sum().backward()


@needs_extension
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=own_words)])
def test_traced_forward_mode_is_no_silent_zero(compiled):
    """Dynamo does not see what is at work, the operators do."""
    function = plain(recurrence)
    if compiled:
        function = torch.compile(function, backend="eager")
    try:
        _, actual = torch.func.jvp(function, tuple(PLAIN), tangents(PLAIN))
    except Exception as error:
        assert compiled and "forward" in str(error)
        return
    expected = torch.func.jvp(plain(recurrence_ref), tuple(PLAIN), tangents(PLAIN))[1]
    torch.testing.assert_close(actual, expected)
