"""A module that is run in a forked process does what it does in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from commands import run_module

pytestmark = pytest.mark.command

PROGRAMS = {
    "streams": "import sys; print(sys.stdin.read() * 2); print(sys.argv[1:], file=sys.stderr)",
    "place": "import os, sys; print(os.getcwd(), sys.path, sys.argv[0], __name__, __spec__.name)",
    "nothing imported": "import sys; print([name for name in sys.modules if 'fairseq' in name])",
    "exit code": "import sys; sys.exit(3)",
    "exit message": "import sys; sys.exit('no such thing')",
    "error": "raise ValueError('wrong')",
    "hook": "import sys; sys.excepthook = lambda *error: print('hook', error[1]); 1 / 0",
    "at exit": "import atexit; atexit.register(print, 'last words'); 1 / 0",
    "signal": "import os; os.kill(os.getpid(), 9)",
    "without Python": "import os; os.write(1, b'written'); os._exit(4)",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_as_in_a_process_of_its_own(tmp_path, program):
    (tmp_path / "module.py").write_text(program)
    command = ["module", "--option", "value"]
    own = subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, text=True, input="text",
                         capture_output=True)
    forked = run_module(command, tmp_path, dict(os.environ), "text", timeout=60)
    assert forked.returncode == own.returncode
    assert forked.stdout == own.stdout
    assert forked.stderr.splitlines()[-1:] == own.stderr.splitlines()[-1:]  # traces differ above
