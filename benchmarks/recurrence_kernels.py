"""The recurrence's kernels alone, without autograd: of the extension and of Triton.

Prints a JSON line per shape, backend and pass: microseconds of a call (median over rounds), and
the floor's share in it: the time that the machine's own copy takes for the bytes that must move, in
bfloat16 with a highway input and without padding. On a GPU one CUDA graph holds all the calls, each
with tensors of its own: neither launches nor caches count, and none has to write back what another
left there. Of the extension every kernel in turn, beside the one that it chooses.

    python benchmarks/recurrence_kernels.py --rounds 10
"""

from __future__ import annotations

import argparse
import os
import statistics
from typing import Any, Callable

import torch
from measuring import emit, make_parser, parse, timed
from recurrence import COPIED, SHAPES

from fairseq_sru.ops.extension import has_kernel
from fairseq_sru.ops.recurrence_triton import HAS_TRITON

CALLS = {"cpu": 1, "cuda": 16}  # in a row
# Bytes a channel and step: u and x in, h out; u, x and grad_h in, grad_u and grad_x out. A state is
# kept every 16 steps: no design needs more.
FLOOR = {"forward": 10.25, "backward": 18.25}
KERNEL = "FAIRSEQ_SRU_KERNEL"  # csrc/recurrence_cuda.cuh reads it
KERNELS = ("pair", "single", "wide", "small")


def main() -> None:
    parser = make_parser(__doc__, rounds=10)
    parser.add_argument("--shapes", nargs="+", metavar="L,B,D")
    parser.add_argument("--once", action="store_true", help="a call each and no output, to profile")
    options = parse(parser)
    shapes = [tuple(map(int, shape.split(","))) for shape in options.shapes or ()]
    rate = None if options.once else copy_rate(options)
    for shape in shapes or SHAPES[options.device]:
        for backend, operators, wanted in backends(options):
            os.environ.pop(KERNEL, None)
            if wanted:
                os.environ[KERNEL] = wanted
            sets = 1 if options.once else CALLS[options.device]
            for kind, call in calls(operators, *shape, options.device, sets).items():
                if options.once:
                    call(0)
                    continue
                seconds = measure(call, options)
                length, batch, size = shape
                floor = length * batch * size * FLOOR[kind] / rate
                emit(options, kernel=kind, backend=backend, length=length, batch=batch, size=size,
                     us=round(1e6 * seconds, 1), floor_us=round(1e6 * floor, 1),
                     of_floor=round(floor / seconds, 2), copy_gb_per_s=round(rate / 1e9))


def backends(options: argparse.Namespace) -> list[tuple[str, Any, str]]:
    """Name, operators, the kernel that is asked for."""
    result = []
    if has_kernel("recurrence", options.device.upper()):
        result.append(("extension", torch.ops.fairseq_sru, ""))
        if options.device == "cuda" and not options.once:
            result += [(f"extension, {name}", torch.ops.fairseq_sru, name) for name in KERNELS]
    if options.device == "cuda" and HAS_TRITON:
        result.append(("triton", torch.ops.fairseq_sru_triton, ""))
    return result


def calls(
    operators: Any, length: int, batch: int, size: int, device: str, sets: int
) -> dict[str, Callable[[int], Any]]:
    """The passes, by the number of the call, each number with tensors of its own."""
    torch.manual_seed(1)
    make = dict(device=device, dtype=torch.bfloat16)
    us = [torch.randn(length, batch, 3, size, **make) for _ in range(sets)]
    xs = [torch.randn(length, batch, size, **make) for _ in range(sets)]
    grads = [torch.randn(length, batch, size, **make) for _ in range(sets)]
    v, b = (torch.randn(2, size, device=device) for _ in range(2))
    grad_c = torch.zeros(batch, size, device=device)
    common = dict(scale=1.0, bidirectional=False)

    def forward(i: int) -> Any:
        return operators.recurrence(us[i], xs[i], v, b, None, None, None, **common, save_c=True)

    states = [forward(i)[2] for i in range(sets)]

    def backward(i: int) -> Any:
        return operators.recurrence_backward(
            grads[i], grad_c, us[i], xs[i], v, b, None, None, None, states[i], **common)

    return {"forward": forward, "backward": backward}


def measure(call: Callable[[int], Any], options: argparse.Namespace) -> float:
    """Seconds of a call: the median over rounds of their mean in a row."""
    sets = CALLS[options.device]
    if options.device != "cuda":
        call(0)
        return statistics.median(timed(lambda: call(0), options) for _ in range(options.rounds))
    call(0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [call(i) for i in range(sets)]
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    seconds = []
    for _ in range(options.rounds + 1):
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        seconds.append(begin.elapsed_time(end) / 1e3 / sets)
    del kept
    return statistics.median(seconds[1:])


def copy_rate(options: argparse.Namespace) -> float:
    """Bytes per second, read and written."""
    device = options.device
    source, target = torch.ones(2, COPIED[device], dtype=torch.uint8, device=device)
    return 2 * source.nbytes / measure(lambda i: target.copy_(source), options)


if __name__ == "__main__":
    main()
