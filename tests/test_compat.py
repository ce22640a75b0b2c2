"""Each fault of fairseq on today's libraries: there without the repair, gone with it."""

import argparse
import inspect
import re
import subprocess
import sys
import warnings
from importlib.metadata import distributions
from types import SimpleNamespace

import numpy as np
import pytest
import sacrebleu
import torch
from conftest import ROOT, USER_DIR, run_python
from fairseq import options, tasks, trainer
from fairseq.data import (
    Dictionary,
    LanguagePairDataset,
    ListDataset,
    MonolingualDataset,
    bucket_pad_length_dataset,
    data_utils,
)
from fairseq.models import MODEL_REGISTRY, FairseqEncoderDecoderModel, register_model
from fairseq.ngram_repeat_block import NGramRepeatBlock
from fairseq.optim import AMPOptimizer
from fairseq.scoring import bleu
from fairseq.search import DiverseBeamSearch
from fairseq.tasks import FairseqTask
from fairseq.tasks.language_modeling import LanguageModelingTask
from fairseq_cli import train as fairseq_train
from omegaconf import OmegaConf

import fairseq_sru
from fairseq_sru import registry
from fairseq_sru.errors import UsageError
from fairseq_sru.repairs import compat

fairseq_sru.register()

FORK = not {"fairseq-fixed", "ve-fairseq"}.isdisjoint(
    found.metadata["Name"] for found in distributions())  # has more faults


def original(function):
    """fairseq's own, under all that replaces it."""
    while hasattr(function, "_repairs"):
        function = function.__wrapped__
    return function


def test_applying_twice_is_harmless():
    before = [options.parse_args_and_arch, AMPOptimizer.step, data_utils.batch_by_size,
              data_utils.get_buckets, bleu.Scorer.__init__, np.compat]
    compat.apply()
    after = [options.parse_args_and_arch, AMPOptimizer.step, data_utils.batch_by_size,
             data_utils.get_buckets, bleu.Scorer.__init__, np.compat]
    assert all(a is b for a, b in zip(before, after))


def test_checkpoints_load_without_arbitrary_objects(tmp_path):
    """What fairseq saves loads with weights_only on, and other objects still do not."""
    path = tmp_path / "checkpoint.pt"
    saved = {"args": argparse.Namespace(lr=0.1), "counts": np.array([3, 1]),
             "bleu": np.float64(0.5), "norm": np.float32(2)}
    torch.save(saved, path)
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with pytest.raises(Exception, match="Weights only load failed"):
            torch.load(path, weights_only=True)
        compat.allow_checkpoint_types()
        loaded = torch.load(path, weights_only=True)
    finally:
        torch.serialization.add_safe_globals(allowed)
    assert loaded["args"].lr == 0.1 and loaded["counts"].tolist() == [3, 1]
    assert loaded["bleu"] == 0.5 and loaded["norm"] == 2

    torch.save({"call": subprocess.Popen}, path)
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(path, weights_only=True)


def test_numpy_long(monkeypatch):
    if int(np.__version__.split(".")[0]) >= 2:
        monkeypatch.delattr(np, "compat")
        with pytest.raises(AttributeError, match="compat"):
            np.compat  # noqa: B018
    compat.restore_numpy_long()
    assert np.zeros(2, dtype=np.compat.long).dtype == np.int64


def test_buckets():
    sizes = np.array([3, 1, 4, 1, 5, 9, 2, 6])
    if "interpolation" not in inspect.signature(np.percentile).parameters:
        with pytest.raises(TypeError, match="interpolation"):
            original(data_utils.get_buckets)(sizes, 2)
    assert bucket_pad_length_dataset.get_buckets(sizes, 2).tolist() == [3, 9]
    assert data_utils.get_buckets(sizes, 4).tolist() == [1, 3, 5, 9]


def batches(function, count, multiple, **limits):
    indices = np.arange(count)[::-1]
    found = function(indices, None, num_tokens_vec=np.full(count, 2), **limits,
                     required_batch_size_multiple=multiple)
    return [list(batch) for batch in found]


def test_last_batch():
    fault = batches(original(data_utils.batch_by_size), 20, 8, max_sentences=16)
    assert sum(map(len, fault)) == (16 if FORK else 20)
    kept = batches(data_utils.batch_by_size, 20, 8, max_sentences=16)
    assert kept == [*fault[:1], [3, 2, 1, 0]]


@pytest.mark.parametrize("count, multiple", [(0, 8), (3, 8), (16, 8), (20, 1), (29, 8)])
def test_batches_hold_every_sentence_once(count, multiple):
    found = batches(data_utils.batch_by_size, count, multiple, max_tokens=18)
    assert [i for batch in found for i in batch] == list(range(count))[::-1]
    assert all(len(batch) <= 9 for batch in found)


