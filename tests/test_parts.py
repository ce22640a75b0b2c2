"""No part of a data set is reported as the whole of it, and what is no data set is named."""

import argparse

import pytest
import torch
from conftest import USER_DIR, fails_in_one_line, run_python
from fairseq import options
from fairseq.data import Dictionary, data_utils, indexed_dataset
from fairseq.tasks import translation
from fairseq.tasks.language_modeling import LanguageModelingTask

from fairseq_sru.errors import UsageError
from fairseq_sru.repairs import apply
from fairseq_sru.tasks import StreamLanguageModelingTask

apply()

PARSERS = {
    "generate": options.get_generation_parser,
    "interactive": options.get_interactive_generation_parser,
    "eval-lm": options.get_eval_lm_parser,
    "validate": options.get_validation_parser,
}
LAUNCH = ["--distributed-world-size", "2", "--distributed-no-spawn", "--distributed-init-method",
          "tcp://localhost:9", "--distributed-backend", "gloo", "--distributed-rank"]


def parse(command, *args):
    parser = PARSERS[command]()
    task = ["--task", "translation"]
    return options.parse_args_and_arch(
        parser, ["data", *task, "--path", "model.pt", "--cpu", *args])


# fairseq-generate translates the shard that it is asked for
IN_PARTS = [(command, [*LAUNCH, rank]) for command in PARSERS for rank in "01"] + [
    (command, ["--num-shards", "3"]) for command in PARSERS if command != "generate"]


@pytest.mark.parametrize("command, args", IN_PARTS)
def test_an_evaluation_in_parts_is_refused(command, args, monkeypatch):
    for gpu in [False] + [True] * (command != "validate"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        with pytest.raises(UsageError, match="[23] processes or shards"):
            parse(command, *args)


def test_a_shard_is_translated_and_said_to_be_one(caplog):
    parsed = parse("generate", "--num-shards", "3", "--shard-id", "2")
    assert (parsed.distributed_world_size, parsed.distributed_rank) == (3, 2)
    assert "shard 2 of 3: scores at the end are those of its sentences" in caplog.text


def test_a_shard_without_a_batch_is_one_line(data, trained):
    result = run_python(
        "-m", "fairseq_cli.generate", data, "--user-dir", USER_DIR, "--cpu", "--path",
        trained / "checkpoint_best.pt", "--num-shards", "99", "--shard-id", "98")
    assert "--shard-id 98 has nothing to translate: there are only" in fails_in_one_line(result)


@pytest.mark.parametrize("args", [
    ["--num-shards", "3", "--shard-id", "3"], ["--num-shards", "3", "--shard-id", "-1"],
    ["--shard-id", "1"], ["--num-shards", "0", "--shard-id", "1"]])
def test_shards_that_are_none(args):
    with pytest.raises(UsageError, match="--shard-id must be from 0 to"):
        parse("generate", *args)


@pytest.mark.parametrize("command", PARSERS)
def test_torchrun_evaluates_nothing_on_a_cpu(command, monkeypatch):
    for name, value in dict(WORLD_SIZE="2", RANK="0", MASTER_ADDR="localhost",
                            MASTER_PORT="9").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="2 processes or shards"):
        parse(command)


@pytest.mark.parametrize("command", PARSERS)
def test_one_process_is_not_refused(command):
    assert parse(command).path == "model.pt"


def test_training_in_two_processes_is_not_refused():
    parser = options.get_training_parser()
    args = ["data", "--arch", "transformer_tiny", "--cpu", *LAUNCH, "1"]
    assert options.parse_args_and_arch(parser, args).distributed_rank == 1


@pytest.mark.parametrize("task", [LanguageModelingTask, StreamLanguageModelingTask])
def test_a_language_model_in_processes_that_torchrun_started(task):
    made = task(argparse.Namespace(tokens_per_sample=4, output_dictionary_size=-1), Dictionary())
    with pytest.raises(UsageError, match="2 processes or shards"):
        made.eval_lm_dataloader(dataset=None, num_shards=2, shard_id=0)


@pytest.mark.parametrize("args, message", [
    (["--beam", "0"], "--beam must be a whole number, at least 1, got 0"),
    (["--beam", "-3"], "--beam must be a whole number, at least 1, got -3"),
    (["--nbest", "0"], "--nbest must be a whole number, at least 1, got 0"),
    (["--beam", "2", "--nbest", "3"], r"--nbest must be between 1 and --beam \(2\), got 3"),
])
@pytest.mark.parametrize("command", ["generate", "interactive"])
def test_impossible_beams(command, args, message):
    with pytest.raises(UsageError, match=message):
        parse(command, *args)


@pytest.mark.parametrize("args, message", [
    (["--replace-unk"], "--replace-unk needs --print-alignment"),
    (["--replace-unk", "--print-alignment", "soft"], "--replace-unk needs --print-alignment"),
    (["--replace-unk", "none", "--print-alignment"], "there is no file none"),
    (["--replace-unk", "--print-alignment", "--remove-bpe"], "leave out --post-process"),
    (["--replace-unk", "--print-alignment"], "give --dataset-impl raw"),
])
def test_replacing_unknown_words_without_what_it_needs(args, message):
    with pytest.raises(UsageError, match=message):
        parse("generate", *args)


def write_side(stem, lines):
    builder = indexed_dataset.make_builder(f"{stem}.bin", "mmap", vocab_size=20)
    for line in lines:
        builder.add_item(torch.tensor(line))
    builder.finalize(f"{stem}.idx")


def load_pair(folder):
    words = Dictionary()
    return translation.load_langpair_dataset(
        str(folder), "train", "de", words, "en", words, False, None, -1, False, False, 100, 100)


@pytest.mark.parametrize("german, english, message", [
    ([[5, 2]], [[5, 2], [6, 2]], "have not as many lines"),
    ([], [], r"train.de-en.de.bin is empty"),
    ([[5, 2]], [], r"train.de-en.en.bin is empty"),
    ([], [[5, 2]], r"train.de-en.de.bin is empty"),
])
def test_sides_that_do_not_fit(german, english, message, tmp_path):
    write_side(tmp_path / "train.de-en.de", german)
    write_side(tmp_path / "train.de-en.en", english)
    with pytest.raises(UsageError, match=message) as caught:
        load_pair(tmp_path)
    assert "\n" not in str(caught.value) and "fairseq-preprocess" in str(caught.value)


def test_a_corpus_of_one_side(tmp_path):
    write_side(tmp_path / "train.de-en.en", [[5, 2]])
    with pytest.raises(UsageError, match="train.de-en.de.bin and .idx do not exist"):
        load_pair(tmp_path)


@pytest.mark.parametrize("half", ["bin", "idx"])
@pytest.mark.parametrize("content", [b"", b"text", b"MMIDIDX\0\0" + bytes(8), bytes(200)])
def test_damaged_data(content, half, tmp_path):
    stem = tmp_path / "train"
    write_side(stem, [[5, 2], [6, 7, 2]])
    stem.with_suffix(f".{half}").write_bytes(content)
    try:
        found = data_utils.load_indexed_dataset(str(stem))
    except UsageError as error:
        assert "\n" not in str(error) and str(stem) in str(error)
    else:  # numbers have no check sum
        assert half == "bin" and len(found) == 2
