"""The recurrence as a plain loop over time: slow, obvious, and what every fast path is held to."""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_sru.ops.padding import zero_padding


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type of the cell state for inputs of type ``dtype``: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def recurrence_ref(
    u: Tensor,
    x: Tensor | None,
    weight_c: Tensor | None,
    bias: Tensor,
    c0: Tensor | None = None,
    pad: Tensor | None = None,
    mask_c: Tensor | None = None,
    scale: float = 1.0,
    bidirectional: bool = False,
) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`fairseq_sru.ops.recurrence`, differentiated by autograd.

    Source: SRU paper eqs. 1-4 with both gates reading c[t-1], as in SRU++ paper eqs. 2-5.
    """
    if bidirectional:
        halves = [
            recurrence_ref(
                _half(u, i, flip),
                None if x is None else _half(x, i, flip),
                None if weight_c is None else _half(weight_c, i),
                _half(bias, i),
                None if c0 is None else _half(c0, i),
                pad.flip(0) if flip and pad is not None else pad,
                None if mask_c is None else _half(mask_c, i),
                scale,
            )
            for i, flip in ((0, False), (1, True))
        ]
        (h_fwd, c_fwd), (h_bwd, c_bwd) = halves
        return torch.cat([h_fwd, h_bwd.flip(0)], -1), torch.cat([c_fwd, c_bwd], -1)

    length, batch, blocks, size = u.shape
    dtype = state_dtype(u.dtype)
    gates = zero_padding(u, pad).to(dtype)
    c = gates.new_zeros(batch, size) if c0 is None else c0.to(dtype)
    bias = bias.to(dtype)
    v = torch.zeros_like(bias) if weight_c is None else weight_c.to(dtype)
    highway = None if x is None else (scale * zero_padding(x, pad).to(dtype)).unbind(0)
    h = []
    for t, step in enumerate(gates.unbind(0)):
        u_t = step.unbind(1)
        f = torch.sigmoid(u_t[0] + v[0] * c + bias[0])
        r = torch.sigmoid(u_t[1] + v[1] * c + bias[1])
        c_new = f * c + (1 - f) * u_t[2]
        if blocks == 4:
            s = u_t[3]
        else:
            s = torch.zeros_like(c) if highway is None else highway[t]
        delta = (c_new - s) * r
        h_new = s + (delta if mask_c is None else delta * mask_c.to(dtype))
        if pad is not None:
            padded = pad[t].unsqueeze(-1)
            c_new = torch.where(padded, c, c_new)
            h_new = h_new.masked_fill(padded, 0)
        c = c_new
        h.append(h_new.to(u.dtype))
    return (torch.stack(h) if h else u.new_zeros(0, batch, size)), c


def _half(tensor: Tensor, index: int, flip: bool = False) -> Tensor:
    half = tensor.chunk(2, dim=-1)[index]
    return half.flip(0) if flip else half
