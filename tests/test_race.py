"""benchmarks/race.py: as many tries for each side, the budget in processor seconds, what is done
stays done."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT, TRAIN_OPTIONS, run_python

spec = importlib.util.spec_from_file_location("race", ROOT / "benchmarks" / "race.py")
race = sys.modules["race"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(race)


@pytest.fixture
def options(tmp_path):
    return SimpleNamespace(folder=tmp_path, minutes=20.0, tuning_minutes=None, seeds=[1, 2],
                           references=[], average=5, precision="float32")


@pytest.mark.parametrize("name", race.ENTRIES)
def test_four_tries_and_two_seeds(name, options, monkeypatch):
    """Three rates, then the second dropout at the best one; the final runs have the best of all."""
    entry, runs = race.ENTRIES[name], []
    best = entry.learning_rates[1], entry.dropouts[1]

    def train(entry, options, folder, updates, seed, lr, dropout, *more):
        runs.append((updates, seed, lr, dropout))
        return {"perplexity": 5 + abs(lr - best[0]) + abs(dropout - best[1])}

    monkeypatch.setattr(race, "train", train)
    monkeypatch.setattr(race, "affordable", lambda entry, options, folder, minutes: minutes)
    monkeypatch.setattr(race, "score", lambda options, folder: {})
    rows = race.race(name, options)
    tries = [(lr, entry.dropouts[0]) for lr in entry.learning_rates] + [best]
    assert runs == [(5, 1, *attempt) for attempt in tries] + [(20, seed, *best) for seed in (1, 2)]
    assert [(row["seed"], row["lr"], row["dropout"]) for row in rows] == [(1, *best), (2, *best)]
    assert len(rows[0]["tries"]) == 4


LOG = """2026 | INFO | train_inner | cpu=12.0 | {"num_updates": "10", "ppl": "9"}
2026 | INFO | train_inner | cpu=37.0 | {"num_updates": "60", "ppl": "8"}
2026 | INFO | valid | cpu=39.0 | {"valid_ppl": "7.5", "valid_num_updates": "60"}
"""


def test_updates_that_a_budget_affords(options, tmp_path, monkeypatch):
    """Half a second an update, seven to start and two a validation."""
    (tmp_path / "log").write_text(LOG)
    monkeypatch.setattr(race, "train", lambda *args: None)
    updates = race.affordable(race.ENTRIES["srupp"], options, tmp_path, 10)
    assert updates == (600 - 7 - race.VALIDATIONS * 2) / 0.5


@pytest.mark.command
def test_updates_that_a_real_log_affords(options, data, tmp_path, monkeypatch):
    run = run_python(
        ROOT / "examples" / "clocked_train.py", data, *TRAIN_OPTIONS, "--max-update", "20",
        "--log-interval", "10", "--log-format", "json", "--no-save")
    (tmp_path / "log").write_text(run.stdout + run.stderr)
    assert "| DEBUG |" not in run.stderr
    monkeypatch.setattr(race, "train", lambda *args: None)
    assert race.affordable(race.ENTRIES["srupp"], options, tmp_path, 10) > 1


@pytest.mark.command
def test_another_attention_is_refused():
    run = run_python(ROOT / "examples" / "clocked_train.py", ATTENTION="flash")
    assert run.returncode == 1
    assert run.stderr == "ATTENTION=flash: use math, or leave it unset\n"


def test_what_is_done_is_read_and_not_done_again(options, tmp_path, monkeypatch):
    (tmp_path / "log").write_text(LOG)
    (tmp_path / "done").touch()
    monkeypatch.setattr(race, "run", lambda *args, **streams: pytest.fail("it runs again"))
    row = race.train(race.ENTRIES["srupp"], options, tmp_path, 60, 1, 1e-3, 0.1)
    assert row == {"updates": 60, "processor_seconds": 39.0, "perplexity": 7.5,
                   "curve": [[60, 39.0, 7.5]]}


def test_both_sides_have_as_many_tries():
    counts = {(len(e.learning_rates), len(e.dropouts)) for e in race.ENTRIES.values()}
    assert counts == {(3, 2)}
