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
    """Read the command line and set the number of threads."""
    options = parser.parse_args()
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


def emit(options: argparse.Namespace, **row: Any) -> None:
    """Print a JSON line: ``row`` and what it was measured on."""
    print(json.dumps({**row, "device": options.device, "threads": torch.get_num_threads(),
                      "clock": options.clock}), flush=True)
