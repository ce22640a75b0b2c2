"""Repairs of fairseq on today's PyTorch, numpy and sacrebleu.

fairseq 0.12.2 and its maintained fork are patched in memory, one function a fault. Each function
does nothing where its fault is absent and may be called again; the replaced function stays
reachable as ``__wrapped__`` of its replacement.
"""

from __future__ import annotations

import argparse
import codecs
import inspect
import os
import sys
import types
import warnings
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from fairseq import models, options, trainer
from fairseq.data import bucket_pad_length_dataset, data_utils
from fairseq.ngram_repeat_block import NGramRepeatBlock
from fairseq.optim import AMPOptimizer
from fairseq.scoring import bleu
from fairseq.search import DiverseBeamSearch
from fairseq.tasks import FairseqTask
from omegaconf import OmegaConf, open_dict

from fairseq_sru.checkpoints import read_checkpoint
from fairseq_sru.repairs.patching import replace


def apply() -> None:
    """Repair what every fairseq command may meet."""
    allow_checkpoint_types()
    restore_numpy_long()
    repair_buckets()
    keep_last_batch()
    keep_batches_on_resuming()
    fill_in_presets()
    take_task_of_checkpoint()
    keep_bf16_off_tpus()
    repair_amp_step()
    repair_sentence_bleu()
    repair_repeat_block()
    repair_diverse_beams()
    find_shared_parameters()
    silence_known_warnings()


def allow_checkpoint_types() -> None:
    """PyTorch 2.6 loads nothing but tensors and names types it is told are harmless.

    fairseq checkpoints also hold the command's Namespace (legacy models and schedulers) and, with
    --eval-bleu, numpy arrays and scalars, whose bytes are text that PyTorch 2.4 does not turn back
    untold. Loading stays ``weights_only``.
    """
    if hasattr(torch.serialization, "add_safe_globals"):
        multiarray = getattr(np, "_core", None) or np.core
        dtypes = {type(np.dtype(name)) for name in ("int64", "float64", "float32")}
        torch.serialization.add_safe_globals([
            argparse.Namespace, np.ndarray, np.dtype, *dtypes, codecs.encode,
            multiarray.multiarray._reconstruct, multiarray.multiarray.scalar,
        ])


def restore_numpy_long() -> None:
    """numpy 2 has no ``np.compat.long`` (eos sample breaking, batch buckets)."""
    if not hasattr(np, "compat"):
        setattr(np, "compat", types.SimpleNamespace(long=int))  # noqa: B010


def repair_buckets() -> None:
    """numpy 2's percentile has no argument ``interpolation`` (--num-batch-buckets)."""
    if "interpolation" in inspect.signature(np.percentile).parameters:
        return

    @replace(data_utils, "get_buckets")
    @replace(bucket_pad_length_dataset, "get_buckets")
    def get_buckets(original, sizes, num_buckets):
        bounds = np.linspace(0, 100, num_buckets + 1)[1:]
        return np.unique(np.percentile(sizes, bounds, method="lower"))


def keep_last_batch() -> None:
    """The fork drops the last batch of a data set unless its size is a multiple of 8.

    fairseq-generate then translates only part of a test set, validation and training never see
    the longest sentences, and nothing is said about it.
    """

    @replace(data_utils, "batch_by_size")
    def batch_by_size(original, indices, *args, fixed_shapes=None, **kwargs):
        if len(indices) == 0:
            return []
        batches = original(indices, *args, fixed_shapes=fixed_shapes, **kwargs)
        lost = indices[sum(map(len, batches)):]
        return batches if fixed_shapes is not None or len(lost) == 0 else [*batches, lost]


def keep_batches_on_resuming() -> None:
    """The fork makes other batches when training resumes in the middle of a later epoch.

    It groups sentences by the epoch the process started in, so a resumed epoch repeats some
    sentences and misses others. With the repair all processes group as the first one did.
    """
    if "numpy_seed(seed + epoch)" not in inspect.getsource(FairseqTask.get_batch_iterator):
        return

    @replace(FairseqTask, "get_batch_iterator")
    def get_batch_iterator(original, self, *args, seed=1, epoch=1, **kwargs):
        if kwargs.get("update_epoch_batch_itr"):  # asks for other batches in each epoch
            return original(self, *args, seed=seed, epoch=epoch, **kwargs)
        batches = original(self, *args, seed=seed + 1 - epoch, epoch=epoch, **kwargs)
        batches.seed = seed  # of the order of batches, which does depend on the epoch
        return batches


def fill_in_presets() -> None:
    """fairseq-hydra-train with ``model._name`` a preset builds a model of default sizes.

    It completes a named architecture from its model's dataclass alone, in two of its modules, which
    are imported before the plugin.
    """
    for module in training_modules():
        _complete_presets(module)


def training_modules() -> list[types.ModuleType]:
    """Those of fairseq's that are imported and complete a configuration."""
    names = ("__main__", "fairseq_cli.hydra_train", "fairseq_cli.train")
    return [sys.modules[name] for name in names if hasattr(sys.modules.get(name), "add_defaults")]


