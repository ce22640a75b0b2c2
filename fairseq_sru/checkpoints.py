"""Reading a checkpoint: whole, a checkpoint, and without running anything in it."""

from __future__ import annotations

import errno
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairseq_sru.errors import UsageError

#: what a checkpoint may have besides its model and options
PARTS = {
    "optimizer_history": list,
    **dict.fromkeys(("last_optimizer_state", "extra_state", "task_state"), dict),
}


def read_checkpoint(path: str, check_sums: bool = False) -> dict[str, Any]:
    """The contents of a fairseq checkpoint, see :func:`read_tensors`.

    Raises:
        UsageError: ``path`` is missing, damaged or no fairseq checkpoint.
    """
    state = read_tensors(path, check_sums)
    if not isinstance(state, dict) or "model" not in state:
        raise UsageError(f"{path} is not a fairseq checkpoint")
    require_tensors(state["model"], path)
    for name, kind in PARTS.items():
        part = state.get(name)
        if part is not None and not isinstance(part, kind):
            raise UsageError(f"{path} holds a {type(part).__name__} instead of the {name} that "
                             "fairseq writes")
    return state


def read_tensors(path: str, check_sums: bool = False) -> Any:
    """What torch.save wrote, tensors on the CPU and read from disk when used.

    Args:
        check_sums: read all of it now, and compare it with the check sums in the file.

    Raises:
        UsageError: ``path`` is missing or damaged, or holds what may run code.
    """
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped and check_sums:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise UsageError(damaged(path))
        return torch.load(path, map_location="cpu", mmap=zipped, weights_only=True)
    except UsageError:
        raise
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # a seek to before the start of a shortened file
            raise UsageError(damaged(path)) from error
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # whatever damaged bytes mean to the readers of zip and pickle
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            raise UsageError(damaged(path)) from error
        raise UsageError(
            f"{path} holds a {refused[1]}, which may run code when loaded: if you trust the file, "
            "allow that type with torch.serialization.add_safe_globals"
        ) from error


def require_tensors(model: Any, path: str | Path) -> None:
    """Raises UsageError if ``model`` is not named tensors."""
    if not isinstance(model, dict):
        raise UsageError(f"{path} holds a {type(model).__name__} instead of a model's parameters")
    for name, value in model.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UsageError(f"{path} holds a {type(value).__name__} instead of the parameter "
                             f"{name}")


def damaged(path: str) -> str:
    """The message for a file that is not what it should be."""
    others = sorted(Path(path).parent.glob("checkpoint*.pt"), key=os.path.getmtime, reverse=True)
    intact = [other for other in others if other != Path(path) and zipfile.is_zipfile(other)]
    hint = f"use {intact[0]} instead" if intact else "restore a copy"
    return (f"{path} is truncated or not a checkpoint; nothing was written: {hint}, or remove the "
            "file to start anew")


def fairseqs_kind(task: Any) -> type:
    """The type of a checkpoint's task, of ours that of fairseq's which it extends."""
    return next(kind for kind in type(task).__mro__
                if not kind.__module__.startswith("fairseq_sru."))
