"""Streams: every token once, memory per pass, exact resumption, processes, fairseq's commands."""

from __future__ import annotations

import lzma
import os
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, USER_DIR, binarise, run_fairseq, run_python, train_on_two_ranks
from fairseq import checkpoint_utils, options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.tasks.language_modeling import LanguageModelingTask
from fairseq_cli import eval_lm as fairseq_eval_lm
from fairseq_cli import generate as fairseq_generate
from fairseq_cli import train as fairseq_train

import fairseq_sru
from fairseq_sru.errors import UsageError
from fairseq_sru.state import StreamMemory
from fairseq_sru.tasks.byte_tokens import ByteTokens
from fairseq_sru.tasks.streams import StreamBatchIterator, Streams, Text

fairseq_sru.register()

PAD, EOS = 1, 2
TRAIN = [
    "--user-dir", USER_DIR, "--task", "srupp_language_modeling", "--arch", "srupp_lm_tiny",
    "--tokens-per-sample", "6", "--optimizer", "radam", "--lr", "0.01", "--num-workers", "0",
    "--cpu", "--log-format", "simple", "--log-interval", "4",
]


def train(data, save_dir, *args) -> Path:
    """fairseq-train in this process; the last checkpoint."""
    vars(checkpoint_utils.save_checkpoint).pop("best", None)
    command = [data, *TRAIN, "--batch-size", "4", "--save-dir", save_dir, *args]
    parser = options.get_training_parser()
    parsed = options.parse_args_and_arch(parser, [*map(str, command)])
    fairseq_train.main(convert_namespace_to_omegaconf(parsed))
    return Path(save_dir) / "checkpoint_last.pt"


def evaluate(data, path, *args, task="srupp_language_modeling"):
    """fairseq-eval-lm in this process: bits per token."""
    command = [data, "--user-dir", USER_DIR, "--task", task, "--path", path, "--cpu",
               "--num-workers", "0", *args]
    parser = options.get_eval_lm_parser()
    parsed = options.parse_args_and_arch(parser, [*map(str, command)])
    return float(fairseq_eval_lm.main(convert_namespace_to_omegaconf(parsed))["loss"])


@pytest.fixture(scope="module")
def trained(lm_data, tmp_path_factory) -> Path:
    return train(lm_data, tmp_path_factory.mktemp("trained"), "--max-epoch", "3")


def build_task(data, **values):
    command = [str(data), "--task", "srupp_language_modeling"]
    for name, value in values.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    parsed = options.parse_args_and_arch(options.get_validation_parser(), command)
    return tasks.setup_task(convert_namespace_to_omegaconf(parsed).task)


def parameters(path):
    return torch.load(path, weights_only=True)["model"]


def assert_same_model(one, other, atol=0.0):
    one, other = parameters(one), parameters(other)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=atol)


