"""What the benchmarks share: their options, the clock, taking turns, JSON lines."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Callable, Sequence

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from fairseq_sru.ops.extension import keep_freed_memory


def make_parser(doc: str, rounds: int = 5) -> argparse.ArgumentParser:
    """A parser with the options of all benchmarks; ``doc``'s first line is the description."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="the median of these is printed")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--clock", choices=["wall", "processor"], default="wall",
                        help="processor: the process's own seconds, over all its threads; for one "
                             "thread of a busy machine")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line, set the number of threads, and keep freed memory as recipes do."""
    options = parser.parse_args()
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


def timed(function: Callable[[], Any], options: argparse.Namespace) -> float:
    """Seconds of one call, by --clock."""
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    synchronize = torch.cuda.synchronize if options.device == "cuda" else (lambda: None)
    synchronize()
    start = clock()
    function()
    synchronize()
    return clock() - start


def taking_turns(
    functions: dict[str, Callable[[], Any]], options: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds of each function in each round, after a first round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(options.rounds + 1):
        for name, function in functions.items():
            spent = timed(function, options)
            if round_ > 0:
                seconds[name].append(spent)
    return seconds


def median_ratio(seconds: Sequence[float], others: Sequence[float]) -> float:
    """How much faster than ``others``: the median over rounds of others / seconds."""
    return round(statistics.median(b / a for a, b in zip(seconds, others)), 2)


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def transformer_of_size(
    build: Callable[[int, int], torch.nn.Module], wanted: int, inner_ratio: float = 4
) -> torch.nn.Module:
    """The Transformer with ``wanted`` parameters, or within 5%.

    Its width is a multiple of 64, the size of a head; its inner size is what brings it nearest,
    in steps of 32 from ``inner_ratio`` times the width.

    Args:
        build: from width and inner size.

    Raises:
        RuntimeError: there is none within 5%.
    """

    def count(width: int, inner: int) -> int:
        with torch.device("meta"):
            return parameters(build(width, inner))

    def usual(width: int) -> int:
        return 32 * round(inner_ratio * width / 32)

    width = 64
    while count(width + 64, usual(width + 64)) <= wanted:
        width += 64
    inner = usual(width)
    per_step = count(width, inner + 32) - count(width, inner)
    inner += 32 * round((wanted - count(width, inner)) / per_step)
    model = build(width, inner)
    if abs(parameters(model) / wanted - 1) > 0.05:
        raise RuntimeError(f"no Transformer of {wanted} parameters: {parameters(model)}")
    return model


def emit(options: argparse.Namespace, **row: Any) -> None:
    """Print a JSON line: ``row`` and what it was measured on."""
    print(json.dumps({**row, "device": options.device, "threads": torch.get_num_threads(),
                      "clock": options.clock}), flush=True)
