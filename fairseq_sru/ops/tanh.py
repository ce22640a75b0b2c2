"""The recurrence with tanh on the way from c to h, as the first SRU had it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fairseq_sru.ops.padding import zero_padding
from fairseq_sru.ops.recurrence import check_inputs, recurrence
from fairseq_sru.ops.reference import state_dtype


def recurrence_tanh(
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
    """As :func:`fairseq_sru.ops.recurrence`, but h[t] = s[t] + (tanh(c[t]) - s[t]) * mask_c * r[t].

    Only c needs the loop over time, and :func:`recurrence` yields it as the h of a wide open reset
    gate; the rest is elementwise.

    Raises:
        ValueError: shapes, types or devices do not fit each other.

    Source: SRU paper, arXiv version 1.
    """
    check_inputs(
        u, scale, bidirectional, x=x, weight_c=weight_c, bias=bias, c0=c0, pad=pad, mask_c=mask_c)
    dtype = state_dtype(u.dtype)
    gates, bias = zero_padding(u, pad).to(dtype), bias.to(dtype)
    v = torch.zeros_like(bias) if weight_c is None else weight_c.to(dtype)
    c0 = gates.new_zeros(u.size(1), u.size(3)) if c0 is None else c0.to(dtype)
    forget, candidate = gates[:, :, 0], gates[:, :, 2]
    if pad is not None:  # a forget gate of 1 carries c, which a padded step would not put out
        forget = forget.masked_fill(pad.unsqueeze(-1), math.inf)
    c, c_last = recurrence(
        torch.stack([forget, torch.zeros_like(forget), candidate], 2),
        None,
        torch.stack([v[0], torch.zeros_like(v[0])]),
        torch.stack([bias[0], torch.full_like(bias[1], math.inf)]),
        c0,
        bidirectional=bidirectional,
    )
    r = torch.sigmoid(gates[:, :, 1] + v[1] * _before(c, c0, bidirectional) + bias[1])
    if u.size(2) == 4:
        s = gates[:, :, 3]
    else:
        s = torch.zeros_like(c) if x is None else scale * zero_padding(x, pad).to(dtype)
    delta = (c.tanh() - s) * r
    h = s + (delta if mask_c is None else delta * mask_c.to(dtype))
    return zero_padding(h, pad).to(u.dtype), c_last


def _before(c: Tensor, c0: Tensor, bidirectional: bool) -> Tensor:
    """(L, B, D): the state each step starts from."""
    before = torch.cat([c0.unsqueeze(0), c])
    if not bidirectional:
        return before[:-1]
    half = c.size(-1) // 2
    after = torch.cat([c, c0.unsqueeze(0)])
    return torch.cat([before[:-1, :, :half], after[1:, :, half:]], -1)
