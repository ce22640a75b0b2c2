"""What benchmarks/gpu takes to a machine without a network."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

GPU = ROOT / "benchmarks" / "gpu"
FOLDERS = [ROOT / name for name in ("tests", "benchmarks", "examples")]
# what the machine has, and what fairseq's metadata names that we do not use
THERE = {"torch", "ninja", "triton", "numpy", "scikit-learn", "matplotlib", "torchaudio", "cython"}
FAIRSEQ = {"fairseq", "fairseq-fixed", "ve-fairseq"}


def scripts() -> set[Path]:
    text = "\n".join(path.read_text() for path in GPU.glob("*.sh"))
    named = re.findall(r"\b(?:benchmarks|tests|examples)/[\w/]+\.py\b", text)
    return {*(ROOT / name for name in named), *GPU.glob("*.py"), ROOT / "tests" / "conftest.py"}


def imports(paths: Iterable[Path]) -> set[str]:
    """The modules from elsewhere that files import as they are loaded, and what they import of
    their own kind."""
    seen: set[Path] = set()
    found: set[str] = set()
    todo = list(paths)
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.parse(path.read_text()).body:
            names = ([node.module or ""] if isinstance(node, ast.ImportFrom)
                     else [alias.name for alias in node.names] if isinstance(node, ast.Import)
                     else [])
            for name in (name.partition(".")[0] for name in names):
                own = [folder / f"{name}.py" for folder in (path.parent, *FOLDERS)]
                own = [file for file in own if file.exists()]
                todo += own[:1]
                if not own and name not in sys.stdlib_module_names:
                    found.add(name)
    return found - {"fairseq_sru", "fairseq_sru_ext"}


def needed(names: Iterable[str]) -> set[str]:
    """Distributions and what they need in turn, but for what the machine has."""
    found: set[str] = set()
    todo = [canonicalize_name(name) for name in names]
    while todo:
        name = todo.pop()
        if name in found or name in THERE:
            continue
        found.add(name)
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(canonicalize_name(requirement.name))
    return found


@pytest.mark.skipif(sys.version_info < (3, 10), reason="no packages_distributions before 3.10")
def test_all_that_is_imported_is_packed():
    modules = imports(scripts())
    assert {"pytest", "torch", "fairseq"} <= modules
    distributions = metadata.packages_distributions()
    names = {distributions[module][0] for module in modules} | {"fairseq-sru"}
    packed = {canonicalize_name(Requirement(line).name)
              for line in (GPU / "requirements.txt").read_text().splitlines()
              if line and not line.startswith("#")}
    assert needed(names) - packed - FAIRSEQ == {"fairseq-sru"}
