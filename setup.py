"""Builds fairseq_sru_ext: the CPU kernels always, CUDA where nvcc and a PyTorch with CUDA are.

FAIRSEQ_SRU_CUDA=0 leaves CUDA out, =1 demands it; TORCH_CUDA_ARCH_LIST names the GPU architectures.
"""

import os
import re
import shutil
import subprocess
import sys
from glob import glob
from pathlib import Path

from setuptools import setup


def name_toolkit() -> None:
    """Set CUDA_HOME to where the nvcc on the path has its headers: it may be a link or a script,
    and PyTorch takes the folder above its own for the toolkit."""
    nvcc = shutil.which("nvcc")
    if nvcc is None or os.environ.keys() & {"CUDA_HOME", "CUDA_PATH"}:
        return
    command = [nvcc, "--dryrun", "-E", "-x", "cu", os.devnull]
    top = re.search(r"^#\$ TOP=(.+)$", subprocess.run(
        command, stderr=subprocess.PIPE, text=True).stderr, re.MULTILINE)
    if top is not None:
        os.environ["CUDA_HOME"] = os.path.realpath(top[1])


name_toolkit()
try:
    import torch
    from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension
except ImportError:
    sys.exit(
        "fairseq-sru builds against the installed PyTorch: run `pip install torch setuptools wheel "
        "ninja`, then `pip install --no-build-isolation fairseq-sru` (or `-e .` in a checkout)"
    )

DEFAULT_ARCHITECTURES = ("8.0", "9.0", "10.0", "12.0")


def cuda_wanted() -> bool:
    """Whether to build the CUDA kernels; exits if they are demanded but cannot be built."""
    switch = os.environ.get("FAIRSEQ_SRU_CUDA", "")
    if switch not in ("", "0", "1"):
        sys.exit(f"FAIRSEQ_SRU_CUDA={switch}: use 0 (no CUDA), 1 (demand CUDA) or leave it unset")
    if switch == "0":
        return False
    missing = None
    if torch.version.cuda is None:
        missing = f"PyTorch {torch.__version__} is a build without CUDA; install one with CUDA"
    elif CUDA_HOME is None or not (Path(CUDA_HOME) / "bin" / "nvcc").exists():
        missing = "nvcc was not found; install the CUDA toolkit or set CUDA_HOME"
    if missing and switch == "1":
        sys.exit(f"FAIRSEQ_SRU_CUDA=1, but {missing}")
    return missing is None


def choose_architectures() -> None:
    """Without a GPU to ask and without TORCH_CUDA_ARCH_LIST, build for those nvcc knows."""
    if os.environ.get("TORCH_CUDA_ARCH_LIST") or torch.cuda.is_available():
        return
    nvcc = str(Path(CUDA_HOME) / "bin" / "nvcc")
    known = subprocess.check_output([nvcc, "--list-gpu-arch"], text=True).split()
    chosen = [arch for arch in DEFAULT_ARCHITECTURES if f"compute_{arch.replace('.', '')}" in known]
    os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(chosen) + "+PTX"


def extension():
    sources = [path for path in sorted(glob("csrc/*.cpp")) if "_cuda" not in path]
    # Compiler flags of GCC and Clang; -ffp-contract allows fused multiply-add.
    flags = {"cxx": ["-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]}
    if "-g" not in os.environ.get("CFLAGS", "").split():
        flags["cxx"].append("-g0")  # Python's own flags have -g, which costs a fifth of the build
    link = []
    if sys.platform.startswith("linux"):
        flags["cxx"].append("-fopenmp")
        link.append("-fopenmp")
    else:
        flags["cxx"].append("-fopenmp-simd")
    kind = CppExtension
    if cuda_wanted():
        choose_architectures()
        kind = CUDAExtension
        sources += sorted(glob("csrc/*_cuda.cpp") + glob("csrc/*.cu"))
        flags["nvcc"] = ["-O3"]
    return kind(
        "fairseq_sru_ext",
        sources,
        depends=sorted(glob("csrc/*")),
        extra_compile_args=flags,
        extra_link_args=link,
    )


setup(
    license="MIT",  # [project] takes it as a string from setuptools 77 only
    ext_modules=[extension()],
    cmdclass={"build_ext": BuildExtension},
)