def _complete_presets(module: types.ModuleType) -> None:
    @replace(module, "add_defaults")
    def add_defaults(original, cfg):
        name = OmegaConf.select(cfg, "model._name")
        if name in models.ARCH_CONFIG_REGISTRY and name not in models.MODEL_DATACLASS_REGISTRY:
            with open_dict(cfg.model):
                models.ARCH_CONFIG_REGISTRY[name](cfg.model)
        original(cfg)


def keep_bf16_off_tpus() -> None:
    """--bf16 switches --tpu on, and then every device is looked for among TPUs."""

    @replace(options, "parse_args_and_arch")
    def parse_args_and_arch(original, parser, input_args=None, parse_known=False, *args, **kwargs):
        parsed = original(parser, input_args, parse_known, *args, **kwargs)
        namespace = parsed[0] if parse_known else parsed
        if getattr(namespace, "tpu", False):
            namespace.tpu = "--tpu" in (sys.argv[1:] if input_args is None else input_args)
        return parsed


def repair_amp_step() -> None:
    """--amp unscales gradients twice: once for clipping and, for another object, in the step."""

    @replace(AMPOptimizer, "step")
    def step(original, self):
        self.scaler.step(self.optimizer)
        self.scaler.update()


def repair_sentence_bleu() -> None:
    """fairseq-score --sentence-bleu passes three numbers to a scorer that wants a config."""

    @replace(bleu.Scorer, "__init__")
    def __init__(original, self, cfg, eos=None, unk=None):
        original(self, cfg if eos is None else bleu.BleuConfig(pad=cfg, eos=eos, unk=unk))


def repair_repeat_block() -> None:
    """--no-repeat-ngram-size does nothing on a CPU: the last tokens looked at are padding that is
    still to be written."""

    @replace(NGramRepeatBlock, "_no_repeat_ngram")
    def _no_repeat_ngram(original, self, tokens, lprobs, bsz, beam_size, step):
        return original(self, tokens[:, : step + 1], lprobs, bsz, beam_size, step)


def repair_diverse_beams() -> None:
    """--diverse-beam-groups reads the overlap of groups by a sentence's number in the data set,
    where it is kept by its place in the batch: an index error, or another sentence's overlap."""

    @replace(DiverseBeamSearch, "step")
    def step(original, self, step, lprobs, scores, prev_output_tokens=None,
             original_batch_idxs=None):
        if step == 0:
            self._numbers = original_batch_idxs
        if original_batch_idxs is not None:
            same = original_batch_idxs[:, None] == self._numbers
            original_batch_idxs = same.long().argmax(1)
        return original(self, step, lprobs, scores, prev_output_tokens, original_batch_idxs)


def find_shared_parameters() -> None:
    """Training says of every bias that a layer has not that it is shared."""

    @replace(trainer, "_catalog_shared_params")
    def _catalog_shared_params(original, module, memo=None, prefix=""):
        shared = original(module, memo, prefix)
        return shared and [
            names for names in shared if attrgetter(names[0])(module) is not None]


def take_task_of_checkpoint() -> None:
    """fairseq-validate, which has no default of --task, ends in ``KeyError: None`` without it.

    The task and the criterion are those of the checkpoint, as all else is.
    """

    @replace(options, "parse_args_and_arch")
    def parse_args_and_arch(original, parser, input_args=None, *args, **kwargs):
        given, _ = parser.parse_known_args(input_args)
        if getattr(given, "task", "") is None and getattr(given, "path", None) is not None:
            saved = read_checkpoint(given.path.split(os.pathsep)[0])
            parser.set_defaults(**_names_of(saved, "task", "criterion"))
        return original(parser, input_args, *args, **kwargs)


def _names_of(saved: dict[str, Any], *parts: str) -> dict[str, Any]:
    if saved.get("cfg") is not None:
        found = {part: saved["cfg"][part] for part in parts}
        return {part: getattr(value, "_name", None) or value["_name"]
                for part, value in found.items()}
    return {part: getattr(saved["args"], part) for part in parts}


def repair_sacrebleu() -> None:
    """fairseq-score --sacrebleu passes open files; sacrebleu 2 wants lists of lines.

    Not part of `apply`: it changes another library, so only our score command asks for it.
    """
    import sacrebleu

    @replace(sacrebleu, "corpus_bleu")
    def corpus_bleu(original, hypotheses, references, *args, **kwargs):
        return original(list(hypotheses), [list(r) for r in references], *args, **kwargs)


def silence_known_warnings() -> None:
    """Deprecations that every command prints by the page and that only fairseq could act on."""
    for message in (
        r"hydra\.experimental\.", r"\s*The version_base parameter", r"\s*The strict flag in",
        r"In '.*': Usage of deprecated keyword", r"\s*'.*' is validated against ConfigStore",
        r"'pin_memory' argument is set", r"`torch\.cuda\.amp\.",
        r"torch\.cuda\.amp\.GradScaler is enabled, but CUDA is not",
    ):
        warnings.filterwarnings("ignore", message)
