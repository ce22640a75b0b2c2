"""Dropout by seed: the right share, values and gradients, independent of threads and layout."""

import math

import pytest
import torch
import torch.nn.functional as F

from fairseq_sru.ops import dropout
from fairseq_sru.ops.extension import COMPILED

pytestmark = pytest.mark.skipif(not COMPILED, reason="fairseq_sru_ext is not built")


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_share_and_scale(p, dtype):
    torch.manual_seed(1)
    x = torch.randn(1000, 1001, dtype=dtype) + 3
    y = dropout(x, p)
    kept = y != 0
    share = kept.double().mean().item()
    assert abs(share - (1 - p)) < 5 * math.sqrt(p * (1 - p) / x.numel())
    torch.testing.assert_close(y[kept], (x.double() / (1 - p)).to(dtype)[kept])


def test_elements_are_independent():
    torch.manual_seed(2)
    first, second = (dropout(torch.ones(4096, 512), 0.5).gt(0).double() * 2 - 1 for _ in range(2))
    bound = 5 / math.sqrt(first.numel())
    for shift in (1, 2, 16, 512, 65536):
        assert abs((first.view(-1)[shift:] * first.view(-1)[:-shift]).mean()) < bound
    assert abs((first * second).mean()) < bound
    for sums in (first.sum(0) / 64, first.sum(1) / math.sqrt(512)):  # of columns and rows
        assert abs(sums.var() - 1) < 0.3
        assert sums.abs().max() < 6


def test_gradient_has_the_mask_of_the_output():
    x = torch.randn(300, 70, dtype=torch.float64, requires_grad=True)
    y = dropout(x, 0.4)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(y == 0, 0.0, 1 / 0.6).double())

    def seeded(x):
        torch.manual_seed(3)
        return dropout(x, 0.4)

    torch.autograd.gradcheck(seeded, x[:3, :5].detach().requires_grad_())
    torch.autograd.gradgradcheck(seeded, x[:3, :5].detach().requires_grad_())


def test_seed_decides_and_threads_do_not():
    x = torch.randn(1 << 18)
    masks = []
    threads = torch.get_num_threads()
    for count in (1, 2, 2):
        torch.set_num_threads(count)
        torch.manual_seed(4)
        masks.append(dropout(x, 0.5))
    torch.set_num_threads(threads)
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[1], masks[2])
    assert not torch.equal(masks[2], dropout(x, 0.5))


def test_any_layout():
    x = torch.randn(6, 5, 4)
    torch.manual_seed(5)
    whole = dropout(x.transpose(0, 2), 0.5)
    torch.manual_seed(5)
    assert torch.equal(dropout(x.transpose(0, 2).contiguous(), 0.5), whole)
    assert dropout(torch.empty(0, 3), 0.5).shape == (0, 3)


def test_off_and_all():
    x = torch.randn(3, 4)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0) is x
    assert torch.equal(dropout(x, 1.0), F.dropout(x, 1.0))
    with pytest.raises(ValueError, match="probability has to be between 0 and 1"):
        dropout(x, 1.5)


def test_operator():
    x = torch.randn(3, 4, requires_grad=True)
    torch.library.opcheck(torch.ops.fairseq_sru.dropout, (x, 0.5, 7))
    with pytest.raises(ValueError, match="p must be at least 0 and below 1"):
        torch.ops.fairseq_sru.dropout(x, 1.0, 7)
