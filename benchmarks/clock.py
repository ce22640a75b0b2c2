"""How the benchmarks take the time of one call."""

from __future__ import annotations

import time
from typing import Callable

import torch

SCRATCH = 2**31  # bytes: several times any GPU's cache, half a millisecond or more to fill


def timed(function: Callable[[], object], device: str) -> float:
    """Seconds that one call takes on ``device``, "cpu" or "cuda".

    A GPU is timed by its own events while it runs. It first fills a block of memory, which empties
    its caches and gives the CPU time to queue the call: what it costs to launch kernels counts
    only where the GPU has to wait for the next one.
    """
    if device == "cpu":
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    scratch = torch.empty(SCRATCH, dtype=torch.int8, device=device)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    scratch.zero_()
    begin.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3
