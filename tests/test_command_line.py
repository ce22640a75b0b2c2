"""fairseq's commands with the plugin: what works, and one line for each thing that cannot."""

import os
import re
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    TRAIN_OPTIONS,
    USER_DIR,
    fails_in_one_line,
    run_fairseq,
    run_python,
    train,
)
from fairseq import distributed_utils, file_io, options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.file_io import PathManager
from fairseq_cli import generate as fairseq_generate
from fairseq_cli import train as fairseq_train

import fairseq_sru
from fairseq_sru.average_checkpoints import average, find_checkpoints
from fairseq_sru.errors import UsageError
from fairseq_sru.tasks.generation import _Choice

fairseq_sru.register()


def parameters(path):
    return torch.load(path, weights_only=True)["model"]


def assert_same_model(one, other, **tolerance):
    one, other = parameters(one), parameters(other)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], **(tolerance or {"rtol": 0, "atol": 0}))


def updates(log):
    return [int(n) for n in re.findall(r"num_updates[\"': ]+(\d+)", log)]


def generate(data, path, folder, *args):
    """fairseq-generate in this process: {sentence: {letter: [fields, ...]}} of its output."""
    command = [data, "--user-dir", USER_DIR, "--path", path, "--cpu", "--results-path", folder,
               "--max-len-b", "12", "--num-workers", "0", *args]
    parser = options.get_generation_parser()
    fairseq_generate.main(options.parse_args_and_arch(parser, [*map(str, command)]))
    return parse((folder / "generate-test.txt").read_text())


def parse(output):
    found = {}
    for line in output.splitlines():
        match = re.match(r"([STHDPA])-(\d+)\t(.*)", line)
        if match:
            letter, number, rest = match.groups()
            found.setdefault(int(number), {}).setdefault(letter, []).append(rest.split("\t"))
    return found


def refused(data, save_dir, *args):
    """fairseq-train in this process, which must not get as far as training; the message."""
    command = [data, *TRAIN_OPTIONS, "--save-dir", save_dir, *args]
    with pytest.raises(UsageError) as caught:
        parsed = options.parse_args_and_arch(options.get_training_parser(), [*map(str, command)])
        distributed_utils.call_main(convert_namespace_to_omegaconf(parsed), fairseq_train.main)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def hypotheses(found):
    return {number: [text for _, text in lines["H"]] for number, lines in found.items()}


@pytest.fixture(scope="module")
def translated(data, trained, tmp_path_factory):
    best = trained / "checkpoint_best.pt"
    return generate(data, best, tmp_path_factory.mktemp("translated"), "--beam", "2")


def test_training_learns_and_saves(trained):
    losses = re.findall(r"valid on 'valid' subset \| loss ([\d.]+)",
                        (trained / "train.log").read_text())
    assert float(losses[-1]) < float(losses[0]) < np.log2(48)
    state = torch.load(trained / "checkpoint_last.pt", weights_only=True)
    assert state["cfg"]["optimizer"]["_name"] == "radam"
    assert state["cfg"]["model"]["_name"] == "srupp_tiny"


def test_resuming_equals_never_stopping(data, trained, tmp_path):
    """From the middle of an epoch, bit for bit."""
    result = train(data, tmp_path, "--max-epoch", "3", "--dropout", "0.1",
                   "--restore-file", trained / "checkpoint_2_16.pt")
    assert re.search(r"Loaded checkpoint .*checkpoint_2_16.pt \(epoch 2 @ 16 updates\)",
                     result.stdout)
    assert_same_model(tmp_path / "checkpoint_last.pt", trained / "checkpoint_last.pt")


@pytest.mark.parametrize("task", [(), ("--task", "translation")])
def test_validate(data, trained, task):
    """The task is the checkpoint's, unless one is named."""
    result = run_fairseq("validate", data, "--user-dir", USER_DIR, *task,
                         "--path", trained / "checkpoint_last.pt", "--max-tokens", "256", "--cpu")
    loss = re.findall(r"valid on 'valid' subset \| loss ([\d.]+)", result.stdout)
    logged = re.findall(r"valid on 'valid' subset \| loss ([\d.]+)",
                        (trained / "train.log").read_text())
    assert loss == logged[-1:]


