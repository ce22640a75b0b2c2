"""Results as markdown: the machine, and a table of each file of JSON lines given."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from run import table


def main() -> None:
    print("# Results\n")
    print(table(machine()))
    for path in map(Path, sys.argv[1:]):
        print(f"\n## {path.stem}\n")
        shaped = SHAPED.get(path.stem, list)(rows(path))
        print(table(shaped) if shaped else "No results.")


def machine() -> list[dict]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return [{
        "GPU": gpu,
        "PyTorch": torch.__version__,
        "CUDA": torch.version.cuda,
        "Python": sys.version.split()[0],
        "commit": os.environ.get("COMMIT", "unknown"),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }]


def rows(path: Path) -> list[dict]:
    """The complete lines of a file, for a table; a step out of time leaves half a line."""
    lines = path.read_text().split("\n")[:-1]  # the last is not finished
    return [json.loads(line.replace("|", r"\\|")) for line in lines]


def beside_peers(rows: list[dict]) -> list[dict]:
    """A row per shape and precision: ours, and how many times as long the others take."""
    cases: dict[tuple, dict[str, dict]] = {}
    for row in rows:
        if row["backward_ms"] is None:  # inference
            continue
        case = tuple(row[key] for key in ("length", "batch", "size", "precision"))
        cases.setdefault(case, {})[row["function"]] = row
    result = []
    for functions in cases.values():
        ours = functions.pop("ours")
        ratios = {
            f"{name} / ours": round(both(peer) / both(ours), 1) for name, peer in functions.items()
        }
        result.append({**{k: v for k, v in ours.items() if k != "function"}, **ratios})
    return result


def both(row: dict) -> float:
    return row["forward_ms"] + row["backward_ms"]


SHAPED = {"recurrence": beside_peers}


if __name__ == "__main__":
    main()
