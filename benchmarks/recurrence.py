"""The recurrence, forward and backward, beside PyTorch's LSTM and GRU and the plain loop.

Prints a JSON line per shape, precision and function: milliseconds (median over rounds, taking
turns, of a few calls in a row each) and, for ours, the rate at which it moves what it must, as a
share of the machine's own copy.

    python benchmarks/recurrence.py --rounds 5

With --reference also the reference implementation, from a checkout of its branch 3.0.0-dev; its
operators are compiled on the way. It has float32 only. On the CPU its backward pass is that of a
Python loop, and its C++ forward pass is for inference: a line of its own, beside ours without
gradients.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Callable

import torch
from clock import timed
from measuring import emit, make_parser, parse

from fairseq_sru.ops import recurrence, recurrence_ref
from fairseq_sru.ops.extension import STATES_EVERY

SHAPES = {
    "cpu": [(256, 16, 512), (32, 128, 1024), (512, 1, 512)],
    "cuda": [(512, 24, 2048), (1024, 4, 3072), (1024, 8, 4096), (32, 128, 1024)],
}

# Calls in a row: a first one, not timed, finds a CPU's caches as another function left them; on a
# GPU the clock empties the caches before every call.
WARM = {"cpu": 1, "cuda": 0}
TIMED = {"cpu": 3, "cuda": 1}
COPIED = {"cpu": 2**27, "cuda": 2**30}  # bytes: more than caches hold


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--reference", type=Path, help="a checkout of github.com/asappresearch/sru")
    options = parse(parser)
    if options.reference and not (options.reference / "sru" / "ops.py").is_file():
        parser.error(f"--reference: no sru/ops.py in {options.reference}: check out 3.0.0-dev")
    for shape in SHAPES[options.device]:
        for dtype in (torch.float32, torch.bfloat16):
            for row in measure(shape, dtype, options):
                emit(options, **row)


def measure(shape, dtype, options: argparse.Namespace) -> list[dict]:
    length, batch, size = shape
    torch.manual_seed(1)
    device = options.device
    make = dict(device=device, dtype=dtype)
    u = torch.randn(length, batch, 3, size, **make, requires_grad=True)
    x = torch.randn(length, batch, size, **make, requires_grad=True)
    v, b = (torch.randn(2, size, device=device, requires_grad=True) for _ in range(2))
    lstm = torch.nn.LSTM(size, size).to(**make)
    gru = torch.nn.GRU(size, size).to(**make)
    source, target = torch.ones(2, COPIED[device], dtype=torch.uint8, device=device)

    def ours():
        return recurrence(u, x, v, b)[0], (u, x, v, b)

    def loop():
        return recurrence_ref(u, x, v, b)[0], (u, x, v, b)

    cells = {
        "ours": ours,
        "loop": loop,
        "lstm": lambda: (lstm(x)[0], (x, *lstm.parameters())),
        "gru": lambda: (gru(x)[0], (x, *gru.parameters())),
    }
    inference = {}
    if options.reference and dtype == torch.float32:
        theirs, leaves = reference(options, u, x, v, b)
        cells["reference"] = lambda: (theirs(), leaves)
        inference = {"ours, inference": ours, "reference, inference": theirs}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in (*cells, *inference)}
    copies = []
    for round_ in range(options.rounds + 1):
        for name, cell in cells.items():
            pair = forward_backward(cell, options)
            if round_ > 0:
                times[name].append(pair)
        for name, function in inference.items():
            with torch.no_grad():
                function()
                seconds = statistics.mean(
                    timed(function, options) for _ in range(TIMED[device]))
            if round_ > 0:
                times[name].append((seconds, None))
        for _ in range(WARM[device] + TIMED[device]):
            copies.append(timed(lambda: target.copy_(source), options))
    copy_rate = 2 * source.nbytes / statistics.median(copies)
    rows = []
    for name, pairs in times.items():
        forward, backward = (
            None if None in values else statistics.median(values) for values in zip(*pairs))
        row = {
            "function": name, "length": length, "batch": batch, "size": size,
            "precision": str(dtype).split(".")[1],
            "forward_ms": round(1e3 * forward, 4),
            "backward_ms": backward and round(1e3 * backward, 4),
        }
        if name == "ours":  # forward: u and x in, h and c out; backward: u, x, c, dh in, du, dx out
            elements, width = length * batch * size, u.element_size()
            state = 4 / STATES_EVERY if device == "cuda" else 4
            moved = elements * (5 * width + state), elements * (9 * width + state)
            row["copy_gb_per_s"] = round(copy_rate / 1e9, 1)
            row["of_copy_bandwidth_forward"] = round(moved[0] / forward / copy_rate, 2)
            row["of_copy_bandwidth_backward"] = round(moved[1] / backward / copy_rate, 2)
        rows.append(row)
    return rows


def reference(options: argparse.Namespace, u, x, v, b) -> tuple[Callable, tuple]:
    """The reference's recurrence of the same inputs, whose blocks it wants interleaved and in
    another order, and these inputs."""
    sys.path.insert(0, str(options.reference))
    from sru import ops

    batch, size = x.shape[1:]
    function = {"cpu": ops.elementwise_recurrence_naive, "cuda": ops.elementwise_recurrence_gpu}
    interleaved = torch.stack((u[:, :, 2], u[:, :, 0], u[:, :, 1]), dim=-1).flatten(-2)
    leaves = [t.detach().requires_grad_() for t in (interleaved, x, v.flatten(), b.flatten())]
    c0 = torch.zeros(batch, size, device=u.device)

    def run() -> torch.Tensor:
        return function[options.device](*leaves, c0, 0, size, False, True)[0]

    torch.testing.assert_close(run(), recurrence(u, x, v, b)[0], rtol=1e-3, atol=1e-4)
    return run, leaves


def forward_backward(cell: Callable, options: argparse.Namespace) -> tuple[float, float]:
    """Mean seconds of one call, forward and backward."""
    for _ in range(WARM[options.device]):
        one_call(cell, options)
    pairs = [one_call(cell, options) for _ in range(TIMED[options.device])]
    forward, backward = (statistics.mean(values) for values in zip(*pairs))
    return forward, backward


def one_call(cell: Callable, options: argparse.Namespace) -> tuple[float, float]:
    result = []
    forward = timed(lambda: result.append(cell()), options)
    out, leaves = result[0]
    gradient = torch.ones_like(out)
    return forward, timed(lambda: torch.autograd.grad(out, leaves, gradient), options)


if __name__ == "__main__":
    main()
