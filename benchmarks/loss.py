"""fairseq's label smoothed cross entropy beside the fused one, forward and backward, from logits.

Prints a JSON line per number of types and precision: milliseconds of each (median over rounds,
taking turns) and how many times faster ours is.

    python benchmarks/loss.py --threads 1 --clock processor
"""

from __future__ import annotations

import argparse
import statistics

import torch
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from measuring import emit, make_parser, median_ratio, parse, taking_turns

from fairseq_sru.ops import cross_entropy

ROWS, PAD, SMOOTHING = 2048, 1, 0.1
TYPES = (4_000, 8_000, 33_000)


def fused(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    nll, mean_nll = cross_entropy(logits, target, PAD)
    return ((1 - SMOOTHING) * nll + SMOOTHING * mean_nll).sum()


def plain(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    log_probs = torch.log_softmax(logits, -1, dtype=torch.float32)
    return label_smoothed_nll_loss(log_probs, target, SMOOTHING, ignore_index=PAD)[0]


def main() -> None:
    options = parse(make_parser(__doc__))
    for types in TYPES:
        for dtype in (torch.bfloat16, torch.float32):
            measure(types, dtype, options)


def measure(types: int, dtype: torch.dtype, options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    logits = torch.randn(ROWS, types, device=options.device).to(dtype).requires_grad_()
    target = torch.randint(4, types, (ROWS,), device=options.device)

    def step(loss):
        return lambda: torch.autograd.grad(loss(logits, target), logits)

    seconds = taking_turns({"fused": step(fused), "fairseq": step(plain)}, options)
    emit(options, rows=ROWS, types=types, dtype=str(dtype).removeprefix("torch."),
         ratio=median_ratio(seconds["fused"], seconds["fairseq"]),
         **{f"{name}_ms": round(1e3 * statistics.median(s), 2) for name, s in seconds.items()})


if __name__ == "__main__":
    main()
