"""Commands as processes of their own, each forked from one that has imported PyTorch and others.

Importing these takes longer than most commands of the tests. fairseq and the plugin are imported
by each command itself. What Python reads when it starts, such as PYTHONPATH, is as it was when the
tests were started.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["hydra", "sklearn.metrics", "torch.export", "torch.onnx.operators"])

SHOW_PATH = "import sys; print(*sys.path[1:], sep='\\n')"
PATH = subprocess.check_output([sys.executable, "-c", SHOW_PATH], text=True).split("\n")[:-1]


def run_module(
    arguments: list[str], folder: Path, environment: dict[str, str], stdin: str | None,
    timeout: float,
) -> subprocess.CompletedProcess:
    """``python -m MODULE [ARGUMENT...]`` as subprocess.run does it, with the output captured."""
    with tempfile.TemporaryDirectory() as name:
        streams = [Path(name) / stream for stream in ("stdin", "stdout", "stderr")]
        streams[0].write_text(stdin or "")
        process = CONTEXT.Process(target=_run, args=(arguments, folder, environment, streams))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(arguments, timeout)
        output, errors = (stream.read_text() for stream in streams[1:])
        return subprocess.CompletedProcess(arguments, process.exitcode, output, errors)


def _run(
    arguments: list[str], folder: Path, environment: dict[str, str], streams: list[Path]
) -> None:
    for number, path in enumerate(streams):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-m", *arguments[1:]]
    sys.path[:] = [str(folder), *PATH]
    try:
        runpy._run_module_as_main(arguments[0])
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()
