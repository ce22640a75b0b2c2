"""The pictures' readers: fairseq's json log and fairseq-generate's output."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

plots = importlib.import_module("plots")
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

LOG = """\
task: TranslationTask
{"epoch": 1, "update": 0.5, "loss": "3", "ppl": "8.0", "num_updates": "10", "lr": "0.1"}
2026-01-01 00:00:00 | INFO | valid | {"epoch": 1, "valid_ppl": "6.5", "valid_num_updates": "20"}
{"epoch": 1, "train_loss": "3", "train_ppl": "7.0", "train_num_updates": "20"}
{"epoch": 2, "update": 1.5, "loss": "3", "ppl": "5.0", "num_updates": "30", "lr": "0.1"}
{"epoch": 2, "update": 1.5, "loss": "3", "ppl": "4.5", "num_updates": "30", "lr": "0.1"}
"""
SOFT = """\
S-1\t▁Er ▁kommt ▁an
T-1\t▁He ▁arri ves
H-1\t-0.5\t▁He ▁arri ves
A-1\t0.9,0.0,0.0,0.1 0.0,0.2,0.8,0.0 0.0,0.6,0.4,0.0 0.0,0.0,0.0,1.0
S-0\t▁Ja
H-0\t-0.1\t▁Yes
A-0\t1.0,0.0 0.0,1.0
"""


@pytest.fixture
def log(tmp_path) -> Path:
    path = tmp_path / "train.log"
    path.write_text(LOG)
    return path


@pytest.fixture
def generated(tmp_path) -> Path:
    path = tmp_path / "generated.txt"
    path.write_text(SOFT, encoding="utf-8")
    return path


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(EXAMPLES / "plots.py"), *map(str, arguments)]
    return subprocess.run(command, text=True, capture_output=True)


def test_log_of_a_resumed_run(log):
    assert plots.read_log(log) == plots.Log(train={10: 8.0, 30: 4.5}, valid={20: 6.5})


def test_soft_alignment(generated):
    translation = plots.read_generated(generated)[1]
    assert translation.source == ["▁Er", "▁kommt", "▁an"]
    assert translation.target == ["▁He", "▁arri", "ves"]
    assert translation.weights[1] == [0.0, 0.2, 0.8, 0.0]


def test_hard_alignment_of_the_best_hypothesis(tmp_path):
    path = tmp_path / "hard"
    path.write_text("S-0\ta b\nH-0\t-1\tx y\nA-0\t1-0 0-1\nH-0\t-2\tz\nA-0\t0-0\n")
    translation = plots.read_generated(path)[0]
    assert translation.target == ["x", "y"]
    assert translation.weights == [[0.0, 1.0], [1.0, 0.0]]
    assert plots.crossings(translation) == 1.0


def test_the_most_reordered_sentence_is_chosen(generated):
    assert plots.choose(plots.read_generated(generated), count=1) == [1]


def test_the_scale_shows_the_end_of_the_training():
    log = plots.Log(train={0: 30000.0, **{n: 1000.0 / n for n in range(1, 100)}}, valid={99: 9.0})
    low, high = plots.scale([log])
    assert 8 < low < 9 and 100 <= high < 200


@pytest.mark.parametrize(("piece", "label"), [
    ("▁He", "He"), ("ves", "-ves"), (".", "."), ("</s>", "</s>"), ("▁", ""), ("'s", "'s"),
])
def test_only_the_rest_of_a_word_has_a_hyphen(piece, label):
    assert plots._label(piece) == label


@pytest.mark.command
def test_pictures(log, generated, tmp_path):
    curve, alignment = tmp_path / "curve.png", tmp_path / "alignment.part"
    for done in (run("curve", curve, log, f"again={log}"), run("alignment", alignment, generated)):
        assert done.returncode == 0, done.stderr
    for picture in (curve, alignment):
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.command
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("curve", "{tmp}/a.png", "{tmp}/none.log"), "No such file"),
        (("curve", "{tmp}/a.png", "{tmp}/generated.txt"), "--log-format json"),
        (("alignment", "{tmp}/a.png", "{tmp}/train.log"), "--print-alignment soft"),
        (("alignment", "{tmp}/a.png", "{tmp}/generated.txt", "--sentences", "7"), "sentence 7"),
    ],
)
def test_one_clear_line(arguments, message, log, generated, tmp_path):
    done = run(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.count("\n") == 1
