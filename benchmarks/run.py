"""All benchmarks of this machine, one after the other: what `make bench` runs.

Every JSON line goes to runs/bench/BENCHMARK.jsonl and, as a table, to standard output.
REFERENCE  a checkout of the reference implementation, a peer of the recurrence (default: none)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE.parent / "runs" / "bench"
BENCHMARKS = (
    "recurrence", "attention", "layer", "train", "classifier", "generate", "lm", "lm_inference",
    "lm_length",
)


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for name in BENCHMARKS:
        command = [sys.executable, str(HERE / f"{name}.py"), "--rounds", "5"]
        if name == "recurrence" and "REFERENCE" in os.environ:
            command += ["--reference", os.environ["REFERENCE"]]
        quiet = {**os.environ, "KINETO_LOG_LEVEL": "99"}  # PyTorch's profiler, two lines a use
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=quiet)
        (OUT / f"{name}.jsonl").write_text(result.stdout)
        print(f"\n## {name}\n")
        print(table([json.loads(line) for line in result.stdout.strip().split("\n")]), flush=True)


def table(rows: list[dict]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[str(row.get(column, "")) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
