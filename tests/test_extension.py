"""Without the extension, or with one that does not fit: a line that says so, and the loop."""

import pytest
from conftest import run_python

pytestmark = pytest.mark.command

NOT_OURS = {
    "raise ModuleNotFoundError(name='fairseq_sru_ext')": "fairseq_sru_ext is not built",
    "raise ImportError('fairseq_sru_ext.so: undefined symbol: _ZN3c10\\nmore')":
        "fairseq_sru_ext was built against another PyTorch (fairseq_sru_ext.so: undefined symbol: "
        "_ZN3c10)",
    "torch = '1.13.0'": "fairseq_sru_ext was built against PyTorch 1.13.0, and this is ",
    "": "fairseq_sru_ext was built from an older fairseq_sru",
}
RUN = """
import sys, warnings
sys.path.insert(0, {folder!r})
import torch
from fairseq_sru.modules import SRUpp
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    h = SRUpp(4, 4, 4)(torch.randn(3, 2, 4)).h
h.sum().backward()
print(len(caught), caught[0].message)
from fairseq_sru.errors import one_line
from fairseq_sru.inference import Engine
with one_line():
    Engine(None)
"""
KEEP = """
import sys, warnings
sys.path.insert(0, {folder!r})
import fairseq_sru.ops.extension as extension
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    extension.keep_freed_memory()
print(len(caught), caught[0].message)
"""


@pytest.mark.parametrize("module, reason", NOT_OURS.items())
def test_a_line_says_why_and_the_loop_runs(module, reason, tmp_path):
    (tmp_path / "fairseq_sru_ext.py").write_text(module)
    result = run_python("-c", RUN.format(folder=str(tmp_path)))
    assert result.stdout.startswith(f"1 {reason}") and "Python loop" in result.stdout
    assert "pip install --no-build-isolation" in result.stdout
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.startswith(f"error: {reason}") and "the engine needs" in result.stderr
    assert len(result.stdout.splitlines()) == len(result.stderr.splitlines()) == 1


def test_other_failures_of_its_import_are_not_hidden(tmp_path):
    (tmp_path / "fairseq_sru_ext.py").write_text("import no_such_module")
    result = run_python("-c", RUN.format(folder=str(tmp_path)))
    assert "No module named 'no_such_module'" in result.stderr


@pytest.mark.parametrize("module, reason", NOT_OURS.items())
def test_memory_that_is_not_kept_is_said(module, reason, tmp_path):
    (tmp_path / "fairseq_sru_ext.py").write_text(module)
    result = run_python("-c", KEEP.format(folder=str(tmp_path)))
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"1 {reason}") and "the system takes freed memory back" in line
    assert "pip install --no-build-isolation" in line
