"""fairseq's own options: each number has a range; what cannot be is one line before any work."""

import argparse
import math
from argparse import Namespace
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from conftest import USER_DIR, fails_in_one_line, run_python
from fairseq import optim, options, tasks
from fairseq.data import Dictionary, data_utils
from fairseq.dataclass.configs import GenerationConfig
from fairseq.dataclass.utils import convert_namespace_to_omegaconf, gen_parser_from_dataclass
from fairseq.optim import lr_scheduler
from fairseq.registry import REGISTRIES
from fairseq.sequence_generator import SequenceGenerator
from fairseq.tasks import FairseqTask
from fairseq_cli import train as fairseq_train
from omegaconf import OmegaConf

import fairseq_sru
from fairseq_sru import ranges, repairs
from fairseq_sru.errors import UsageError
from fairseq_sru.options import check_options
from fairseq_sru.repairs import messages
from fairseq_sru.repairs.command_options import DICTIONARIES, MEANINGS
from fairseq_sru.repairs.training import require_fitting_parts

fairseq_sru.register()
repairs.apply()  # of fairseq_cli.train, whatever was imported before

NAN, INF = math.nan, math.inf
COMMANDS = {
    "train": options.get_training_parser,
    "generate": options.get_generation_parser,
    "interactive": options.get_interactive_generation_parser,
    "eval_lm": options.get_eval_lm_parser,
    "validate": options.get_validation_parser,
}
PARTS = {
    "optimizer": ["adam", "nag", "sgd", "radam", "adagrad", "adadelta", "adamax", "adafactor"],
    "lr_scheduler": ["inverse_sqrt", "cosine", "fixed", "polynomial_decay", "step", "tri_stage",
                     "reduce_lr_on_plateau", "triangular", "manual", "pass_through"],
    "criterion": ["cross_entropy", "label_smoothed_cross_entropy", "adaptive_loss"],
}
TASKS = ["translation", "language_modeling", "srupp_language_modeling"]


def options_of(kind) -> list:
    parser = argparse.ArgumentParser(conflict_handler="resolve")
    if hasattr(kind, "add_args"):
        kind.add_args(parser)
    elif hasattr(kind, "__dataclass"):
        gen_parser_from_dataclass(parser, getattr(kind, "__dataclass")())
    return parser._actions


def numbers() -> dict:
    """All options that are numbers or pairs of them, by their names."""
    actions = [action for parser in COMMANDS.values() for action in parser()._actions]
    actions += [action for name, kinds in PARTS.items() for kind in kinds
                for action in options_of(REGISTRIES[name]["registry"][kind])]
    actions += [action for task in TASKS for action in options_of(tasks.TASK_REGISTRY[task])]
    found = {}
    for action in actions:
        pair = isinstance(action.default, (str, tuple)) and str(action.default).startswith("(")
        lists = getattr(action.type, "__name__", None) == "<lambda>"
        later = action.type is None and action.default is None and action.dest in MEANINGS
        if action.option_strings and (action.type in (int, float) or pair or lists or later):
            found[action.dest] = action
    return found


NUMBERS = numbers()
#: values that are outside whatever the range
OUTSIDE = {int: [-2, -(10**30), 10**30], float: [NAN, INF, -INF]}


def test_the_walk_finds_them():
    expected = {"lr", "update_freq", "adam_betas", "patience", "lenpen", "buffer_size", "momentum",
                "total_num_update", "phase_ratio", "context_window", "seed", "label_smoothing",
                "adafactor_eps", "num_workers", "tokens_per_sample", "distributed_port"}
    assert expected <= NUMBERS.keys() and len(NUMBERS) > 120


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_a_range(name):
    assert name in MEANINGS
    action = NUMBERS[name]
    for value in OUTSIDE.get(action.type, ["garbage", "(nan, 0.5, 1)", "[]", "0"]):
        if value == "0" and name == "lr":
            continue
        with pytest.raises(UsageError, match=f"^--{name.replace('_', '-')} must be .*, got "):
            check_options(Namespace(**{name: value}), [name], MEANINGS)


@pytest.mark.parametrize("name", NUMBERS)
def test_every_default_is_in_its_range(name):
    action = NUMBERS[name]
    value = None if action.default == "???" else action.default
    if action.type not in (int, float, str, None) and isinstance(value, str):
        value = action.type(value)
    check_options(Namespace(**{name: value}), [name], MEANINGS)


