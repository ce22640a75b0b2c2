"""Files of JSON lines as tables in OUT/summary.md, and together as OUT/results.jsonl.

    python benchmarks/gpu/summary.py OUT FILE...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from run import table


def main() -> None:
    out, *files = map(Path, sys.argv[1:])
    parts, lines = ["# Results"], []
    for path in files:
        found = rows(path)
        lines += [json.dumps({"benchmark": path.stem, **row}) + "\n" for row in found]
        shaped = SHAPED.get(path.stem, list)(found)
        parts += [f"## {path.stem}", table(shaped) if shaped else "No results."]
    (out / "summary.md").write_text("\n\n".join(parts) + "\n")
    (out / "results.jsonl").write_text("".join(lines))


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
