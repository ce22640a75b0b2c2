"""BLEU and sentences per second of trained models: the engine beside CTranslate2, taking turns.

Text in, text out, pieces included, on one test set. A system is a folder that
`python -m fairseq_sru.export` wrote, or a Transformer's checkpoint of fairseq, which CTranslate2's
own converter turns into its format, float32 and int8.

Prints a JSON line per system: BLEU (sacreBLEU), sentences per second (median over rounds) and how
many times the first system's. --plot draws them.

    python benchmarks/decoding_quality.py --ours 4+4=runs/a 6+2=runs/b --peers transformer=c.pt \
        --pieces m.model --data binary --source test.de --reference test.en --plot speed.png
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any, Callable

import ctranslate
import sacrebleu
import torch
from measuring import emit, make_parser, parse, taking_turns
from sentencepiece import SentencePieceProcessor

from fairseq_sru.files import read_lines
from fairseq_sru.inference.translator import Translator


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--ours", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--peers", nargs="*", default=[], metavar="NAME=CHECKPOINT")
    parser.add_argument("--pieces", type=Path, required=True, help="sentencepiece model")
    parser.add_argument("--data", type=Path, help="folder of the peers' dictionaries")
    parser.add_argument("--source", type=Path, required=True, help="a sentence a line")
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=64, help="sentences of a call; 1: a dialogue")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("runs/peers"),
                        help="where the peers' models go")
    parser.add_argument("--plot", type=Path)
    options = parse(parser)
    systems: dict[str, Callable[[list[str]], list[str]]] = {}
    for name, path in (system.split("=") for system in options.peers):
        for precision in ("float32", "int8"):
            model = ctranslate.convert(Path(path), options.data, options.folder, precision)
            systems[f"CTranslate2 {name} {precision}"] = peer(model, options)
    for name, path in (system.split("=") for system in options.ours):
        translator = Translator(path)
        systems[name] = lambda lines, t=translator: t.translate(lines, beam=options.beam)
    rows = measure(systems, options)
    if options.plot:
        draw(rows, options)


def peer(model: Path, options: argparse.Namespace) -> Callable[[list[str]], list[str]]:
    translator = ctranslate.load(model, torch.get_num_threads())
    pieces = SentencePieceProcessor(model_file=str(options.pieces))

    def translate(lines: list[str]) -> list[str]:
        found = translator.translate_batch(
            [pieces.EncodeAsPieces(line) for line in lines], beam_size=options.beam,
            max_batch_size=64)
        return [pieces.DecodePieces(best.hypotheses[0]) for best in found]

    return translate


def measure(
    systems: dict[str, Callable[[list[str]], list[str]]], options: argparse.Namespace
) -> list[dict[str, Any]]:
    source, reference = (
        read_lines(path) for path in (options.source, options.reference))
    # sorted by length, as whoever translates a file does
    order = sorted(range(len(source)), key=lambda i: -len(source[i]))
    batches = [order[i : i + options.batch] for i in range(0, len(order), options.batch)]
    outputs = {name: [""] * len(source) for name in systems}

    def run(name: str) -> None:
        for batch in batches:
            for i, line in zip(batch, systems[name]([source[i] for i in batch])):
                outputs[name][i] = line

    seconds = taking_turns({name: lambda n=name: run(n) for name in systems}, options)
    first = seconds[next(iter(seconds))]
    rows = []
    for name, spent in seconds.items():
        ratios = sorted(b / a for a, b in zip(spent, first))
        rows.append(dict(
            system=name, bleu=round(sacrebleu.corpus_bleu(outputs[name], [reference]).score, 2),
            sentences_per_second=round(len(source) / statistics.median(spent), 1),
            ratio=round(statistics.median(ratios), 2),
            ratio_spread=[round(ratios[0], 2), round(ratios[-1], 2)],
            batch=options.batch, beam=options.beam))
        emit(options, **rows[-1])
    return rows


def draw(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for row in rows:
        theirs = row["system"].startswith("CTranslate2")
        axes.scatter(row["sentences_per_second"], row["bleu"], marker="o" if theirs else "D",
                     color="tab:gray" if theirs else "tab:blue", zorder=3)
        axes.annotate(row["system"], (row["sentences_per_second"], row["bleu"]), fontsize=8,
                      xytext=(5, 4), textcoords="offset points")
    axes.set(title="Quality against speed of decoding", xlabel=(
        f"sentences per second ({options.clock} time, threads: {torch.get_num_threads()}, "
        f"sentences a call: {options.batch})"), ylabel="BLEU")
    axes.margins(x=0.25, y=0.1)
    axes.grid(alpha=0.3)
    figure.savefig(options.plot, dpi=120)


if __name__ == "__main__":
    main()
