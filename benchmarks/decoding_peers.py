"""Translation by the engine beside CTranslate2, which one would serve a Transformer with.

The same random source sentences of 24 tokens, 25 steps each whatever the weights, which are random;
whole calls, encoder included, taking turns. CTranslate2 gets its own converter's models, as many
threads as ours and all sentences at once.

Prints a JSON line per model, batch and beam: milliseconds a step and sentences per second (median
over rounds) and how many times the first peer's speed (median and spread over rounds).

    python benchmarks/decoding_peers.py --threads 1 --clock processor
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import ctranslate
import torch
from measuring import emit, make_parser, parameters, parse, taking_turns
from train import build, dictionary

from fairseq_sru.inference import Engine, GenerationOptions, read_model


def main() -> None:
    parser = make_parser(__doc__, rounds=7)
    parser.add_argument("--ours", nargs="*", metavar="ARCH:PRECISION", default=[
        f"{arch}:{precision}" for arch in ("srupp_iwslt", "srupp_iwslt_10_2")
        for precision in ("float32", "bfloat16", "int8")])
    parser.add_argument("--peers", nargs="+", metavar="NAME:PRECISION", default=[
        "transformer_20m:int8", "transformer_20m:float32", "transformer_iwslt_de_en:int8",
        "transformer_10_1:int8", "transformer_20m_14_2:int8"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64], help="sentences")
    parser.add_argument("--beams", type=int, nargs="+", default=[5, 1])
    parser.add_argument("--length", type=int, default=24, help="of sources and outputs")
    parser.add_argument("--types", type=int, nargs=2, default=[12000, 9000])
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"),
                        help="where the peers' models go")
    options = parse(parser)
    task = SimpleNamespace(source_dictionary=dictionary(options.types[0]),
                           target_dictionary=dictionary(options.types[1]))
    calls: dict[str, Callable[[torch.Tensor, int], None]] = {}
    sizes = {}
    for name in options.peers:
        model, _, precision = name.partition(":")
        path = ctranslate.random_model(model, tuple(options.types), options.folder, precision)
        calls[f"ctranslate2 {name}"] = peer(path, task, options)
    for name in options.ours:
        arch, _, precision = name.partition(":")
        model = build(arch, task).eval()
        sizes[name] = parameters(model)
        calls[name] = ours(Engine(read_model(model, precision)), options)
    for batch in options.batches:
        for beam in options.beams:
            measure(calls, sizes, batch, beam, options)


def ours(engine: Engine, options: argparse.Namespace) -> Callable[[torch.Tensor, int], None]:
    def translate(source: torch.Tensor, beam: int) -> None:
        found = engine.translate(list(source), GenerationOptions(
            beam=beam, min_len=options.length, max_len_b=options.length))
        require_steps([len(best[0].tokens) for best in found], options)

    return translate


def peer(path: Path, task: Any, options: argparse.Namespace) -> Callable[[torch.Tensor, int], None]:
    translator = ctranslate.load(path, torch.get_num_threads())

    def translate(source: torch.Tensor, beam: int) -> None:
        found = translator.translate_batch(
            ctranslate.as_tokens(source, task.source_dictionary), beam_size=beam, max_batch_size=0,
            min_decoding_length=options.length + 1, max_decoding_length=options.length + 1)
        require_steps([len(best.hypotheses[0]) for best in found], options)

    return translate


def require_steps(lengths: list[int], options: argparse.Namespace) -> None:
    if set(lengths) != {options.length + 1}:
        raise RuntimeError(f"outputs of {sorted(set(lengths))} tokens, not {options.length + 1}")


def measure(
    calls: dict[str, Callable[[torch.Tensor, int], None]], sizes: dict[str, int], batch: int,
    beam: int, options: argparse.Namespace,
) -> None:
    numbers = torch.Generator().manual_seed(1)
    source = torch.randint(4, options.types[0], (batch, options.length), generator=numbers)
    source[:, -1] = 2
    repeat = max(1, 8 // batch)

    def several(call: Callable[[torch.Tensor, int], None]) -> None:
        for _ in range(repeat):
            call(source, beam)

    seconds = taking_turns({name: lambda c=c: several(c) for name, c in calls.items()}, options)
    reference = seconds[next(iter(calls))]
    for name, spent in seconds.items():
        middle = statistics.median(spent) / repeat
        ratios = sorted(b / a for a, b in zip(spent, reference))
        emit(options, model=name, parameters=sizes.get(name), batch=batch, beam=beam,
             ms_per_step=round(1e3 * middle / (options.length + 1), 3),
             sentences_per_second=round(batch / middle, 1),
             ratio=round(statistics.median(ratios), 2),
             ratio_spread=[round(ratios[0], 2), round(ratios[-1], 2)])


if __name__ == "__main__":
    main()