def batches_from(function, epoch):
    """Batches, and their order in the third epoch, of a process that starts in ``epoch``."""
    dictionary = Dictionary()
    numbers = ListDataset([torch.tensor([5] * (1 + n % 4) + [2]) for n in range(40)],
                          np.array([2 + n % 4 for n in range(40)]))
    pairs = LanguagePairDataset(numbers, numbers.sizes, dictionary, numbers, numbers.sizes,
                                dictionary)
    task = FairseqTask(SimpleNamespace())
    iterator = function(task, pairs, max_sentences=4, seed=1, epoch=epoch)
    iterator.epoch = 3
    ordered = iterator.ordered_batches(3, False, True)
    return [[list(batch) for batch in found] for found in (iterator.frozen_batches, ordered)]


def test_resumed_epochs_have_the_same_batches():
    whole = batches_from(FairseqTask.get_batch_iterator, 1)
    assert batches_from(FairseqTask.get_batch_iterator, 3) == whole
    if FORK:
        fault = original(FairseqTask.get_batch_iterator)
        assert batches_from(fault, 1) == whole != batches_from(fault, 3)


def test_an_evaluation_of_a_part():
    """fairseq-eval-lm would print the perplexity of the short samples, 1.00 if there are none."""

    def evaluate(function, max_positions):
        text = MonolingualDataset([torch.arange(9), torch.arange(4)], np.array([9, 4]),
                                  Dictionary(), add_eos_for_other_targets=False, shuffle=False)
        task = LanguageModelingTask(SimpleNamespace(), Dictionary())
        return len(function(task, text, max_positions=max_positions, batch_size=1,
                            num_workers=0))

    repaired = LanguageModelingTask.eval_lm_dataloader
    assert evaluate(repaired, 9) == evaluate(original(repaired), 9) == 2
    for positions, left_out in (8, 1), (3, 2):
        assert evaluate(original(repaired), positions) == 2 - left_out
        with pytest.raises(UsageError, match=f"{left_out} of 2 samples .* --tokens-per-sample"):
            evaluate(repaired, positions)


def test_hydra_completes_presets():
    compat.fill_in_presets()
    fault, repaired = original(fairseq_train.add_defaults), fairseq_train.add_defaults
    for complete, size in (fault, 1024), (repaired, 32):
        cfg = OmegaConf.create({"model": {"_name": "srupp_tiny", "proj_size": 6}})
        complete(cfg)
        assert (cfg.model.hidden_size, cfg.model.proj_size) == (size, 6)


def parse(function, *args):
    return function(options.get_generation_parser(), ["data", "--path", "model.pt", *args])


def test_bf16_is_not_for_tpus():
    unpatched = inspect.unwrap(options.parse_args_and_arch)
    assert parse(unpatched, "--bf16").tpu
    args = parse(options.parse_args_and_arch, "--bf16")
    assert args.bf16 and not args.tpu
    assert parse(options.parse_args_and_arch, "--tpu").tpu


class OneWeight:
    """The part of a fairseq optimizer that AMPOptimizer uses."""

    def __init__(self):
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.optimizer = torch.optim.SGD([self.weight], lr=0.25)
        self.param_groups = self.optimizer.param_groups
        self.step = self.optimizer.step

    def clip_grad_norm(self, max_norm, aggregate_norm_fn=None):
        return self.weight.grad.norm()


@pytest.mark.parametrize("step, expected", [
    (original(AMPOptimizer.step), 1 - 0.25 / 1024),  # unscaled twice
    (AMPOptimizer.step, 0.75),
])
def test_amp_unscales_once(step, expected):
    common = SimpleNamespace(fp16_init_scale=1024, min_loss_scale=1e-4)
    wrapped = OneWeight()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        amp = AMPOptimizer(SimpleNamespace(common=common, optimizer=None), [], wrapped)
    amp._grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024)
    amp.backward(wrapped.weight.sum())
    amp.clip_grad_norm(0)
    step(amp)
    assert wrapped.weight.item() == pytest.approx(expected, abs=1e-7)


def test_sentence_bleu():
    dictionary = Dictionary()
    numbers = dictionary.pad(), dictionary.eos(), dictionary.unk()
    with pytest.raises(TypeError):
        original(bleu.Scorer.__init__)(object.__new__(bleu.Scorer), *numbers)
    for scorer in bleu.Scorer(*numbers), bleu.Scorer(bleu.BleuConfig(*numbers)):
        line = dictionary.encode_line("a b c d e")
        scorer.add(line, line)
        assert scorer.score() == 100


