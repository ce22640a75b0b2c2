"""Options of fairseq commands, whether argparse, hydra, a checkpoint or a caller set them."""

from __future__ import annotations

import ast
from dataclasses import fields
from typing import Any, Iterable, Mapping

from omegaconf import ListConfig

from fairseq_sru.errors import UsageError
from fairseq_sru.ranges import RANGES, Range

#: what ast.literal_eval raises where a text is no value
UNREADABLE = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


def check_config(config: Any, kind: type) -> None:
    """Look up the options that the dataclass ``kind`` declares in the table of ranges.

    Args:
        config: a ``kind``, omegaconf's of one, or a namespace. What it lacks keeps its default.

    Raises:
        UsageError: one has an impossible value.
    """
    check_options(config, (option.name for option in fields(kind)))


def check_options(
    config: Any, names: Iterable[str], ranges: Mapping[str, Range] = RANGES
) -> None:
    """As :func:`check_config`, those of ``names`` that have a range; None keeps a default."""
    for name in names:
        if name not in ranges:
            continue
        value = getattr(config, name, None)
        if isinstance(value, ListConfig):
            value = list(value)
        elif isinstance(value, str):
            value = _read(value)
        if value is not None and value not in ranges[name]:
            raise UsageError(f"--{name.replace('_', '-')} must be {ranges[name].description}, "
                             f"got {value!r}")


def _read(text: str) -> Any:
    """What some of fairseq's options are written as; None for an interpolation, which says where
    the value is, and the text itself if it is no value."""
    if text.startswith("${"):
        return None
    for read in (ast.literal_eval, float):
        try:
            return read(text)
        except UNREADABLE:
            continue
    return text
