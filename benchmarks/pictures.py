"""Pictures of benchmarks/results for docs/results.md.

python benchmarks/pictures.py docs
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import NullFormatter  # noqa: E402

RESULTS = Path(__file__).parent / "results"
PRECISIONS = "float32", "bfloat16"


def rows(name: str, **wanted: object) -> list[dict]:
    lines = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    found = [json.loads(line) for line in lines]
    return [row for row in found if all(row.get(key) == value for key, value in wanted.items())]


def value(name: str, field: str, **wanted: object) -> float:
    (row,) = rows(name, **wanted)
    return row[field]


def ratios(precision: str) -> dict[str, float]:
    """How many times as fast as the peer of the same run."""
    def training(model: str) -> float:
        return value("train", "words_per_second", model=model, precision=precision)

    def recurrence(function: str) -> float:
        found = rows("recurrence", function=function, length=256, batch=16, precision=precision)[0]
        return found["forward_ms"] + found["backward_ms"]

    writing = value(
        "lm_inference", "ratio_to_transformer_lm", model="srupp_lm_enwik8_small, every:5",
        precision=precision)
    translating = value(
        "generate", "ratio_to_peer", model="srupp_iwslt", precision=precision, beam=5)
    return {
        "recurrence\nnn.LSTM": recurrence("lstm") / recurrence("ours"),
        "translating, beam 5\nTransformer of 42M": translating,
        "writing, 42M\nTransformer of equal size": writing,
        "training, 20M\nTransformer of equal size": training("srupp_iwslt")
        / training("transformer_20m"),
    }


def draw_ratios(path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for index, precision in enumerate(PRECISIONS):
        found = ratios(precision)
        places = [n - 0.2 + 0.4 * index for n in range(len(found))]
        bars = axes.barh(places, list(found.values()), height=0.38, label=precision)
        axes.bar_label(bars, fmt=" {:.1f}")
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(1, 60)
    axes.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(title="How many times as fast as the peer, two CPU threads", xlabel="times")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def draw_lengths(path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    kinds = {"all": "attention in every layer", "every:5": "attention in every 5th layer",
             "none": "no attention"}
    for index, (attention, label) in enumerate(kinds.items()):
        for reading, style in ("segments", "-o"), ("at once", "--x"):
            found = rows("lm_length", attention=attention, reading=reading)
            axes.plot([row["length"] for row in found], [row["us_per_token"] for row in found],
                      style, color=f"C{index}", markersize=4, label=f"{label}, {reading}")
    axes.set_xscale("log", base=2)
    axes.set_ylim(0, 110)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set(title="Time a token against the length of the text, 2M parameters",
             xlabel="tokens of the text", ylabel="microseconds a token")
    axes.legend(ncols=2)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    draw_ratios(folder / "ratios.png")
    draw_lengths(folder / "lengths.png")
