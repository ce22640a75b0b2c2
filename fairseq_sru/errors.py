"""The error that a user can mend."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import Iterator


class UsageError(ValueError):
    """A mistake in a command, its data or its files. fairseq's commands print it as one line."""


@contextmanager
def one_line() -> Iterator[None]:
    """Around the main function of a command: a `UsageError` ends it with its message alone."""
    try:
        yield
    except UsageError as error:
        sys.exit(f"error: {error}")
