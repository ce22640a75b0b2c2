"""The extension builds: setup.py's messages, vectorised loops, the CUDA sources."""

from __future__ import annotations

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


@needs_nvcc
@pytest.mark.parametrize("kind", ["link", "script"])
def test_setup_finds_the_headers_of_an_nvcc_elsewhere(kind, tmp_path):
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    if kind == "link":
        nvcc.symlink_to(NVCC)
    else:
        nvcc.write_text(f'#!/bin/sh\nexec {NVCC} "$@"\n')
        nvcc.chmod(0o755)
    code = ("import os, runpy, sys; sys.argv = ['', '--version']; runpy.run_path('setup.py'); "
            "print(os.environ['CUDA_HOME'])")
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("CUDA_HOME", "CUDA_PATH")}
    environment["PATH"] = f"{nvcc.parent}{os.pathsep}{environment['PATH']}"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment,
                            capture_output=True, text=True, check=True)
    assert (Path(result.stdout.split("\n")[-2]) / "include" / "cuda_bf16.h").exists()


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
    # float64; float32 in chunks of 16, small too, and of 4; both 16-bit types in pairs, small too,
    # and single ones in chunks of 16, 4 and 2; three types by two warps; padded or not
    assert len(spills) == (1 + 3 + 2 * 5 + 3) * 2
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
