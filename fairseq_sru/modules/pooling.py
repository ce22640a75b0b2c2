"""One vector a sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_sru.modules.checks import check_padding

POOLINGS = ("last", "mean", "max")


def pool(
    h: Tensor, pad: Tensor | None = None, pooling: str = "last", bidirectional: bool = False
) -> Tensor:
    """One vector a sequence, of its real steps alone.

    Args:
        h: (L, B, D), of a stack.
        pad: (L, B) bool, True = padding, before or after the real steps.
        pooling: "last", "mean" or "max".
        bidirectional: the second half of D runs backwards, and is last at the first step.

    Returns:
        (B, D), zeros for a sequence without a real step.

    Raises:
        ValueError: another ``pooling``, shape or type.
    """
    if h.dim() != 3:
        raise ValueError(f"h must be (L, B, D), got {tuple(h.shape)}")
    if bidirectional and h.size(-1) % 2:
        raise ValueError(f"h of both directions has an even size, got {tuple(h.shape)}")
    check_padding("pad", pad, tuple(h.shape[:2]))
    if pad is None:
        pad = torch.zeros(h.shape[:2], dtype=torch.bool, device=h.device)
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
    if len(h) == 0:
        return h.sum(0)
    pooled = _pool(h, pad, pooling, bidirectional)
    return pooled.masked_fill(pad.all(0).unsqueeze(-1), 0)


def _pool(h: Tensor, pad: Tensor, pooling: str, bidirectional: bool) -> Tensor:
    if pooling == "max":
        return h.masked_fill(pad.unsqueeze(-1), -torch.inf).amax(0)
    if pooling == "mean":
        real = (~pad).sum(0).unsqueeze(-1).clamp(min=1)
        return h.masked_fill(pad.unsqueeze(-1), 0).sum(0) / real
    first, last = _ends(~pad)
    if not bidirectional:
        return _at(h, last)
    forwards, backwards = h.chunk(2, -1)
    return torch.cat([_at(forwards, last), _at(backwards, first)], -1)


def _ends(real: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) each: the first and the last real step."""
    real = real.int()
    return real.argmax(0), len(real) - 1 - real.flip(0).argmax(0)


def _at(h: Tensor, step: Tensor) -> Tensor:
    return h[step, torch.arange(h.size(1), device=h.device)]
