"""fairseq's own options: values outside their ranges, text that is not what an option wants, and a
search that cannot be."""

from __future__ import annotations

import argparse
import ast
import json
from dataclasses import fields
from numbers import Integral
from typing import Any, Callable, Iterable

from fairseq.data import data_utils
from fairseq.dataclass import utils as dataclass_utils
from fairseq.dataclass.configs import GenerationConfig
from fairseq.sequence_generator import SequenceGenerator, SequenceGeneratorWithAlignment
from fairseq.tasks import TASK_REGISTRY, FairseqTask
from fairseq.tasks.language_modeling import LanguageModelingTask
from omegaconf import DictConfig, OmegaConf

from fairseq_sru.errors import UsageError
from fairseq_sru.options import UNREADABLE, check_options
from fairseq_sru.ranges import OFF_OR_SIZE, RANGES, SHARE, Range
from fairseq_sru.repairs.compat import training_modules
from fairseq_sru.repairs.patching import replace
from fairseq_sru.repairs.training import require_fitting_parts, require_possible_training

_SEED = Range("a whole number from 0 to 4294967295", lambda x: 0 <= x < 2**32, Integral)  # numpy's
#: where fairseq means something else by a name than everybody else
MEANINGS = {
    **RANGES,
    "seed": _SEED,
    "fixed_validation_seed": _SEED,
    "sampling_topk": OFF_OR_SIZE,
    "sampling_topp": Range(f"-1 or {SHARE.description}", lambda x: x == -1 or x in SHARE),
}
#: options whose text is a dictionary: how it is read, what it is and an example
DICTIONARIES: dict[str, tuple[Callable[[str], Any], str, str]] = {
    "model_overrides": (ast.literal_eval, "a dictionary in Python", "{'dropout': 0.1}"),
    "optimizer_overrides": (ast.literal_eval, "a dictionary in Python", "{'lr': [0.1]}"),
    **dict.fromkeys(("epoch2lr", "update2lr"),
                    (ast.literal_eval, "a dictionary in Python", "{1: 0.1}")),
    "eval_bleu_args": (json.loads, "a dictionary in JSON", '{"beam": 4}'),
    "eval_bleu_detok_args": (json.loads, "a dictionary in JSON", '{"target_lang": "en"}'),
}
MODEL = "Model-specific configuration"  # fairseq's name of these options


def apply() -> None:
    """Check what fairseq-hydra-train and callers of a model's methods give; :func:`check_command`
    is for what commands give."""
    check_configurations()
    check_generators()
    check_lists()


def check_command(parser: argparse.ArgumentParser, args: Any) -> None:
    """Raises UsageError for an impossible option of a fairseq command; a model checks its own."""
    _check(args, [action.dest for group in parser._action_groups if group.title != MODEL
                  for action in group._group_actions])
    require_possible_beam(args)
    require_possible_search(args)
    require_known_pieces(args)
    require_tokens_after_context(args)
    require_possible_training(args)


def _check(args: Any, names: Iterable[str]) -> None:
    check_options(args, names, MEANINGS)
    for name in DICTIONARIES.keys() & set(names):
        require_dictionary(name, getattr(args, name, None))


def check_configurations() -> None:
    """fairseq-hydra-train loads the plugin after reading its options: check them when training has
    loaded it."""
    for module in training_modules():

        @replace(module, "add_defaults")
        def add_defaults(original, cfg):
            original(cfg)
            values = _values(cfg)
            _check(argparse.Namespace(**values), values)
            parts = {option: getattr(cfg.get(part), "_name", None)
                     for option, part in (("arch", "model"), ("task", "task"))}
            require_fitting_parts(argparse.Namespace(**{**values, **parts}))


def check_lists() -> None:
    """fairseq cuts --update-freq 1.5 to 1."""

    @replace(dataclass_utils, "eval_str_list")
    def eval_str_list(original, x, x_type=float):
        found = original(x, x_type)
        if x_type is int and found != original(x, float):
            raise argparse.ArgumentTypeError(f"must be whole numbers, got {x!r}")
        return found


def _values(cfg: DictConfig) -> dict[str, Any]:
    """All options but the model's; the first part with a name is where others take it from."""
    values: dict[str, Any] = {}
    for name in cfg:
        if name != "model" and isinstance(cfg[name], DictConfig):
            part: Any = OmegaConf.to_container(cfg[name], resolve=True)
            values = {**part, **values}
    return values