def test_repeated_ngrams_are_blocked_on_a_cpu():
    """After 5 6 5 the 6 is banned; the buffer has room for more tokens."""
    block = NGramRepeatBlock(2)
    tokens = torch.tensor([[2, 5, 6, 5, 1, 1, 1]])

    def banned(function):
        lprobs = function(block, tokens, torch.zeros(1, 9), 1, 1, 3)
        return lprobs.isinf().nonzero()[:, 1].tolist()

    assert banned(original(NGramRepeatBlock._no_repeat_ngram)) == []
    assert banned(NGramRepeatBlock._no_repeat_ngram) == [6]


def test_sacrebleu_wants_lists(tmp_path):
    """The fault behind fairseq-score --sacrebleu; the next test shows the repair."""
    (tmp_path / "text").write_text("the cat sat on the mat\n")
    with open(tmp_path / "text") as hypotheses, open(tmp_path / "text") as references:
        with pytest.raises(TypeError, match="should be a sequence of strings"):
            sacrebleu.corpus_bleu(hypotheses, [references])


@pytest.mark.command
@pytest.mark.parametrize("option, expected", [
    ("--sacrebleu", "BLEU = 75.54"), ("--sentence-bleu", "1 BLEU4 = 41.37")
])
def test_score(option, expected, tmp_path):
    (tmp_path / "hypothesis").write_text("the cat sat on the mat\nit is good\n")
    (tmp_path / "reference").write_text("the cat sat on the mat\nit was very good\n")
    args = "-s", tmp_path / "hypothesis", "-r", tmp_path / "reference", option
    result = run_python("-m", "fairseq_sru.score", *args)
    assert result.returncode == 0, result.stderr
    assert expected in result.stdout


@pytest.mark.command
@pytest.mark.parametrize("system, reference, more, message", [
    ("a b c d\n", "a b c d\nx y z w\n", (), "has 1 lines; .*has 2 lines"),
    ("a b c d\nx y z w\n", "a b c d\n", ("--sacrebleu",), "has 2 lines; .*has 1 lines"),
    ("", "", (), "is empty"),
    (None, "a\n", (), "cannot read .*: No such file"),
    ("a\n", "a\n", ("--order", 0), "--order must be at least 1"),
])
def test_score_reads_both_files_to_their_ends(system, reference, more, message, tmp_path):
    for name, text in ("system", system), ("reference", reference):
        if text is not None:
            (tmp_path / name).write_text(text)
    result = run_python("-m", "fairseq_sru.score", "-s", tmp_path / "system",
                        "-r", tmp_path / "reference", *more)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert re.search(message, result.stderr)


@pytest.mark.command
@pytest.mark.parametrize("option", [None, "--sentence-bleu", "--sacrebleu"])
def test_score_cuts_lines_at_newlines_alone(option, tmp_path):
    (tmp_path / "system").write_bytes("a b\rc d x\r\ne\x85f g\u2028h i".encode())
    (tmp_path / "reference").write_bytes("\ufeffa b c d x\ne\x85f g\u2028h i\n".encode())
    options = ["-r", tmp_path / "reference", *([option] if option else [])]
    result = run_python("-m", "fairseq_sru.score", "-s", tmp_path / "system", *options)
    assert result.stdout.count(" = 100.0") == (2 if option == "--sentence-bleu" else 1)


@pytest.mark.command
def test_score_reads_standard_input_to_its_end(tmp_path):
    (tmp_path / "reference").write_text("a b c d\nx y z w\n")
    result = run_python("-m", "fairseq_sru.score", "-r", tmp_path / "reference", stdin="a b c d\n")
    assert result.returncode == 1 and "standard input has 1 lines" in result.stderr


def test_a_taken_name_is_refused():
    class Other(FairseqEncoderDecoderModel):
        pass

    if FORK:
        assert register_model("srupp")(Other) is MODEL_REGISTRY["srupp"]
    with pytest.raises(ValueError, match="'srupp' is already registered by fairseq_sru.models"):
        registry.register_model("srupp")(Other)
    with pytest.raises(ValueError, match="task 'translation' is already registered by fairseq"):
        registry.register_task("translation")(FairseqTask)


@pytest.mark.command
def test_importing_is_quiet_and_leaves_cuda_alone(tmp_path):
    code = ("import fairseq_sru, torch; fairseq_sru.register(); "
            "assert not torch.cuda.is_initialized()")
    result = run_python("-B", "-X", f"pycache_prefix={tmp_path}", "-c", code)  # all is compiled
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.command
def test_modules_without_fairseq():
    """And without what takes PyTorch a second more to import."""
    code = ("import sys; sys.modules['fairseq'] = None; "
            "from fairseq_sru.modules import SRU, SRUpp; assert 'fairseq_sru.repairs' not in "
            "sys.modules and 'torch._dynamo' not in sys.modules")
    result = run_python("-c", code)
    assert result.returncode == 0, result.stderr


