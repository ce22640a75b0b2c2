"""The floors of the package: no file imports upwards, no files import in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fairseq_sru

PACKAGE = Path(fairseq_sru.__file__).parent
# From below. fairseq_sru/__init__.py, which registers by importing, stands outside.
FLOORS = [
    {"ranges"},
    {"ops"},
    {"state"},
    {"modules"},
    {"checkpoints", "errors", "files", "word_vectors"},
    {"inference"},
    {"options"},
    {"registry", "repairs"},
    {"criterions", "models", "optim", "tasks"},
    {"convert"},
    {"__main__", "average_checkpoints", "classify", "export", "score", "translate"},
]
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
WITHOUT_FAIRSEQ = {"ranges", "ops", "modules", "state", "inference"}
READS_FAIRSEQ = "fairseq_sru.inference.from_fairseq"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
PARTS = [name for name in FILES if name != "fairseq_sru"]


def part_of(name: str) -> str:
    """What stands directly below the package: a folder or a file."""
    return name.split(".")[1]


def imported(name: str) -> set[str]:
    """The modules that a file imports, at its top or in a function; of other packages too."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = members & FILES.keys()
            found |= submodules if submodules == members else submodules | {node.module}
    return found


IMPORTS = {name: imported(name) for name in FILES}


def below(name: str) -> set[str]:
    """All files of the package that a file imports, directly or not."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        new = (IMPORTS[waiting.pop()] & set(PARTS)) - found
        found |= new
        waiting += new
    return found


def test_every_part_has_a_floor():
    assert {part_of(name) for name in PARTS} <= FLOOR.keys()


@pytest.mark.parametrize("name", PARTS)
def test_no_file_imports_upwards(name):
    upwards = {other for other in IMPORTS[name] & set(PARTS)
               if FLOOR[part_of(other)] > FLOOR[part_of(name)]}
    assert not upwards


@pytest.mark.parametrize("name", PARTS)
def test_no_files_import_in_a_circle(name):
    assert name not in below(name)


@pytest.mark.parametrize("name", [
    name for name in PARTS if part_of(name) in WITHOUT_FAIRSEQ and name != READS_FAIRSEQ])
def test_operators_modules_and_inference_know_no_fairseq(name):
    packages = {other.split(".")[0] for other in IMPORTS[name]}
    assert not packages & {"fairseq", "fairseq_cli"}
