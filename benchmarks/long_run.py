"""Memory and speed of a long training and of a long translation, against processor time.

Trains srupp_multi30k on the multi30k recipe's data, translates its training text again and again
with a trained model, and draws both. What is done is not done again. Prints a JSON line for each.

    python benchmarks/long_run.py runs/multi30k --folder runs/long_run --plot docs/long_run.png
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

from fairseq_sru.files import read_lines

ROOT = Path(__file__).parents[1]
EVERY = 5  # seconds between two looks
TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    options = make_parser().parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    parts = {"training": (train, "updates"), "decoding": (translate, "sentences")}
    rows = {}
    for name in options.parts:
        run, unit = parts[name]
        path = options.folder / f"{name}.jsonl"
        if not path.exists():
            looks = run(options)
            path.write_text("".join(json.dumps(look) + "\n" for look in looks), encoding="utf-8")
        looks = [json.loads(line) for line in path.open(encoding="utf-8")]
        rows[unit] = looks
        print(json.dumps({"part": name, **summary(looks, unit)}), flush=True)
    if options.plot:
        plot(rows, options.plot)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipe", type=Path, help="output of examples/multi30k: binary, corpus")
    parser.add_argument("--minutes", type=float, default=60, help="processor time of the training")
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--model", type=Path, help="exported model (default: the recipe's)")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "long_run")
    parser.add_argument("--parts", nargs="+", default=["training", "decoding"],
                        choices=["training", "decoding"])
    parser.add_argument("--plot", type=Path)
    return parser


def train(options: argparse.Namespace) -> list[list[float]]:
    """fairseq-train as the recipe does it, ended after so many processor minutes."""
    log = options.folder / "train.log"
    command = [
        ROOT / "examples" / "clocked_train.py", options.recipe / "binary", "--user-dir",
        ROOT / "fairseq_sru", "--arch", "srupp_multi30k", "--source-lang", "de", "--target-lang",
        "en", "--criterion", "fused_label_smoothed_cross_entropy", "--label-smoothing", "0.1",
        "--optimizer", "radam", "--radam-betas", "(0.9, 0.98)", "--weight-decay", "0.1", "--lr",
        "3e-3", "--lr-scheduler", "cosine", "--warmup-updates", "250", "--lr-period-updates",
        "20000", "--max-tokens", "2048", "--num-workers", "0", "--keep-last-epochs", "2",
        "--save-dir", options.folder / "checkpoints", "--log-interval", "50", "--log-format",
        "json", "--seed", "1", "--cpu", "--bf16",
    ]

    def updates() -> int:
        found = re.findall(r'num_updates": "(\d+)"', log.read_text(encoding="utf-8"))
        return int(found[-1]) if found else 0

    with open(log, "w", encoding="utf-8") as file:
        process = start(command, stdout=file, stderr=subprocess.STDOUT)
        return watch(process, updates, 60 * options.minutes)


def translate(options: argparse.Namespace) -> list[list[float]]:
    """python -m fairseq_sru.translate of so many sentences, on one thread."""
    source, target = options.folder / "source.de", options.folder / "target.en"
    lines = read_lines(options.recipe / "corpus" / "train.de")
    repeated = itertools.islice(itertools.cycle(lines), options.sentences)
    source.write_text("".join(line + "\n" for line in repeated), encoding="utf-8")
    model = options.model or options.recipe / "exported"
    with open(source, "rb") as read, open(target, "wb") as write:
        process = start(
            ["-m", "fairseq_sru.translate", model, "--threads", "1"], stdin=read, stdout=write)
        looks = watch(process, lambda: target.read_bytes().count(b"\n"))
    assert process.returncode == 0
    return looks


def start(arguments: list[Any], **streams: Any) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)], env=environment, **streams)


def watch(
    process: subprocess.Popen, progress: Callable[[], int], limit: float = float("inf")
) -> list[list[float]]:
    """[processor seconds, resident GB, progress] every few seconds, till the process ends or has
    used ``limit`` processor seconds."""
    looks: list[list[float]] = []
    folder = Path("/proc") / str(process.pid)
    while process.poll() is None:
        fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        seconds = (int(fields[11]) + int(fields[12])) / TICK
        resident = re.findall(r"VmRSS:\s+(\d+) kB", (folder / "status").read_text())
        if resident:
            looks.append([seconds, int(resident[0]) / 1e6, progress()])
        if seconds > limit:
            process.terminate()
            process.wait()
            break
        time.sleep(EVERY)
    seconds, resident_gb, _ = looks[-1]
    return [*looks, [seconds, resident_gb, progress()]]


def summary(looks: list[list[float]], unit: str) -> dict[str, Any]:
    """The most memory in each quarter of the time, and the speed in the first and the last half."""
    quarter = len(looks) // 4
    half = len(looks) // 2
    return {
        "processor_minutes": round(looks[-1][0] / 60, 1), unit: looks[-1][2],
        "most_gb_by_quarter": [
            round(max(look[1] for look in looks[i * quarter : (i + 1) * quarter]), 2)
            for i in range(4)],
        f"{unit}_per_second": [round(speed(looks[:half]), 2), round(speed(looks[half:]), 2)],
    }


def speed(looks: list[list[float]]) -> float:
    moved = [look for look in looks if look[2] > 0]
    return (moved[-1][2] - moved[0][2]) / (moved[-1][0] - moved[0][0])


def plot(rows: dict[str, list[list[float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(rows), figsize=(10, 5), sharex="col", squeeze=False)
    for column, (unit, looks) in enumerate(rows.items()):
        minutes = [look[0] / 60 for look in looks]
        axes[0, column].plot(minutes, [look[1] for look in looks], linewidth=0.8)
        axes[0, column].set(title=f"{looks[-1][2]:,} {unit}", ylabel="resident memory, GB",
                            ylim=(0, None))
        axes[1, column].plot(minutes, [look[2] for look in looks])
        axes[1, column].set(ylabel=unit, xlabel="processor minutes", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