@pytest.mark.command
@pytest.mark.parametrize("body, message", [
    ("raise ValueError(\"mutable default <class 'CommonConfig'> for field common is not "
     "allowed: use default_factory\")", "ImportError: this fairseq does not run on Python"),
    ("import omegaconf_of_another_world", "No module named 'omegaconf_of_another_world'"),
    ("raise ValueError('another one')", "ValueError: another one"),
])
def test_a_fairseq_that_does_not_import(body, message, tmp_path):
    """Official fairseq on Python 3.11 gets a remedy, any other failure stays what it is."""
    (tmp_path / "fairseq.py").write_text(body)
    result = run_python("-c", f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; "
                        "import fairseq_sru; fairseq_sru.register()")
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1 and message in last
    assert ("fairseq-fixed" in last) == last.startswith("ImportError")


@pytest.mark.command
def test_report():
    """`python -m fairseq_sru`: versions, devices and sizes as in SRU++ paper, table 8."""
    result = run_python("-m", "fairseq_sru")
    assert result.returncode == 0, result.stderr
    rows = {line.split(" | ")[0][2:]: line[:-2].split(" | ")[1:]
            for line in result.stdout.splitlines() if " | " in line}
    assert rows["fairseq_sru"] == [fairseq_sru.__version__]
    assert rows["torch"] == [torch.__version__]
    assert rows["--user-dir"] == [str(USER_DIR)]
    assert run_python("-m", "fairseq_sru", "--user-dir").stdout == f"{USER_DIR}\n"
    assert rows["Python"][0].startswith(sys.version.split()[0])
    assert any(name.startswith("CPU") for name in rows)
    millions = {name: int(rows[name][1].replace(",", "")) / 1e6 for name in
                ("srupp_iwslt", "srupp_iwslt_k2", "srupp_lm_wiki103_base")}
    assert [f"{size:.1f}" for size in millions.values()] == ["20.4", "19.6", "147.7"]


def test_only_shared_parameters_are_called_shared():
    """Not those that two modules lack alike, such as biases."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Linear(2, 2, bias=False)
            self.two = torch.nn.Linear(2, 2, bias=False)
            self.tied = torch.nn.ModuleList([torch.nn.Linear(2, 2, bias=False)])
            self.tied[0].weight = self.one.weight

    patched = trainer._catalog_shared_params
    assert ["one.bias", "two.bias", "tied.0.bias"] in original(patched)(Model())
    assert patched(Model()) == [["one.weight", "tied.0.weight"]]


def test_diverse_beams_of_sentences_with_any_numbers():
    """The penalty is that of a sentence's own groups, whatever its number in the data set."""
    words = Dictionary()
    torch.manual_seed(0)
    scores = [torch.randn(3, 4, 12).log_softmax(-1) for _ in range(3)]
    numbers = torch.tensor([7, 0, 41])

    def search(rows, numbers):
        search = DiverseBeamSearch(words, 2, 0.5)
        found, kept = [], torch.zeros(len(rows), 4, 3)
        for step, lprobs in enumerate(scores):
            best, indices, _ = search.step(
                step, lprobs[rows].clone(), kept, original_batch_idxs=numbers)
            kept[:, :, step] = best
            found.append(indices)
        return torch.stack(found, 1)

    alone = torch.cat([search([i], torch.tensor([0])) for i in range(3)])
    assert torch.equal(search([0, 1, 2], torch.arange(3)), alone)
    assert torch.equal(search([0, 1, 2], numbers), alone)
    order = [2, 0, 1]
    assert torch.equal(search(order, torch.tensor([1, 2, 0])), alone[order])


@pytest.mark.parametrize("name, hint", [
    ("dict.txt", "for --lm-path copy the language model's dict.txt"),
    ("dict.de.txt", r"and its languages \(-s, -t\)")])
def test_missing_dictionaries_have_their_own_remedies(name, hint, monkeypatch):
    class Task:
        @classmethod
        def setup_task(cls, cfg, **kwargs):
            raise FileNotFoundError(2, "No such file", f"data/{name}")

    monkeypatch.setitem(tasks.TASK_REGISTRY, "missing", Task)
    with pytest.raises(UsageError, match=f"{name} does not exist: .*{hint}"):
        tasks.setup_task(argparse.Namespace(task="missing"))
