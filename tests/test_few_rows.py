"""The linear map of a few rows equals PyTorch's, in every type, shape and number of threads."""

import pytest
import torch
import torch.nn.functional as F

from fairseq_sru.ops import linear
from fairseq_sru.ops.extension import COMPILED

pytestmark = pytest.mark.skipif(not COMPILED, reason="fairseq_sru_ext is not built")

SHAPES = [(1, 5, 7), (2, 64, 33), (3, 130, 4), (4, 16, 1), (5, 257, 66), (9, 32, 512), (1, 0, 3)]


def inputs(rows, size, outputs, dtype=torch.float64):
    generator = torch.Generator().manual_seed(size)
    shapes = (rows, size), (outputs, size), (outputs,)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype, tolerance", [
    (torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 0.0)])
def test_equals_float64(dtype, tolerance, shape, with_bias):
    """bfloat16 is summed in float32 and rounded once."""
    x, weight, bias = inputs(*shape, dtype)
    bias = bias if with_bias else None
    y = torch.ops.fairseq_sru.few_rows(x, weight, bias)
    wide = [None if t is None else t.double() for t in (x, weight, bias)]
    assert y.dtype == dtype
    torch.testing.assert_close(
        y.double(), F.linear(*wide), atol=tolerance,
        rtol=2**-8 if dtype == torch.bfloat16 else tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_nothing(dtype):
    x, weight, bias = inputs(3, 300, 1001, dtype)
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            results.append(torch.ops.fairseq_sru.few_rows(x, weight, bias))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_takes_it_where_no_gradient_is_wanted(dtype, monkeypatch):
    x, weight, bias = inputs(2, 24, 10, dtype)
    x, strided = x.view(2, 1, 24), torch.randn(24, 10).to(dtype).t()
    expected = linear(x, weight.requires_grad_(), bias), F.linear(x, strided, bias)
    assert expected[0].requires_grad
    monkeypatch.setattr(F, "linear", None)
    with torch.no_grad():
        actual = linear(x, weight, bias), linear(x, strided, bias)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for a, e in zip(actual, expected):
        assert a.shape == (2, 1, 10)
        torch.testing.assert_close(a, e.detach(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("change, error", [
    (dict(x=torch.zeros(2, 5)), ValueError),
    (dict(x=torch.zeros(4)), ValueError),
    (dict(bias=torch.zeros(2)), ValueError),
    (dict(weight=torch.zeros(3, 4).double()), TypeError),
    (dict(x=torch.zeros(2, 4).int(), weight=torch.zeros(3, 4).int(), bias=None), TypeError),
])
def test_wrong_tensors_are_refused(change, error):
    good = dict(x=torch.zeros(2, 4), weight=torch.zeros(3, 4), bias=torch.zeros(3))
    with pytest.raises(error, match="few_rows"):
        torch.ops.fairseq_sru.few_rows(*{**good, **change}.values())
