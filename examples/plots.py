"""Pictures of a run: `curve` from fairseq's json logs, `alignment` from fairseq-generate's output.

python plots.py curve OUT.png [NAME=]LOG ... [--by cpu]
python plots.py alignment OUT.png GENERATED [--sentences N ...]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import LogLocator  # noqa: E402

from fairseq_sru.files import read_lines  # noqa: E402


@dataclass
class Log:
    """Perplexities of one run by number of updates or processor minutes."""

    train: dict[float, float] = field(default_factory=dict)
    valid: dict[float, float] = field(default_factory=dict)


@dataclass
class Translation:
    """One sentence of fairseq-generate: pieces and weights[target][source]."""

    source: list[str] = field(default_factory=list)
    target: list[str] = field(default_factory=list)
    weights: list[list[float]] = field(default_factory=list)


def read_log(path: Path, by: str = "updates") -> Log:
    """Read --log-file, or standard error, of `fairseq-train --log-format json`.

    ``by`` "cpu" needs a log of clocked_train.py. A run that was interrupted and resumed
    overwrites what it repeats. Raises ValueError if the file holds no training.
    """
    log = Log()
    for line in read_lines(path):
        start = line.find('{"epoch"')
        if start < 0:
            continue
        entry = json.loads(line[start:])
        stamp = re.search(r"cpu=([0-9.]+)", line[:start])
        if by == "cpu" and stamp is None:
            raise ValueError(f"{path} has no cpu= stamps: use examples/clocked_train.py")
        if "valid_ppl" in entry:
            at = float(stamp[1]) / 60 if by == "cpu" else int(entry["valid_num_updates"])
            log.valid[at] = float(entry["valid_ppl"])
        elif "ppl" in entry:
            at = float(stamp[1]) / 60 if by == "cpu" else int(entry["num_updates"])
            log.train[at] = float(entry["ppl"])
    if not log.train and not log.valid:
        raise ValueError(f"{path} holds no training: was it written with --log-format json?")
    return log


def draw_curves(logs: dict[str, Log], out: Path, by: str = "updates") -> None:
    """Perplexity, training thin and validation with dots, one colour a run."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for index, (name, log) in enumerate(logs.items()):
        colour = f"C{index}"
        train, valid = sorted(log.train.items()), sorted(log.valid.items())
        axes.plot(*zip(*train), color=colour, alpha=0.4, linewidth=1, label=f"{name}, training")
        if valid:
            label = f"{name}, validation (best {min(log.valid.values()):.2f})"
            axes.plot(*zip(*valid), color=colour, marker="o", markersize=3.5, label=label)
    axes.set_ylim(*scale(list(logs.values())))
    axes.set_yscale("log")
    axes.set_title("Perplexity during training")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.set_xlabel("updates" if by == "updates" else "processor minutes")
    axes.set_ylabel("perplexity")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(out, dpi=150, format="png")
    plt.close(figure)


