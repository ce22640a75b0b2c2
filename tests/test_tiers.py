"""`make test-fast` starts no subprocess: the marker `command` cannot be forgotten."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-c", ""]


def test_a_subprocess_needs_the_marker():
    with pytest.raises(pytest.fail.Exception, match="pytest.mark.command"):
        subprocess.run(COMMAND)


@pytest.mark.command
def test_with_the_marker_it_runs():
    assert subprocess.run(COMMAND).returncode == 0