@pytest.mark.parametrize("name, value", [
    *((name, -1) for name in (
        "keep_interval_updates", "keep_interval_updates_pattern", "keep_last_epochs",
        "keep_best_checkpoints", "patience", "distributed_port", "heartbeat_timeout",
        "sampling_topk", "sampling_topp", "diverse_beam_groups", "diversity_rate",
        "warmup_init_lr", "lr_period_updates", "stop_min_lr", "upsample_primary")),
    *((name, 0) for name in (
        "max_epoch", "max_update", "stop_time_hours", "clip_norm", "validate_interval_updates",
        "save_interval_updates", "keep_last_epochs", "patience", "num_workers", "warmup_updates",
        "curriculum", "empty_cache_freq", "buffer_size", "prefix_size", "lr_patience",
        "no_repeat_ngram_size", "weight_decay", "momentum", "context_window", "end_learning_rate")),
    ("seed", 2**32 - 1), ("lenpen", -1.0), ("unkpen", -0.5), ("update_freq", [1, 2]),
    ("adam_betas", "(0.9, 0.98)"), ("adam_betas", (0.9, 0.98)), ("lr", [1e-3, 5e-4]), ("lr", 0.0),
])
def test_off_and_unusual_values_pass(name, value):
    check_options(Namespace(**{name: value}), [name], MEANINGS)


def parse(command, *args):
    task = "language_modeling" if command == "eval_lm" else "translation"
    model = ["--path", "model.pt"]
    if command == "train":
        model = ["--arch", "srupp_tiny"]
    return options.parse_args_and_arch(
        COMMANDS[command](), ["data", "--task", task, *model, "--cpu", *args])


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_with_their_defaults_pass(command):
    assert parse(command).data == "data"