def check_generators() -> None:
    """Whoever asks for a search: a command, --eval-bleu or the methods of a pretrained model."""

    @replace(FairseqTask, "build_generator")
    def build_generator(original, self, models, args, *rest, **more):
        check_options(args, (option.name for option in fields(GenerationConfig)), MEANINGS)
        require_possible_search(args)
        return original(self, models, args, *rest, **more)

    for kind in (SequenceGenerator, SequenceGeneratorWithAlignment):

        @replace(kind, "generate")
        def generate(original, self, *args, **kwargs):
            try:
                return original(self, *args, **kwargs)
            except AssertionError as error:
                if "min_len cannot be larger" not in str(error):
                    raise
                raise UsageError(f"--min-len ({self.min_len}) is more than a hypothesis may have: "
                                 "lower it, or raise --max-len-a or --max-len-b") from error


def require_dictionary(name: str, text: Any) -> None:
    """Raises UsageError if the value of an option is no dictionary of the kind it wants."""
    read, kind, example = DICTIONARIES[name]
    try:
        found = read(text) if isinstance(text, str) else {}
    except UNREADABLE:
        found = None
    option = f"--{name.replace('_', '-')}"
    if not isinstance(found, dict):
        raise UsageError(f"{option} must be {kind}, such as {example}, got {text!r}")
    unknown = found.keys() - {field.name for field in fields(GenerationConfig)}
    if name == "eval_bleu_args" and unknown:
        raise UsageError(f"{option}: fairseq-generate has no option {min(unknown)!r}")


def require_known_pieces(args: Any) -> None:
    """Raises UsageError for pieces of words that fairseq cannot put together."""
    for name in "post_process", "eval_bleu_remove_bpe":
        value = getattr(args, name, None)
        try:
            data_utils.post_process("", value)
        except NotImplementedError as error:
            raise UsageError(f"--{name.replace('_', '-')} must be sentencepiece, subword_nmt or "
                             f"another that fairseq knows, got {value!r}") from error


def require_possible_beam(args: Any) -> None:
    """Raises UsageError for a number of hypotheses that a search cannot have."""
    beam, nbest = getattr(args, "beam", 1), getattr(args, "nbest", 1)
    if not 1 <= nbest <= beam:
        raise UsageError(f"--nbest must be between 1 and --beam ({beam}), got {nbest}")
    if getattr(args, "sampling", False) and nbest != beam:
        raise UsageError(f"--sampling returns all that it draws: --nbest ({nbest}) must be --beam "
                         f"({beam})")


def require_tokens_after_context(args: Any) -> None:
    """Raises UsageError if fairseq-eval-lm would have no token to evaluate after each context."""
    context, tokens = getattr(args, "context_window", 0), getattr(args, "tokens_per_sample", None)
    if context and tokens is not None and context >= tokens:
        raise UsageError(f"--context-window ({context}) must be less than --tokens-per-sample "
                         f"({tokens})")


def require_possible_search(args: Any) -> None:
    """Raises UsageError for options of a search that do not go together."""
    given: dict[str, Any] = {
        option.name: getattr(args, option.name, option.default)
        for option in fields(GenerationConfig)}
    if issubclass(TASK_REGISTRY.get(getattr(args, "task", None), object), LanguageModelingTask):
        for name in ("constraints", "print_alignment"):
            if given[name]:
                raise UsageError(f"--{name.replace('_', '-')} is of translations: a language model "
                                 "has no source")
    sampling, groups = given["sampling"], given["diverse_beam_groups"]
    for name in ("sampling_topk", "sampling_topp"):
        if given[name] > 0 and not sampling:
            raise UsageError(f"--{name.replace('_', '-')} needs --sampling")
    asked = {"--sampling": sampling, "--diverse-beam-groups": groups > 0,
             "--match-source-len": given["match_source_len"],
             "--diversity-rate": given["diversity_rate"] > 0}
    searches = [name for name, wanted in asked.items() if wanted]
    if len(searches) > 1:
        raise UsageError(f"{' and '.join(searches)} are different searches: give one")
    if groups > 0 and given["beam"] % groups:
        raise UsageError(f"--beam ({given['beam']}) must be a multiple of --diverse-beam-groups "
                         f"({groups})")
    most = given["max_len_b"]
    if given["max_len_a"] == 0 and not given["match_source_len"] and given["min_len"] > most:
        raise UsageError(f"--min-len ({given['min_len']}) must be at most --max-len-b ({most})")
