"""Which layers of a stack attend."""

from __future__ import annotations

from numbers import Integral
from typing import Sequence


def attention_layers(spec: str | Sequence[int], num_layers: int) -> set[int]:
    """The layers, counted from 1 as in the paper's tables 2 and 10, that attend.

    Args:
        spec: "all", "none", "every:k" (layers k, 2k, ...), "last:n", or a list of layers:
            "5,10" or [5, 10].

    Raises:
        ValueError: anything else, or a layer that does not exist.
    """
    layers = range(1, num_layers + 1)
    try:
        if not isinstance(spec, str):
            if not all(isinstance(i, Integral) and not isinstance(i, bool) for i in spec):
                raise ValueError
            chosen = {int(i) for i in spec}
        elif spec in ("all", "none"):
            chosen = set(layers) if spec == "all" else set()
        elif spec.startswith("every:"):
            every = _positive(spec[6:])
            chosen = {i for i in layers if i % every == 0}
        elif spec.startswith("last:"):
            last = _positive(spec[5:])
            chosen = {i for i in layers if i > num_layers - last}
        else:
            chosen = {int(i) for i in spec.split(",")}
    except (TypeError, ValueError):
        raise ValueError(f"attention must be all, none, every:K, last:N or a list of layers such "
                         f"as 5,10; got {spec!r}") from None
    if not chosen <= set(layers):
        raise ValueError(f"attention names layers {sorted(chosen - set(layers))}, but the layers "
                         f"are 1 to {num_layers}")
    return chosen


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
