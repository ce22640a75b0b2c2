"""What NVIDIA's profiler says of the recurrence's kernels, a JSON line each: microseconds at the
GPU's own clock, share of the memory's and of the schedulers' peak, what warps wait for.

Needs ncu, of the CUDA toolkit. Options are those of benchmarks/recurrence_kernels.py.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

STALLS = ("long_scoreboard", "short_scoreboard", "wait", "not_selected", "barrier",
          "math_pipe_throttle")
METRICS = {
    "us": "gpu__time_duration.sum",
    "memory_percent": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "issue_percent": "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "warps_a_scheduler": "smsp__warps_active.avg.per_cycle_active",
    "registers": "launch__registers_per_thread",
    **{stall: f"smsp__average_warps_issue_stalled_{stall}_per_issue_active.ratio"
       for stall in STALLS},
}
MICROSECONDS = {"ns": 1e-3, "us": 1, "ms": 1e3}
COMMAND = [sys.executable, str(Path(__file__).parents[1] / "recurrence_kernels.py"), "--once"]


def main() -> None:
    if shutil.which("ncu") is None:
        sys.exit("ncu is not on the PATH; it comes with the CUDA toolkit")
    profiled = subprocess.run(
        ["ncu", "--csv", "--page", "raw", "--clock-control", "none", "--metrics",
         ",".join(METRICS.values()), "--kernel-name-base", "demangled", "--kernel-name",
         "regex:Forward|Backward|^forward|^backward", *COMMAND, *sys.argv[1:]],
        check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [line for line in profiled.split("\n") if line.startswith('"')]
    units, *rows = csv.DictReader(lines)
    for row in rows:
        found = {name: float(row[metric].replace(",", "")) for name, metric in METRICS.items()
                 if re.match(r"[\d.,]+$", row.get(metric) or "")}
        found["us"] *= MICROSECONDS[units[METRICS["us"]].replace("second", "s")]
        print(json.dumps({"kernel": row["Kernel Name"][:60], "grid": row["Grid Size"],
                          **{name: round(value, 2) for name, value in found.items()}}))


if __name__ == "__main__":
    main()
