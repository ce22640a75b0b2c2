"""The compiled extension: whether it is there, and what its kernels take."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def _load() -> tuple[Any, str]:
    """The extension, or None and why not."""
    try:
        import fairseq_sru_ext  # registers torch.ops.fairseq_sru
    except ModuleNotFoundError as error:
        if error.name != "fairseq_sru_ext":
            raise
        return None, "is not built"
    except ImportError as error:  # a symbol that this PyTorch has not
        reason, *_ = str(error).split("\n")
        return None, f"was built against another PyTorch ({reason})"
    built = getattr(fairseq_sru_ext, "torch", torch.__version__)
    if built.split(".")[:2] != torch.__version__.split(".")[:2]:
        return None, f"was built against PyTorch {built}, and this is {torch.__version__}"
    if not hasattr(fairseq_sru_ext, "keep_freed_memory"):  # the latest that it has learnt
        return None, "was built from an older fairseq_sru"
    return fairseq_sru_ext, ""


_extension, _why_not = _load()
COMPILED = _extension is not None

#: the CUDA kernels of the recurrence keep the state before every so many steps
STATES_EVERY: int = _extension.states_every if COMPILED else 1

#: what to do where there is none
BUILD_IT = "build it with `pip install --no-build-isolation -e .` in the fairseq-sru checkout"

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


def keep_freed_memory() -> None:
    """From now on CPU tensors take the memory of those that were freed, for the whole process.

    With glibc's defaults large blocks are new memory at every update; kept in its heap they are cut
    up ever more. These stay within one and a half times the most that tensors ever held. Without
    the extension a warning says that memory is the system's as before.
    """
    if COMPILED:
        _extension.keep_freed_memory()
    else:
        warnings.warn(f"{uncompiled()}: the system takes freed memory back; {BUILD_IT}",
                      stacklevel=2)


@lru_cache(maxsize=None)
def warn_uncompiled() -> None:
    """Say once that the plain loop runs."""
    warnings.warn(
        f"{uncompiled()}: the recurrence runs as a slow Python loop; {BUILD_IT}", stacklevel=3)


def uncompiled() -> str:
    """Why there is no extension."""
    return f"fairseq_sru_ext {_why_not}"
