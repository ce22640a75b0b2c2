"""Time and memory per token of an SRU++ language model against the length of the text.

A forward pass without gradient over one text, batch of one, with attention in all layers, in
every 5th and in none:

- segments of --context tokens, each token seeing the --context tokens before it, as
  fairseq-eval-lm does with our task; as many are in memory at the start
- at once: each token sees all before it (attention up to --full-limit tokens)

and "recurrence": the operator alone, at the model's width, over as many rows as make the tokens of
the longest length, so that all read as much memory. Lengths take turns. Prints a JSON line
for each with microseconds per token (median over rounds), their ratio to those of the shortest
length, the peak of memory during the pass besides the model, and the state it leaves.

    python benchmarks/lm_length.py --lengths 512 1024 2048 4096 8192 16384 32768
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any, Callable

import torch
from lm import build_ours
from measuring import emit, make_parser, parse, taking_turns

from fairseq_sru.models.language_model import SRUppLanguageModel
from fairseq_sru.models.lm_config import SRUPP_PRESETS
from fairseq_sru.ops import recurrence
from fairseq_sru.state import StreamMemory

SHORTEST_RUN = 4096  # tokens: shorter texts are read several times while the clock runs


def passes(
    model: SRUppLanguageModel, attention: str, tokens: torch.Tensor, options: argparse.Namespace
) -> dict[str, Callable[[], int | None]]:
    """By way of reading, a pass over ``tokens`` (1, L); it returns the bytes of its state."""
    behind = StreamMemory(options.context, options.context)
    with torch.no_grad():
        model(tokens[:, -options.context :], memory=behind)

    @torch.no_grad()
    def in_segments() -> int:
        memory = StreamMemory(options.context, options.context, behind.after)
        for part in tokens.split(options.context, 1):
            memory = memory.next()
            model(part, memory=memory, padded=False)
        kept = [memory.after.cells, *(x for x in memory.after.inputs if x is not None)]
        return sum(t.numel() * t.element_size() for t in kept)

    @torch.no_grad()
    def at_once() -> None:
        model(tokens, padded=False)

    if attention == "none" or tokens.size(1) <= options.full_limit:
        return {"segments": in_segments, "at once": at_once}
    return {"segments": in_segments}


def recurrence_alone(
    length: int, rows: int, width: int, precision: torch.dtype, device: str
) -> Callable[[], None]:
    u = torch.randn(length, rows, 3, width, device=device, dtype=precision)
    x = torch.randn(length, rows, width, device=device, dtype=precision)
    v, b = torch.randn(2, 2, width, device=device)

    return lambda: recurrence(u, x, v, b)


def repeated(run: Callable[[], Any], length: int) -> Callable[[], None]:
    """``run`` as often as makes SHORTEST_RUN tokens."""

    def several() -> None:
        for _ in range(max(1, SHORTEST_RUN // length)):
            run()

    return several


def peak_bytes(function: Callable[[], Any], device: str) -> int:
    """The most memory ``function`` holds at a time besides what was there before."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        function()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--size", default="srupp_lm_bytes", choices=sorted(SRUPP_PRESETS))
    parser.add_argument("--lengths", type=int, nargs="+",
                        default=[512, 1024, 2048, 4096, 8192, 16384, 32768])
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--full-limit", type=int, default=4096)
    parser.add_argument("--attention", nargs="+", default=["all", "every:5", "none"])
    parser.add_argument("--precision", default="float32")
    options = parse(parser)

    precision, types = getattr(torch, options.precision), SRUPP_PRESETS[options.size].types
    text = torch.randint(4, types, (1, max(options.lengths))).to(options.device)
    functions: dict[tuple[str, str], dict[int, Callable[[], int]]] = {}
    for attention in options.attention:
        model = build_ours(options.size, types, attention=attention)
        model = model.to(options.device, precision).eval()
        for length in options.lengths:
            for reading, run in passes(model, attention, text[:, :length], options).items():
                functions.setdefault((attention, reading), {})[length] = run
    width = model.decoder.stack.output_size
    longest = max(options.lengths)
    functions["recurrence", "at once"] = {
        length: recurrence_alone(length, longest // length, width, precision, options.device)
        for length in options.lengths
    }
    for (attention, reading), runs in functions.items():
        alone = attention == "recurrence"
        timed = runs if alone else {n: repeated(run, n) for n, run in runs.items()}
        tokens = {n: longest // n * n if alone else max(n, SHORTEST_RUN) for n in runs}
        seconds = taking_turns(timed, options)
        per_token = {n: statistics.median(s) / tokens[n] for n, s in seconds.items()}
        for length, run in runs.items():
            peak = peak_bytes(run, options.device)
            per_pass = tokens[length] if alone else length
            emit(options, attention=attention, reading=reading, length=length, size=options.size,
                 precision=options.precision, us_per_token=round(1e6 * per_token[length], 2),
                 ratio_to_shortest=round(per_token[length] / per_token[min(runs)], 2),
                 peak_mb=round(peak / 1e6, 2), peak_bytes_per_token=round(peak / per_pass),
                 **({"state_mb": round(run() / 1e6, 3)} if reading == "segments" else {}))


if __name__ == "__main__":
    main()
