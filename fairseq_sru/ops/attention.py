"""Scaled dot-product attention over time-major tensors, and the masks of SRU++."""

from __future__ import annotations

from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_sru.ops.derivatives import transformed
from fairseq_sru.ops.dropout import dropout as apply_dropout
from fairseq_sru.ops.varlen import Packing, suits_varlen, varlen_attention
from fairseq_sru.ranges import check_ranges


class Reach(TypedDict, total=False):
    """Who attends to whom: arguments of :func:`attention`."""

    mask: Tensor | None
    causal: bool
    packing: tuple[Packing, Packing]


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    num_heads: int = 1,
    dropout: float = 0.0,
    need_weights: bool = False,
    causal: bool = False,
    packing: tuple[Packing, Packing] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """softmax(q k^T / sqrt(head size) + mask) v, per head.

    By PyTorch's fused kernel, or by two products and a softmax where that is faster or the weights
    are wanted: see :func:`is_fused`. With ``packing`` by the kernel for sentences of different
    lengths. PyTorch's fused kernels refuse second derivatives; those that it calls under
    ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`` have them.

    Args:
        q: (L, B, C); C is a multiple of ``num_heads``.
        k, v: (S, B, C).
        mask: broadcastable to (B, H, L, S). Bool, True = takes part, or float, added to the
            scores; what is below half the lowest number takes no part. A query for which nothing
            takes part gets zeros, of which no gradient comes.
        dropout: probability, applied to the weights.
        need_weights: also return the weights (before dropout).
        causal: instead of a mask: none attends to what comes after itself, the queries being the
            last L of the S positions.
        packing: instead of a mask: of the queries' and the keys' padding. Only where
            :func:`fairseq_sru.ops.varlen.suits_varlen`: without dropout and weights.

    Returns:
        output (L, B, C), weights (B, H, L, S) or None.

    Raises:
        ValueError: ``num_heads`` does not divide C, the shapes do not fit each other, the mask has
            another shape or type, or is given besides ``causal`` or ``packing``.

    Source: SRU++ paper section 3.
    """
    _check(q, k, v, num_heads, causal, need_weights)
    if mask is not None and (causal or packing is not None):
        raise ValueError("mask must be None besides causal or packing")
    if packing is not None:
        return varlen_attention(q, k, v, *packing, num_heads, causal), None
    blind = None
    if mask is not None:
        check_mask(mask, (q.size(1), num_heads, q.size(0), k.size(0)))
        mask, blind = _bounded(mask, q.dtype)
    query, key, value = (split_heads(t, num_heads) for t in (q, k, v))
    length, positions = q.size(0), k.size(0)
    if is_fused(q, query.size(-1), dropout, need_weights):
        square = causal and bool(length == positions)  # symbols in torch.export
        if causal and not square:
            from torch.nn.attention.bias import causal_lower_right  # takes a second, by TorchDynamo

            mask = causal_lower_right(length, positions)
        out = F.scaled_dot_product_attention(
            query, key, value, mask, dropout_p=dropout, is_causal=square)
        return merge_heads(out if blind is None else out.masked_fill(blind, 0)), None
    if causal:
        seen = attention_mask(length, None, positions - length, None, True, device=q.device)
        assert seen is not None
        mask = additive(seen, q.dtype)
    scores = (query * query.size(-1) ** -0.5) @ key.transpose(-2, -1)
    if mask is not None:
        scores = scores + mask
    weights = scores.softmax(-1)
    if blind is not None:
        weights = weights.masked_fill(blind, 0)
    out = apply_dropout(weights, dropout) @ value
    return merge_heads(out), weights if need_weights else None


def _check(
    q: Tensor, k: Tensor, v: Tensor, num_heads: int, causal: bool, need_weights: bool
) -> None:
    check_ranges(num_heads=num_heads, causal=causal, need_weights=need_weights)
    if q.dim() != 3 or k.dim() != 3 or q.shape[1:] != k.shape[1:] or k.shape != v.shape:
        raise ValueError("q must be (L, B, C), k and v (S, B, C), got "
                         f"{', '.join(str(tuple(t.shape)) for t in (q, k, v))}")
    if q.size(-1) % num_heads:
        raise ValueError(f"num_heads must divide {q.size(-1)} channels, got {num_heads}")
    if causal and q.size(0) > k.size(0):
        raise ValueError(f"causal needs as many positions as queries, got {k.size(0)} for "
                         f"{q.size(0)}")