def make_text(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, 50, (count,), generator=generator)
    cuts = torch.randint(0, count + 1, (count // 4,), generator=generator).sort().values.tolist()
    lines = [tokens[a:b] for a, b in zip([0, *cuts], [*cuts, count])]  # some are empty
    return tokens, Text(lines, np.array([len(line) for line in lines]), training=True)


def test_a_text_is_read_from_anywhere_to_anywhere():
    tokens, text = make_text(41)
    assert text.num_words == 41
    for start in range(42):
        for end in range(start, 42):
            assert text.read(start, end).tolist() == tokens[start:end].tolist()


@pytest.mark.parametrize("count, streams, segment", [
    (40, 4, 5), (41, 4, 5), (43, 4, 5), (40, 1, 7), (7, 7, 3), (8, 7, 1), (40, 3, 100)])
@pytest.mark.parametrize("processes", [1, 2])
def test_every_token_is_a_target_once(count, streams, segment, processes):
    """Its input is the token before it, </s> at the start of a stream, in all segments alike."""
    tokens, text = make_text(count)
    if streams * processes > count:
        with pytest.raises(UsageError, match="cannot fill"):
            Streams(text, streams, segment, PAD, EOS, processes)
        return
    shares = [Streams(text, streams, segment, PAD, EOS, processes, p) for p in range(processes)]
    assert len({len(share) for share in shares}) == 1
    targets, counted = [], 0
    for share in shares:
        batches = [share.collater([share[i]]) for i in range(len(share))]
        counted += sum(batch["ntokens"] for batch in batches)
        for row in range(streams):
            source = torch.cat([b["net_input"]["src_tokens"][row] for b in batches])
            target = torch.cat([b["target"][row] for b in batches])
            real = target != PAD
            assert torch.equal(real, source != PAD)
            assert source[0] == EOS
            assert torch.equal(source[real][1:], target[real][:-1])
            targets.append(target[real])
        for batch in batches:
            assert batch["net_input"]["padded"] == bool(batch["target"].eq(PAD).any())
    assert counted == count
    assert torch.equal(torch.cat(targets), tokens)


def test_two_processes_see_what_one_sees():
    _, text = make_text(101)
    one = Streams(text, 6, 4, PAD, EOS)
    two = [Streams(text, 3, 4, PAD, EOS, 2, p) for p in range(2)]
    assert len(one) == len(two[0])
    for i in range(len(one)):
        for whole, left, right in zip(one[i][1:], two[0][i][1:], two[1][i][1:]):
            assert torch.equal(whole, torch.cat([left, right]))


def test_every_pass_has_a_memory_of_its_own(lm_data):
    task = build_task(lm_data, tokens_per_sample=6, eval_context=9, eval_segment=4)
    seen = []
    for split in ("train", "valid"):
        task.load_dataset(split)
        batches = task.get_batch_iterator(task.dataset(split), max_sentences=3)
        for _ in range(2):  # epochs
            memory = None
            for batch in batches.next_epoch_itr(shuffle=True):
                assert batch["net_input"]["src_tokens"].size(1) <= (6 if split == "train" else 4)
                previous, memory = memory, batch["net_input"]["memory"]
                if previous is None:
                    assert memory.before is None
                else:
                    assert memory.before is previous.after == "state"
                assert (memory.train_context, memory.eval_context) == (6, 9)
                assert memory not in seen
                memory.leave("state")
                seen.append(memory)


def test_streams_come_in_order_from_worker_processes_too(lm_data):
    task = build_task(lm_data, tokens_per_sample=6)
    task.load_dataset("train")
    batches = [
        [b["target"] for b in task.get_batch_iterator(
            task.dataset("train"), max_sentences=3, **how).next_epoch_itr(shuffle=True)]
        for how in ({}, dict(num_workers=2), dict(num_workers=1, data_buffer_size=4))
    ]
    for other in batches[1:]:
        assert len(other) == len(batches[0])
        assert all(torch.equal(*pair) for pair in zip(batches[0], other))


def test_the_number_of_streams_may_follow_from_max_tokens(lm_data):
    task = build_task(lm_data, tokens_per_sample=6)
    task.load_dataset("train")
    batches = task.get_batch_iterator(task.dataset("train"), max_tokens=32)
    assert batches.first_batch["net_input"]["src_tokens"].shape == (5, 6)


def test_validation_leaves_the_training_memory_alone(lm_data, tmp_path):
    with_it = train(lm_data, tmp_path / "with", "--max-epoch", "2",
                    "--validate-interval-updates", "3")
    without = train(lm_data, tmp_path / "without", "--max-epoch", "2", "--disable-validation")
    assert_same_model(with_it, without)


@pytest.mark.parametrize("options", [
    ("--save-interval-updates", "5"),
    ("--save-interval-updates", "5", "--update-freq", "2", "--attention", "2"),
    ("--save-interval-updates", "5", "--adaptive-cutoff", "8,20", "--tie-adaptive-proj",
     "--criterion", "adaptive_loss", "--ddp-backend", "legacy_ddp"),
    ("--save-interval-updates", "5", "--project-memory"),
], ids=["plain", "accumulating", "adaptive", "projected"])
def test_a_run_resumed_in_the_middle_of_an_epoch_is_the_same_run(lm_data, tmp_path, options):
    """To the last bit: the state of the streams is part of the checkpoint."""
    straight = train(lm_data, tmp_path / "straight", *options, "--max-update", "27")
    train(lm_data, tmp_path / "resumed", *options, "--max-update", "5")
    state = torch.load(tmp_path / "resumed" / "checkpoint_last.pt", weights_only=True)
    iterator = state["extra_state"]["train_iterator"]
    assert iterator["iterations_in_epoch"] in (5, 10)
    assert [len(s["cells"]) for s in iterator["streams"]] == [2]
    resumed = train(lm_data, tmp_path / "resumed", *options, "--max-update", "27")
    assert_same_model(straight, resumed)


def test_without_the_saved_state_the_resumed_run_would_differ(lm_data, tmp_path):
    """The test above can fail."""
    straight = train(lm_data, tmp_path / "straight", "--max-update", "8")
    path = train(lm_data, tmp_path / "resumed", "--max-update", "5")
    state = torch.load(path, weights_only=True)
    for streams in state["extra_state"]["train_iterator"]["streams"]:
        streams["cells"].zero_()
    torch.save(state, path)
    resumed = train(lm_data, tmp_path / "resumed", "--max-update", "8")
    with pytest.raises(AssertionError):
        assert_same_model(straight, resumed)


def test_streams_of_another_number_cannot_be_resumed(lm_data, tmp_path):
    train(lm_data, tmp_path, "--max-update", "5")
    with pytest.raises(UsageError, match="over 1 x 4 streams .* this run has 1 x 2"):
        train(lm_data, tmp_path, "--batch-size", "2", "--max-update", "7")
    train(lm_data, tmp_path, "--batch-size", "2", "--max-update", "7", "--reset-dataloader")


def test_another_tasks_epoch_cannot_be_resumed(lm_data, tmp_path):
    stateless = ("--task", "language_modeling", "--max-tokens", "64", "--batch-size", "8")
    train(lm_data, tmp_path, *stateless, "--max-update", "3")
    with pytest.raises(UsageError, match="another task: add --reset-dataloader"):
        train(lm_data, tmp_path, "--max-update", "5")


def test_two_processes_train_as_one_and_resume(lm_data, tmp_path):
    """Each on its half of the streams."""

    def two(folder, stop):
        train_on_two_ranks(lm_data, *TRAIN, "--batch-size", "2", "--dropout", "0",
                           "--max-update", stop, "--save-dir", folder)
        return folder / "checkpoint_last.pt"

    one = train(lm_data, tmp_path / "one", "--dropout", "0", "--max-update", "9")
    straight = two(tmp_path / "straight", 9)
    assert_same_model(one, straight, atol=1e-5)
    two(tmp_path / "resumed", 5)
    assert_same_model(straight, two(tmp_path / "resumed", 9), atol=1e-6)
    difference = [
        torch.load(path, weights_only=True)["extra_state"]["val_loss"] for path in (one, straight)]
    assert abs(difference[0] - difference[1]) <= 0.002


def test_segment_length_changes_no_score_and_context_does(lm_data, trained):
    scores = [evaluate(lm_data, trained, "--eval-context", "9", "--eval-segment", segment)
              for segment in (1, 4, 50)]
    assert max(scores) - min(scores) < 1e-5
    assert abs(evaluate(lm_data, trained, "--eval-context", "0") - scores[0]) > 1e-4


def test_a_trained_model_scores_the_same_with_projected_memory(lm_data, trained):
    args = ("--eval-segment", "4", "--eval-context", "9")
    projected = evaluate(
        lm_data, trained, *args, "--model-overrides", "{'project_memory': True}")
    assert projected == pytest.approx(evaluate(lm_data, trained, *args), abs=1e-6)
    assert projected != pytest.approx(evaluate(lm_data, trained, "--eval-context", "0"), abs=1e-3)


def test_an_ensemble_has_a_memory_a_model(lm_data, trained):
    """Its score is that of the mean probability, however long the segments."""
    paths = [str(trained), str(trained.with_name("checkpoint1.pt"))]
    models, _ = checkpoint_utils.load_model_ensemble(paths)

    def score(segment, models):
        task = build_task(lm_data, eval_segment=segment, eval_context=9)
        task.load_dataset("test")
        batches = task.eval_lm_dataloader(task.dataset("test"))
        return fairseq_eval_lm.eval_lm(models, task.dictionary, batches)["loss"]

    scores = [score(segment, models) for segment in (1, 4, 50, 1000)]
    assert max(scores) - min(scores) < 1e-5
    alone = [score(4, [model]) for model in models]
    assert abs(alone[0] - alone[1]) > 0.01 and scores[0] < max(alone)


@pytest.mark.parametrize("args", [(), ("--batch-size", "5"), ("--score-reference",)])
def test_generate_says_that_it_continues_no_streams(lm_data, trained, args):
    command = [lm_data, "--user-dir", USER_DIR, "--task", "srupp_language_modeling", "--path",
               trained, "--cpu", "--num-workers", "0", *args]
    parser = options.get_generation_parser()
    with pytest.raises(UsageError, match="fairseq-generate continues no streams: .*interactive"):
        fairseq_generate.main(options.parse_args_and_arch(parser, [*map(str, command)]))


def test_generate_continues_every_line_with_the_task_it_names(lm_data, trained, capsys):
    command = [lm_data, "--user-dir", USER_DIR, "--task", "language_modeling", "--path", trained,
               "--sample-break-mode", "eos", "--cpu", "--num-workers", "0", "--max-len-b", "5",
               "--min-len", "0"]
    parser = options.get_generation_parser()
    fairseq_generate.main(options.parse_args_and_arch(parser, [*map(str, command)]))
    lines = (lm_data.parent / "test.txt").read_text().count("\n")
    assert len(re.findall(r"^H-\d+", capsys.readouterr().out, re.MULTILINE)) == lines


def test_every_command_counts_every_token_once(lm_data, trained, caplog):
    text = (lm_data.parent / "test.txt").read_text()
    count = len(text.split()) + text.count("\n")
    caplog.set_level("INFO")
    for args in (), ("--batch-size", "3"), ("--eval-segment", "50"):
        caplog.clear()
        evaluate(lm_data, trained, *args)
        assert f"Evaluated {count} tokens" in caplog.text
    output = run_fairseq(
        "validate", lm_data, "--user-dir", USER_DIR, "--task", "srupp_language_modeling", "--path",
        trained, "--valid-subset", "test", "--cpu", "--batch-size", "1", "--eval-context", "9",
        "--eval-segment", "1000", "--unit", "character", "--log-format", "simple",
        "--num-workers", "0").stdout
    loss, bpc, words = (
        float(re.search(rf"\| {name} ([\d.]+)", output)[1]) for name in ("loss", "bpc", "wpb"))
    expected = evaluate(lm_data, trained, "--eval-context", "9")
    assert (words, loss) == (count, pytest.approx(expected, abs=6e-4))
    assert bpc == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize("mode", ["none", "complete", "eos"])
def test_the_stateless_task_scores_the_model_too(lm_data, trained, mode):
    loss = evaluate(lm_data, trained, "--sample-break-mode", mode, "--tokens-per-sample", "30",
                    task="language_modeling")
    assert 2.0 < loss < 6.0


@pytest.mark.parametrize("task", ["srupp_language_modeling", "language_modeling"])
def test_texts_are_continued_from_a_prompt(lm_data, trained, task):
    """Batches of prompts, beams and sampling."""
    for how in ("--beam", "3"), ("--beam", "1", "--sampling"):
        output = run_fairseq(
            "interactive", lm_data, "--user-dir", USER_DIR, "--task", task, "--path", trained,
            "--cpu", "--max-len-b", "12", "--batch-size", "3", "--buffer-size", "3", *how,
            stdin="w1 w4 w7\nw3\n\n").stdout
        texts = dict(re.findall(r"^D-(\d)\t\S+\t(.*)$", output, re.MULTILINE))
        assert texts.keys() == {"0", "1", "2"}
        assert texts["0"].startswith("w1 w4 w7") and texts["1"].startswith("w3")


@pytest.mark.parametrize("args, message", [
    (("--context-window", "5"), "give --eval-context instead"),
    (("--gen-subset", "lost"), "lost.bin and .idx do not exist"),
    (("--batch-size", "10000"), "cannot fill 10000 streams"),
    (("--model-overrides", "{'max_target_positions': 5}"), "longer than --max-target-positions 5"),
    (("--model-overrides", "{'droput': 0.1}"), "no option 'droput' to override"),
])
def test_mistakes_are_named(lm_data, trained, args, message):
    with pytest.raises(UsageError, match=message):
        evaluate(lm_data, trained, *args)


def test_what_from_pretrained_of_roberta_overrides_is_known(trained):
    checkpoint_utils.load_checkpoint_to_cpu(str(trained), {"load_checkpoint_heads": True})


def test_models_of_other_layers_read_no_streams(lm_data, monkeypatch):
    monkeypatch.setattr(LanguageModelingTask, "build_model", lambda *args: torch.nn.Linear(1, 1))
    with pytest.raises(UsageError, match="for models of SRU .* transformer_lm is none"):
        build_task(lm_data).build_model(Namespace(_name="transformer_lm"))


@pytest.fixture(scope="module")
def wikitext2(tmp_path_factory, command):
    """The test text of WikiText-2, from WIKITEXT2, binarised with 2,000 types."""
    folder = Path(os.environ.get("WIKITEXT2", ROOT.parent / "shared" / "data" / "wikitext-2"))
    if not folder.is_dir():
        pytest.skip(f"no WikiText-2 in {folder}: set WIKITEXT2")
    out = tmp_path_factory.mktemp("wikitext2")
    for split in ("valid", "test"):
        (out / f"{split}.txt").write_bytes(lzma.open(folder / f"{split}.txt.xz").read())
    binarise(out, out / "bin", "--nwordssrc", "2000", train="valid", test="test")
    return out


def test_eval_lm_agrees_with_a_loop_over_the_text(wikitext2, tmp_path, caplog):
    """Tokens read from the text itself, memory carried and masked by hand, in float64."""
    data = wikitext2 / "bin"
    path = train(data, tmp_path, "--tokens-per-sample", "32", "--batch-size", "16",
                 "--max-update", "30", "--disable-validation")
    caplog.set_level("INFO")
    caplog.clear()
    loss = evaluate(data, path, "--eval-segment", "1024", "--eval-context", "40")
    indices = {"<unk>": 3}
    for line in (data / "dict.txt").read_text().splitlines():
        indices[line.split()[0]] = len(indices) + 3
    tokens = []
    for line in (wikitext2 / "test.txt").read_text().splitlines():
        tokens += [indices.get(word, 3) for word in line.split()] + [EOS]
    assert f"Evaluated {len(tokens):,} tokens" in caplog.text

    model = checkpoint_utils.load_model_ensemble([str(path)], task=build_task(data))[0][0]
    decoder = model.double().eval().decoder
    inputs = torch.tensor([EOS, *tokens[:-1]])
    targets = torch.tensor(tokens)
    cells, context, total = None, None, 0.0
    with torch.no_grad():
        for start in range(0, len(tokens), 700):
            x = decoder.embed_tokens(inputs[start : start + 700, None])
            before = 0 if context is None else len(context[0])
            distance = torch.arange(len(x))[:, None] + before - torch.arange(before + len(x))
            mask = (distance >= 0) & (distance <= 40)
            out = decoder.stack(x, c0=cells, context=context, mask=mask)
            cells = out.c
            context = [
                layer[-40:] if context is None else torch.cat([old, layer])[-40:]
                for old, layer in zip(context or out.inputs, out.inputs)]
            scores = decoder.output_projection(decoder.feature_proj(out.h[:, 0])).log_softmax(-1)
            total -= scores.gather(1, targets[start : start + 700, None]).sum().item()
    assert loss == pytest.approx(total / len(tokens) / np.log(2), rel=1e-6)


def test_a_memory_of_a_pass_is_not_shared_with_the_next(lm_data):
    """The iterator that training resumes from hands its state over once."""
    task = build_task(lm_data, tokens_per_sample=6)
    task.load_dataset("train")
    streams = Streams(task.dataset("train"), 2, 6, PAD, EOS)
    batches = StreamBatchIterator(streams, StreamMemory(6, 6))
    cells = torch.zeros(2, 2, 32)
    batches.load_state_dict({
        "epoch": 1, "iterations_in_epoch": len(streams) - 1, "shuffle": True, "version": 2,
        "streams": [{"cells": cells, "inputs": [None, None]}],
    })
    (last,) = batches.next_epoch_itr()
    assert last["net_input"]["memory"].before.cells is cells
    assert next(batches.next_epoch_itr())["net_input"]["memory"].before is None


@pytest.mark.command
def test_bytes_from_files_to_samples(tmp_path):
    """examples/byte_text.py and --bpe srupp_bytes; spaces and line ends are bytes like others."""
    text = "def f(x):\n    return 'Zürich'  # \t€\n\n".encode() * 8
    for split in ("train", "valid", "test"):
        (tmp_path / split).write_bytes(text)
    files = [x for split in ("train", "valid", "test") for x in (f"--{split}", tmp_path / split)]
    data = tmp_path / "bin"
    result = run_python(ROOT / "examples" / "byte_text.py", data, *files, PYTHONPATH=str(ROOT))
    assert result.returncode == 0, result.stderr
    assert f"test: {len(text):,} bytes" in result.stdout
    task = build_task(data)
    task.load_dataset("test")
    tokens = task.dataset("test").read(0, len(text))
    assert len(tokens) == len(text) and task.dictionary.unk() not in tokens
    assert ByteTokens.decode(task.dictionary.string(tokens)) == text.decode()
    path = train(data, tmp_path / "run", "--max-update", "2", "--unit", "character")
    output = run_fairseq(
        "interactive", data, "--user-dir", USER_DIR, "--task", "srupp_language_modeling", "--path",
        path, "--cpu", "--max-len-b", "12", "--bpe", "srupp_bytes", stdin="f(x):  # €\n").stdout
    assert re.search(r"^D-0\t\S+\tf\(x\):  # ", output, re.MULTILINE)


def test_broken_bytes_are_decoded_as_far_as_possible():
    tokens = ByteTokens.encode("a €").split()
    assert ByteTokens.decode(" ".join(tokens)) == "a €"
    assert ByteTokens.decode(" ".join(tokens[:-1])) == "a \ufffd"
    assert ByteTokens.decode("a <unk> b") == "a\ufffdb"
