"""`python tests/mutants`: each mistake of changes.py, in a copy of the tree, must fail the tests.

Ends in an error if some mistake is not found. Arguments: parts of paths or of what is changed, to
try only these.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from changes import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
TREE = ROOT / "build" / "mutants"  # stays, so that another run need not compile all again


def main() -> None:
    parts = sys.argv[1:] or [""]
    chosen = [m for m in MUTANTS if any(part in m.path or part in m.old for part in parts)]
    copy_tree(TREE)
    build(TREE)
    tests = {name for mutant in chosen for name in mutant.tests.split()}
    if not passes(TREE, sorted(tests)):
        sys.exit("the tests fail without any mutant: python -m pytest in build/mutants")
    survivors = [mutant for mutant in chosen if survives(mutant, TREE)]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants killed")
    for mutant in survivors:
        print(f"survived: {mutant.path}: {mutant.old!r} -> {mutant.new!r}")
    sys.exit(bool(survivors))


def copy_tree(tree: Path) -> None:
    files = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    for name in files:
        copy = tree / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists() or copy.read_bytes() != (ROOT / name).read_bytes():
            shutil.copy(ROOT / name, copy)  # it looks new, what is the same looks as old as it was
    setup = tree / "setup.py"
    setup.write_text(setup.read_text().replace('"-O3"', '"-O1"'))  # compiles twice as fast


def survives(mutant: Mutant, tree: Path) -> bool:
    """Whether the mutant builds and its tests pass; the tree is left as it was."""
    start, path = time.monotonic(), tree / mutant.path
    text = path.read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1, mutant
    write(mutant, tree, text.replace(mutant.old, mutant.new))
    try:
        build(tree)  # of a mutant in Python, what the one before changed in csrc
        survived = passes(tree, mutant.tests.split())
    finally:
        write(mutant, tree, text)
    print(f"{'SURVIVED' if survived else 'killed'} {time.monotonic() - start:4.0f} s "
          f"{mutant.path}: {mutant.new or 'without'} {mutant.old if not mutant.new else ''}",
          flush=True)
    return survived


def write(mutant: Mutant, tree: Path, text: str) -> None:
    """The file looks as old as it was, and what is to be compiled anew looks new: a header is part
    of every object, and tests read few."""
    path = tree / mutant.path
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=times)
    for source in mutant.sources():
        (tree / source).touch()


def build(tree: Path) -> None:
    """Compiles what has changed since the last time."""
    run(tree, "setup.py", "-q", "build_ext", "--inplace").check_returncode()


def passes(tree: Path, tests: list[str]) -> bool:
    result = run(tree, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
                 "-m", "not command and not slow", *(f"tests/{name}" for name in tests))
    if result.returncode not in (0, 1, -6, -8, -11):  # passed, failed, or ended by a signal
        sys.exit(result.stdout + result.stderr)
    return result.returncode == 0


def run(tree: Path, *command: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "MAX_JOBS": "1",
                   "FAIRSEQ_SRU_CUDA": "0"}
    return subprocess.run([sys.executable, *command], cwd=tree, env=environment, text=True,
                          capture_output=True)


if __name__ == "__main__":
    main()
