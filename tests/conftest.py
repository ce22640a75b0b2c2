"""What the tests share: a tiny binarised corpus, fairseq commands, a trained model."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from commands import CONTEXT, run_module
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
USER_DIR = ROOT / "fairseq_sru"
# PyTorch 2.4 starts processes that compile as soon as it is asked to
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
# of the property tests: the same few cases every time, or many new ones
settings.register_profile(
    "some", max_examples=30, derandomize=True, deadline=None,
    suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "fuzz", settings.get_profile("some"), max_examples=850, derandomize=False, print_blob=True)
settings.load_profile("some")

TRAIN_OPTIONS = [
    "--user-dir", USER_DIR, "--task", "translation", "--arch", "srupp_tiny",
    "--optimizer", "radam", "--lr", "0.02", "--max-tokens", "256", "--num-workers", "0", "--cpu",
    "--log-format", "simple", "--log-interval", "4",
]


def run_python(*args, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess:
    """Run this Python from the repository root; the caller looks at the return code."""
    arguments, timeout = [*map(str, args)], 600
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    if arguments[0] == "-m" and not environment:
        return run_module(arguments[1:], ROOT, variables, stdin, timeout)
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=variables, input=stdin,
                          capture_output=True, text=True, timeout=timeout)


def run_fairseq(command: str, *args, stdin: str | None = None) -> subprocess.CompletedProcess:
    """Run ``fairseq-<command>``; anything but success is a failure of the test."""
    result = run_python("-m", f"fairseq_cli.{command}", *args, stdin=stdin)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def binarise(source: Path, destination: Path, *args, **splits: str) -> None:
    """fairseq-preprocess of one language, ``train="name"`` for the file name.txt in ``source``."""
    files = [x for split, name in splits.items()
             for x in (f"--{split}pref", source / f"{name}.txt")]
    run_fairseq("preprocess", "--only-source", "--destdir", destination, *files, *args)


def train(data: Path, save_dir: Path, *args) -> subprocess.CompletedProcess:
    """fairseq-train with the tiny model; later options win."""
    return run_fairseq("train", data, *TRAIN_OPTIONS, "--save-dir", save_dir, *args)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def train_on_two_ranks(*args) -> str:
    """fairseq-train as two CPU processes that share the batches; what the first printed."""
    options = [
        "--distributed-world-size", "2", "--distributed-no-spawn", "--distributed-backend", "gloo",
        "--ddp-backend", "legacy_ddp", "--load-checkpoint-on-all-dp-ranks",
        "--distributed-init-method", f"tcp://localhost:{free_port()}", "--distributed-rank",
    ]
    with ThreadPoolExecutor() as pool:
        ranks = list(pool.map(lambda rank: run_python(
            "-m", "fairseq_cli.train", *args, *options, rank), range(2)))
    logs = [rank.stdout + rank.stderr for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(logs)
    return logs[0]


def fails_in_one_line(result: subprocess.CompletedProcess) -> str:
    """The message of a command that failed as promised: last line, no trace."""
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A test whose fixtures start commands starts commands."""
    for item in items:
        if "command" in item.fixturenames:
            item.add_marker("command")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """No subprocess in a test, or in its fixtures, without the marker `command`."""
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("command") is None:
            patch.setattr(subprocess.Popen, "__init__", refuse_subprocess)
            patch.setattr(CONTEXT.Process, "start", refuse_subprocess)
        return (yield)


def refuse_subprocess(*args, **kwargs):
    pytest.fail("this test starts a subprocess: mark it with pytest.mark.command")


def needs_torch(*version: int, why: str) -> pytest.MarkDecorator:
    """Skips a test, or a case of one, with an older PyTorch."""
    found = tuple(map(int, torch.__version__.split(".")[:2]))
    return pytest.mark.skipif(found < version, reason=f"PyTorch before {version}: {why}")


@pytest.fixture(scope="session")
def command() -> None:
    """For fixtures that start commands: it marks the tests that use them."""


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of reference data, from FAIRSEQ_SRU_REFERENCE."""
    folder = Path(os.environ.get("FAIRSEQ_SRU_REFERENCE", ROOT.parent / "shared" / "reference"))
    if not folder.is_dir():
        pytest.skip(f"no reference data in {folder}: set FAIRSEQ_SRU_REFERENCE")
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Text of a German-English toy language: the words of a sentence in reverse order."""
    folder = tmp_path_factory.mktemp("corpus")
    numbers = random.Random(1)
    for split, size in ("train", 320), ("valid", 40), ("test", 20):
        sentences = [
            [numbers.randrange(20) for _ in range(numbers.randint(2, 9))] for _ in range(size)
        ]
        de = "".join(" ".join(f"wort{n}" for n in s) + "\n" for s in sentences)
        en = "".join(" ".join(f"word{n}" for n in reversed(s)) + "\n" for s in sentences)
        (folder / f"{split}.de").write_text(de)
        (folder / f"{split}.en").write_text(en)
    return folder


@pytest.fixture(scope="session")
def data(corpus, command) -> Path:
    """The corpus binarised: 20 words and fairseq's own symbols a side."""
    folder = corpus / "bin"
    run_fairseq(
        "preprocess", "-s", "de", "-t", "en", "--trainpref", corpus / "train",
        "--validpref", corpus / "valid", "--testpref", corpus / "test", "--destdir", folder,
    )
    return folder


@pytest.fixture(scope="session")
def lm_data(tmp_path_factory, command) -> Path:
    """Lines that count in threes, binarised for a language model."""
    folder = tmp_path_factory.mktemp("text")
    numbers = random.Random(1)
    for split, lines in ("train", 80), ("valid", 20), ("test", 20):
        with open(folder / f"{split}.txt", "w") as file:
            for _ in range(lines):
                first, length = numbers.randrange(30), numbers.randint(0, 9)
                print(*(f"w{(first + 3 * i) % 30}" for i in range(length)), file=file)
    binarise(folder, folder / "bin", train="train", valid="valid", test="test")
    return folder / "bin"


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory) -> Path:
    """A folder of checkpoints: epochs 1 to 3, updates 8, 16 and 24, best and last."""
    folder = tmp_path_factory.mktemp("trained")
    result = train(
        data, folder, "--max-epoch", "3", "--save-interval-updates", "8", "--dropout", "0.1"
    )
    (folder / "train.log").write_text(result.stdout)
    return folder
