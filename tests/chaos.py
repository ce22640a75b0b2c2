"""`make chaos`: trainings are killed twenty times, also while they write, and disks run full.

Each goes on from its last checkpoint, which is whole, and ends bitwise as if nothing had happened.
CHAOS_SEED repeats a run.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TRAIN_OPTIONS, fails_in_one_line, run_python
from fairseq_cli import train as fairseq_train
from test_stream_task import TRAIN as STREAM_OPTIONS

KILLS = 10  # of each training
SEED = int(os.environ.get("CHAOS_SEED", time.time()))
pytestmark = pytest.mark.command

COMMON = ["--max-update", 150, "--save-interval-updates", 5, "--keep-interval-updates", 2,
          "--no-epoch-checkpoints", "--dropout", 0.1, "--seed", 3]


@pytest.fixture(params=["translation", "streams"])
def training(request):
    """Arguments of fairseq-train without --save-dir."""
    if request.param == "translation":
        return [request.getfixturevalue("data"), *TRAIN_OPTIONS, *COMMON]
    return [request.getfixturevalue("lm_data"), *STREAM_OPTIONS, "--batch-size", 4, *COMMON]


def run(training, folder: Path) -> None:
    sys.argv = ["fairseq-train", *map(str, training), "--save-dir", str(folder)]
    fairseq_train.cli_main()


def start(training, folder: Path):
    """fairseq-train in a process of its own that need not import everything again."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(training, folder))
    process.start()
    return process


def finish(training, folder: Path) -> float:
    """Seconds of a training that nobody disturbs."""
    begin = time.monotonic()
    process = start(training, folder)
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - begin


def wait_till_it_writes(process, folder: Path, numbers, _) -> None:
    """For one of the moments at which a file is half written."""
    writes, writing = numbers.randrange(1, 8), False
    while process.is_alive() and writes:
        time.sleep(0.0005)
        before, writing = writing, bool(list(folder.glob("*.part")))
        writes -= writing and not before


def wait_a_while(process, folder: Path, numbers, seconds: float) -> None:
    process.join(numbers.uniform(0, seconds))


def test_killed_trainings_end_bitwise_as_if_nothing_had_happened(training, tmp_path):
    numbers = random.Random(SEED)
    print(f"CHAOS_SEED={SEED}")
    seconds = finish(training, tmp_path / "whole")
    folder, kills = tmp_path / "killed", {wait_a_while: 0, wait_till_it_writes: 0}
    halves = 0
    while sum(kills.values()) < KILLS:
        folder.mkdir(exist_ok=True)
        wait = min(kills, key=kills.__getitem__)
        process = start(training, folder)
        wait(process, folder, numbers, seconds)
        process.kill()
        process.join()
        if process.exitcode == 0:  # it was faster
            same_end(folder, tmp_path / "whole")
            shutil.rmtree(folder)
            continue
        assert process.exitcode == -signal.SIGKILL
        kills[wait] += 1
        halves += bool(list(folder.glob("*.part")))
        for path in folder.glob("*.pt"):
            torch.load(path, weights_only=True)
    assert halves, "no file was half written"
    finish(training, folder)
    same_end(folder, tmp_path / "whole")


def same_end(folder: Path, expected: Path) -> None:
    ours, theirs = (
        torch.load(path / "checkpoint_last.pt", weights_only=True) for path in (folder, expected))
    for part in "model", "last_optimizer_state":
        torch.testing.assert_close(ours[part], theirs[part], rtol=0, atol=0)
    assert ours["optimizer_history"][-1]["num_updates"] == 150
    assert not list(folder.glob("*.part"))


ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size=$1 none "$2"
mkdir "$2/inside"
cp -r "$3/." "$2/inside"
code=0
"${@:4}" || code=$?
cp -r "$2/inside/." "$3"
exit $code
"""


def on_a_small_disk(size: str, folder: Path, *command) -> subprocess.CompletedProcess:
    """Run a command that writes to folder/disk/inside, a disk of this size; what lies in
    folder/kept is there from the start, and what lies there at the end is copied back."""
    for name in "disk", "kept":
        (folder / name).mkdir(exist_ok=True)
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "bash", "-c", ON_A_SMALL_DISK, "bash", size,
         str(folder / "disk"), str(folder / "kept"), *map(str, command)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)


def test_a_full_disk_keeps_the_last_checkpoint(training, tmp_path):
    """The training says so in a line and goes on where there is room, to the same end."""
    if on_a_small_disk("1M", tmp_path, "true").returncode:
        pytest.skip("this system lets nobody mount a small disk")
    finish(training, tmp_path / "whole")
    size = sum(p.stat().st_size for p in (tmp_path / "whole").glob("checkpoint_last.pt"))
    failed = on_a_small_disk(  # room for two and a half checkpoints
        str(size * 5 // 2), tmp_path, sys.executable, "-m", "fairseq_cli.train", *training,
        "--save-dir", tmp_path / "disk" / "inside")
    assert "No space left" in fails_in_one_line(failed)
    kept = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert kept and all(name.endswith(".pt") for name in kept)
    for name in kept:
        torch.load(tmp_path / "kept" / name, weights_only=True)
    finish(training, tmp_path / "kept")
    same_end(tmp_path / "kept", tmp_path / "whole")


def test_a_full_disk_leaves_no_half_average(trained, tmp_path):
    if on_a_small_disk("1M", tmp_path, "true").returncode:
        pytest.skip("this system lets nobody mount a small disk")
    inputs = [trained / "checkpoint1.pt", trained / "checkpoint2.pt"]
    failed = on_a_small_disk(
        "20k", tmp_path, sys.executable, "-m", "fairseq_sru.average_checkpoints", "--inputs",
        *inputs, "--output", tmp_path / "disk" / "inside" / "model.pt")
    assert "No space left" in fails_in_one_line(failed)
    assert not list((tmp_path / "kept").iterdir())
    result = run_python("-m", "fairseq_sru.average_checkpoints", "--inputs", *inputs, "--output",
                        tmp_path / "model.pt")
    assert result.returncode == 0
