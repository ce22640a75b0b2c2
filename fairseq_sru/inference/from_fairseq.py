"""Reading fairseq's checkpoints for inference; the only part of it that needs fairseq."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Sequence

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from fairseq_sru import register
from fairseq_sru.checkpoints import fairseqs_kind
from fairseq_sru.errors import UsageError
from fairseq_sru.inference.export import Package
from fairseq_sru.inference.text import SentencePiece, Text, Words, check_words
from fairseq_sru.inference.vocabulary import Vocabulary
from fairseq_sru.inference.weights import read_model


def import_checkpoint(
    path: Path,
    precision: str = "int8",
    data: str | Path | None = None,
    text_options: Sequence[str] = (),
) -> Package:
    """A model of a fairseq checkpoint, its dictionaries and how its text is cut.

    Args:
        precision: one of :data:`fairseq_sru.inference.PRECISIONS`.
        data: folder of the dictionaries; default: where the model was trained.
        text_options: --bpe, --tokenizer and what belongs to them, as fairseq-interactive takes
            them; default: those of the training command.

    Raises:
        UsageError: the checkpoint is damaged or of a model that the engine does not run, or the
            dictionaries or the sentencepiece model are missing or others.
    """
    register()
    from fairseq import checkpoint_utils
    from fairseq.tasks.language_modeling import LanguageModelingTask
    from fairseq.tasks.translation import TranslationTask

    overrides = {} if data is None else {"data": str(data)}
    try:
        (model,), saved, task = checkpoint_utils.load_model_ensemble_and_task(
            [str(path)], arg_overrides=overrides)
    except UsageError:
        raise
    except Exception as error:  # fairseq's tasks raise anything
        raise UsageError(f"cannot set up the task of {path}: {error}; --data names the folder of "
                         "its dictionaries, dict.*.txt") from error
    if fairseqs_kind(task) not in (LanguageModelingTask, TranslationTask):
        raise UsageError(f"{path} is of a {type(task).__name__}, which treats text in a way of its "
                         "own: use fairseq-interactive with its options")
    try:
        weights = read_model(model, precision)
    except ValueError as error:
        raise UsageError(str(error)) from error
    source = _vocabulary(task.source_dictionary) if "encoder" in weights.config else None
    target = _vocabulary(task.target_dictionary)
    if text_options:
        saved = _parse(text_options, task)
    return Package(weights, source, target, _text(saved, source or target))


def _vocabulary(dictionary: Any) -> Vocabulary:
    return Vocabulary(
        dictionary.symbols, pad=dictionary.pad(), unk=dictionary.unk(), eos=dictionary.eos())


class FairseqText:
    """fairseq's own --tokenizer and --bpe."""

    def __init__(self, tokenizer: Any, bpe: Any) -> None:
        self._steps = [step for step in (tokenizer, bpe) if step is not None]

    def encode(self, line: str) -> str:
        for step in self._steps:
            line = step.encode(line)
        return line

    def decode(self, tokens: str) -> str:
        for step in reversed(self._steps):
            tokens = step.decode(tokens)
        return tokens


def _text(saved: Any, vocabulary: Vocabulary) -> Text:
    bpe, tokenizer = _name(saved, "bpe"), _name(saved, "tokenizer")
    for registry, name in ("bpe", bpe), ("tokenizer", tokenizer):
        part = saved.get(registry)
        for option in map(str, part) if isinstance(part, DictConfig) else ():
            if OmegaConf.is_missing(part, option):
                raise UsageError(f"--{registry} {name} needs --{option.replace('_', '-')}")
    if bpe == "sentencepiece" and tokenizer is None:
        text = SentencePiece(Path(saved.bpe.sentencepiece_model))
        text.check(vocabulary)
        return text
    if bpe is None:
        check_words(vocabulary)
        if tokenizer is None:
            return Words()
    from fairseq.data import encoders

    try:
        return FairseqText(
            encoders.build_tokenizer(saved.tokenizer), encoders.build_bpe(saved.bpe))
    except (ImportError, OSError) as error:
        raise UsageError(f"--bpe {bpe}, --tokenizer {tokenizer}: {error}") from error


def _parse(options: Sequence[str], task: Any) -> Any:
    """fairseq's configuration with these options, and the languages of the task.

    Raises:
        UsageError: others than those of the text are among them, or fairseq cannot read them.
    """
    languages = []
    for side in "source", "target":
        language = getattr(task.cfg, f"{side}_lang", None)
        if language is not None:
            languages += [f"--{side}-lang", language]
    try:
        given, default = _configuration([*languages, *options]), _configuration(languages)
    except HydraException as error:
        raise UsageError(f"{' '.join(options)}: {_first_line(error)}") from error
    if any(given[part] != default[part] for part in given if part not in ("bpe", "tokenizer")):
        raise UsageError(f"{' '.join(options)}: of fairseq's options only --bpe, --tokenizer and "
                         "what belongs to them can be given here")
    return given


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _configuration(options: Sequence[str]) -> Any:
    from fairseq import options as fairseq_options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    # it prints all options where it cannot compose them
    logging.getLogger("fairseq.dataclass.utils").setLevel(logging.CRITICAL)
    parser = fairseq_options.get_interactive_generation_parser()
    return convert_namespace_to_omegaconf(
        fairseq_options.parse_args_and_arch(parser, ["--path", "model", "data", *options]))


def _name(saved: Any, registry: str) -> str | None:
    part = saved.get(registry)
    return part if part is None or isinstance(part, str) else part.get("_name")
