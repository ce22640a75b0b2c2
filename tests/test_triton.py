"""The recurrence by Triton's kernels: on a GPU where there is one, else by Triton's interpreter."""

from __future__ import annotations

import importlib
import os

import pytest
import torch
from conftest import run_python
from test_recurrence import (
    OPTIONS,
    compiles_into_one_graph,
    convert,
    make_inputs,
    option_id,
    run,
)

from fairseq_sru.ops import recurrence, recurrence_ref
from fairseq_sru.ops.recurrence_triton import HAS_TRITON

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [
    pytest.mark.skipif(not HAS_TRITON, reason="no Triton: run `make triton`"),
    pytest.mark.skipif(  # which Triton reads when it is imported
        DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1",
        reason="no GPU and no TRITON_INTERPRET=1: run `make triton`"),
]
EVERYTHING = dict(c0=True, pad=True, mask_c=True, scale=0.6, bidirectional=True)


@pytest.fixture(autouse=True)
def chosen(monkeypatch):
    """``recurrence`` takes Triton's operators, whatever the extension has."""
    module = importlib.import_module("fairseq_sru.ops.recurrence")
    monkeypatch.setattr(module, "operators", lambda device: torch.ops.fairseq_sru_triton)


def inputs_of(*shape, **options):
    return make_inputs(*shape, device=DEVICE, **options)


@pytest.mark.parametrize("option", OPTIONS, ids=option_id)
def test_equals_the_loop(option):
    """Groups of steps that are full and not, a block of columns that is not, columns of several
    sentences in it."""
    inputs = inputs_of(11, 3, 14, **option)
    expected, actual = run(recurrence_ref, inputs), run(recurrence, inputs)
    assert expected.keys() == actual.keys()
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("shape", [(1, 1, 2), (8, 2, 32), (17, 1, 66)])
def test_shapes(shape):
    inputs = inputs_of(*shape, **EVERYTHING)
    expected, actual = run(recurrence_ref, inputs), run(recurrence, inputs)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("option", [OPTIONS[0], OPTIONS[10], EVERYTHING], ids=option_id)
def test_low_precision_is_as_good_as_pytorchs(option, dtype):
    """Against the float64 loop, beside the loop in low precision; a few units in the last place are
    the GPU's fast exponential and division. Triton's interpreter cuts bfloat16 off where a GPU
    rounds, which is twice the error."""
    times = 4 if dtype == torch.bfloat16 and DEVICE == "cpu" else 2
    inputs = inputs_of(20, 8, 24, dtype=dtype, **option)
    with torch.no_grad():
        inputs["weight_c"].clamp_(-1, 1)
    truth = run(recurrence_ref, convert(inputs, torch.float64))
    ours, theirs = run(recurrence, inputs), run(recurrence_ref, inputs)
    for name, exact in truth.items():
        assert ours[name].dtype == theirs[name].dtype
        error = (ours[name].double() - exact).abs().max()
        allowed = times * (theirs[name].double() - exact).abs().max() + 5e-6 * exact.abs().max()
        assert error <= allowed, f"{name}: {error} > {allowed}"


@pytest.mark.parametrize("option", [dict(), EVERYTHING, OPTIONS[11]], ids=option_id)
def test_opcheck(option):
    inputs = inputs_of(3, 2, 4, dtype=torch.float32, **option)
    torch.library.opcheck(
        torch.ops.fairseq_sru_triton.recurrence.default, (*inputs.values(), True))


@pytest.mark.filterwarnings("ignore:derivatives in forward mode")
def test_second_derivatives():
    inputs = inputs_of(2, 1, 2, c0=True)
    names = [k for k, v in inputs.items() if torch.is_tensor(v) and v.requires_grad]

    def function(*tensors):
        return recurrence(**{**inputs, **dict(zip(names, tensors))})

    assert torch.autograd.gradgradcheck(function, [inputs[name] for name in names])


def test_compiles_into_one_graph():
    compiles_into_one_graph(
        inputs_of(6, 2, 8, dtype=torch.float32, c0=True, pad=True, mask_c=True))


def test_padding_is_not_read():
    inputs = inputs_of(9, 3, 4, **EVERYTHING)
    expected = run(recurrence, inputs)
    with torch.no_grad():
        inputs["u"][inputs["pad"]] = torch.nan
        inputs["x"][inputs["pad"]] = torch.inf
    for name, tensor in run(recurrence, inputs).items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("gate", [-torch.inf, -1e4, 1e4, torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saturated_gates(gate, dtype):
    inputs = inputs_of(9, 2, 4, dtype=dtype, c0=True)
    with torch.no_grad():
        inputs["u"][:, :, :2] = gate
    result = run(recurrence, inputs)
    expected = inputs["c0"] if gate > 0 else inputs["u"][-1, :, 2]
    assert torch.equal(result["c"], expected)
    assert all(tensor.isfinite().all() for tensor in result.values())


@pytest.mark.parametrize("shape", [(0, 3, 4), (5, 0, 4)])
def test_empty(shape):
    inputs = inputs_of(*shape, c0=True)
    result = run(recurrence, inputs)
    assert result["h"].shape == shape
    assert torch.equal(result["c"], inputs["c0"])


TENSORS = {
    "forward": ("u x h", "weight_c bias c0 mask_c c_last states"),
    "backward": ("u x grad_h grad_u grad_x", "grad_c_last weight_c bias c0 mask_c states "
                 "grad_gates grad_c0 grad_mask_c"),
}
COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from fairseq_sru.ops import triton_kernels
kernel = triton_kernels.{kernel}
for type_, state, both_ways, sizes in (
        ("bf16", "fp32", True, {{}}), ("fp64", "fp64", False, dict(length=1, batch=1))):
    constants = dict(sizes, SCALE=1.5, BLOCKS=3, BOTH_WAYS=both_ways, BLOCK={lanes})
    types = dict(length="i32", batch="i32", size="i32", pad="*i1")
    types.update(dict.fromkeys({inputs!r}.split(), f"*{{type_}}"))
    types.update(dict.fromkeys({states!r}.split(), f"*{{state}}"))
    types.update(dict.fromkeys(constants, "constexpr"))
    source = ASTSource(kernel, {{name: types[name] for name in kernel.arg_names}}, constants)
    compile(source, target=GPUTarget({target!r}, {arch!r}, {lanes}), options=dict(num_warps=1))
"""


@pytest.mark.command
@pytest.mark.parametrize("kernel", TENSORS)
@pytest.mark.parametrize("target, arch, lanes", [("cuda", 80, 32), ("hip", "gfx942", 64)])
def test_compiles_for_gpus(kernel, target, arch, lanes, tmp_path):
    """What the interpreter takes, a compiler may not. An argument that is 1 is a constant."""
    inputs, states = TENSORS[kernel]
    program = COMPILE.format(kernel=kernel, target=target, arch=arch, lanes=lanes, inputs=inputs,
                             states=states)
    result = run_python("-c", program, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
