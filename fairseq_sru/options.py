"""Options of fairseq commands, whether argparse, hydra, a checkpoint or a caller set them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Iterable

from omegaconf import ListConfig

from fairseq_sru.errors import UsageError
from fairseq_sru.ranges import RANGES, check_ranges


def check_config(config: Any, kind: type) -> None:
    """Look up the options that the dataclass ``kind`` declares in the table of ranges.

    Args:
        config: a ``kind``, omegaconf's of one, or a namespace. What it lacks keeps its default.

    Raises:
        UsageError: one has an impossible value.
    """
    check_options(config, (option.name for option in fields(kind)))


def check_options(config: Any, names: Iterable[str]) -> None:
    """As :func:`check_config`, those of ``names`` that have a range."""
    for name in names:
        if name not in RANGES:
            continue
        value = getattr(config, name, None)
        if isinstance(value, ListConfig):
            value = list(value)
        elif isinstance(value, str):  # some of fairseq's options, before it has converted them
            value = _number(value)
        try:
            check_ranges(**{name: value})
        except ValueError as error:
            raise UsageError(f"--{name.replace('_', '-')}{str(error)[len(name):]}") from error


def _number(text: str) -> Any:
    """None for an interpolation, or what is no number for another reason."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None
