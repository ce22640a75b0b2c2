"""Derivatives that no kernel has: for them this folder takes PyTorch's own operators."""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch
from torch.autograd import forward_ad


def transformed() -> bool:
    """Whether forward mode or a transform of torch.func is at work.

    A kernel differentiates in backward mode alone, and would hand on zeros. torch.compile does not
    ask: what it traces is refused by the operators themselves.
    """
    if torch.compiler.is_compiling():
        return False
    return (
        forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


@lru_cache(maxsize=None)
def warn_plain_loop() -> None:
    """Say once that the plain loop runs."""
    warnings.warn(
        "derivatives in forward mode, of second order and by torch.func have no kernel: the "
        "recurrence runs as a slow Python loop for them",
        stacklevel=3,
    )
