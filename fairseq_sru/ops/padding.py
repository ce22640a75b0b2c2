"""What lies behind padding is never read."""

from __future__ import annotations

from torch import Tensor


def zero_padding(x: Tensor, pad: Tensor | None) -> Tensor:
    """x (L, B, ...) with zeros where pad (L, B) is True, NaN and infinities included.

    To multiply by a mask would keep them, and to choose among results keeps them in gradients.
    """
    return x if pad is None else x.masked_fill(pad.view(*pad.shape, *[1] * (x.dim() - 2)), 0)
