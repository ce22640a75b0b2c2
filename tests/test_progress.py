"""The line of a recipe's step: it moves on a terminal, is seldom elsewhere, and tells failure."""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

progress = importlib.import_module("progress")

CONFIG = "{'max_epoch': 0, 'max_update': 40, 'lr': [0.1]}\n"


def report(updates: int, **more) -> str:
    said = {"epoch": 1, "update": updates / 20, "loss": "4.5", "num_updates": str(updates), **more}
    return f"2026-01-01 | INFO | train_inner | cpu=1.0 | {json.dumps(said)}\n"


VALID = json.dumps({"epoch": 1, "valid_loss": "5.25", "valid_num_updates": "20"}) + "\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def watch(tmp_path):
    """What the screen shows, and whether the step succeeded."""

    def run(*lines: str, screen: io.StringIO) -> tuple[str, bool]:
        source = io.BytesIO("".join(lines).encode())
        done = progress.watch("name", tmp_path / "log", source, screen)
        return screen.getvalue(), done

    return run


def test_a_step_is_a_line_with_its_time(watch, tmp_path):
    said, done = watch("noise\n", "step finished\n", screen=io.StringIO())
    assert done and said.split() == ["name", "0:00"] and said.count("\n") == 1
    assert (tmp_path / "log").read_text() == "noise\n"


def test_without_the_last_line_it_has_failed(watch):
    said, done = watch("step finished\n", "cp: no space left\n", screen=io.StringIO())
    assert not done and "failed" in said and "log" in said


def test_a_training_moves_one_line(watch):
    lines = [CONFIG, report(10, wps="1234.5"), VALID, report(20, wps="1234.5"), "step finished\n"]
    said, done = watch(*lines, screen=Terminal())
    assert done and said.count("\n") == 1 and said.count("\r") == 4
    last = said.split("\r")[-1]
    assert "epoch 1, loss 4.5, valid 5.25, 1,234 words/s" in last and "left" not in last
    assert "left" in said.split("\r")[-2]


def test_elsewhere_lines_are_seldom(watch):
    lines = [CONFIG, *(report(n) for n in range(1, 41)), "step finished\n"]
    assert watch(*lines, screen=io.StringIO())[0].count("\n") == 1


def test_a_line_is_due_after_a_minute_and_a_twentieth(watch, monkeypatch):
    now = iter(range(0, 100000, 70))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    lines = [CONFIG, *(report(n) for n in range(1, 41)), "step finished\n"]
    assert watch(*lines, screen=io.StringIO())[0].count("\n") in range(15, 22)


def test_time_left_goes_by_what_this_run_has_done():
    """Ten of the thirty updates that a resumed run had before it in ten seconds."""
    training = progress.Training()
    training.read(CONFIG, 0)
    assert training.read(report(10), 100) and training.left(100) is None
    training.read(report(20), 110)
    assert training.share() == 0.5 and training.left(110) == pytest.approx(20)


def test_half_a_report_of_another_process_is_no_report():
    assert not progress.Training().read('{"epoch": 1, "upd | WARNING\n', 0)


@pytest.mark.command
def test_a_recipe_stops_at_the_step_that_fails(tmp_path):
    script = f"""
source {ROOT}/examples/settings.sh
good() {{ echo 1 > "$1"; }}
bad() {{ echo 2 > "$1"; false; echo never; }}
once "$OUT/first" good
once "$OUT/first" good
once "$OUT/a/second" bad
once "$OUT/third" good
"""
    (tmp_path / "recipe.sh").write_text(script)
    (tmp_path / "out" / "a").mkdir(parents=True)
    done = subprocess.run(
        ["bash", tmp_path / "recipe.sh"], text=True, capture_output=True,
        env={**os.environ, "OUT": str(tmp_path / "out"), "PYTHON": sys.executable})
    assert done.returncode == 1
    first, again, second = done.stdout.splitlines()
    assert first.split() == ["first", "0:00"] and again.split() == ["first", "is", "there"]
    assert second.startswith("a/second") and "logs/a-second.log" in second
    assert "never" not in done.stderr
    assert sorted(os.listdir(tmp_path / "out")) == ["a", "first", "logs"]