def test_results_on_a_full_disk_are_not_left_half_written(data, trained, tmp_path):
    """The size of a file is limited to 512 bytes."""
    program = ("import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
               "resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512)); "
               "sys.argv[:1] = ['fairseq-generate']; from fairseq_cli.generate import cli_main; "
               "cli_main()")
    result = run_python("-c", program, data, "--user-dir", USER_DIR, "--cpu", "--path",
                        trained / "checkpoint_best.pt", "--results-path", tmp_path,
                        "--num-workers", "0")
    assert "File too large" in fails_in_one_line(result)
    assert list(tmp_path.iterdir()) == []


def test_generate_command(data, trained, translated):
    result = run_fairseq("generate", data, "--user-dir", USER_DIR, "--cpu", "--beam", "2",
                         "--path", trained / "checkpoint_best.pt", "--max-len-b", "12")
    assert parse(result.stdout) == translated
    assert "Generate test with beam=2: BLEU4" in result.stdout


def test_every_sentence_is_translated(corpus, translated):
    source = (corpus / "test.de").read_text().splitlines()
    target = (corpus / "test.en").read_text().splitlines()
    assert {n: lines["S"][0][0] for n, lines in translated.items()} == dict(enumerate(source))
    assert {n: lines["T"][0][0] for n, lines in translated.items()} == dict(enumerate(target))


@pytest.mark.parametrize("lenpen", [0, 1, 2])
def test_n_best_and_length_penalty(data, trained, tmp_path, lenpen):
    """Scores fall, and are the sum of the token scores over length ** penalty."""
    found = generate(data, trained / "checkpoint_best.pt", tmp_path, "--beam", "4", "--nbest", "3",
                     "--lenpen", lenpen)
    for lines in found.values():
        scores = [float(score) for score, _ in lines["H"]]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True)
        for score, [tokens] in zip(scores, lines["P"]):
            tokens = [float(token) for token in tokens.split()]
            assert score == pytest.approx(sum(tokens) / len(tokens)**lenpen, abs=1e-3)


def test_prefix(data, trained, tmp_path):
    found = generate(data, trained / "checkpoint_best.pt", tmp_path, "--prefix-size", "2")
    for lines in found.values():
        assert lines["H"][0][1].split()[:2] == lines["T"][0][0].split()[:2]


def test_ensemble(data, trained, translated, tmp_path):
    best = trained / "checkpoint_best.pt"
    twice = generate(data, f"{best}:{best}", tmp_path / "twice", "--beam", "2")
    assert hypotheses(twice) == hypotheses(translated)
    for number, lines in twice.items():
        expected = float(translated[number]["H"][0][0])
        assert float(lines["H"][0][0]) == pytest.approx(expected, abs=1e-4)
    first = trained / "checkpoint1.pt"
    mixed = generate(data, f"{best}:{first}", tmp_path / "mixed", "--beam", "2")
    assert len(mixed) == 20
    assert [lines["H"][0][0] for lines in mixed.values()] != [
        lines["H"][0][0] for lines in twice.values()]


def test_sampling(data, trained, tmp_path):
    def sample(seed):
        args = "--sampling", "--beam", "3", "--nbest", "3", "--seed", seed
        return hypotheses(generate(data, trained / "checkpoint_best.pt", tmp_path, *args))

    one, two, again = sample(1), sample(2), sample(1)
    assert one == again != two
    assert any(len(set(texts)) > 1 for texts in one.values())


def test_shards_are_the_test_set_once(data, trained, translated, tmp_path):
    """fairseq-generate --num-shards --shard-id, which translated all sentences in every shard."""
    shards = [
        generate(data, trained / "checkpoint_best.pt", tmp_path / shard, "--beam", "2",
                 "--batch-size", "3", "--num-shards", "2", "--shard-id", shard)
        for shard in ("0", "1")
    ]
    assert all(shards) and not shards[0].keys() & shards[1].keys()
    assert hypotheses({**shards[0], **shards[1]}) == hypotheses(translated)


