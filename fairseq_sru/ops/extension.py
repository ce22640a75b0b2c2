"""The compiled extension: whether it is there, and what its kernels take."""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch
from torch import Tensor

try:
    import fairseq_sru_ext  # registers torch.ops.fairseq_sru

    COMPILED = True
except ModuleNotFoundError as error:
    if error.name != "fairseq_sru_ext":
        raise
    COMPILED = False

#: the CUDA kernels of the recurrence keep the state before every so many steps
STATES_EVERY: int = fairseq_sru_ext.states_every if COMPILED else 1

_CPU_TYPES = (torch.float32, torch.float64, torch.bfloat16)


def has_kernel(operator: str, device: str) -> bool:
    """Whether the extension has ``operator``, such as "recurrence", for a device such as "CUDA"."""
    return COMPILED and torch._C._dispatch_has_kernel_for_dispatch_key(
        f"fairseq_sru::{operator}", device)


def fits_cpu_kernel(x: Tensor) -> bool:
    """Whether a kernel that only CPUs have may take x: built, of a type it knows, and not where
    torch.compile would do better to see PyTorch's own operators."""
    return (
        COMPILED
        and x.device.type == "cpu"
        and x.dtype in _CPU_TYPES
        and not torch.compiler.is_compiling()
    )


@lru_cache(maxsize=None)
def warn_uncompiled() -> None:
    """Say once that the plain loop runs."""
    warnings.warn(
        "fairseq_sru_ext is not built: the recurrence runs as a slow Python loop; build it "
        "with `pip install --no-build-isolation -e .` in the fairseq-sru checkout",
        stacklevel=3,
    )
