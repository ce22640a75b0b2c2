"""Attention and its masks against the definition in float64."""

import pytest
import torch

from fairseq_sru.ops import attention, attention_mask


def definition(q, k, v, allowed, heads):
    """Loops over batch, head and query; ``allowed`` (B, L, S) bool."""
    length, batch, size = q.shape
    out = torch.zeros_like(q)
    head = size // heads
    for b in range(batch):
        for n in range(heads):
            part = slice(n * head, (n + 1) * head)
            for i in range(length):
                keys = allowed[b, i].nonzero().flatten()
                scores = k[keys, b, part] @ q[i, b, part] / head**0.5
                out[i, b, part] = scores.softmax(0) @ v[keys, b, part]
    return out


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("causal, window", [(False, None), (True, None), (True, 2)])
@pytest.mark.parametrize("padded", [False, True])
def test_equals_the_definition(padded, causal, window, heads, need_weights):
    torch.manual_seed(0)
    length, context, batch, size = 5, 4, 3, 6
    q = torch.randn(length, batch, size, dtype=torch.float64)
    k, v = torch.randn(2, context + length, batch, size, dtype=torch.float64)
    pad = context_pad = None
    if padded:
        pad = torch.zeros(length, batch, dtype=torch.bool)
        context_pad = torch.zeros(context, batch, dtype=torch.bool)
        pad[3:, 0] = context_pad[:2, 1] = context_pad[:, 2] = True
    mask = attention_mask(length, pad, context, context_pad, causal, window)

    allowed = torch.ones(batch, length, context + length, dtype=torch.bool)
    for b in range(batch):
        for i in range(length):
            for j in range(context + length):
                distance = context + i - j
                if causal and distance < 0 or window is not None and distance > window:
                    allowed[b, i, j] = False
                if padded and (context_pad[j, b] if j < context else pad[j - context, b]):
                    allowed[b, i, j] = False
    real = allowed.any(-1)
    out, weights = attention(q, k, v, mask, heads, need_weights=need_weights)
    expected = definition(q, k, v, allowed, heads)
    rows = real.t().unsqueeze(-1)
    torch.testing.assert_close(out * rows, expected * rows, rtol=1e-12, atol=1e-12)
    if need_weights:
        forbidden = ~allowed & real.unsqueeze(-1)
        assert not weights.masked_select(forbidden.unsqueeze(1)).any()
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("context", [0, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_causal_without_a_mask(dtype, context, need_weights):
    torch.manual_seed(0)
    inputs = [torch.randn(n, 2, 6, dtype=dtype, requires_grad=True)
              for n in (5, context + 5, context + 5)]

    def out_and_gradients(**mask):
        out, _ = attention(*inputs, num_heads=3, need_weights=need_weights, **mask)
        return out, *torch.autograd.grad(out.square().sum(), inputs)

    masked = out_and_gradients(mask=attention_mask(5, None, context, causal=True))
    for actual, expected in zip(out_and_gradients(causal=True), masked):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_to_attend_to_is_finite(dtype, dropout):
    q, k, v = (torch.randn(3, 2, 4, dtype=dtype, requires_grad=True) for _ in range(3))
    pad = torch.tensor([[True, False]] * 3)
    out, _ = attention(q, k, v, attention_mask(3, pad), dropout=dropout)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(t.grad.isfinite().all() for t in (q, k, v))


def test_without_restrictions_there_is_no_mask():
    assert attention_mask(4, context_length=3) is None


def test_window_needs_causal():
    with pytest.raises(ValueError, match="window needs causal"):
        attention_mask(4, window=2)
