"""Reading a checkpoint: whole, a checkpoint, and without running anything in it."""

from __future__ import annotations

import errno
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from fairseq_sru.errors import UsageError


def read_checkpoint(path: str) -> dict[str, Any]:
    """The contents of a fairseq checkpoint, tensors on the CPU and read from disk when used.

    Raises:
        UsageError: ``path`` is missing, damaged or no fairseq checkpoint.
    """
    try:
        state = torch.load(
            path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True
        )
    except OSError as error:
        if error.errno == errno.EINVAL:  # a seek to before the start of a shortened file
            raise UsageError(_damaged(path)) from error
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            raise UsageError(_damaged(path)) from error
        raise UsageError(
            f"{path} holds a {refused[1]}, which may run code when loaded: if you trust the file, "
            "allow that type with torch.serialization.add_safe_globals"
        ) from error
    if not isinstance(state, dict) or "model" not in state:
        raise UsageError(f"{path} is not a fairseq checkpoint")
    return state


def _damaged(path: str) -> str:
    others = sorted(Path(path).parent.glob("checkpoint*.pt"), key=os.path.getmtime, reverse=True)
    intact = [other for other in others if other != Path(path) and zipfile.is_zipfile(other)]
    hint = f"use {intact[0]} instead" if intact else "restore a copy"
    return (f"{path} is truncated or not a checkpoint; nothing was written: {hint}, or remove the "
            "file to start anew")
