"""The clock of the benchmarks of single kernels."""

from __future__ import annotations

import argparse
from typing import Any, Callable

import measuring
import torch

SCRATCH = 2**29  # numbers of 4 bytes: many times any GPU's cache, half a millisecond to read


def timed(function: Callable[[], Any], options: argparse.Namespace) -> float:
    """Seconds of one call; on a GPU by its own events.

    The GPU first reads a block of memory, which empties its caches, leaves nothing in them that has
    to be written back, and gives the CPU time to queue the call: what it costs to launch kernels
    counts only where the GPU waits for the next one. Launch and events themselves are some 5
    microseconds.
    """
    if options.device != "cuda":
        return measuring.timed(function, options)
    scratch = torch.empty(SCRATCH, dtype=torch.int32, device="cuda")
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    scratch.amax()
    begin.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3
