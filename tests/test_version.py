"""The version stands in pyproject.toml alone and is known at run time."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT, run_python

import fairseq_sru


def test_the_version_is_that_of_the_project():
    (stated,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert fairseq_sru.__version__ == stated


@pytest.mark.command
def test_a_checkout_that_is_not_installed_says_so(tmp_path):
    (tmp_path / "fairseq_sru").symlink_to(ROOT / "fairseq_sru")
    program = f"import sys; sys.path[0] = {str(tmp_path)!r}; import fairseq_sru as package"
    result = run_python("-S", "-c", f"{program}; print(package.__version__)")
    assert result.stdout == "0+checkout\n", result.stderr
