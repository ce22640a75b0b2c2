"""Files and folders that are whole or not there, and text a line at a time."""

from __future__ import annotations

import codecs
import errno
import os
import shutil
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Iterator

import torch

from fairseq_sru.errors import UsageError


@contextmanager
def whole(path: Path, folder: bool = False) -> Iterator[Path]:
    """A path to write a file or a ``folder`` to, which becomes ``path`` when that has succeeded.

    A link goes on pointing to what is written; devices, pipes and /dev/stdout are written to as
    they are.

    Raises:
        UsageError: it cannot be written; what was written is gone, an older ``path`` is not.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.is_dir() and not folder:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if _is_stream(path):
            yield path
        else:
            with _replaced(target) as partial:
                yield partial
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}"
                         f"{_room(error, target.parent)}") from error


@contextmanager
def _replaced(target: Path) -> Iterator[Path]:
    partial = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _remove(partial)
        yield partial
        partial.replace(target)
    finally:
        _remove(partial)


def _is_stream(path: Path) -> bool:
    """Whether it is a device, a pipe or another name of an open file."""
    link = os.readlink(path) if path.is_symlink() else ""
    opened = any(name.startswith("/proc/") for name in (link, os.path.realpath(path.parent)))
    return opened or path.exists() and not path.is_file() and not path.is_dir()


def save_tensors(state: Any, path: Path) -> None:
    """torch.save to a file that is whole or not there, see :func:`whole`.

    Raises:
        UsageError: it cannot be written.
    """
    with whole(path) as partial:
        try:
            with open(partial, "wb") as file:
                torch.save(state, file)
        except RuntimeError as error:  # of torch's writer, which hides the system's
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _room(error: OSError, folder: Path) -> str:
    """How much a full disk has left, without what could not be written."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    return (f" ({shutil.disk_usage(folder).free / 1e6:.1f} MB are free in {folder}): free some and "
            "run the command again")


@contextmanager
def text_files(source: Path | None, target: Path | None) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """What a command reads and what it writes, see :func:`whole`; None: standard input or output.

    Raises:
        UsageError: ``source`` cannot be read or ``target`` not be written.
    """
    with ExitStack() as files:
        read, write = sys.stdin.buffer, sys.stdout.buffer
        if target is not None:
            write = files.enter_context(open(files.enter_context(whole(target)), "wb"))
        if source is not None:
            try:
                read = files.enter_context(open(source, "rb"))
            except OSError as error:
                raise UsageError(f"cannot read {source}: {error.strerror}") from error
        yield read, write
        write.flush()


def lines(source: BinaryIO) -> Iterator[str]:
    """Lines end at a newline and nowhere else; what is no UTF-8 becomes U+FFFD, and a byte order
    mark at the start is none of the text."""
    for number, line in enumerate(source):
        if number == 0:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line:
            yield line.rstrip(b"\r\n").decode(errors="replace")


def read_lines(path: Path) -> list[str]:
    """The lines of a file of text, which end as those of :func:`lines`.

    Raises:
        UsageError: it cannot be read, or is no UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: {error}") from error
    found = text.split("\n")
    return [line.rstrip("\r") for line in (found if found[-1] else found[:-1])]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()