def test_diverse_beams_do_not_depend_on_the_batch(data, trained, tmp_path):
    found = [
        hypotheses(generate(
            data, trained / "checkpoint_best.pt", tmp_path / size, "--beam", "4", "--nbest", "4",
            "--diverse-beam-groups", "2", "--diverse-beam-strength", "0.9", "--batch-size", size))
        for size in ("1", "7", "20")
    ]
    assert len(found[0]) == 20 and found[0] == found[1] == found[2]


@pytest.mark.parametrize("modules", [(), ("--retain-dropout-modules", "SRUppLayer,Recurrence")])
def test_monte_carlo_dropout(data, trained, tmp_path, modules, caplog):
    """Another draw of dropout, another score; by fairseq's search, as the log says."""
    def scores(seed):
        found = generate(data, trained / "checkpoint_best.pt", tmp_path, "--beam", "2",
                         "--retain-dropout", *modules, "--seed", seed)
        return [lines["H"] for lines in found.values()]

    caplog.set_level("INFO")
    assert scores("1") == scores("1") != scores("2")
    assert "decoding by fairseq's search: --retain-dropout" in caplog.text


def test_interactive(corpus, data, trained, translated):
    result = run_fairseq(
        "interactive", data, "--user-dir", USER_DIR, "--path", trained / "checkpoint_best.pt",
        "--cpu", "--beam", "2", "--max-len-b", "12", "-s", "de", "-t", "en", "--buffer-size", "8",
        "--max-tokens", "100", stdin=(corpus / "test.de").read_text(),
    )
    assert hypotheses(parse(result.stdout)) == hypotheses(translated)


def test_averaging(data, trained, tmp_path):
    output = tmp_path / "new" / "average.pt"
    result = run_python("-m", "fairseq_sru.average_checkpoints", "--inputs", trained,
                        "--num-epoch-checkpoints", "2", "--output", output)
    assert result.returncode == 0, result.stderr
    mean, models = parameters(output), [parameters(trained / f"checkpoint{n}.pt") for n in (2, 3)]
    for name, value in mean.items():
        expected = sum(model[name].double() for model in models) / 2
        torch.testing.assert_close(value, expected.to(value.dtype), rtol=0, atol=0)
    assert os.listdir(output.parent) == ["average.pt"]
    assert len(generate(data, output, tmp_path, "--beam", "2")) == 20


def test_training_does_not_go_on_from_an_average(data, trained, tmp_path):
    """It has no optimizer state; a new training may start from its parameters."""
    mean = average([str(trained / f"checkpoint{n}.pt") for n in (2, 3)])
    torch.save(mean, tmp_path / "mean.pt")
    message = refused(data, tmp_path / "new", "--restore-file", tmp_path / "mean.pt")
    assert "without the state of an optimizer" in message and "--finetune-from-model" in message
    result = train(data, tmp_path / "new", "--finetune-from-model", tmp_path / "mean.pt",
                   "--max-update", "2")
    assert updates(result.stdout)[-1] == 2


def test_averaging_refuses(trained, tmp_path):
    good = str(trained / "checkpoint1.pt")
    damaged, other = tmp_path / "damaged.pt", tmp_path / "other.pt"
    damaged.write_bytes((trained / "checkpoint1.pt").read_bytes()[:5000])
    state = torch.load(good, weights_only=True)
    name, value = next((n, v) for n, v in state["model"].items() if v.dim() == 2)
    state["model"][name] = value[:-1]
    torch.save(state, other)
    for inputs, message in [
        ([good, str(tmp_path / "none.pt")], "cannot read .*none.pt: No such file"),
        ([good, str(damaged)], "damaged.pt is truncated"),
        ([good, str(other)], f"not of one model: {name} is"),
    ]:
        with pytest.raises(UsageError, match=message):
            average(inputs)
    for arguments, message in [
        (([str(trained)],), "is a folder: add --num-epoch-checkpoints"),
        (([str(trained)], 4), r"has 3 files checkpointE.pt, cannot average 4"),
        (([str(trained)], None, 9), r"has 3 files checkpoint_E_U.pt, cannot average 9"),
        (([good, good], 2), "need --inputs to be one existing folder"),
    ]:
        with pytest.raises(UsageError, match=message):
            find_checkpoints(*arguments)
    found = [os.path.basename(path) for path in find_checkpoints([str(trained)], updates=2)]
    assert found == ["checkpoint_3_24.pt", "checkpoint_2_16.pt"]
    result = run_python("-m", "fairseq_sru.average_checkpoints", "--inputs", other, "--output",
                        other)
    assert "other.pt is one of the checkpoints to average" in fails_in_one_line(result)