def attention_reach(
    x: Tensor,
    head_size: int,
    *,
    pad: Tensor | None = None,
    context_length: int = 0,
    context_pad: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> Reach:
    """Who attends to whom in a stack that reads ``x``, for the fastest kernel that can do it.

    With a mask only where no kernel does without.

    Args:
        x: (L, B, C), on the device and of the type of the queries.
        pad, context_length, context_pad, causal, window: see :func:`attention_mask`.
        mask: (L, S + L), bool (True = takes part) or float (added to the scores), besides these.
        dropout: of the weights. need_weights: whether they are wanted.

    Raises:
        ValueError: ``window`` without ``causal``, or negative.
    """
    length = x.size(0)  # len would fix the length in torch.export
    if window is None and mask is None:
        if pad is None and context_pad is None:
            # On the CPU no kernel is causal after a context.
            if causal and is_fused(x, head_size, dropout, need_weights) and (
                    context_length == 0 or x.device.type != "cpu"):
                return {"causal": True}
        elif suits_varlen(x, head_size, context_length + length, dropout, need_weights):
            packing = attention_packing(length, pad, context_length, context_pad)
            return {"causal": causal, "packing": packing}
    whole = attention_mask(length, pad, context_length, context_pad, causal, window, x.device)
    return {"mask": _combine(whole, mask, x.dtype)}


def check_mask(mask: Tensor, shape: tuple[int, ...]) -> None:
    """Raises ValueError for a mask that does not broadcast to ``shape``, or of another type, and
    TypeError for what is no tensor."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a tensor, got {type(mask).__name__}")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(f"mask must be bool (True = takes part) or float, got {mask.dtype}")
    sizes = zip(reversed(mask.shape), reversed(shape))
    if mask.dim() > len(shape) or not all(size in (1, wanted) for size, wanted in sizes):
        raise ValueError(f"mask must be broadcastable to {shape}, got {tuple(mask.shape)}")


def _combine(mask: Tensor | None, extra: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if extra is None or mask is None:
        return mask if extra is None else extra
    if extra.dtype == torch.bool:
        return mask & extra
    return additive(mask, dtype) + extra


def attention_mask(
    length: int,
    pad: Tensor | None = None,
    context_length: int = 0,
    context_pad: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    device: torch.device | None = None,
) -> Tensor | None:
    """Which of [context ; current] each current position attends to: True = takes part.

    Real positions only. With ``causal`` none after itself; with ``window`` moreover none more
    than that many positions before itself, the context counted as right before the current.

    Args:
        length: L, number of current positions.
        pad: (L, B) bool, True = padding. context_pad: (S, B) likewise.
        context_length: S.

    Returns:
        bool (B or 1, 1, L or 1, S + L), or None if everything takes part.

    Raises:
        ValueError: a negative length, or ``window`` without ``causal`` or negative.
    """
    if min(length, context_length) < 0:
        raise ValueError(f"lengths must be at least 0, got {length} and {context_length}")
    check_window(window, causal)
    if pad is None and context_pad is None and not causal:
        return None
    real = None
    if pad is not None or context_pad is not None:
        pads = fill_padding(length, pad, context_length, context_pad)
        device = pads[0].device
        real = ~torch.cat(pads).t()[:, None, None]
    if not causal:
        return real
    past = torch.ones(length, context_length + length, dtype=torch.bool, device=device)
    past = past.tril(context_length)
    if window is not None:
        past = past.triu(context_length - window)
    past = past[None, None]
    return past if real is None else past & real


def check_window(window: int | None, causal: bool) -> None:
    """Raises ValueError for a window without ``causal``, or a negative one."""
    if window is None:
        return
    if not causal:
        raise ValueError("window needs causal")
    check_ranges(window=window)


def attention_packing(
    length: int, pad: Tensor | None, context_length: int, context_pad: Tensor | None
) -> tuple[Packing, Packing]:
    """What :func:`attention_mask` says of padding, for the kernel that needs no mask.

    Args:
        length: L. pad: (L, B) bool, True = padding. context_length: S. context_pad: (S, B)
            likewise. One of the two pads may be None.

    Returns:
        packing of the current positions, and of [context ; current].
    """
    context_pad, pad = fill_padding(length, pad, context_length, context_pad)
    return Packing.of(pad), Packing.of(torch.cat([context_pad, pad]))


def fill_padding(
    length: int, pad: Tensor | None, context_length: int, context_pad: Tensor | None
) -> tuple[Tensor, Tensor]:
    """context_pad (S, B) and pad (L, B), all False for the one that is None; not both are."""
    known = context_pad if pad is None else pad
    assert known is not None
    for tensor in (pad, context_pad):
        if tensor is not None and tensor.dtype != torch.bool:
            raise ValueError(f"padding must be bool (True = padding), got {tensor.dtype}")
    batch = known.size(1)
    return (
        known.new_zeros(context_length, batch) if context_pad is None else context_pad,
        known.new_zeros(length, batch) if pad is None else pad,
    )


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where ``mask`` is True, else half the lowest number: its softmax weight is exactly 0, yet a
    row without any True stays finite."""
    zero = torch.zeros((), dtype=dtype, device=mask.device)
    return torch.where(mask, zero, torch.full_like(zero, _lowest(dtype)))


def _lowest(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).min / 2


def _bounded(mask: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """The mask as finite numbers to add, and (B, H, L, 1) True for the rows that see nothing: their
    softmax is that of a row which sees everything. None: there are no such rows."""
    if mask.dtype == torch.bool:
        blind = ~mask.any(-1, keepdim=True)
        mask = additive(mask, dtype)
    else:
        mask = mask.clamp(min=_lowest(mask.dtype))
        blind = (mask <= _lowest(mask.dtype)).all(-1, keepdim=True)  # no row with NaN
    readable = (
        mask.device.type == "cpu" and not torch.compiler.is_compiling() and not transformed())
    return mask, None if readable and not blind.any() else blind


def is_fused(q: Tensor, head_size: int, dropout: float = 0.0, need_weights: bool = False) -> bool:
    """Whether :func:`attention` takes PyTorch's fused kernel.

    On the CPU it calls a matrix product per head: 3 to 10 times slower in bfloat16 than batched
    products at the sizes of translation (benchmarks/attention.py), and it has no dropout. On a GPU
    flash kernels end at heads of 256; for larger ones only a kernel slow in training is left. It
    has no derivative in forward mode.
    """
    if need_weights or transformed():
        return False
    if q.device.type == "cpu":
        return dropout == 0.0 and q.dtype != torch.bfloat16
    return head_size <= 256


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    length, batch, size = x.shape
    return x.view(length, batch, num_heads, size // num_heads).permute(1, 2, 0, 3)


def merge_heads(x: Tensor) -> Tensor:
    batch, heads, length, size = x.shape
    return x.permute(2, 0, 1, 3).reshape(length, batch, heads * size)
