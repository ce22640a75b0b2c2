"""Files and folders that are whole or not there."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from fairseq_sru.errors import UsageError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write a file or a folder to, which becomes ``path`` when that has succeeded.

    Raises:
        UsageError: it cannot be written; what was written is gone, an older ``path`` is not.
    """
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()