def scale(logs: list[Log]) -> tuple[float, float]:
    """Limits of the perplexity: the start of a run, which falls steeply, may leave the picture."""
    first, values = [], []
    for log in logs:
        curve = sorted(log.train.items()) or sorted(log.valid.items())
        first.append(curve[len(curve) // 10][1])
        values += [*log.train.values(), *log.valid.values()]
    lowest = min(values)
    return 0.95 * lowest, max(1.1 * max(first), 1.2 * lowest)


def read_generated(path: Path) -> dict[int, Translation]:
    """Read the output of `fairseq-generate --print-alignment` (soft or hard), best of each beam.

    Raises ValueError if it holds no alignment.
    """
    found: dict[int, Translation] = {}
    for line in read_lines(path):
        label, _, rest = line.partition("\t")
        kind, _, number = label.partition("-")
        if kind not in ("S", "H", "A") or not number.isdigit():
            continue
        translation = found.setdefault(int(number), Translation())
        if kind == "S":
            translation.source = rest.split()
        elif kind == "H" and not translation.target:
            translation.target = rest.partition("\t")[2].split()
        elif kind == "A" and not translation.weights:
            translation.weights = _weights(rest.split(), translation)
    if not any(translation.weights for translation in found.values()):
        raise ValueError(f"{path} holds no alignment: generate with --print-alignment soft")
    return found


def _weights(cells: list[str], translation: Translation) -> list[list[float]]:
    """soft: a row of weights for every target piece; hard: pairs source-target."""
    if all("-" in cell for cell in cells):
        weights = [[0.0] * len(translation.source) for _ in translation.target]
        for cell in cells:
            source, target = map(int, cell.split("-"))
            weights[target][source] = 1.0
        return weights
    return [[float(weight) for weight in cell.split(",")] for cell in cells]


def choose(translations: dict[int, Translation], count: int = 4) -> list[int]:
    """The sentences of middling length whose word order changes most."""
    lengths = range(9, 18)
    fitting = [n for n, t in sorted(translations.items()) if len(t.target) in lengths and t.weights]
    fitting = fitting or [n for n, t in sorted(translations.items()) if t.weights]
    return sorted(fitting, key=lambda n: crossings(translations[n]), reverse=True)[:count]


def crossings(translation: Translation) -> float:
    """Share of pairs of target pieces that read the source in the opposite order."""
    read = [weights.index(max(weights)) for weights in translation.weights]
    pairs = [(read[i], read[j]) for j in range(len(read)) for i in range(j)]
    return sum(first > second for first, second in pairs) / max(1, len(pairs))


def draw_alignments(translations: list[Translation], out: Path) -> None:
    """One heat map a sentence: which source pieces (across) each target piece (down) reads."""
    columns = min(2, len(translations))
    rows = -(-len(translations) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(6.5 * columns, 5.5 * rows), squeeze=False, layout="constrained"
    )
    figure.suptitle("What each piece of the translation (down) reads of the source (across)")
    for axes in grid.flat[len(translations) :]:
        axes.set_axis_off()
    for axes, translation in zip(grid.flat, translations):
        weights = translation.weights
        source = [*translation.source, "</s>"][: len(weights[0])]
        target = [*translation.target, "</s>"][: len(weights)]
        image = axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(source)), map(_label, source), rotation=60, ha="left",
                        rotation_mode="anchor")
        axes.set_yticks(range(len(target)), map(_label, target))
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
    figure.colorbar(image, ax=grid, fraction=0.03, label="attention weight")
    figure.savefig(out, dpi=130, format="png")
    plt.close(figure)


def _label(piece: str) -> str:
    """A piece that goes on with a word gets a hyphen in front."""
    if piece.startswith("▁"):
        return piece[1:]
    return f"-{piece}" if piece[:1].isalnum() else piece


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    curve = commands.add_parser("curve", help="perplexity by updates")
    curve.add_argument("out", type=Path)
    curve.add_argument("logs", nargs="+", metavar="[NAME=]LOG")
    curve.add_argument("--by", choices=("updates", "cpu"), default="updates")
    alignment = commands.add_parser("alignment", help="attention of some translations")
    alignment.add_argument("out", type=Path)
    alignment.add_argument("generated", type=Path)
    alignment.add_argument("--sentences", type=int, nargs="+", metavar="N")
    options = parser.parse_args()
    try:
        if options.command == "curve":
            named = (log.rpartition("=")[::2] for log in options.logs)
            logs = {name or Path(path).stem: read_log(Path(path), options.by)
                    for name, path in named}
            draw_curves(logs, options.out, options.by)
        else:
            translations = read_generated(options.generated)
            chosen = options.sentences or choose(translations)
            missing = [n for n in chosen if n not in translations]
            if missing:
                raise ValueError(f"{options.generated} has no sentence {missing[0]}")
            draw_alignments([translations[n] for n in chosen], options.out)
    except (OSError, ValueError) as error:
        sys.exit(f"plots.py: {error}")


if __name__ == "__main__":
    main()
