"""Missing, empty and foreign inputs of the recipes' scripts: one line, and nothing written."""

import json
import runpy
import sys

import pytest
from conftest import ROOT

RUN = {"set": "mood", "model": "sru", "run": 0, "dropout": 0.1, "valid": 90.0, "test": 89.0,
       "seconds_an_epoch": 1.5, "sentences_a_second": 900.0, "curve": [[1.5, 90.0]]}


@pytest.fixture
def fails(monkeypatch, tmp_path, capfd):
    """Runs a script in a folder; the line that it ends in."""

    def run(script, *args):
        path = ROOT / "examples" / script
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, args)])
        monkeypatch.syspath_prepend(str(path.parent))
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
        assert ended.value.code == 1 and sorted(tmp_path.rglob("*")) == before
        last = capfd.readouterr().err.strip().split("\n")[-1]
        assert last.startswith("error: ")
        return last

    return run


@pytest.fixture
def corpus(tmp_path):
    for split in "train", "valid", "test":
        for language in "de", "en":
            (tmp_path / f"{split}.{language}").write_text("ein Hund\nein Haus\n")
    (tmp_path / "test.txt").write_text("a dog\na house\n")
    return tmp_path


@pytest.mark.parametrize("options, message", [
    (["."], "test.txt has 2 lines"), (["none"], "cannot read none/test.en")])
def test_collect_wants_the_corpus_of_the_translations(fails, corpus, options, message):
    (corpus / "test.en").write_text("ein Hund\nein Haus\nein Tier\n")
    (corpus / "generated").write_text("S-2\tein Tier\nH-2\t-0.3\ta dog\n")
    assert message in fails("iwslt14/collect.py", "generated", *options, "out")


@pytest.mark.parametrize(
    "line", ["H-0", "H-x\t-0.1\ta", "H-0\t-0.1", "H--1\t-0.1\ta", "S-0\ta", ""])
def test_collect_wants_translations(fails, corpus, line):
    (corpus / "generated").write_text(f"{line}\n")
    message = fails("iwslt14/collect.py", "generated", ".", "out")
    assert "generated" in message and "fairseq-generate" in message
    assert "none: No such file" in fails("iwslt14/collect.py", "none", ".", "out")


@pytest.mark.parametrize("options, message", [
    (["out", "--train", "-5"], "must be numbers of sentences"),
    (["out", "--test", "-1"], "must be numbers of sentences"),
    (["test.txt", "--train", "1"], "test.txt: File exists"),
])
def test_a_demo_corpus_that_cannot_be(fails, corpus, options, message):
    assert message in fails("demo/corpus.py", *options)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_bytes_of_a_missing_or_empty_file(fails, corpus, split):
    files = {name: f"{name}.de" for name in ("train", "valid", "test")}
    (corpus / "empty").touch()
    for wrong, message in (("empty", "empty is empty"), ("none", "none: No such file")):
        given = [x for name, path in {**files, split: wrong}.items() for x in (f"--{name}", path)]
        assert message in fails("byte_text.py", "out", *given)


@pytest.mark.parametrize("options, message", [
    (["none", "."], "none/train.de is missing or empty"),
    ([".", "none"], "none is no folder"),
    ([".", ".", "--vocabulary", "-4"], "--vocabulary must be at least 1, got -4"),
    ([".", ".", "--vocabulary", "3"], "--vocabulary 3: Vocabulary size is smaller"),
    ([".", ".", "--vocabulary", "100000"], "--vocabulary 100000: Vocabulary size too high"),
])
def test_pieces_that_cannot_be(fails, corpus, options, message):
    pytest.importorskip("sentencepiece")
    assert message in fails("pieces.py", *options)


def test_pieces_of_an_empty_corpus(fails, corpus):
    pytest.importorskip("sentencepiece")
    (corpus / "train.en").write_text("")
    assert "train.en is missing or empty" in fails("pieces.py", ".", ".")
    for language in "de", "en":
        (corpus / f"train.{language}").write_text(" \n")
    assert "has no sentences" in fails("pieces.py", ".", ".")


@pytest.mark.parametrize("line", ["{bad", "[1]", "7", ""])
def test_a_table_of_what_is_no_run(fails, tmp_path, line):
    (tmp_path / "runs.jsonl").write_text(f"{json.dumps(RUN)}\n{line}\n")
    message = fails("classification/table.py", "runs.jsonl")
    assert "line 2 of runs.jsonl is no run in JSON" in message


@pytest.mark.parametrize("name", RUN)
@pytest.mark.parametrize("wrong", [None, {}])
def test_a_table_of_half_a_run(fails, tmp_path, name, wrong):
    run = {key: value for key, value in RUN.items() if key != name}
    if wrong is not None:
        run[name] = wrong
    (tmp_path / "runs.jsonl").write_text(json.dumps(run) + "\n")
    assert f"line 1 of runs.jsonl lacks {name}" in fails("classification/table.py", "runs.jsonl")


@pytest.mark.parametrize("options, message", [
    (["--epochs", "0"], "--epochs must be a whole number, at least 1"),
    (["--runs", "-1"], "--runs must be"),
    (["--tuning-runs", "0"], "--tuning-runs must be"),
    ([], "line 1 of runs.jsonl is no run in JSON"),
])
def test_a_comparison_that_cannot_be(fails, tmp_path, options, message):
    (tmp_path / "runs.jsonl").write_text("{bad\n")
    command = ["runs.jsonl", "--folder", ".", "--set", "mood", *options]
    assert message in fails("classification/compare.py", *command)
