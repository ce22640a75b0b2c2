"""The extension builds: setup.py's messages, the CUDA sources, the device code on the host."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

from fairseq_sru.ops.reference import recurrence_ref, state_dtype

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.command
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="nvcc not found")


def run_nvcc(source: Path, output: Path, *flags: str) -> str:
    command = [NVCC, *flags, "-o", str(output), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def setup_py(prelude: str = "", **environment: str) -> subprocess.CompletedProcess:
    code = f"import runpy, sys\n{prelude}\nsys.argv = ['', '--version']\nrunpy.run_path('setup.py')"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_setup_without_torch_names_the_command():
    result = setup_py("sys.modules['torch'] = None")
    assert result.returncode == 1
    assert "pip install --no-build-isolation" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch has CUDA")
def test_setup_says_why_cuda_cannot_be_forced():
    result = setup_py(FAIRSEQ_SRU_CUDA="1")
    assert result.returncode == 1
    assert "build without CUDA" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_setup_refuses_an_unknown_cuda_switch():
    result = setup_py(FAIRSEQ_SRU_CUDA="yes")
    assert result.returncode == 1
    assert "FAIRSEQ_SRU_CUDA=yes" in result.stderr


@pytest.mark.skipif(platform.machine() != "x86_64", reason="looks for x86-64 vectors")
@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ not found")
def test_cpu_loops_vectorise_for_every_type(tmp_path):
    flags = ["-std=c++20", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp"]
    flags += [f"-I{path}" for path in cpp_extension.include_paths()]
    command = ["g++", *flags, "-fopt-info-vec", "-c", "csrc/recurrence_cpu.cpp"]
    command += ["-o", str(tmp_path / "kernel.o")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    loops = re.findall(r"recurrence_cpu.cpp:.* loop vectorized using (\d+)", result.stderr)
    for width in "64", "32":  # AVX-512, AVX2
        assert loops.count(width) >= 6, result.stderr  # three types, forward and backward


@needs_nvcc
@pytest.mark.parametrize("arch", ["80", "90", "120"])
@pytest.mark.parametrize("kernel", ["forward", "backward"])
def test_cuda_kernels_compile_without_spills(kernel, arch, tmp_path):
    listing = subprocess.run([NVCC, "--list-gpu-code"], capture_output=True, text=True).stdout
    if f"sm_{arch}" not in listing.split():
        pytest.skip(f"this nvcc does not know sm_{arch}")
    source = ROOT / "csrc" / f"recurrence_cuda_{kernel}.cu"
    flags = ["-std=c++17", "-O3", f"-arch=sm_{arch}", "-Xptxas", "-v", "-c"]
    flags += cpp_extension.COMMON_NVCC_FLAGS
    report = run_nvcc(source, tmp_path / "kernel.o", *flags)
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes", report)
    # float64; float32 in chunks of 16 and 4; both 16-bit types in pairs, and single ones in chunks
    # of 16, 4 and 2; padded or not
    assert len(spills) == (1 + 2 + 2 * 4) * 2
    assert all(spill == ("0", "0", "0") for spill in spills), report


@needs_nvcc
def test_cuda_binding_compiles(tmp_path):
    includes = cpp_extension.include_paths()
    macros = Path("c10") / "cuda" / "impl" / "cuda_cmake_macros.h"
    if not any((Path(path) / macros).exists() for path in includes):
        # PyTorch generates this header only when it is built with CUDA.
        (tmp_path / macros).parent.mkdir(parents=True)
        (tmp_path / macros).write_text("#define C10_CUDA_BUILD_SHARED_LIBS\n")
        includes.append(str(tmp_path))
    flags = ["-std=c++20", "-c", *(f"-I{path}" for path in includes)]
    run_nvcc(ROOT / "csrc" / "recurrence_cuda.cpp", tmp_path / "binding.o", *flags)


@pytest.fixture(scope="module")
def host_kernels(tmp_path_factory):
    library = tmp_path_factory.mktemp("host") / "warps.so"
    source = ROOT / "tests" / "warps_on_host.cu"
    run_nvcc(source, library, "-std=c++17", "-shared", "-Xcompiler", "-fPIC",
             *cpp_extension.COMMON_NVCC_FLAGS)
    return ctypes.CDLL(str(library))


def run_on_host(kernel, u, x, weight_c, bias, c0, pad, mask_c, scale, bidirectional, grads):
    length, batch, blocks, size = u.shape
    h, c, c_last = torch.empty_like(grads[0]), bias.new_empty(length, batch, size), grads[1] * 0
    grad_u, grad_c0 = torch.empty_like(u), torch.empty_like(c_last)
    grad_x = None if x is None else torch.empty_like(x)
    grad_gates = bias.new_empty(batch, 4, size)
    grad_mask_c = None if mask_c is None else torch.empty_like(mask_c)
    tensors = [u, x, weight_c, bias, c0, pad, mask_c, h, c_last, c, *grads]
    tensors += [grad_u, grad_x, grad_gates, grad_c0, grad_mask_c]
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    sizes = (ctypes.c_int64 * 5)(length, batch, size, blocks, bidirectional)
    kernel(sizes, ctypes.c_double(scale), (ctypes.c_void_p * len(pointers))(*pointers))
    grad_weight_c, grad_bias = grad_gates.sum(0).split(2)
    return {
        "h": h,
        "c_last": c_last,
        "u": grad_u,
        "x": grad_x,
        "weight_c": grad_weight_c,
        "bias": grad_bias,
        "c0": grad_c0,
        "mask_c": grad_mask_c,
    }


@needs_nvcc
@pytest.mark.parametrize("length", [1, 5, 33, 70])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("has_masks", [False, True])
@pytest.mark.parametrize("has_state", [False, True])
@pytest.mark.parametrize("highway", ["x", "u", "none"])
@pytest.mark.parametrize(
    "kernel, dtype, tolerance, size",
    [
        ("run_float64", torch.float64, 1e-12, 14),
        ("run_float32", torch.float32, 2e-5, 48),
        ("run_float32_unaligned", torch.float32, 2e-5, 14),
        ("run_bfloat16", torch.bfloat16, 1e-2, 48),
        ("run_bfloat16_pairs", torch.bfloat16, 1e-2, 48),
        ("run_bfloat16_words", torch.bfloat16, 1e-2, 12),
        ("run_bfloat16_unaligned", torch.bfloat16, 1e-2, 14),
        ("run_float16_pairs", torch.float16, 2e-3, 112),
    ],
)
def test_device_code_agrees_with_the_loop(
    host_kernels, kernel, dtype, tolerance, size, highway, has_state, has_masks, bidirectional,
    length,
):
    """Directions that meet within a warp, warps with lanes to spare, more steps than the ring."""
    generator = torch.Generator().manual_seed(length)
    batch = 3
    state = state_dtype(dtype)

    def normal(*shape, dtype=state):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    tensors = {
        "u": normal(length, batch, 4 if highway == "u" else 3, size, dtype=dtype),
        "x": normal(length, batch, size, dtype=dtype) if highway == "x" else None,
        "weight_c": normal(2, size).clamp(-1, 1) if has_state else None,
        "bias": normal(2, size),
        "c0": normal(batch, size) if has_state else None,
        "mask_c": normal(batch, size) if has_masks else None,
    }
    pad = torch.rand(length, batch, generator=generator) < 0.3 if has_masks else None
    others = {"pad": pad, "scale": 1.5, "bidirectional": bidirectional}
    grads = normal(length, batch, size, dtype=dtype), normal(batch, size)
    got = run_on_host(host_kernels[kernel], **tensors, **others, grads=grads)

    exact = {n: t.double().requires_grad_() for n, t in tensors.items() if t is not None}
    h, c_last = recurrence_ref(**{**tensors, **exact}, **others)
    torch.autograd.backward((h, c_last), [grad.double() for grad in grads])
    expected = {"h": h, "c_last": c_last, **{name: tensor.grad for name, tensor in exact.items()}}
    got = {name: got[name].double() for name in expected}
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
