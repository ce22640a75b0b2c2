"""examples/classification: reading, folds, malformed files, and the recipe from end to end on a
made-up set."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import peers
import pytest
import sentences
import table
import torch
from conftest import ROOT, USER_DIR, fails_in_one_line, run_fairseq, run_python
from fairseq import checkpoint_utils

from fairseq_sru.errors import UsageError
from fairseq_sru.models.classifier import SentenceClassifier
from fairseq_sru.models.embedding import build_embedding

RECIPE = ROOT / "examples" / "classification"

GOOD, BAD = ["good", "fine", "great"], ["poor", "dull", "bland"]


def sentence(numbers: random.Random) -> tuple[str, str]:
    """A class and a sentence with one word that tells."""
    label = numbers.choice("01")
    words = [f"w{numbers.randrange(30)}" for _ in range(numbers.randint(1, 7))]
    words.insert(numbers.randrange(len(words) + 1), numbers.choice(GOOD if label == "1" else BAD))
    return label, " ".join(words)


def write(path: Path, count: int, seed: int) -> None:
    numbers = random.Random(seed)
    rows = [sentence(numbers) for _ in range(count)]
    path.write_text("".join(f"{label} {text}\n" for label, text in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """mood: a set with a test file; whole: one without."""
    folder = tmp_path_factory.mktemp("sets")
    for seed, (name, count) in enumerate(
            [("mood.train", 300), ("mood.dev", 40), ("mood.test", 40), ("whole.all", 400)]):
        write(folder / name, count, seed)
    return folder


# reading


def test_a_line_is_the_class_a_blank_and_the_sentence(tmp_path):
    path = tmp_path / "a.all"
    path.write_bytes("1 a  b \n0 c\u0085d \u2028 e\n10\n2 \n1 größe\r\n".encode())
    assert sentences.read(path) == [
        ("1", "a b"), ("0", "c d e"), ("10", ""), ("2", ""), ("1", "größe")]
    (tmp_path / "b.all").write_bytes(b"\xef\xbb\xbf1 a\r\n0\r\n0 b\r\n")
    assert sentences.read(tmp_path / "b.all") == [("1", "a"), ("0", ""), ("0", "b")]
    packed = tmp_path / "a.all.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert sentences.read(packed) == sentences.read(path)


@pytest.mark.parametrize("contents, message", [
    (b"1 a\n\n0 b\n", "line 2 has no class"),
    (b"1 a\n b\n", "line 2 has no class"),
    (b"1 a\n\tb\n", "line 2 has no class"),
    (b"1 a\n0\tb c\n", "line 2 has no class"),
    (b"1 a\r\n\r\n0 b\r\n", "line 2 has no class"),
    (b"1 a\n0 \xe4\n", "is not UTF-8: convert it"),
])
def test_a_malformed_line_is_named(tmp_path, contents, message):
    path = tmp_path / "a.all"
    path.write_bytes(contents)
    with pytest.raises(UsageError, match=message):
        sentences.read(path)


def test_folds_are_disjoint_whole_and_the_same_everywhere(folder):
    tests = []
    for fold in range(sentences.FOLDS):
        parts = sentences.load(folder, "whole", fold)
        texts = [{s.text for s in parts[part]} for part in ("train", "valid", "test")]
        assert not texts[0] & texts[1] and not texts[1] & texts[2] and not texts[0] & texts[2]
        assert sum(map(len, parts.values())) == 400
        tests += parts["test"]
    assert sorted(tests) == sorted(sentences.read(folder / "whole.all"))
    assert sentences.fold_of(sentences.Sentence("1", "good w1")) == 1  # on every machine
    assert sentences.fold_of(sentences.Sentence("0", "good w1")) == 1  # whatever the class


@pytest.mark.parametrize("name, fold, message", [
    ("whole", 10, "the folds are 0 to 9, got 10"), ("whole", -1, "the folds are 0 to 9, got -1"),
    ("mood", 7, "mood has a test file and no folds: leave FOLD=7 out"),
])
def test_a_fold_that_is_none_is_refused(folder, name, fold, message):
    with pytest.raises(UsageError, match=message):
        sentences.load(folder, name, fold)


def test_without_a_dev_file_a_tenth_of_training_is_for_validation(tmp_path):
    write(tmp_path / "a.train", 300, 1)
    write(tmp_path / "a.test.all", 40, 2)
    parts = sentences.load(tmp_path, "a")
    assert len(parts["test"]) == 40 and len(parts["train"]) + len(parts["valid"]) == 300
    assert 15 < len(parts["valid"]) < 45


@pytest.mark.parametrize("files, message", [
    ({}, r"no a\.all and no a\.test"),
    ({"a.test": "1 b\n"}, r"no a\.train"),
    ({"a.train": "1 b\n1 c\n" * 9, "a.dev": "1 c\n", "a.test": "1 b\n"}, "nothing to learn"),
    ({"a.train": "1 b\n0 c\n", "a.dev": "1 c\n", "a.test": "7 b\n"},
     "class '7' of test is unknown"),
    ({"a.train": "1 b\n0 c\n", "a.dev": "", "a.test": "1 b\n"}, "none is left for valid"),
    ({"a.all": "1 b\n0 c\n"}, "none is left for"),
])
def test_a_set_that_cannot_be_learnt_is_refused_in_one_line(tmp_path, files, message):
    for name, contents in files.items():
        (tmp_path / name).write_text(contents)
    with pytest.raises(UsageError, match=message):
        sentences.load(tmp_path, "a")


# peers


@pytest.mark.parametrize("name", peers.PEERS)
def test_a_peer_reads_the_sentence_alone_and_all_of_it(name):
    torch.manual_seed(0)
    encoder = peers.PEERS[name](12, dropout=0.1)
    model = SentenceClassifier(build_embedding(30, 12, 1), encoder, pooling=encoder.pooling)
    model.double().eval()
    rows = [torch.arange(5, 5 + n) for n in (7, 1, 4)]
    alone = torch.cat([model(row[None])[0] for row in rows])
    tokens = torch.nn.utils.rnn.pad_sequence(rows, True, 1)
    tokens = torch.cat([tokens, torch.ones(3, 2, dtype=torch.long)], 1)
    torch.testing.assert_close(model(tokens)[0], alone, rtol=0, atol=1e-10)
    model(rows[0][None])[0].square().sum().backward()
    reached = model.embed_tokens.weight.grad.abs().sum(-1).nonzero().flatten()
    assert reached.tolist() == list(range(5, 12))


@pytest.mark.parametrize("name, thousands", [("lstm", 352), ("cnn", 360)])
def test_peers_have_the_sizes_of_the_paper(name, thousands):
    """SRU paper, table 1; the linear output, of at most 602 numbers, is not counted here."""
    size = sum(p.numel() for p in peers.PEERS[name](300, 0.0).parameters())
    assert abs(size / 1000 - thousands) <= 2


# the recipe


def script(name: str, out: Path, folder: Path, *args, **settings) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", RECIPE / f"{name}.sh", *args], capture_output=True, text=True,
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "OUT": str(out),
             "CLASSIFICATION": str(folder), **settings})


def succeeds(*args, **settings) -> str:
    result = script(*args, **settings)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def out(folder, tmp_path_factory, command) -> Path:
    """The recipe's output for mood, trained for two epochs and then for six more."""
    out = tmp_path_factory.mktemp("out")
    succeeds("prepare", out, folder, SET="mood")
    for epochs in "28":
        succeeds("train", out, folder, "--lr", "0.01", "--batch-size", "16",
                 "--keep-last-epochs", "3", "--no-epoch-checkpoints", SET="mood",
                 ARCH="sru_classifier_tiny", EPOCHS=epochs)
    (log,) = out.glob("logs/*train.log")
    text = log.read_text(encoding="utf-8")
    assert "begin training epoch 3" in text and "begin training epoch 2" not in text  # resumed
    return out


