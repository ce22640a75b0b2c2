"""What is published: an sdist that holds everything its tests read, and a wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from conftest import ROOT

import fairseq_sru

pytestmark = [
    pytest.mark.command,
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout: git lists the files"),
]


def setup(folder: Path, *commands: str) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", *commands],
        cwd=folder, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """The unpacked sdist of what git would commit."""
    folder = tmp_path_factory.mktemp("package")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, text=True, capture_output=True, check=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "tree" / name)
    setup(folder / "tree", "sdist")
    (archive,) = (folder / "tree" / "dist").iterdir()
    with tarfile.open(archive) as tar:
        tar.extractall(folder)
    return folder / f"fairseq_sru-{fairseq_sru.__version__}"


@pytest.fixture(scope="module")
def wheel(sdist) -> zipfile.ZipFile:
    """Its wheel, with the extension that is here instead of another half minute of compilation."""
    setup(sdist, "build_py")
    (library,) = (sdist / "build").glob("lib*")
    for extension in ROOT.glob("fairseq_sru_ext*.so"):
        shutil.copy(extension, library)
    setup(sdist, "bdist_wheel", "--skip-build")
    (archive,) = (sdist / "dist").iterdir()
    return zipfile.ZipFile(archive)


def tracked(*folders: str) -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", *folders], cwd=ROOT, text=True, capture_output=True, check=True)
    return {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}


def test_the_sdist_holds_the_tree(sdist):
    there = {str(path.relative_to(sdist)) for path in sdist.rglob("*") if path.is_file()}
    hidden = {name for name in tracked() if name.startswith(".")}
    assert not tracked() - hidden - there
    assert not [name for name in there if name.endswith((".so", ".pyc"))]


def test_the_wheel_holds_the_packages_and_nothing_else(wheel):
    there = {name for name in wheel.namelist() if ".dist-info/" not in name}
    extension = {name for name in there if name.startswith("fairseq_sru_ext")}
    assert there - extension == tracked("fairseq_sru", "hydra_plugins")
    assert "fairseq_sru/py.typed" in there and len(extension) == 1


def test_the_metadata(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = message_from_string(wheel.read(name).decode())
    assert metadata["Version"] == fairseq_sru.__version__
    assert metadata["License"] == "MIT" and metadata["Description-Content-Type"] == "text/markdown"
    assert "make install" in metadata.get_payload()
    fairseqs = [line for line in metadata.get_all("Requires-Dist") if "fairseq" in line]
    assert len(fairseqs) == 2


def test_every_python_gets_one_fairseq():
    from packaging.requirements import Requirement

    text = (ROOT / "pyproject.toml").read_text()
    requirements = [Requirement(line.strip().rstrip(",").strip('"'))
                    for line in text.splitlines() if "fairseq" in line and "==" in line]
    for system in ("linux", "darwin"):
        for machine in ("x86_64", "aarch64"):
            for version in ("3.9", "3.10", "3.11", "3.12", "3.13"):
                environment = {"sys_platform": system, "platform_machine": machine,
                               "python_version": version}
                chosen = [r.name for r in requirements if r.marker.evaluate(environment)]
                wheels = (system, machine) == ("linux", "x86_64") and version in ("3.11", "3.12")
                assert chosen == ["ve-fairseq" if wheels else "fairseq-fixed"], environment
