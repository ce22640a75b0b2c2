"""How functions of fairseq are replaced."""

from __future__ import annotations

import functools
from typing import Any, Callable


def replace(owner: Any, name: str) -> Callable[[Callable], Callable]:
    """Decorator of what runs in place of ``owner.name``, the original being its first argument.

    The original stays reachable as ``__wrapped__``; decorating the same function again does
    nothing.
    """

    def decorate(function: Callable) -> Callable:
        original = getattr(owner, name)
        repairs = getattr(original, "_repairs", ())
        if function.__qualname__ in repairs:
            return function

        @functools.wraps(original)
        def replaced(*args: Any, **kwargs: Any) -> Any:
            return function(original, *args, **kwargs)

        patched: Any = replaced
        patched._repairs = (*repairs, function.__qualname__)
        setattr(owner, name, patched)
        return function

    return decorate