@pytest.mark.parametrize("precision", ["--bf16", "--memory-efficient-bf16", "--amp"])
def test_precisions(data, tmp_path, precision):
    """Train and translate; 16-bit weights are what is saved, in float32 files."""
    train(data, tmp_path, precision, "--max-update", "4", "--no-epoch-checkpoints")
    weights = parameters(tmp_path / "checkpoint_last.pt").values()
    assert all(weight.dtype == torch.float32 for weight in weights)
    rounded = all(torch.equal(weight, weight.bfloat16().float()) for weight in weights)
    assert rounded == (precision != "--amp")
    found = generate(data, tmp_path / "checkpoint_last.pt", tmp_path, "--beam", "2")
    assert len(found) == 20


def test_bleu_during_validation(data, tmp_path):
    """These checkpoints hold numpy arrays; resuming reads them."""
    for stop in "2", "3":
        result = train(
            data, tmp_path, "--max-update", stop, "--no-epoch-checkpoints", "--eval-bleu",
            "--eval-bleu-args", '{"beam": 2, "max_len_b": 12}', "--best-checkpoint-metric", "bleu",
            "--maximize-best-checkpoint-metric", "--num-batch-buckets", "3",
        )
    assert "@ 2 updates)" in result.stdout and re.search(r"\| bleu \d", result.stdout)


def test_errors_are_one_line_without_a_trace(data, tmp_path):
    command = data, *TRAIN_OPTIONS, "--save-dir", tmp_path, "--num-heads", "3"
    message = fails_in_one_line(run_python("-m", "fairseq_cli.train", *command))
    assert message == "error: num_heads (3) does not divide proj_size (8)"


@pytest.mark.parametrize("args, message", [
    (["--fp16"], "--fp16 needs a GPU"),
    (["--num-heads", "3"], "num_heads"),
    (["--encoder-attention", "some"], "attention must be all, none, every:K"),
    (["--share-all-embeddings"], "--joined-dictionary"),
    (["--radam-betas", "0.9"], "--radam-betas must be two numbers"),
])
def test_impossible_options(data, tmp_path, args, message):
    assert message in refused(data, tmp_path, *args)


