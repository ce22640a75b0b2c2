"""Which operators run the recurrence on a device: the extension's, Triton's, or none."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import torch

from fairseq_sru.ops.extension import BUILD_IT, COMPILED, has_kernel, uncompiled, warn_uncompiled
from fairseq_sru.ops.recurrence_triton import HAS_TRITON, NAMESPACE

HAS_CUDA = has_kernel("recurrence", "CUDA")
_TRITON: Any = getattr(torch.ops, NAMESPACE)


def operators(device: str) -> Any:
    """The namespace of torch.ops with the recurrence's kernels for a type of device. None: there
    are none, and the plain loop runs, which a warning says once.

    Raises:
        NotImplementedError: neither runs on such a device.
    """
    if device == "cuda":
        if HAS_CUDA:
            return torch.ops.fairseq_sru
        if HAS_TRITON:
            return _TRITON
        warn_no_gpu_kernel()
        return None
    if device not in ("cpu", "meta"):
        raise NotImplementedError(
            f"the recurrence does not run on {device}: use a CPU or a GPU of CUDA or ROCm")
    if COMPILED:
        return torch.ops.fairseq_sru
    warn_uncompiled()
    return None


def described(device: str) -> str:
    """In a few words, what runs on "cpu" or "cuda"."""
    if device == "cuda":
        found = "compiled" if HAS_CUDA else "Triton" if HAS_TRITON else "Python loop"
        return found if HAS_CUDA else f"{found}: {_why_no_cuda()}"
    return "compiled" if COMPILED else f"Python loop: {uncompiled()}"


@lru_cache(maxsize=None)
def warn_no_gpu_kernel() -> None:
    """Say once that the plain loop runs on a GPU."""
    warnings.warn(
        f"{_why_no_cuda()}, and there is no Triton 3.3 or newer: the recurrence runs as a slow "
        "Python loop on this GPU; install PyTorch 2.7 or newer, which brings Triton, or nvcc and "
        f"{BUILD_IT}", stacklevel=3)


def _why_no_cuda() -> str:
    return "fairseq_sru_ext was built without CUDA" if COMPILED else uncompiled()
