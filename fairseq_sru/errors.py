"""The error that a user can mend, and the end of a command by an error."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import contextmanager
from typing import Iterator

#: environment variable: anything but nothing shows where a one-line error comes from
TRACE = "FAIRSEQ_SRU_TRACE"


class UsageError(ValueError):
    """A mistake in a command, its data or its files. fairseq's commands print it as one line."""


def in_one_line(error: BaseException) -> str | None:
    """What to tell the user of an error that ends a command; None if it is no fault of theirs.

    It is theirs if it is a `UsageError`, a file or device that the system refuses, or text that is
    not UTF-8.
    """
    if isinstance(error, UsageError):
        return str(error)
    if isinstance(error, OSError) and error.strerror and not isinstance(error, BrokenPipeError):
        if error.filename is None:
            return error.strerror
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, UnicodeDecodeError) and isinstance(error.object, bytes):
        line = error.object[: error.start].rpartition(b"\n")[2] + error.object[error.start :]
        return f"text that is not {error.encoding}: {line.partition(bytes([10]))[0][:60]!r}"
    return None


def show_error(error: BaseException, message: str) -> None:
    """Print a line, and where the error comes from if `TRACE` is set."""
    if os.environ.get(TRACE):
        traceback.print_exception(type(error), error, error.__traceback__)
    print(f"error: {message}", file=sys.stderr)


@contextmanager
def one_line() -> Iterator[None]:
    """Around the main function of a command: it ends in one line where :func:`in_one_line` can, and
    without one where nobody reads on, as behind `| head`."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # Python flushes once more
        sys.exit(1)
    except Exception as error:
        message = in_one_line(error)
        if message is None:
            raise
        show_error(error, message)
        sys.exit(1)
