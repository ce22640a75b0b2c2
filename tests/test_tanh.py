"""The recurrence with tanh against the formula, step by step."""

import pytest
import torch

from fairseq_sru.ops import recurrence_tanh


def by_hand(u, x, v, b, c, pad, mask_c, scale):
    h = []
    for t in range(len(u)):
        f = torch.sigmoid(u[t, :, 0] + v[0] * c + b[0])
        r = torch.sigmoid(u[t, :, 1] + v[1] * c + b[1])
        s = u[t, :, 3] if u.size(2) == 4 else 0 if x is None else scale * x[t]
        new = f * c + (1 - f) * u[t, :, 2]
        real = ~pad[t].unsqueeze(-1)
        c = torch.where(real, new, c)
        h.append((s + (c.tanh() - s) * mask_c * r) * real)
    return torch.stack(h), c


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("highway", ["x", "block", None])
def test_equals_the_formula_with_gradients(highway, bidirectional):
    torch.manual_seed(0)
    length, batch, size = 7, 3, 8
    blocks = 4 if highway == "block" else 3

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    u, x, v, b, c0, mask_c = (draw(length, batch, blocks, size), draw(length, batch, size),
                              draw(2, size), draw(2, size), draw(batch, size), draw(batch, size))
    pad = torch.rand(length, batch) < 0.3
    pad[:, 1] = True
    x_in = x if highway == "x" else None
    h, c = recurrence_tanh(u, x_in, v, b, c0, pad, mask_c, 1.3, bidirectional)
    halves = [slice(None)]
    if bidirectional:
        halves = [slice(0, size // 2), slice(size // 2, size)]
    expected = []
    for flip, half in enumerate(halves):
        def turn(tensor, flip=flip):
            return tensor.flip(0) if flip else tensor

        out, last = by_hand(turn(u[..., half]), None if x_in is None else turn(x[..., half]),
                            v[:, half], b[:, half], c0[:, half], turn(pad), mask_c[:, half], 1.3)
        expected.append((turn(out), last))
    expected = tuple(torch.cat(parts, -1) for parts in zip(*expected))
    torch.testing.assert_close((h, c), expected, rtol=0, atol=1e-12)
    cotangent = torch.randn_like(h), torch.randn_like(c)
    leaves = [t for t in (u, x_in, v, b, c0, mask_c) if t is not None]
    ours = torch.autograd.grad((h, c), leaves, cotangent)
    theirs = torch.autograd.grad(expected, leaves, cotangent)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_bfloat16_carries_its_state_in_float32():
    torch.manual_seed(0)
    u, bias = torch.randn(50, 2, 3, 4).bfloat16(), torch.randn(2, 4)
    h, c = recurrence_tanh(u, None, None, bias)
    exact_h, exact_c = recurrence_tanh(u.double(), None, None, bias.double())
    assert h.dtype == torch.bfloat16 and c.dtype == torch.float32
    torch.testing.assert_close(c, exact_c.float(), rtol=0, atol=1e-5)
    torch.testing.assert_close(h, exact_h.bfloat16())
