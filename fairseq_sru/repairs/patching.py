"""How functions of fairseq are replaced."""

from __future__ import annotations

import functools
from typing import Any, Callable


def patch(owner: Any, name: str, build: Callable[[Callable], Callable]) -> None:
    """Replace ``owner.name`` by ``build(original)``, once for each ``build``."""
    original = getattr(owner, name)
    repairs = getattr(original, "_repairs", ())
    if build.__qualname__ not in repairs:
        patched: Any = functools.wraps(original)(build(original))
        patched._repairs = (*repairs, build.__qualname__)
        setattr(owner, name, patched)
