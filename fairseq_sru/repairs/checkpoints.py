"""Checkpoints that are damaged, of another model or of other dictionaries: one clear line each."""

from __future__ import annotations

import hashlib
import os
from argparse import Namespace
from dataclasses import fields
from pathlib import Path
from typing import Any, Iterable, Mapping

from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from fairseq.file_io import PathManager
from fairseq.models import MODEL_DATACLASS_REGISTRY, BaseFairseqModel
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_DATACLASS_REGISTRY, FairseqTask
from fairseq.tasks.language_modeling import LanguageModelingTask
from fairseq.tasks.multilingual_translation import MultilingualTranslationTask
from fairseq.tasks.sentence_prediction import SentencePredictionTask
from fairseq.tasks.translation import TranslationTask
from fairseq.trainer import Trainer

from fairseq_sru.checkpoints import damaged, fairseqs_kind, read_checkpoint
from fairseq_sru.errors import UsageError
from fairseq_sru.files import save_tensors, whole
from fairseq_sru.ranges import COUNT
from fairseq_sru.repairs.patching import replace

DICTIONARIES = "dictionaries"  # key of the fingerprints in a checkpoint's task state
ALLOW = "FAIRSEQ_SRU_OTHER_DICTIONARIES"  # environment variable that lets others pass

NO_OPTIONS = {"load_checkpoint_heads"}  # what from_pretrained of RoBERTa and BART overrides
SIDES = {
    LanguageModelingTask: ("source", "target"),
    SentencePredictionTask: ("source", "label"),
    TranslationTask: ("source", "target"),
}


def apply() -> None:
    """Check every checkpoint that fairseq reads, and never leave half of one."""
    check_dictionaries()
    check_checkpoints()
    write_whole_files()
    gather_before_saving()


def check_dictionaries() -> None:
    """Checkpoints remember their dictionaries; a model runs on others only if one insists.

    Dictionaries of another size fail to load with a page of shapes, and of the same size they
    yield fluent nonsense without any error.

    Only tasks are guarded whose dictionaries are known to belong to the model: of others,
    ``source_dictionary`` may be another one in every command.
    """

    @replace(FairseqTask, "state_dict")
    def state_dict(original, self):
        found = _fingerprints(self)
        return {**original(self), DICTIONARIES: found} if found else original(self)

    @replace(FairseqTask, "load_state_dict")
    def load_state_dict(original, self, state_dict):
        state_dict = dict(state_dict)
        _compare_dictionaries(self, state_dict.pop(DICTIONARIES, {}))
        original(self, state_dict)

    @replace(Trainer, "load_checkpoint")
    def load_checkpoint(original, self, filename, reset_optimizer=False, *args, **kwargs):
        try:
            if os.path.isfile(filename):
                _require_training(self.task, filename, reset_optimizer)
            return original(self, filename, reset_optimizer, *args, **kwargs)
        except UsageError:
            raise
        except Exception as error:
            if isinstance(error.__context__, UsageError):
                raise error.__context__ from None
            if not isinstance(error, (AttributeError, LookupError, TypeError, ValueError)):
                raise
            raise UsageError(
                f"{filename} does not hold the state of this training ({type(error).__name__}: "
                f"{error}): give the options it was trained with, or start a new training from its "
                "parameters with --finetune-from-model") from error


def _require_training(task: FairseqTask, path: str, reset_optimizer: bool) -> None:
    state = read_checkpoint(path)
    _require_places(state, path)
    _compare_dictionaries(task, (state.get("task_state") or {}).get(DICTIONARIES, {}))
    if not reset_optimizer and state.get("last_optimizer_state") is None:
        raise UsageError(
            f"{path} holds parameters without the state of an optimizer, as an average of "
            "checkpoints does, and no training goes on from there: start a new one from its "
            "parameters with --finetune-from-model")


def _require_places(state: dict[str, Any], path: str) -> None:
    """Raises UsageError if a checkpoint does not say where in the data its training was."""
    batches = (state.get("extra_state") or {}).get("train_iterator") or {}
    updates = (state.get("optimizer_history") or [{}])[-1]
    for part, name in ((batches, "epoch"), (batches, "iterations_in_epoch"),
                       (updates, "num_updates")):
        if part.get(name, 0) not in COUNT:
            raise UsageError(f"{path}: {name} must be {COUNT.description}, got {part[name]!r}")


def _fingerprints(task: FairseqTask) -> dict[str, dict[str, Any]]:
    found = {}
    for name, dictionary in _dictionaries(task).items():
        digest = hashlib.sha1("\n".join(dictionary.symbols).encode()).hexdigest()
        found[name] = {"types": len(dictionary), "sha1": digest}
    return found


def _dictionaries(task: FairseqTask) -> dict[str, Dictionary]:
    """All dictionaries of a task that is known, by their sides or languages."""
    kind = fairseqs_kind(task)
    if kind is MultilingualTranslationTask:
        return task.dicts
    sides = SIDES.get(kind, ())
    return {side: getattr(task, f"{side}_dictionary") for side in sides}


def _compare_dictionaries(task: FairseqTask, saved: dict[str, dict[str, Any]]) -> None:
    if os.environ.get(ALLOW):
        return
    for side, current in _fingerprints(task).items():
        before = saved.get(side, current)
        if before != current:
            raise UsageError(
                f"the {side} dictionary is not the one the checkpoint was trained with "
                f"({before['types']} types then, {current['types']} now): binarise the data with "
                "the dictionaries of the training data (fairseq-preprocess --srcdict, --tgtdict); "
                f"if other words are to take the place of those, set {ALLOW}=1"
            )


