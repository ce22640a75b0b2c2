"""What training finds out late: an optimizer or a schedule that cannot be built, a metric that
validation does not have."""

from __future__ import annotations

from typing import Any

from fairseq import optim
from fairseq.models import (
    ARCH_MODEL_REGISTRY,
    FairseqEncoderDecoderModel,
    FairseqEncoderModel,
    FairseqLanguageModel,
)
from fairseq.optim import lr_scheduler
from fairseq.tasks import TASK_REGISTRY
from fairseq.tasks.language_modeling import LanguageModelingTask
from fairseq.tasks.sentence_prediction import SentencePredictionTask
from fairseq.tasks.translation import TranslationTask

from fairseq_sru.errors import UsageError
from fairseq_sru.repairs.compat import training_modules
from fairseq_sru.repairs.patching import replace


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
        try:
            return original(cfg, *args, **kwargs)
        except (AssertionError, ValueError) as error:
            raise _refusal(option, cfg, error) from error


def _refusal(option: str, cfg: Any, error: Exception) -> UsageError:
    if isinstance(error, UsageError):
        return error
    return UsageError(f"{option} {cfg._name}: {error or 'its options do not go together'}")


def require_fitting_model(args: Any) -> None:
    """Raises UsageError for an architecture of models that the task does not train."""
    task = TASK_REGISTRY.get(getattr(args, "task", None), object)
    model = ARCH_MODEL_REGISTRY.get(getattr(args, "arch", None))
    if model is None:
        return
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