@pytest.mark.parametrize("args, message", [
    (["--update-freq", "0"], "--update-freq must be whole numbers, at least 1, got [0]"),
    (["--update-freq", ""], "--update-freq must be whole numbers"),
    (["--lr", ""], "--lr must be at least 0 and finite, got []"),
    (["--log-interval", "0"], "--log-interval must be a whole number, at least 1, got 0"),
    (["--optimizer", "adam", "--adam-betas", "(2,3)"], "--adam-betas must be two numbers"),
    (["--optimizer", "adam", "--adam-betas", "garbage"], "got 'garbage'"),
    (["--optimizer", "adam", "--adam-eps", "-1"], "--adam-eps must be above 0"),
    (["--optimizer", "nag", "--momentum", "nan"], "--momentum must be"),
    (["--optimizer", "sgd", "--momentum", "-1"], "--momentum must be"),
    (["--seed", "-1"], "--seed must be a whole number from 0 to 4294967295, got -1"),
    (["--seed", str(2**32)], "--seed must be"),
    (["--num-workers", "-1"], "--num-workers must be"),
    (["--lr-scheduler", "inverse_sqrt", "--warmup-updates", "-5"], "--warmup-updates must be"),
    (["--lr-scheduler", "polynomial_decay"], "polynomial_decay needs --total-num-update"),
    (["--clip-norm", "nan"], "--clip-norm must be"),
    (["--patience", "-3"], "--patience must be -1 or a whole number"),
    (["--save-interval", "0"], "--save-interval must be"),
    (["--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "2"],
     "--label-smoothing must be"),
    (["--best-checkpoint-metric", "bleu"], "needs --eval-bleu"),
    (["--eval-bleu", "--eval-bleu-detok", "nope"], "--eval-bleu-detok must be one of"),
    (["--eval-bleu", "--eval-bleu-remove-bpe", "nope"], "--eval-bleu-remove-bpe must be"),
    (["--eval-bleu", "--eval-bleu-args", '{"beams": 4}'], "no option 'beams'"),
    (["--write-checkpoints-asynchronously"],
     "--write-checkpoints-asynchronously needs iopath"),
    (["--restore-file", "missing.pt"], "--restore-file missing.pt does not exist"),
    (["--task", "srupp_language_modeling", "--arch", "srupp_lm_tiny", "--dynamic-lr", "0.1"],
     "--dynamic-lr is of fairseq-eval-lm"),
])
def test_training_refuses(args, message):
    with pytest.raises(UsageError) as caught:
        parse("train", *args)
    assert message in str(caught.value)


@pytest.mark.parametrize("task, arch, wanted", [
    ("language_modeling", "srupp_tiny", "a language model"),
    ("language_modeling", "transformer_tiny", "a language model"),
    ("language_modeling", "sru_classifier_tiny", "a language model"),
    ("srupp_language_modeling", "transformer_sru_tiny", "a language model"),
    ("srupp_language_modeling", "transformer_lm", "a model of SRU or SRU++ layers"),
    ("translation", "srupp_lm_tiny", "an encoder with a decoder"),
    ("translation", "transformer_lm", "an encoder with a decoder"),
    ("translation", "sru_classifier_tiny", "an encoder with a decoder"),
    ("sentence_prediction", "srupp_tiny", "a model that classifies"),
    ("translation_lev", "srupp_tiny", "a model that writes all words at once"),
    ("translation_lev", "transformer_sru_tiny", "a model that writes all words at once"),
    ("sentence_prediction", "sru_lm_tiny", "a model that classifies"),
    ("multilingual_translation", "srupp_tiny", "a model of its own for each pair "
     "(translation_multi_simple_epoch: one for all)"),
    ("multilingual_translation", "multilingual_transformer", None),
    ("translation", "transformer_tiny", None), ("translation", "bart_base", None),
    ("language_modeling", "transformer_lm", None), ("language_modeling", "sru_lm_tiny", None),
    ("srupp_language_modeling", "srupp_lm_tiny", None), ("sentence_prediction", "roberta", None),
    ("sentence_prediction", "srupp_classifier", None),
])
def test_an_architecture_fits_its_task(task, arch, wanted):
    args = Namespace(task=task, arch=arch, max_update=1, classification_head_name="head")
    if wanted is None:
        require_fitting_parts(args)
        return
    with pytest.raises(UsageError) as caught:
        require_fitting_parts(args)
    assert str(caught.value) == f"--task {task} trains {wanted}, --arch {arch} is none"


@pytest.mark.parametrize("task", ["masked_lm", "denoising", "translation_lev"])
def test_a_classifier_needs_its_task(task):
    with pytest.raises(UsageError, match="sru_classifier_tiny"):
        require_fitting_parts(Namespace(task=task, arch="sru_classifier_tiny", max_update=1))


@pytest.mark.parametrize("option", ["--constraints", "--print-alignment"])
def test_a_language_model_has_no_source(option):
    with pytest.raises(UsageError, match=f"{option} is of translations"):
        parse("generate", "--task", "language_modeling", option)
    parse("generate", option)


def test_the_command_refuses_parts_of_other_tasks(data):
    for args, message in [
        (["--arch", "srupp_lm_tiny"], "--task translation trains an encoder with a decoder, "
         "--arch srupp_lm_tiny is none"),
        (["--arch", "sru_classifier_tiny", "--task", "sentence_prediction", "--num-classes", "2"],
         "--task sentence_prediction needs --criterion sentence_prediction"),
    ]:
        result = run_python("-m", "fairseq_cli.train", data, "--user-dir", USER_DIR, "--cpu", *args)
        assert fails_in_one_line(result) == f"error: {message}"


@pytest.mark.parametrize("given", ["1.5", "[1, 2.5]", "2,0.5"])
def test_lists_of_whole_numbers_are_not_cut(given, capsys):
    assert parse("train", "--update-freq", "[2,4]").update_freq == [2, 4]
    with pytest.raises(SystemExit):
        parse("train", "--update-freq", given)
    assert "argument --update-freq: must be whole numbers" in capsys.readouterr().err


def test_training_needs_an_optimizer():
    with pytest.raises(UsageError, match="a training needs --optimizer"):
        optim.build_optimizer(None, [])


SEARCHES = [
    (["--lenpen", "nan"], "--lenpen must be a finite number, got nan"),
    (["--unkpen", "nan"], "--unkpen must be"),
    (["--max-len-a", "nan"], "--max-len-a must be"),
    (["--max-len-b", "-5"], "--max-len-b must be"),
    (["--temperature", "0"], "--temperature must be"),
    (["--prefix-size", "-1"], "--prefix-size must be"),
    (["--sampling", "--sampling-topp", "1.5"], "--sampling-topp must be -1 or"),
    (["--sampling", "--sampling-topk", "0"], "--sampling-topk must be -1 or"),
    (["--sampling-topk", "3"], "--sampling-topk needs --sampling"),
    (["--sampling-topp", "0.3"], "--sampling-topp needs --sampling"),
    (["--min-len", "300", "--max-len-b", "10"], "--min-len (300) must be at most --max-len-b (10)"),
    (["--max-len-b", "0"], "--min-len (1) must be at most --max-len-b (0)"),
    (["--beam", "4", "--diverse-beam-groups", "3"], "must be a multiple of --diverse-beam-groups"),
    (["--diverse-beam-groups", "5", "--diversity-rate", "1"],
     "--diverse-beam-groups and --diversity-rate are different searches"),
]


@pytest.mark.parametrize("command", ["generate", "interactive"])
@pytest.mark.parametrize("args, message", [
    *SEARCHES,
    (["--sampling", "--beam", "3"], "--nbest (1) must be --beam (3)"),
    (["--beam", "2", "--nbest", "3"], "--nbest must be between 1 and --beam (2), got 3"),
    (["--beam", "0"], "--beam must be"),
])
def test_searches_that_cannot_be(command, args, message):
    with pytest.raises(UsageError) as caught:
        parse(command, *args)
    assert message in str(caught.value)


@pytest.mark.parametrize("args", [
    ["--sampling", "--sampling-topk", "3", "--beam", "2", "--nbest", "2"],
    ["--min-len", "300", "--max-len-a", "0.5", "--max-len-b", "10"],
    ["--beam", "4", "--diverse-beam-groups", "2"],
])
def test_searches_that_can_be(args):
    assert parse("generate", *args)


@pytest.mark.parametrize("args, message", SEARCHES)
def test_whoever_builds_a_generator_is_told(args, message):
    """The methods of a pretrained model, and --eval-bleu-args."""
    parsed, _ = options.get_generation_parser().parse_known_args(args)
    own = {option.name: getattr(parsed, option.name) for option in fields(GenerationConfig)
           if hasattr(parsed, option.name)}
    for given in (parsed, OmegaConf.create(own)):
        with pytest.raises(UsageError) as caught:
            FairseqTask.build_generator(SimpleNamespace(), [], given)
        assert message in str(caught.value)


def test_a_hypothesis_shorter_than_min_len_is_one_line():
    """What the length of the source decides."""
    generator = SimpleNamespace(min_len=12)

    def too_short(*args, **kwargs):
        raise AssertionError("min_len cannot be larger than max_len, please adjust these!")

    generator._generate = too_short
    with pytest.raises(UsageError, match=r"^--min-len \(12\)"):
        SequenceGenerator.generate(generator, [], {})


def test_eval_lm_leaves_tokens_after_the_context():
    with pytest.raises(UsageError, match=r"--context-window \(3\) must be less than"):
        parse("eval_lm", "--context-window", "3", "--tokens-per-sample", "3")
    assert parse("eval_lm", "--context-window", "3", "--tokens-per-sample", "4")


@pytest.mark.parametrize("name", DICTIONARIES)
def test_dictionaries_are_read_before_anything_else(name):
    flag = f"--{name.replace('_', '-')}"
    command = "generate" if name == "model_overrides" else "train"
    manual = ["--lr-scheduler", "manual"] if name.endswith("2lr") else []
    for wrong in ("garbage", "[1]", "{", "{'a': open}", "{[]: 1}"):
        with pytest.raises(UsageError, match=f"^{flag} must be a dictionary in .*, such as "):
            parse(command, *manual, flag, wrong)
    assert parse(command, *manual, flag, DICTIONARIES[name][2])
    assert parse(command, *manual)


@pytest.mark.parametrize("part, name, value", [
    ("common", "seed", -1), ("optimization", "clip_norm", NAN),
    ("optimization", "update_freq", [0]),
    ("dataset", "num_workers", -1), ("dataset", "batch_size", 0), ("checkpoint", "patience", -3),
    ("optimizer", "adam_betas", (2, 3)), ("optimizer", "adam_eps", -1.0),
    ("lr_scheduler", "warmup_updates", -5), ("generation", "temperature", 0.0),
    ("task", "eval_bleu_args", "garbage"), ("criterion", "label_smoothing", 2.0),
])
def test_hydra_training_refuses_them(part, name, value):
    args = parse("train", "--optimizer", "adam", "--lr-scheduler", "inverse_sqrt", "--criterion",
                 "label_smoothed_cross_entropy")
    config = convert_namespace_to_omegaconf(args)
    fairseq_train.add_defaults(config)
    config[part][name] = value
    with pytest.raises(UsageError, match=f"^--{name.replace('_', '-')} must be "):
        fairseq_train.add_defaults(config)


def test_a_schedule_that_needs_whole_updates_takes_numbers_of_them():
    """Of three stages, whose --max-update is a float there."""
    args = parse("train", "--lr-scheduler", "tri_stage", "--phase-ratio", "(0.1, 0.4, 0.5)",
                 "--max-update", "100", "--optimizer", "adam")
    fairseq_train.add_defaults(convert_namespace_to_omegaconf(args))


@pytest.mark.parametrize("args, message", [
    (["--lr-scheduler", "reduce_lr_on_plateau", "--lr-shrink", "1.0"],
     "--lr-scheduler reduce_lr_on_plateau: "),
    (["--lr-scheduler", "triangular", "--max-lr", "0.001"], "max_lr must be more than lr"),
    (["--lr-scheduler", "cosine"], "max_update"),
    (["--lr-scheduler", "cosine", "--lr", "0.1,0.2"], "--lr-scheduler=fixed"),
])
def test_schedules_that_cannot_be(args, message):
    config = convert_namespace_to_omegaconf(parse("train", "--optimizer", "nag", *args))
    optimizer = optim.build_optimizer(config.optimizer, [torch.nn.Parameter(torch.zeros(2))])
    with pytest.raises(UsageError) as caught:
        lr_scheduler.build_lr_scheduler(config.lr_scheduler, optimizer)
    assert str(caught.value).startswith("--lr-scheduler ") and message in str(caught.value)


def test_a_metric_that_validation_lacks():
    config = convert_namespace_to_omegaconf(parse("train", "--best-checkpoint-metric", "nope"))
    with pytest.raises(UsageError, match="--best-checkpoint-metric nope: validation has loss, ppl"):
        fairseq_train.get_valid_stats(config, None, {"ppl": 2.0, "loss": 1.0}, False)


def test_a_sentence_longer_than_a_batch():
    sizes = {"num_tokens_fn": lambda index: 5, "max_tokens": 3}
    with pytest.raises(UsageError, match=r"^--max-tokens \(3; .* is less than a sentence has"):
        data_utils.batch_by_size([0, 1], **sizes)
    assert data_utils.batch_by_size([0, 1], **{**sizes, "max_tokens": 10})


@pytest.mark.parametrize("error, shown", [
    (AssertionError("--path required for generation!"), True),
    (ValueError("please reset the optimizer (--reset-optimizer)"), True),
    (Exception("skip this example with --skip-invalid-size-inputs-valid-test"), True),
    (FileNotFoundError("Dataset not found: nope (data/nope)"), True),
    (ImportError("\n\nPlease install the fairscale package:\n\n  pip install fairscale"), True),
    (ModuleNotFoundError("No module named 'nope'"), False), (ImportError("cannot import x"), False),
    (AssertionError("3 != 4"), False), (ValueError("a -- b"), False), (KeyError("--x"), False),
    (RuntimeError("--x"), False),
])
def test_what_fairseq_says_of_options_is_one_line(error, shown):
    message = messages._of_fairseq(error)
    assert "\n" not in message if shown else message is None


@pytest.mark.parametrize("content", [b"\x80\x02\x00", b"just some text\n", b"a 1\na 2\n"])
def test_what_is_no_dictionary_is_named(tmp_path, content):
    (tmp_path / "dict.txt").write_bytes(content)
    with pytest.raises(UsageError, match="dict.txt is not a dictionary that fairseq-preprocess"):
        Dictionary.load(str(tmp_path / "dict.txt"))
    with pytest.raises(FileNotFoundError):
        Dictionary.load(str(tmp_path / "none"))


def test_ranges_of_several_numbers():
    assert [1, 2] in ranges.SIZES and [] not in ranges.SIZES and [0] not in ranges.SIZES
    assert [0.1, 0.4, 0.5] in ranges.PHASES and [0.1, 0.4, 0.6] not in ranges.PHASES
    assert (1e-30, 1e-3) in ranges.POSITIVES and (0, 1) not in ranges.POSITIVES
