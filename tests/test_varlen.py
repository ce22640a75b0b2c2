"""Attention packed for the kernel of sentences of different lengths, against masks in float64.

The kernel needs a GPU; here a loop takes its place (tests/test_gpu.py has the kernel itself).
"""

import importlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fairseq_sru.modules import SRUpp
from fairseq_sru.ops import attention, attention_mask, varlen
from fairseq_sru.ops.attention import attention_packing
from fairseq_sru.ops.varlen import Packing

attention_module = importlib.import_module("fairseq_sru.ops.attention")


def loop(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size):
    """As torch.nn.attention.varlen.varlen_attn: a causal query sees as many keys past its own
    number as the sentence has keys more than queries; zeros where it sees none."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    out = []
    for i in range(len(cu_seq_q) - 1):
        (start, end), (first, last) = cu_seq_q[i : i + 2].tolist(), cu_seq_k[i : i + 2].tolist()
        assert end - start <= max_q and last - first <= max_k
        q = query[start:end].transpose(0, 1)
        k, v = (t[first:last].transpose(0, 1) for t in (key, value))
        seen = torch.ones(end - start, last - first, dtype=torch.bool)
        if window_size == (-1, 0):
            seen = seen.tril(last - first - (end - start))
        weights = (q @ k.transpose(1, 2) / q.size(-1) ** 0.5).masked_fill(~seen, -1e300).softmax(-1)
        out.append(((weights * seen) @ v).transpose(0, 1))
    return torch.cat(out)


@pytest.fixture
def kernel(monkeypatch):
    monkeypatch.setattr(varlen, "kernel", lambda: loop)
    monkeypatch.setattr(attention_module, "suits_varlen", lambda *inputs: True)


def padding(length, batch, kind):
    pad = torch.zeros(length, batch, dtype=torch.bool)
    if kind == "left":
        pad[:2, 0] = pad[:1, 2] = True
    elif kind == "right":
        pad[-2:, 0] = pad[-1:, 2] = True
    elif kind == "anywhere":
        pad[1, 0] = pad[3, 0] = pad[:, 2] = True
    return pad


@pytest.mark.parametrize("kind", ["left", "right", "anywhere"])
def test_packing_is_a_permutation_with_real_tokens_first(kind):
    pad = padding(5, 3, kind)
    packing = Packing.of(pad)
    torch.testing.assert_close(packing.order[packing.inverse], torch.arange(15))
    flat = pad.flatten()[packing.order]
    for b in range(3):
        start, middle, end = packing.offsets[2 * b : 2 * b + 3].tolist()
        assert not flat[start:middle].any() and flat[middle:end].all() and end - start == 5
        assert (packing.order[start:middle] // 3).diff().gt(0).all()
        assert (packing.order[start:end] % 3).eq(b).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("context_kind", ["left", "right", "anywhere", None])
@pytest.mark.parametrize("kind", ["left", "right", "anywhere", None])
def test_equals_the_mask(kernel, kind, context_kind, heads, causal):
    torch.manual_seed(0)
    length, context, batch, size = 5, 6, 3, 8
    inputs = [torch.randn(n, batch, size, dtype=torch.float64, requires_grad=True)
              for n in (length, context + length, context + length)]
    pad, context_pad = padding(length, batch, kind), padding(context, batch, context_kind)
    grad = torch.randn(length, batch, size, dtype=torch.float64).masked_fill(pad.unsqueeze(-1), 0)

    def out_and_gradients(**reach):
        out, _ = attention(*inputs, num_heads=heads, **reach)
        assert out.isfinite().all()
        return out.masked_fill(pad.unsqueeze(-1), 0), *torch.autograd.grad(out, inputs, grad)

    mask = attention_mask(length, pad, context, context_pad, causal)
    packing = attention_packing(
        length, None if kind is None else pad, context,
        None if context_kind is None and kind is not None else context_pad)
    masked = out_and_gradients(mask=mask)
    for actual, expected in zip(out_and_gradients(packing=packing, causal=causal), masked):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_padded_stack_builds_no_mask(kernel, bidirectional, checkpoint, monkeypatch):
    torch.manual_seed(0)
    stack = SRUpp(
        6, 8, 4, 3, attention="1,3", num_heads=2, alpha_init=0.7, bidirectional=bidirectional,
        checkpoint_activations=checkpoint, project_input=True).double()
    x = torch.randn(7, 3, 6, dtype=torch.float64, requires_grad=True)
    context = torch.randn(5, 3, stack.output_size, dtype=torch.float64, requires_grad=True)
    pad, context_pad = padding(7, 3, "right"), padding(5, 3, "left")

    def out_and_gradients():
        out = stack(x, pad=pad, context=context, context_pad=context_pad, causal=not bidirectional)
        leaves = [x, context, *stack.parameters()]
        return out.h, *torch.autograd.grad(out.h.square().sum(), leaves)

    with monkeypatch.context() as no_mask:
        no_mask.setattr(attention_module, "attention_mask", None)
        packed = out_and_gradients()
    monkeypatch.setattr(attention_module, "suits_varlen", lambda *inputs: False)
    for actual, expected in zip(packed, out_and_gradients()):
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("options", [
    {"window": 2}, {"mask": torch.rand(7, 12, generator=torch.Generator().manual_seed(1)) < 0.8}])
def test_other_restrictions_take_a_mask(kernel, options, monkeypatch):
    torch.manual_seed(0)
    stack = SRUpp(6, 8, 4, 2, alpha_init=0.7, project_input=True).double()
    x, context = (torch.randn(n, 3, size).double() for n, size in ((7, 6), (5, 8)))
    inputs = dict(pad=padding(7, 3, "right"), context=context, causal=True, **options)
    packed = stack(x, **inputs).h
    monkeypatch.setattr(attention_module, "suits_varlen", lambda *inputs: False)
    assert torch.equal(packed, stack(x, **inputs).h)


@pytest.mark.parametrize("reason, device, dtype, head_size, keys, dropout, need_weights", [
    (None, "cuda", torch.bfloat16, 256, 256, 0.0, False),
    (None, "cuda", torch.float16, 8, 4000, 0.0, False),
    ("device", "cpu", torch.bfloat16, 256, 256, 0.0, False),
    ("32 bits", "cuda", torch.float32, 256, 256, 0.0, False),
    ("no multiple of 8", "cuda", torch.bfloat16, 28, 256, 0.0, False),
    ("too large", "cuda", torch.bfloat16, 264, 256, 0.0, False),
    ("no backward pass on some GPUs", "cuda", torch.bfloat16, 224, 256, 0.0, False),
    ("too short", "cuda", torch.bfloat16, 256, 255, 0.0, False),
    ("dropout", "cuda", torch.bfloat16, 256, 256, 0.1, False),
    ("weights", "cuda", torch.bfloat16, 256, 256, 0.0, True),
])
def test_where_the_kernel_is_used(
    reason, device, dtype, head_size, keys, dropout, need_weights, monkeypatch
):
    with FakeTensorMode():
        q = torch.empty(1, 1, head_size, device=device, dtype=dtype)
        for runs in (False, True):
            monkeypatch.setattr(varlen, "runs_varlen", lambda device, runs=runs: runs)
            suits = varlen.suits_varlen(q, head_size, keys, dropout, need_weights)
            assert suits == (runs and reason is None)


def test_autocast_decides_the_type(monkeypatch):
    monkeypatch.setattr(varlen, "runs_varlen", lambda device: True)
    with FakeTensorMode():
        q = torch.empty(1, 1, 64, device="cuda")
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    assert varlen.suits_varlen(q, 64, 300, 0.0, False)


@pytest.mark.parametrize("length", [256, 255])
def test_keys_are_context_and_current(length, monkeypatch):
    """What the stack asks about."""
    asked = []
    monkeypatch.setattr(
        attention_module, "suits_varlen", lambda *inputs: asked.append(inputs[1:]))
    stack = SRUpp(6, 8, 4, 2, num_heads=2, attention_dropout=0.3, project_input=True)
    x, context = torch.randn(7, 3, 6), torch.randn(length, 3, 8)
    stack(x, pad=padding(7, 3, "right"), context=context, need_weights=True)
    stack.eval()(x, pad=padding(7, 3, "right"), context=context)
    assert asked == [(2, length + 7, 0.3, True), (2, length + 7, 0.0, False)]


@pytest.mark.skipif(varlen.kernel() is None, reason="varlen_attn comes with PyTorch 2.11")
def test_the_kernel_has_the_interface_used():
    """PyTorch runs its shape function: the arguments are its own."""
    q, kv = torch.empty(4, 2, 16, device="meta"), torch.empty(9, 2, 16, device="meta")
    pads = [torch.zeros(n, 2, dtype=torch.bool, device="meta") for n in (4, 9)]
    out = varlen.varlen_attention(q, kv, kv, *map(Packing.of, pads), num_heads=2, causal=True)
    assert out.shape == q.shape


def test_reordering_gradcheck():
    packing = Packing.of(padding(5, 3, "anywhere"))
    x = torch.randn(15, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(varlen.Reorder.apply, (x, packing.order, packing.inverse))
