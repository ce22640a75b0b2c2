"""One clear line for the mistakes that fairseq answers with a long trace, or not at all."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Iterator

import torch
from fairseq import models, options, tasks
from fairseq.criterions.adaptive_loss import AdaptiveLoss
from fairseq.data import LanguagePairDataset, data_utils
from fairseq.models import BaseFairseqModel
from fairseq.modules import FairseqDropout
from fairseq.tasks import FairseqTask, translation
from fairseq.tasks.language_modeling import LanguageModelingTask
from fairseq.tasks.sentence_prediction import SentencePredictionTask
from fairseq.trainer import Trainer

from fairseq_sru.errors import UsageError, in_one_line, show_error
from fairseq_sru.modules.retained import RetainedDropout
from fairseq_sru.options import check_options
from fairseq_sru.repairs.launches import started_by_torchrun, take_shard
from fairseq_sru.repairs.patching import replace

logger = logging.getLogger(__name__)

CPU_LAUNCH = (
    "--cpu --distributed-world-size {} --distributed-rank RANK --distributed-no-spawn "
    "--distributed-backend gloo --distributed-init-method tcp://localhost:PORT "
    "--ddp-backend legacy_ddp --load-checkpoint-on-all-dp-ranks"
)

#: options of fairseq's that have a range
BATCHES = ("batch_size", "batch_size_valid", "max_tokens", "max_tokens_valid")


def apply() -> None:
    """Check commands and data, and print what is wrong without a trace."""
    print_usage_errors()
    check_command_line()
    check_trainer()
    check_model_options()
    check_data()
    check_targets()
    check_labels()
    check_retained_dropout()
    refuse_empty_evaluation()


def print_usage_errors() -> None:
    """Show an error that a user can mend, and that ends a fairseq command, as one line."""

    @replace(sys, "excepthook")
    def excepthook(original, kind, error, trace):
        message = in_one_line(error) if _is_fairseq_command() else None
        if message is None:
            original(kind, error, trace)
        else:
            show_error(error, message)

    if _is_fairseq_command():  # otherwise hydra prints the last lines of a trace, and exits
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")


def _is_fairseq_command() -> bool:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = spec.name if spec is not None else os.path.basename(sys.argv[0])
    return program.startswith(("fairseq_cli.", "fairseq-", "fairseq_sru."))


def check_command_line() -> None:
    """Refuse options that cannot work on this machine, whichever fairseq command is run."""

    @replace(options, "parse_args_and_arch")
    def parse_args_and_arch(original, parser, input_args=None, parse_known=False, *args, **kwargs):
        parsed = original(parser, input_args, parse_known, *args, **kwargs)
        namespace = parsed[0] if parse_known else parsed
        require_gpu_for_fp16(namespace)
        require_working_launch(namespace)
        check_options(namespace, BATCHES)
        require_whole_evaluation(namespace)
        require_possible_beam(namespace)
        return parsed


def require_gpu_for_fp16(args: Any) -> None:
    """Raises UsageError if ``args.fp16`` is set and no GPU will be used."""
    cpu = getattr(args, "cpu", False) or not torch.cuda.is_available()
    if cpu and getattr(args, "fp16", False):
        raise UsageError("--fp16 needs a GPU: leave it out, or train with --bf16 on a CPU")


def require_working_launch(args: Any) -> None:
    """Raises UsageError for launches of several CPU processes that train nothing, or apart.

    Without a GPU fairseq spawns as many processes as there are GPUs, none, and exits with 0.
    """
    if torch.cuda.is_available() or not hasattr(args, "distributed_world_size"):
        return
    if hasattr(args, "path"):  # evaluates, see require_whole_evaluation
        return
    if started_by_torchrun():  # see join_torchrun
        return
    asked = args.distributed_world_size
    works = (
        args.distributed_no_spawn
        and args.distributed_init_method is not None
        and args.distributed_backend == "gloo"
    )
    if asked > 1 and not works:
        raise UsageError(f"{asked} processes without a GPU: start them by "
                         f"torchrun --nproc-per-node {asked}, or each of them with "
                         + CPU_LAUNCH.format(asked))


def require_whole_evaluation(args: Any) -> None:
    """Raises UsageError where fairseq-eval-lm, -generate and -validate would report the figures of
    a part of the data as those of the whole, or each process those of the whole."""
    if not hasattr(args, "path") or not hasattr(args, "distributed_world_size"):
        return
    processes = max(args.distributed_world_size, int(os.environ.get("WORLD_SIZE", 1)))
    shards = getattr(args, "num_shards", 1)
    if hasattr(args, "beam") and not hasattr(args, "buffer_size") and processes == 1:
        return take_shard(args)
    validates = not hasattr(args, "beam") and not hasattr(args, "context_window")
    if validates and torch.cuda.is_available():  # sums up what its processes find
        processes = 1
    if max(processes, shards) > 1:
        raise UsageError(_parts(max(processes, shards)))


def _parts(number: int) -> str:
    return (f"{number} processes or shards would each report figures of their own as those of the "
            "whole data: leave out --distributed-world-size and --num-shards")


def require_possible_beam(args: Any) -> None:
    """Raises UsageError for a beam or a number of hypotheses that a search cannot have."""
    beam, nbest = getattr(args, "beam", 1), getattr(args, "nbest", 1)
    if beam < 1:
        raise UsageError(f"--beam must be at least 1, got {beam}")
    if not 1 <= nbest <= beam:
        raise UsageError(f"--nbest must be between 1 and --beam ({beam}), got {nbest}")


def check_trainer() -> None:
    """fairseq-hydra-train loads the plugin after reading its options: check them again here."""

    @replace(Trainer, "__init__")
    def __init__(original, self, cfg, *args, **kwargs):
        require_gpu_for_fp16(cfg.common)
        check_options(cfg.dataset, BATCHES)
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


def check_data() -> None:
    """Say which file of a data folder is missing, empty or damaged."""

    @replace(data_utils, "load_indexed_dataset")
    def load_indexed_dataset(original, path, *args, **kwargs):
        _refuse_empty_text(path)
        try:
            return original(path, *args, **kwargs)
        except (FileNotFoundError, UsageError):
            raise
        except Exception as error:  # whatever damaged bytes mean to the reader
            raise UsageError(f"{path}.bin and .idx are damaged ({type(error).__name__}: {error}): "
                             "run fairseq-preprocess again") from error

    @replace(tasks, "setup_task")
    def setup_task(original, *args, **kwargs):
        try:
            return original(*args, **kwargs)
        except FileNotFoundError as error:
            missing = str(error.filename or error)
            remedy = "by fairseq-preprocess, and its languages (-s, -t)"
            if os.path.basename(missing) == "dict.txt":
                remedy = ("by fairseq-preprocess --only-source; for --lm-path copy the language "
                          "model's dict.txt, which must have the words of the target, into DATA")
            raise UsageError(
                f"{missing} does not exist: give a folder written {remedy}") from error

    @replace(translation, "load_langpair_dataset")
    def load_langpair_dataset(original, data_path, split, src, src_dict, tgt, *args, **kwargs):
        _refuse_half_datasets(data_path, split, src, tgt)
        try:
            return original(data_path, split, src, src_dict, tgt, *args, **kwargs)
        except FileNotFoundError as error:
            stem = os.path.join(data_path, f"{split}.{src}-{tgt}.{src}")
            raise UsageError(f"{stem}.bin and .idx do not exist: run fairseq-preprocess with "
                             f"--{split}pref, or name another subset") from error
        except AssertionError as error:
            if "same number of examples" not in str(error):
                raise UsageError(f"the {split} data in {data_path}: {error or 'sides do not fit'}: "
                                 "run fairseq-preprocess on both languages of one text") from error
            raise UsageError(f"the two sides of the {split} data have not as many lines: a line of "
                             "the one must translate that of the other, and fairseq-preprocess "
                             "takes a lone carriage return for the end of a line") from error


def _refuse_half_datasets(folder: str, split: str, source: str, target: str) -> None:
    for pair in (f"{source}-{target}", f"{target}-{source}"):
        for language in (source, target):
            stem = os.path.join(folder, f"{split}.{pair}.{language}")
            lost = [half for half in (".bin", ".idx") if not os.path.exists(stem + half)]
            if len(lost) == 1:
                raise UsageError(f"{stem}{lost[0]} does not exist: run fairseq-preprocess again")


def _refuse_empty_text(stem: str) -> None:
    binary = f"{stem}.bin"
    if os.path.isfile(binary) and os.path.getsize(binary) == 0:
        raise UsageError(f"{binary} is empty: give fairseq-preprocess a text that has lines")


def check_targets() -> None:
    """Training pairs without a target side end in an unrelated error deep in the loss."""

    @replace(Trainer, "get_train_iterator")
    def get_train_iterator(original, self, *args, **kwargs):
        batches = original(self, *args, **kwargs)
        _require_targets(self.task, self.cfg.dataset.train_subset)
        return batches

    @replace(Trainer, "get_valid_iterator")
    def get_valid_iterator(original, self, subset, *args, **kwargs):
        _require_targets(self.task, subset)
        return original(self, subset, *args, **kwargs)


def _require_targets(task: FairseqTask, split: str) -> None:
    dataset = task.dataset(split)
    if isinstance(dataset, LanguagePairDataset) and dataset.tgt is None:
        raise UsageError(f"the {split} data has no {task.cfg.target_lang} side to learn from: run "
                         "fairseq-preprocess on both languages, without --only-source")


def check_labels() -> None:
    """A label that is no class ends in an index error deep in the loss, as do missing ones."""

    @replace(SentencePredictionTask, "load_dataset")
    def load_dataset(original, self, split, *args, **kwargs):
        _require_labels(self.cfg.data, split)
        if not self.cfg.regression_target:
            _require_classes(self, split)
        return original(self, split, *args, **kwargs)


def _require_labels(folder: str, split: str) -> None:
    for part in ("input0", "label"):
        stem = os.path.join(folder, part, split)
        if not any(os.path.exists(stem + end) for end in (".bin", ".label")):
            raise UsageError(f"{stem}.bin does not exist: run fairseq-preprocess --only-source "
                             f"with --{split}pref on the sentences and on their labels, or name "
                             "another subset")


def _require_classes(task: SentencePredictionTask, split: str) -> None:
    sentences, labels = (
        data_utils.load_indexed_dataset(os.path.join(task.cfg.data, part, split), dictionary)
        for part, dictionary in (("input0", task.dictionary), ("label", task.label_dictionary)))
    if len(labels) != len(sentences):
        raise UsageError(f"the {split} data has {len(labels)} labels of {len(sentences)} "
                         "sentences: run fairseq-preprocess again")
    first = task.label_dictionary.nspecial
    for number, line in enumerate(labels, start=1):
        if len(line) != 2:  # the label and </s>
            raise UsageError(f"line {number} of the {split} labels has {len(line) - 1} words: a "
                             "label is one word")
        if not 0 <= line[0] - first < task.cfg.num_classes:
            known = " ".join(task.label_dictionary.symbols[first:][: task.cfg.num_classes])
            raise UsageError(f"line {number} of the {split} labels is none of the "
                             f"{task.cfg.num_classes} classes of --num-classes and the training "
                             f"data: {known}")


def require_one_shard(shards: int) -> None:
    """Raises UsageError if a language model would be evaluated on one of several parts."""
    if shards > 1:
        raise UsageError(_parts(shards))
def check_retained_dropout() -> None:
    """--retain-dropout-modules does nothing for a name that no module has, or on its own; and on a
    command line it is text, of which "TransformerDecoder" is a part wherever
    "TransformerDecoderLayer" is named."""

    @replace(BaseFairseqModel, "prepare_for_inference_")
    def prepare_for_inference_(original, self, cfg):
        wanted = getattr(cfg.generation, "retain_dropout_modules", None)
        if wanted is not None and not getattr(cfg.generation, "retain_dropout", False):
            raise UsageError("--retain-dropout-modules needs --retain-dropout")
        if isinstance(wanted, str):
            cfg.generation.retain_dropout_modules = wanted.split(",")
        original(self, cfg)

    @replace(BaseFairseqModel, "make_generation_fast_")
    def make_generation_fast_(original, self, *, retain_dropout_modules=None, **options):
        if retain_dropout_modules is not None:
            known = set(_modules_with_dropout(self))
            if known.isdisjoint(retain_dropout_modules):
                logger.warning(
                    f"--retain-dropout-modules {','.join(retain_dropout_modules)}: "
                    f"{type(self).__name__} has none of them and drops nothing; what it has: "
                    + ", ".join(sorted(known)))
        original(self, retain_dropout_modules=retain_dropout_modules, **options)


def _modules_with_dropout(model: BaseFairseqModel) -> Iterator[str]:
    for part in model.modules():
        if isinstance(part, FairseqDropout) and part.module_name is not None:
            yield part.module_name
        elif isinstance(part, RetainedDropout):
            yield type(part).__name__


def refuse_empty_evaluation() -> None:
    """fairseq-eval-lm reports perplexity 1.00 when every sample is longer than the model takes, and
    in several processes that of a part."""

    @replace(LanguageModelingTask, "eval_lm_dataloader")
    def eval_lm_dataloader(original, self, *args, **kwargs):
        require_one_shard(kwargs.get("num_shards", 1))
        batches = original(self, *args, **kwargs)
        if len(batches) == 0:
            raise UsageError("nothing to evaluate: every sample is longer than the model's "
                             "positions; lower --tokens-per-sample")
        return batches