def check_checkpoints() -> None:
    """Say what is wrong with a checkpoint that is missing, damaged or of another model."""

    @replace(checkpoint_utils, "load_checkpoint_to_cpu")
    def load_checkpoint_to_cpu(original, path, arg_overrides=None, *args, **kwargs):
        state = read_checkpoint(PathManager.get_local_path(path))
        _require_options(state, path)
        _require_known_overrides(arg_overrides or {}, state, path)
        try:
            return original(path, arg_overrides, *args, **kwargs)
        except (OSError, UsageError):
            raise
        except RuntimeError as error:  # of a check sum
            raise UsageError(damaged(path)) from error
        except Exception as error:  # contents that are not where fairseq puts them
            reason = f"{type(error).__name__}: {error}".split("\n", 1)[0]
            raise UsageError(f"{path} is not a checkpoint that fairseq wrote: {reason}") from error

    @replace(checkpoint_utils, "load_model_ensemble_and_task")
    def load_model_ensemble_and_task(original, filenames, *args, **kwargs):
        try:
            return original(filenames, *args, **kwargs)
        except OSError as error:
            if not str(error).startswith("Model file not found"):
                raise
            raise UsageError(f"{error}: check --path") from error

    @replace(BaseFairseqModel, "load_state_dict")
    def load_state_dict(original, self, state_dict, *args, **kwargs):
        try:
            return original(self, state_dict, *args, **kwargs)
        except RuntimeError as error:
            raise UsageError(_describe_misfit(self, state_dict)) from error


def _require_options(state: dict[str, Any], path: str) -> None:
    """Raises UsageError for a checkpoint that does not say what model and task it is of."""
    cfg = state.get("cfg")
    if cfg is None and state.get("args") is None or cfg is not None and not (
            isinstance(cfg, Mapping) and {"model", "task"} <= cfg.keys()):
        raise UsageError(f"{path} lacks the options of its model and task (cfg, args): it is not a "
                         "checkpoint that fairseq wrote")


def _require_known_overrides(overrides: Iterable[str], state: dict[str, Any], path: str) -> None:
    """Raises UsageError for an option that neither the checkpoint has nor any part of fairseq:
    fairseq passes over it."""
    unknown = set(overrides) - _names(state.get("cfg")) - _names(state.get("args")) - NO_OPTIONS
    if unknown:
        parts = [*MODEL_DATACLASS_REGISTRY.values(), *TASK_DATACLASS_REGISTRY.values()]
        for registry in REGISTRIES.values():
            parts += registry["dataclass_registry"].values()
        unknown -= {field.name for part in parts if part is not None for field in fields(part)}
    if unknown:
        raise UsageError(f"there is no option {min(map(str, unknown))!r} to override in {path}: "
                         "names are as in its training's log, with underscores")


def _names(options: Any) -> set[str]:
    """All names of options, of nested parts too."""
    if isinstance(options, Namespace):
        options = vars(options)
    if not isinstance(options, Mapping):
        return set()
    return set(options).union(*(_names(value) for value in dict(options).values()))


def write_whole_files() -> None:
    """fairseq copies over checkpoint_last.pt, which is lost if the copy is interrupted, and leaves
    half a file and a trace where the disk is full."""

    @replace(checkpoint_utils, "torch_persistent_save")
    def torch_persistent_save(original, obj, filename, async_write=False):
        if async_write or not PathManager.supports_rename(filename):
            return original(obj, filename, async_write)
        save_tensors(obj, Path(filename))

    @replace(PathManager, "copy")
    def copy(original, src_path, dst_path, overwrite=False):
        if not PathManager.supports_rename(dst_path):
            return original(src_path, dst_path, overwrite)
        with whole(Path(dst_path)) as partial:
            return original(src_path, str(partial), overwrite)


def gather_before_saving() -> None:
    """fairseq asks the first process alone for the state of its iterator.

    An iterator whose state is shared out among the processes has ``gather``, which all call.
    """

    @replace(checkpoint_utils, "save_checkpoint")
    def save_checkpoint(original, cfg, trainer, epoch_itr, val_loss):
        if hasattr(epoch_itr, "gather"):
            epoch_itr.gather()
        return original(cfg, trainer, epoch_itr, val_loss)


def _describe_misfit(model: BaseFairseqModel, saved: dict[str, Any]) -> str:
    own = model.state_dict()
    missing = [name for name in own if name not in saved]
    unknown = [name for name in saved if name not in own]
    shapes = {
        name: (tuple(saved[name].shape), tuple(own[name].shape))
        for name in own
        if name in saved and saved[name].shape != own[name].shape
    }
    parts: list[Any] = [getattr(model, name, None) for name in ("encoder", "decoder")]
    types = {len(part.dictionary) for part in parts if hasattr(part, "dictionary")}
    if shapes and not missing and not unknown and all(
        theirs[1:] == ours[1:] and ours[0] in types for theirs, ours in shapes.values()
    ):
        theirs, ours = next(iter(shapes.values()))
        return (f"the dictionary has {ours[0]} types, the checkpoint's had {theirs[0]}: binarise "
                "the data with the dictionaries of the training data (fairseq-preprocess "
                "--srcdict, --tgtdict)")
    example = [f"{name} is {theirs} there, {ours} here" for name, (theirs, ours) in shapes.items()]
    example += [f"{name} is only here" for name in missing]
    example += [f"{name} is only there" for name in unknown]
    return (f"the checkpoint is of another model ({len(example)} parameters differ, the first: "
            f"{example[0]}): use the --arch and the options it was trained with")