def test_truncated_checkpoint_is_not_overwritten(data, trained, tmp_path):
    """Training stops before it starts, and the folder is as it was."""
    last = tmp_path / "checkpoint_last.pt"
    last.write_bytes((trained / "checkpoint_last.pt").read_bytes()[:-100])
    shutil.copy(trained / "checkpoint2.pt", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = run_python("-m", "fairseq_cli.train", data, *TRAIN_OPTIONS, "--save-dir", tmp_path)
    message = fails_in_one_line(result)
    assert "checkpoint_last.pt is truncated" in message
    assert f"use {tmp_path / 'checkpoint2.pt'} instead" in message
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("repaired", [False, True])
def test_an_interrupted_copy_leaves_the_old_checkpoint(repaired, tmp_path, monkeypatch):
    copy = PathManager.copy if repaired else PathManager.copy.__wrapped__
    old, new = tmp_path / "checkpoint_last.pt", tmp_path / "checkpoint2.pt"
    old.write_text("old"), new.write_text("new one")

    def interrupted(source, target):
        Path(target).write_text(Path(source).read_text()[:2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(file_io.shutil, "copyfile", interrupted)
        with pytest.raises(KeyboardInterrupt):
            copy(str(new), str(old), overwrite=True)
    assert old.read_text() == ("old" if repaired else "ne")
    assert copy(str(new), str(old), overwrite=True) and old.read_text() == "new one"


@pytest.mark.parametrize("keep", [0, 100, 5000, -2000, -1])
def test_truncated_checkpoint(data, trained, tmp_path, keep):
    path = tmp_path / "model.pt"
    path.write_bytes((trained / "checkpoint_best.pt").read_bytes()[:keep])
    with pytest.raises(UsageError, match="model.pt is truncated or not a checkpoint"):
        generate(data, path, tmp_path)


def test_files_that_are_no_checkpoints(data, tmp_path):
    path = tmp_path / "model.pt"
    for content, message in [
        ({"weights": torch.ones(1)}, "is not a fairseq checkpoint"),
        ([1, 2], "is not a fairseq checkpoint"),
        ({"model": Fraction(1)}, "holds a fractions.Fraction, which may run code"),
    ]:
        torch.save(content, path)
        with pytest.raises(UsageError, match=message):
            generate(data, path, tmp_path)
    path.write_text("not a checkpoint")
    with pytest.raises(UsageError, match="is truncated or not a checkpoint"):
        generate(data, path, tmp_path)
    with pytest.raises(UsageError, match="none.pt: check --path"):
        generate(data, tmp_path / "none.pt", tmp_path)


@pytest.fixture
def other_data(data, tmp_path):
    """A copy of the data folder, to spoil."""
    return shutil.copytree(data, tmp_path / "bin")


def test_larger_dictionary(other_data, trained, tmp_path):
    with open(other_data / "dict.en.txt", "a") as dictionary:
        dictionary.write("".join(f"new{n} 1\n" for n in range(8)))
    with pytest.raises(UsageError) as caught:
        generate(other_data, trained / "checkpoint_best.pt", tmp_path)
    types = len((other_data / "dict.en.txt").read_text().splitlines()) + 4
    message = str(caught.value)
    assert "the target dictionary is not the one the checkpoint was trained with" in message
    assert f"({types - 8} types then, {types} now)" in message


def test_dictionary_of_the_same_size(other_data, trained, tmp_path):
    """The costliest mistake: without the check, fluent nonsense."""
    path = other_data / "dict.de.txt"
    first, second, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join([second, first, *others]))
    with pytest.raises(UsageError, match="the source dictionary is not the one"):
        generate(other_data, trained / "checkpoint_best.pt", tmp_path)
    message = refused(other_data, tmp_path, "--restore-file", trained / "checkpoint_last.pt")
    assert "the source dictionary is not the one" in message


def test_checkpoints_that_remember_no_dictionary(other_data, trained, tmp_path):
    """Those of fairseq without the plugin are told by their shapes."""
    state = torch.load(trained / "checkpoint_best.pt", weights_only=True)
    del state["task_state"]["dictionaries"]
    torch.save(state, tmp_path / "model.pt")
    assert len(generate(other_data, tmp_path / "model.pt", tmp_path)) == 20
    with open(other_data / "dict.en.txt", "a") as dictionary:
        dictionary.write("new 1\n")
    with pytest.raises(UsageError, match=r"the dictionary has (\d+) types, the checkpoint's had"):
        generate(other_data, tmp_path / "model.pt", tmp_path)
    message = refused(other_data, tmp_path, "--restore-file", tmp_path / "model.pt")
    assert "the dictionary has" in message


def test_sides_of_different_lengths(other_data, corpus, tmp_path):
    """Of a pair of files with a lone carriage return, fairseq-preprocess makes such sides."""
    with open(corpus / "train.de") as file:
        (tmp_path / "train.de").write_text("wort1 \r wort2\n" + file.read())
    with open(corpus / "train.en") as file:
        (tmp_path / "train.en").write_text("word1 word2\n" + file.read())
    run_fairseq("preprocess", "-s", "de", "-t", "en", "--trainpref", tmp_path / "train",
                "--srcdict", other_data / "dict.de.txt", "--tgtdict", other_data / "dict.en.txt",
                "--validpref", corpus / "valid", "--destdir", tmp_path / "bin")
    message = refused(tmp_path / "bin", tmp_path)
    assert "two sides of the train data have not as many lines" in message


@pytest.mark.parametrize("place, wrong", [
    (("task_state",), "text"), (("task_state", "dictionaries"), "text"),
    (("task_state", "dictionaries", "source"), 7), (("extra_state",), [1]),
    (("extra_state", "train_iterator"), "text"), (("extra_state", "train_iterator", "epoch"), "1"),
    (("extra_state", "train_iterator", "iterations_in_epoch"), None),
    (("optimizer_history",), "text"), (("optimizer_history",), []), (("optimizer_history", 0), 7),
    (("optimizer_history", 0, "num_updates"), "text"),
    (("last_optimizer_state",), "text"), (("last_optimizer_state", "state"), "text"),
    (("last_optimizer_state", "param_groups"), 7),
])
def test_states_of_another_kind(data, trained, tmp_path, place, wrong):
    """Training does not go on from them, and leaves them as they are."""
    state = torch.load(trained / "checkpoint_last.pt", weights_only=True)
    part = state
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = wrong
    path = tmp_path / "checkpoint_last.pt"
    torch.save(state, path)
    before = path.read_bytes()
    assert "checkpoint_last.pt" in refused(data, tmp_path, "--max-epoch", "4")
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_bytes() == before


def test_another_architecture(data, trained, tmp_path):
    message = refused(data, tmp_path, "--encoder-layers", "3", "--restore-file",
                            trained / "checkpoint_last.pt")
    assert re.search(r"the checkpoint is of another model \(\d+ parameters differ", message)


@pytest.mark.parametrize("lost, message", [
    ("dict.de.txt", "dict.de.txt does not exist"),
    ("valid.de-en.de.idx", "valid.de-en.de.idx does not exist"),
    ("train.de-en.en.bin", "train.de-en.en.bin does not exist"),
    ("valid.*", "valid.de-en.de.bin and .idx do not exist"),
    ("train.de-en.en.*", "the train data has no en side"),
])
def test_missing_data(other_data, tmp_path, lost, message):
    for path in other_data.glob(lost):
        path.unlink()
    save_dir = tmp_path / "saved"
    found = refused(other_data, save_dir, "-s", "de", "-t", "en")
    assert message in found and "fairseq-preprocess" in found
    assert not save_dir.exists() or not os.listdir(save_dir)


def test_missing_subset(data, trained, tmp_path):
    best = trained / "checkpoint_best.pt"
    with pytest.raises(UsageError, match="test1.de-en.de.bin and .idx do not exist"):
        generate(data, best, tmp_path, "--gen-subset", "test1", "-s", "de", "-t", "en")


@pytest.mark.parametrize("args, message", [
    (["--max-tokens", "3"], r"--max-tokens \(3; "),
    (["--gen-subset", "nope"], "nope.de-en.de.bin and .idx do not exist: name a subset"),
    (["--min-len", "40", "--max-len-a", "0.5"], "--min-len .*40"),
    (["--min-len", "40", "--max-len-a", "0.5", "--srupp-engine", "off"], "--min-len .*40"),
])
def test_what_the_data_refuses(data, trained, tmp_path, args, message):
    with pytest.raises(UsageError, match=message):
        generate(data, trained / "checkpoint_best.pt", tmp_path, *args)
    _Choice.chosen = "float32"  # which --srupp-engine sets for the whole process


def test_hypotheses_longer_than_200_tokens(data, trained, tmp_path):
    found = generate(data, trained / "checkpoint_best.pt", tmp_path, "--beam", "1", "--min-len",
                     "205", "--max-len-b", "210", "--batch-size", "20")
    assert all(len(lines["P"][0][0].split()) > 205 for lines in found.values())


def test_what_fairseq_says_of_an_option_is_one_line(data):
    """Its own words, without the trace."""
    result = run_python("-m", "fairseq_cli.generate", data, "--user-dir", USER_DIR, "--cpu")
    assert fails_in_one_line(result) == "error: --path required for generation!"


def test_missing_folder(tmp_path):
    assert f"{tmp_path / 'none'} does not exist" in refused(tmp_path / "none", tmp_path)


def test_source_alone_can_be_translated(other_data, trained, translated, tmp_path):
    for path in other_data.glob("test.de-en.en.*"):
        path.unlink()
    found = generate(other_data, trained / "checkpoint_best.pt", tmp_path, "--beam", "2")
    assert hypotheses(found) == hypotheses(translated)
