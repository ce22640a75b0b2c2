"""What training finds out late: an optimizer or a schedule that cannot be built, a metric that
validation does not have."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from fairseq import optim
from fairseq.file_io import PathManager
from fairseq.models import (
    ARCH_MODEL_REGISTRY,
    FairseqEncoderDecoderModel,
    FairseqEncoderModel,
    FairseqLanguageModel,
    FairseqMultiModel,
)
from fairseq.models.nat import FairseqNATModel
from fairseq.optim import lr_scheduler
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_REGISTRY
from fairseq.tasks.language_modeling import LanguageModelingTask
from fairseq.tasks.multilingual_translation import MultilingualTranslationTask
from fairseq.tasks.sentence_prediction import SentencePredictionTask
from fairseq.tasks.sentence_ranking import SentenceRankingTask
from fairseq.tasks.translation import TranslationTask
from fairseq.tasks.translation_lev import TranslationLevenshteinTask

from fairseq_sru.errors import UsageError
from fairseq_sru.repairs.compat import training_modules
from fairseq_sru.repairs.patching import replace

LAST = "checkpoint_last.pt"  # what --restore-file names where it is not given


def apply() -> None:
    """Say it in one line."""
    check_schedules()
    check_metric()


def check_schedules() -> None:
    """What an optimizer or a schedule refuses is the user's, by whatever error it refuses it."""
    _name_refusals(optim, "build_optimizer", "--optimizer")
    _name_refusals(lr_scheduler, "build_lr_scheduler", "--lr-scheduler")


def _name_refusals(module: Any, function: str, option: str) -> None:
    @replace(module, function)
    def build(original, cfg, *args, **kwargs):
        if cfg is None:
            raise UsageError(f"a training needs {option}")
        try:
            return original(cfg, *args, **kwargs)
        except (AssertionError, ValueError) as error:
            raise _refusal(option, cfg, error) from error


def _refusal(option: str, cfg: Any, error: Exception) -> UsageError:
    if isinstance(error, UsageError):
        return error
    return UsageError(f"{option} {cfg._name}: {error or 'its options do not go together'}")


def require_possible_training(args: Any) -> None:
    """Raises UsageError if an option lacks another, a file or a package that it needs."""
    metric = getattr(args, "best_checkpoint_metric", None)
    if metric == "bleu" and not getattr(args, "eval_bleu", True):
        raise UsageError("--best-checkpoint-metric bleu needs --eval-bleu")
    if getattr(args, "total_num_update", 0) is None:
        raise UsageError(f"--lr-scheduler {args.lr_scheduler} needs --total-num-update")
    words, known = getattr(args, "eval_bleu_detok", None), REGISTRIES["tokenizer"]["registry"]
    if words is not None and words not in known:
        raise UsageError(f"--eval-bleu-detok must be one of {', '.join(known)}, got {words!r}")
    checkpoint = getattr(args, "restore_file", LAST)
    part = checkpoint.replace(".pt", f"{getattr(args, 'checkpoint_suffix', '')}.pt")
    if checkpoint != LAST and not PathManager.exists(part):
        raise UsageError(f"--restore-file {checkpoint} does not exist: leave it out to start from "
                         "the beginning")
    if getattr(args, "write_checkpoints_asynchronously", False) and find_spec("iopath") is None:
        raise UsageError("--write-checkpoints-asynchronously needs iopath: `pip install iopath`")
    if getattr(args, "dynamic_lr", 0) and not hasattr(args, "softmax_batch"):
        raise UsageError("--dynamic-lr is of fairseq-eval-lm: nothing else learns from what it "
                         "evaluates")


def require_fitting_parts(args: Any) -> None:
    """Raises UsageError for an architecture or a criterion that a training's task does not go with;
    an --arch of other commands is of no effect."""
    if not hasattr(args, "max_update"):
        return
    task = TASK_REGISTRY.get(getattr(args, "task", None), object)
    model = ARCH_MODEL_REGISTRY.get(getattr(args, "arch", None))
    if model is None:
        return
    if issubclass(task, SentencePredictionTask) and not hasattr(args, "classification_head_name"):
        raise UsageError(f"--task {args.task} needs --criterion sentence_prediction")
    classifies = hasattr(model, "register_classification_head")
    wanted = None
    if issubclass(task, LanguageModelingTask) and not issubclass(model, FairseqLanguageModel):
        wanted = "a language model"
    elif issubclass(task, SentencePredictionTask) and not classifies:
        wanted = "a model that classifies"
    elif issubclass(task, TranslationTask) and (
            issubclass(model, (FairseqEncoderModel, FairseqLanguageModel))
            or classifies and not issubclass(model, FairseqEncoderDecoderModel)):
        wanted = "an encoder with a decoder"
    elif issubclass(task, MultilingualTranslationTask) and not issubclass(model, FairseqMultiModel):
        wanted = "a model of its own for each pair (translation_multi_simple_epoch: one for all)"
    elif issubclass(task, TranslationLevenshteinTask) and not issubclass(model, FairseqNATModel):
        wanted = "a model that writes all words at once"
    elif model.__module__ == "fairseq_sru.models.classifier" and not issubclass(
            task, (SentencePredictionTask, SentenceRankingTask)):
        raise UsageError(f"--arch {args.arch} needs --task sentence_prediction")
    elif task.__module__.startswith("fairseq_sru.") and not model.__module__.startswith(
            "fairseq_sru."):
        wanted = "a model of SRU or SRU++ layers"
    if wanted is not None:
        raise UsageError(f"--task {args.task} trains {wanted}, --arch {args.arch} is none")


def check_metric() -> None:
    """--best-checkpoint-metric bleu without --eval-bleu, say, ends the first validation."""
    for module in training_modules():
        if not hasattr(module, "get_valid_stats"):
            continue

        @replace(module, "get_valid_stats")
        def get_valid_stats(original, cfg, trainer, stats, *args, **kwargs):
            metric = cfg.checkpoint.best_checkpoint_metric
            if metric not in stats:
                raise UsageError(f"--best-checkpoint-metric {metric}: validation has "
                                 f"{', '.join(sorted(stats))}")
            return original(cfg, trainer, stats, *args, **kwargs)
