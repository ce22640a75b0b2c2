"""One clear line for the mistakes that fairseq answers with a long trace, or not at all."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from typing import Any

import torch
from fairseq import models, options
from fairseq.criterions.adaptive_loss import AdaptiveLoss
from fairseq.tasks.language_modeling import LanguageModelingTask
from fairseq.trainer import Trainer

from fairseq_sru.errors import UsageError, in_one_line, show_error
from fairseq_sru.repairs.command_options import check_command
from fairseq_sru.repairs.launches import (
    require_one_shard,
    require_whole_evaluation,
    require_working_launch,
)
from fairseq_sru.repairs.patching import replace
from fairseq_sru.repairs.training import require_fitting_parts


def apply() -> None:
    """Check commands, and print what is wrong without a trace."""
    print_usage_errors()
    check_command_line()
    check_trainer()
    check_model_options()
    refuse_partial_evaluation()


def print_usage_errors() -> None:
    """Show an error that a user can mend, and that ends a fairseq command, as one line."""

    @replace(sys, "excepthook")
    def excepthook(original, kind, error, trace):
        message = (in_one_line(error) or _of_fairseq(error)) if _is_fairseq_command() else None
        if message is None:
            original(kind, error, trace)
        else:
            show_error(error, message)
            _leave()

    if _is_fairseq_command():  # otherwise hydra prints the last lines of a trace, and exits
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")


def _leave() -> None:
    """A thread of fairseq's that reads batches ahead may abort a process that Python ends."""
    if threading.active_count() > 1:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _of_fairseq(error: BaseException) -> str | None:
    """fairseq's own words, where they are of an option, missing data or a missing package."""
    if type(error) is ImportError and "install " in str(error):
        return " ".join(str(error).split())
    message = str(error).partition("\n")[0][:300]
    if message.startswith("Dataset not found"):
        return f"{message}: run fairseq-preprocess on it, or name another subset"
    plain = type(error) in (AssertionError, ValueError, Exception)
    return message if plain and re.search(r"(^|\s|\()--[a-z]", message) else None


def _program() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec is not None else os.path.basename(sys.argv[0])


def _is_fairseq_command() -> bool:
    return _program().startswith(("fairseq_cli.", "fairseq-", "fairseq_sru."))


def check_command_line() -> None:
    """Refuse options that cannot work on this machine, whichever fairseq command is run."""

    @replace(options, "parse_args_and_arch")
    def parse_args_and_arch(original, parser, input_args=None, parse_known=False, *args, **kwargs):
        parsed = original(parser, input_args, parse_known, *args, **kwargs)
        namespace = parsed[0] if parse_known else parsed
        require_gpu_for_fp16(namespace)
        require_working_launch(namespace)
        require_whole_evaluation(namespace)
        check_command(parser, namespace)
        if _program() in ("fairseq_cli.train", "fairseq-train"):
            require_fitting_parts(namespace)
        return parsed


def require_gpu_for_fp16(args: Any) -> None:
    """Raises UsageError if ``args.fp16`` is set and no GPU will be used."""
    cpu = getattr(args, "cpu", False) or not torch.cuda.is_available()
    if cpu and getattr(args, "fp16", False):
        raise UsageError("--fp16 needs a GPU: leave it out, or train with --bf16 on a CPU")


def check_trainer() -> None:
    """What only a trainer has together; fairseq-hydra-train loads the plugin after reading its
    options."""

    @replace(Trainer, "__init__")
    def __init__(original, self, cfg, *args, **kwargs):
        require_gpu_for_fp16(cfg.common)
        require_fitting_criterion(*args)
        original(self, cfg, *args, **kwargs)

    @replace(AdaptiveLoss, "build_criterion")
    def build_criterion(original, cfg, task):
        if str(cfg.ddp_backend) in ("c10d", "pytorch_ddp"):
            raise UsageError("--criterion adaptive_loss needs --ddp-backend legacy_ddp")
        return original(cfg, task)


def require_fitting_criterion(task: Any, model: Any, criterion: Any = None, *others: Any) -> None:
    """Raises UsageError if one of model and criterion has an adaptive softmax and the other not."""
    decoder = getattr(model, "decoder", None)
    adaptive = getattr(decoder, "adaptive_softmax", None) is not None
    if adaptive and not isinstance(criterion, AdaptiveLoss):
        raise UsageError("a model with --adaptive-cutoff is trained by --criterion adaptive_loss")
    if not adaptive and isinstance(criterion, AdaptiveLoss):
        raise UsageError("--criterion adaptive_loss needs a model with an adaptive softmax: give "
                         "--adaptive-cutoff, or another criterion")


def check_model_options() -> None:
    """Options that a model refuses with a ValueError are the user's."""

    @replace(models, "build_model")
    def build_model(original, *args, **kwargs):
        try:
            return original(*args, **kwargs)
        except ValueError as error:
            raise UsageError(str(error)) from error


def refuse_partial_evaluation() -> None:
    """fairseq-eval-lm reports the perplexity of the samples that are not too long for the model,
    1.00 if there are none, and in several processes that of a part."""

    @replace(LanguageModelingTask, "eval_lm_dataloader")
    def eval_lm_dataloader(original, self, dataset, *args, **kwargs):
        require_one_shard(kwargs.get("num_shards", 1))
        positions = kwargs.get("max_positions")
        if positions is not None:
            long = dataset.filter_indices_by_size(dataset.ordered_indices(), positions)[1]
            if len(long) > 0:
                raise UsageError(f"{len(long)} of {len(dataset)} samples are longer than the "
                                 f"{positions} positions of the model and would be left out: lower "
                                 "--tokens-per-sample, or cut with --sample-break-mode none")
        return original(self, dataset, *args, **kwargs)