@pytest.fixture(scope="module")
def run(out) -> Path:
    return out / "mood-0" / "sru_classifier_tiny-1"


@pytest.fixture(scope="module")
def binary(out) -> Path:
    return out / "mood-0" / "binary"


@pytest.fixture(scope="module")
def checkpoint(run) -> Path:
    return run / "checkpoints" / "checkpoint_best.pt"


def test_the_recipe_learns_the_set(out, folder):
    printed = succeeds("evaluate", out, folder, SET="mood", ARCH="sru_classifier_tiny")
    found = re.search(r"accuracy ([\d.]+), 40 sentences", printed)
    assert found and float(found[1]) > 90


def test_a_fold_of_a_set_without_a_test_file_can_be_trained(folder, tmp_path, command):
    out = tmp_path / "folds"
    settings = dict(SET="whole", FOLD="3", ARCH="srupp_classifier", EPOCHS="1")
    succeeds("prepare", out, folder, **settings)
    succeeds("train", out, folder, "--embed-dim", "8", "--bidirectional", **settings)
    printed = succeeds("evaluate", out, folder, **settings)
    count = len(sentences.load(folder, "whole", 3)["test"])
    assert printed.splitlines()[-1].endswith(f"{count} sentences")


@pytest.mark.command
def test_a_class_unknown_in_training_stops_the_recipe_in_one_line(tmp_path):
    for part in ("train", "dev", "test"):
        (tmp_path / f"a.{part}").write_text("1 b\n0 c\n" + ("7 d\n" if part == "test" else ""))
    result = script("prepare", tmp_path / "out", tmp_path, SET="a")
    assert "class '7' of test is unknown" in fails_in_one_line(result)


