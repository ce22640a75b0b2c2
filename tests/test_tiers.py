"""`make test-fast` starts no process: the marker `command` cannot be forgotten."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import run_python

STARTS = {
    "subprocess": lambda: subprocess.run([sys.executable, "-c", ""]),
    "forked": lambda: run_python("-m", "this"),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_process_needs_the_marker(start):
    with pytest.raises(pytest.fail.Exception, match="pytest.mark.command"):
        start()


@pytest.mark.command
@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_with_the_marker_it_runs(start):
    assert start().returncode == 0
