"""Products of packed matrices equal float64's, in every precision, size and instruction set."""

import math

import pytest
import torch

from fairseq_sru.ops.extension import COMPILED

pytestmark = pytest.mark.skipif(not COMPILED, reason="fairseq_sru_ext is not built")

SIZES = [(1, 1), (3, 7), (7, 3), (16, 4), (63, 63), (500, 63), (63, 500), (129, 256)]
ROWS = [0, 1, 2, 5, 6, 7, 13, 50]
DTYPES = [torch.float32, torch.bfloat16, torch.int8]
KERNELS = [
    (dtype, isa) for dtype in DTYPES
    for isa in (torch.ops.fairseq_sru.packed_isas(dtype) if COMPILED else [])
]


def quantise(weight):
    """(out, in) -> int8 and the scale of each output."""
    scale = weight.abs().amax(1) / 127
    return (weight / scale.clamp_min(1e-30).unsqueeze(1)).round().to(torch.int8), scale


def pack(weight, isa=""):
    return torch.classes.fairseq_sru.PackedMatrix(weight, None, isa)


def pack_int8(weight, isa=""):
    return torch.classes.fairseq_sru.PackedMatrix(*quantise(weight), isa)


def product(matrix, x, bias=None):
    return torch.ops.fairseq_sru.packed_product(matrix, x, bias)


def quantised_rows(x):
    """What int8 products read: x (rows, in) as integers, and the scale of each row, in float32."""
    largest = x.abs().amax(1, keepdim=True)
    inverse = torch.where(largest < 2.0**-100, 0, 127 / largest)
    return (x * inverse).round(), torch.where(largest < 2.0**-100, 0, largest / 127)


def numbers(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype, isa", KERNELS)
def test_equals_float64(dtype, isa, size):
    outputs, inputs = size
    for rows in ROWS:
        x, weight = numbers(rows, rows, inputs), numbers(1, outputs, inputs)
        if dtype == torch.int8:
            integers, scale = quantise(weight)
            y = product(pack_int8(weight, isa), x)
            rounded, x_scale = quantised_rows(x)
            sums = rounded.double() @ integers.double().t()
            assert torch.equal(y, sums.float() * x_scale * scale)  # sums are exact, then float32
        else:
            y = product(pack(weight.to(dtype), isa), x)
            expected = x.to(dtype).double() @ weight.to(dtype).double().t()
            size_of_terms = x.abs().double() @ weight.abs().double().t()
            assert ((y - expected).abs() <= 2e-6 * size_of_terms).all()


@pytest.mark.parametrize("dtype, isa", KERNELS)
def test_error_stays_within_the_precision(dtype, isa):
    """Against unrounded float64: half a unit of 8 bits of the largest weight and input each."""
    x, weight = numbers(1, 40, 256), numbers(2, 100, 256)
    matrix = pack_int8(weight, isa) if dtype == torch.int8 else pack(weight.to(dtype), isa)
    error = product(matrix, x) - x.double() @ weight.double().t()
    relative = error.norm() / (x.double() @ weight.double().t()).norm()
    assert relative < {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.int8: 1.2e-2}[dtype]


@pytest.mark.parametrize("dtype, isa", KERNELS)
def test_bias_and_rows_of_zeros(dtype, isa):
    weight, bias = numbers(2, 33, 19), numbers(3, 33)
    matrix = pack_int8(weight, isa) if dtype == torch.int8 else pack(weight.to(dtype), isa)
    x = torch.stack([torch.zeros(19), torch.full((19,), 1e-38), numbers(4, 19)])
    with_bias, plain = product(matrix, x, bias), product(matrix, x)
    assert torch.equal(with_bias, plain + bias)
    assert torch.equal(with_bias[0], bias)
    torch.testing.assert_close(plain[1], torch.zeros(33), rtol=0, atol=1e-35)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype, isa", KERNELS)
def test_a_row_that_is_not_finite_is_not_finite_afterwards(dtype, isa, bad):
    """And leaves the others alone."""
    weight, x = numbers(2, 20, 35).abs() + 0.1, numbers(3, 4, 35)
    matrix = pack_int8(weight, isa) if dtype == torch.int8 else pack(weight.to(dtype), isa)
    good = product(matrix, x)
    x[2, 34] = bad
    y = product(matrix, x)
    assert not y[2].isfinite().any()
    assert torch.equal(y[[0, 1, 3]], good[[0, 1, 3]])


@pytest.mark.parametrize("dtype, isa", KERNELS)
def test_outliers_and_extremes(dtype, isa):
    """The largest integers everywhere: no intermediate sum saturates."""
    weight, x = torch.ones(18, 1024), torch.ones(3, 1024)
    weight[::2], x[1] = -1, -1
    matrix = pack_int8(weight, isa) if dtype == torch.int8 else pack(weight.to(dtype), isa)
    torch.testing.assert_close(product(matrix, x), x @ weight.t(), rtol=1e-6, atol=0)
    x[0, 5] = 1e4  # the row's other numbers are below half a unit
    error = product(matrix, x) - x.double() @ weight.double().t()
    unit = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.int8: 1 / 127}[dtype]
    assert error[0].abs().max() <= 1024 * 1e4 * unit / 2
    assert error[1:].abs().max() <= 1e-2


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_and_threads_change_nothing(dtype):
    """A row's result is bitwise the same in any batch, by any number of threads."""
    x, weight = numbers(1, 23, 130), numbers(2, 301, 130)
    matrix = pack_int8(weight) if dtype == torch.int8 else pack(weight.to(dtype))
    whole = product(matrix, x)
    alone = torch.cat([product(matrix, row) for row in x.split(1)])
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            assert torch.equal(product(matrix, x), whole)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone, whole)


def test_int8_kernels_agree_bitwise():
    x, weight = numbers(1, 9, 257) * numbers(5, 9, 1).exp(), numbers(2, 77, 257)
    results = [
        product(pack_int8(weight, isa), x) for dtype, isa in KERNELS if dtype == torch.int8]
    for result in results[1:]:
        assert torch.equal(result, results[0])


@pytest.mark.parametrize("arguments, error", [
    ((torch.zeros(2, 3, 4), None, ""), ValueError),
    ((torch.zeros(2, 3).double(), None, ""), TypeError),
    ((torch.zeros(2, 3), torch.zeros(2), ""), ValueError),
    ((torch.zeros(2, 3).char(), None, ""), ValueError),
    ((torch.zeros(2, 3).char(), torch.zeros(3), ""), ValueError),
    ((torch.full((2, 3), -128).char(), torch.ones(2), ""), ValueError),
    ((torch.zeros(2, 1 + 2**16), None, ""), ValueError),
    ((torch.zeros(2, 3), None, "sse"), ValueError),
])
def test_wrong_weights_are_refused(arguments, error):
    with pytest.raises(error, match="packed"):
        torch.classes.fairseq_sru.PackedMatrix(*arguments)


@pytest.mark.parametrize("x, bias, error", [
    (torch.zeros(2, 4), None, ValueError),
    (torch.zeros(3), None, ValueError),
    (torch.zeros(2, 3), torch.zeros(2), ValueError),
    (torch.zeros(2, 3).double(), None, TypeError),
])
def test_wrong_rows_are_refused(x, bias, error):
    with pytest.raises(error, match="packed_product"):
        product(pack(torch.zeros(5, 3)), x, bias)