def test_the_comparison_writes_a_table_and_curves_and_goes_on(out, folder):
    settings = dict(SETS="mood whole", MODELS="sru_classifier_2 cnn", EPOCHS="2", RUNS="3",
                    DROPOUTS="0.1 0.2")
    printed = succeeds("compare", out, folder, **settings)
    rows = [line for line in printed.splitlines() if re.match(r"\| (mood|whole) \|", line)]
    assert [row.split("|")[1:3] for row in rows] == [
        [f" {name} ", f" {model} "] for name in ("mood", "whole")
        for model in ("sru_classifier_2", "cnn")]
    assert all("±" in row for row in rows)
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    lines = (out / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 2 * 2 * (2 * 2 + 1)  # dropouts are tried in two runs
    assert {len(json.loads(line)["curve"]) for line in lines} == {2}
    succeeds("compare", out, folder, **settings)  # makes nothing anew
    assert (out / "runs.jsonl").read_text().splitlines() == lines


def test_the_dropout_is_chosen_in_the_runs_that_all_have():
    runs = [dict(dropout=dropout, run=run, valid=valid)
            for run, dropout, valid in ((0, 0.3, 80), (0, 0.5, 82), (1, 0.3, 81), (1, 0.5, 80.5))]
    assert table.best_dropout(runs) == 0.5
    assert table.best_dropout([*runs, dict(dropout=0.3, run=2, valid=99)]) == 0.5


@pytest.mark.command
def test_an_unknown_model_is_named(tmp_path, folder):
    result = script("compare", tmp_path, folder, SETS="mood", MODELS="gru")
    assert "no model gru" in fails_in_one_line(result)


# fairseq's commands and ours


def classify(*args, stdin=""):
    result = run_python("-m", "fairseq_sru.classify", *args, stdin=stdin)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_fairseq_validate_agrees_with_classify(checkpoint, binary, out):
    log = run_fairseq(
        "validate", binary, "--user-dir", USER_DIR, "--task", "sentence_prediction",
        "--criterion", "sentence_prediction", "--num-classes", "2", "--path", checkpoint,
        "--valid-subset", "test", "--batch-size", "7", "--cpu").stdout
    folder = out / "mood-0" / "corpus"
    labels = (folder / "test.label").read_text().split()
    found = classify(checkpoint, "--input", folder / "test.input0")
    right = sum(line.split("\t")[0] == label for line, label in zip(found, labels))
    assert f"accuracy {100 * right / len(labels):g}" in log


def test_a_line_in_is_a_prediction_out_in_order(checkpoint, tmp_path):
    """Lines end at a newline alone, whatever is in them; an empty line is an empty sentence."""
    odd = [b"", b"  ", b"w1\x85good", "w1\u0085\u2028good".encode(), b"\xff good", b"good\r",
           b"unknown words", b"w1 " * 700 + b"good", b"poor\tw2"]
    numbers = random.Random(5)
    rows = [sentence(numbers) for _ in range(100)]
    lines = [*odd, *(text.encode() for _, text in rows)]
    (tmp_path / "in").write_bytes(b"\n".join(lines))  # without a newline at the end
    classify(checkpoint, "--input", tmp_path / "in", "--output", tmp_path / "out")
    found = (tmp_path / "out").read_text().splitlines()
    assert len(found) == len(lines)
    assert all(re.fullmatch(r"[01]\t[01]\.\d{4}", line) for line in found)
    assert found[0] == found[1] and found[3].startswith("1\t")
    right = sum(line[0] == label for line, (label, _) in zip(found[len(odd):], rows))
    assert right > 90
    backwards = classify(checkpoint, stdin="\n".join(text for _, text in reversed(rows)) + "\n")
    assert backwards == found[len(odd):][::-1]
    assert classify(checkpoint) == []


def test_checkpoints_can_be_averaged(run, binary, tmp_path):
    inputs = [run / "checkpoints" / f"checkpoint_{name}.pt" for name in ("best", "last")]
    result = run_python("-m", "fairseq_sru.average_checkpoints", "--inputs", *inputs,
                        "--output", tmp_path / "mean.pt")
    assert result.returncode == 0, result.stderr
    assert classify(tmp_path / "mean.pt", stdin="good w1\npoor w1\n")[0].startswith("1\t")


def test_resuming_continues_as_if_never_interrupted(binary, tmp_path):
    options = [binary, "--user-dir", USER_DIR, "--task", "sentence_prediction", "--criterion",
               "sentence_prediction", "--arch", "sru_classifier_tiny", "--num-classes", "2",
               "--optimizer", "adam", "--lr", "0.01", "--batch-size", "32", "--cpu",
               "--num-workers", "0", "--no-epoch-checkpoints"]
    run_fairseq("train", *options, "--save-dir", tmp_path / "whole", "--max-epoch", "3")
    for epochs in "13":
        run_fairseq("train", *options, "--save-dir", tmp_path / "parts", "--max-epoch", epochs)
    whole, parts = (
        torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=False)["model"]
        for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_word_vectors_are_read_in_training_and_not_needed_after_it(binary, tmp_path):
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("good 1 0 0 0\npoor 0 1 0 0\n")
    run_fairseq(
        "train", binary, "--user-dir", USER_DIR, "--task", "sentence_prediction", "--criterion",
        "sentence_prediction", "--arch", "sru_classifier_tiny", "--num-classes", "2",
        "--embed-dim", "4", "--embed-path", vectors, "--freeze-embed", "--optimizer", "adam",
        "--lr", "0.01", "--batch-size", "32", "--max-epoch", "1", "--cpu", "--save-dir", tmp_path)
    vectors.unlink()
    model = torch.load(tmp_path / "checkpoint_best.pt", weights_only=False)["model"]
    words = (binary / "input0" / "dict.txt").read_text().split()[::2]
    index = 4 + words.index("good")
    assert model["embed_tokens.weight"][index].tolist() == [1, 0, 0, 0]
    assert len(classify(tmp_path / "checkpoint_best.pt", stdin="good w1\n")) == 1


@pytest.mark.parametrize("options, message", [
    (["--num-classes", "1"], "is none of the 1 classes of --num-classes"),
    (["--num-classes", "2", "--valid-subset", "other"], r"input0.other.bin does not exist"),
    (["--num-classes", "2", "--embed-path", "missing.txt"], "cannot read missing.txt"),
    (["--num-classes", "2", "--init-token", "9999"], "--init-token must be a token of the dict"),
])
def test_mistakes_in_training_are_one_line(binary, tmp_path, options, message):
    result = run_python(
        "-m", "fairseq_cli.train", binary, "--user-dir", USER_DIR, "--task",
        "sentence_prediction", "--criterion", "sentence_prediction", "--arch",
        "sru_classifier_tiny", "--optimizer", "adam", "--batch-size", "32", "--cpu",
        "--max-epoch", "1", "--save-dir", tmp_path, *options)
    assert re.search(message, fails_in_one_line(result))


def test_a_label_file_of_one_class_trains_to_certainty(binary, tmp_path):
    """fairseq-train on constant labels: nothing to learn, and nothing breaks."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "input0").symlink_to(binary / "input0")
    (tmp_path / "labels").write_text("1\n" * 300)
    (tmp_path / "valid").write_text("1\n" * 40)
    run_fairseq("preprocess", "--only-source", "--destdir", data / "label", "--trainpref",
                tmp_path / "labels", "--validpref", tmp_path / "valid", "--padding-factor", "1")
    log = run_fairseq(
        "train", data, "--user-dir", USER_DIR, "--task", "sentence_prediction", "--criterion",
        "sentence_prediction", "--arch", "sru_classifier_tiny", "--num-classes", "1",
        "--optimizer", "adam", "--batch-size", "32", "--cpu", "--max-epoch", "1",
        "--save-dir", tmp_path).stdout
    assert "accuracy 100" in log
    assert classify(tmp_path / "checkpoint_best.pt", stdin="w1\n") == ["1\t1.0000"]


@pytest.fixture
def train_with(binary, tmp_path):
    """Trains with options of the task; the checkpoint."""

    def train(*options, data=binary):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        log = run_fairseq(
            "train", data, "--user-dir", USER_DIR, "--task", "sentence_prediction", "--criterion",
            "sentence_prediction", "--arch", "sru_classifier_tiny", "--optimizer", "adam", "--lr",
            "0.01", "--batch-size", "32", "--cpu", "--max-epoch", "1", "--num-workers", "0",
            "--save-dir", folder, *options).stdout
        assert "valid on 'valid' subset" in log
        return folder / "checkpoint_last.pt"

    return train


@pytest.mark.parametrize("options", [
    ["--init-token", "7"], ["--shorten-method", "truncate", "--max-positions", "3"],
    ["--init-token", "0", "--shorten-method", "random_crop", "--max-positions", "4",
     "--shorten-data-split-list", "train,test,valid"],
], ids=lambda options: " ".join(options[::2]))
def test_lines_become_tokens_as_in_training(train_with, binary, out, options):
    checkpoint = train_with("--num-classes", "2", *options)
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)])
    task.load_dataset("test")
    expected = {}
    with torch.no_grad():
        for i in range(len(task.dataset("test"))):
            sample = task.dataset("test").collater([task.dataset("test")[i]])
            logits, _ = model.eval()(
                **sample["net_input"], classification_head_name="sentence_classification_head",
                features_only=True)
            expected[int(sample["id"])] = f"{logits.softmax(-1).max():.4f}"
    found = classify(checkpoint, "--input", out / "mood-0" / "corpus" / "test.input0")
    assert [line.split("\t")[1] for line in found] == [expected[i] for i in range(len(found))]


def test_pairs_and_numbers_are_refused(train_with, binary, tmp_path):
    checkpoint = train_with("--num-classes", "2", "--separator-token", "5")
    result = run_python("-m", "fairseq_sru.classify", checkpoint)
    assert "trained on pairs of sentences" in fails_in_one_line(result)
    data = tmp_path / "data"
    for part in "input0", "label", "input1":
        (data / part).mkdir(parents=True)
        for file in (binary / part.replace("1", "0")).iterdir():
            (data / part / file.name).symlink_to(file)
    result = run_python("-m", "fairseq_sru.classify", train_with("--num-classes", "2", data=data))
    assert "trained on pairs of sentences" in fails_in_one_line(result)
    for split, count in ("train", 300), ("valid", 40):
        (data / "label" / f"{split}.label").write_text("0.5\n" * count)
    (data / "input1").rename(tmp_path / "elsewhere")
    checkpoint = train_with("--num-classes", "1", "--regression-target", data=data)
    result = run_python("-m", "fairseq_sru.classify", checkpoint)
    assert "predicts numbers" in fails_in_one_line(result)


def test_another_models_checkpoint_is_refused(trained):
    result = run_python("-m", "fairseq_sru.classify", trained / "checkpoint_best.pt")
    assert "is no sentence classifier" in fails_in_one_line(result)


def test_dictionaries_in_another_order_are_refused(checkpoint, binary, tmp_path):
    """The same classes, numbered otherwise, would swap every label."""
    for part in ("input0", "label"):
        (tmp_path / part).mkdir()
        lines = (binary / part / "dict.txt").read_text().splitlines(keepends=True)
        (tmp_path / part / "dict.txt").write_text("".join(lines[::-1 if part == "label" else 1]))
    result = run_python("-m", "fairseq_sru.classify", checkpoint, "--data", tmp_path)
    assert "label dictionary is not the one" in fails_in_one_line(result)
