"""From the runs of compare.py to a table and a picture.

python table.py RUNS.jsonl [--figure OUT.png]

Every model has the dropout that was best in validation, on average over the runs that all its
dropouts have.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, Iterable

from fairseq_sru.errors import UsageError, one_line
from fairseq_sru.files import read_lines

Runs = "dict[tuple[str, str], list[dict[str, Any]]]"  # by set and model
#: what a run has
FIELDS: dict[str, Any] = {
    **dict.fromkeys(("set", "model"), str),
    "run": int,
    **dict.fromkeys(
        ("dropout", "valid", "test", "seconds_an_epoch", "sentences_a_second"), (int, float)),
    "curve": list,
}


def read(path: Path) -> Runs:
    """The runs with each model's best dropout.

    Raises:
        UsageError: there are none or they are not compare.py's, or the best dropout lacks some.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist: write it by compare.py")
    models: Any = defaultdict(list)
    for run in read_runs(path):
        models[run["set"], run["model"]].append(run)
    if not models:
        raise UsageError(f"{path} has no runs: write it by compare.py")
    best = {}
    for key, runs in models.items():
        dropout = best_dropout(runs)
        best[key] = [run for run in runs if run["dropout"] == dropout]
        if {run["run"] for run in best[key]} != {run["run"] for run in runs}:
            raise UsageError(f"{' '.join(key)} has not all runs of its best dropout, {dropout}: "
                             "run compare.py again")
    return best


def read_runs(path: Path) -> list[dict[str, Any]]:
    """All runs of a file. Raises UsageError for a line that compare.py did not write."""
    return [_run(line, f"line {number} of {path}")
            for number, line in enumerate(read_lines(path), start=1)]


def best_dropout(runs: Iterable[dict[str, Any]]) -> float:
    """The dropout that was best in validation, on average over the runs that all dropouts have."""
    valid: dict[float, dict[int, float]] = defaultdict(dict)
    for run in runs:
        valid[run["dropout"]][run["run"]] = run["valid"]
    common = set.intersection(*(set(of_runs) for of_runs in valid.values()))
    return max(valid, key=lambda dropout: sum(valid[dropout][run] for run in common))


def _run(line: str, place: str) -> dict[str, Any]:
    try:
        run = json.loads(line)
    except ValueError:
        run = None
    if not isinstance(run, dict):
        raise UsageError(f"{place} is no run in JSON: write the file by compare.py")
    for name, kind in FIELDS.items():
        if not isinstance(run.get(name), kind):
            raise UsageError(f"{place} lacks {name} or has another kind of it: write the file by "
                             "compare.py")
    return run


def table(best: Runs) -> list[str]:
    """Lines of a markdown table."""
    lines = ["| set | model | accuracy | runs | dropout | seconds an epoch | sentences a second |",
             "|---|---|---|---|---|---|---|"]
    for (name, model), runs in best.items():
        tests = [run["test"] for run in runs]
        deviation = f" ± {stdev(tests):.1f}" if len(tests) > 1 else ""
        lines.append(
            f"| {name} | {model} | {mean(tests):.1f}{deviation} | {len(runs)} "
            f"| {runs[0]['dropout']} | {median(r['seconds_an_epoch'] for r in runs):.1f} "
            f"| {median(r['sentences_a_second'] for r in runs):.0f} |")
    return lines


def draw(best: Runs, out: Path) -> None:
    """Validation accuracy by processor seconds, mean and deviation over the runs: the SRU paper's
    figure 3."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sets = sorted({name for name, _ in best})
    figure, grid = plt.subplots(
        1, len(sets), figsize=(5 * len(sets), 4), squeeze=False, layout="constrained")
    for axes, name in zip(grid.flat, sets):
        for (own, model), runs in best.items():
            if own != name:
                continue
            epochs = list(zip(*(run["curve"] for run in runs)))
            seconds = [mean(second for second, _ in epoch) for epoch in epochs]
            means = [mean(valid for _, valid in epoch) for epoch in epochs]
            (line,) = axes.plot(seconds, means, label=model)
            if len(runs) > 1:
                around = [stdev(valid for _, valid in epoch) for epoch in epochs]
                axes.fill_between(
                    seconds, [m - d for m, d in zip(means, around)],
                    [m + d for m, d in zip(means, around)], color=line.get_color(), alpha=0.15)
        axes.set(title=name, xlabel="processor seconds of training",
                 ylabel="validation accuracy, percent")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(out, dpi=130, format="png")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, metavar="RUNS.jsonl")
    parser.add_argument("--figure", type=Path, metavar="OUT.png")
    args = parser.parse_args()
    best = read(args.runs)
    print(*table(best), sep="\n")
    if args.figure:
        draw(best, args.figure)


if __name__ == "__main__":
    with one_line():
        main()
