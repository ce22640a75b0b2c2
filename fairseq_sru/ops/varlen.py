"""Attention over sequences of different lengths without a mask, by PyTorch's varlen kernel."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any, Callable, NamedTuple

import torch
from torch import Tensor

from fairseq_sru.ops.derivatives import transformed

# Packing costs some forty small launches a stack, reordering and the kernel's Python some 0.15 ms a
# layer, whatever the size; a kernel with a mask should take less below this number of keys.
# A guess: benchmarks/attention.py will tell.
FEWEST_KEYS = 256


class Packing(NamedTuple):
    """Where the tokens of a padded (T, B) batch go: sentence after sentence, in each the real
    tokens first, in their order, and then its padding, as if that were a sentence too."""

    order: Tensor  # (B T,), which token of the flattened (T, B) comes at each place
    inverse: Tensor  # (B T,), the place of each token
    offsets: Tensor  # (2 B + 1,) int32, where sentences and their paddings begin
    longest: int  # T, no sentence is longer

    @classmethod
    def of(cls, pad: Tensor) -> Packing:
        """From pad (T, B) bool, True = padding, anywhere; nothing is read from the device."""
        length, batch = pad.shape
        real = (~pad).long()
        before = real.cumsum(0) - real
        lengths = real.sum(0)
        time = torch.arange(length, device=pad.device)[:, None]
        start = torch.arange(batch, device=pad.device) * length
        inverse = (start + torch.where(pad, lengths + time - before, before)).flatten()
        places = torch.arange(length * batch, device=pad.device)
        order = torch.empty_like(inverse).scatter_(0, inverse, places)
        offsets = torch.full((2 * batch + 1,), length * batch, dtype=torch.int32, device=pad.device)
        offsets[:-1:2] = start
        offsets[1::2] = start + lengths
        return cls(order, inverse, offsets, length)


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, queries: Packing, keys: Packing, num_heads: int, causal: bool
) -> Tensor:
    """softmax(q k^T / sqrt(head size)) v among the real tokens of each sentence.

    Args:
        q: (L, B, C). k, v: (S, B, C); C is a multiple of ``num_heads``.
        queries, keys: packing of the queries' and of the keys' padding.
        causal: none attends to what comes after itself, a sentence's queries being the last of
            its keys.

    Returns:
        (L, B, C), finite also for padding.

    Source: SRU++ paper section 3.
    """
    heads = (num_heads, q.size(-1) // num_heads)
    varlen_attn = kernel()
    assert varlen_attn is not None
    packed = varlen_attn(
        _reorder(q, queries).unflatten(-1, heads),
        _reorder(k, keys).unflatten(-1, heads),
        _reorder(v, keys).unflatten(-1, heads),
        queries.offsets, keys.offsets, queries.longest, keys.longest,
        window_size=(-1, 0) if causal else (-1, -1))
    return Reorder.apply(packed.flatten(1), queries.inverse, queries.order).view_as(q)


def suits_varlen(q: Tensor, head_size: int, keys: int, dropout: float, need_weights: bool) -> bool:
    """Whether the kernel takes such heads, and is likely the fastest that does.

    Args:
        q: on the device and of the type of the queries, unless autocast changes that.
        keys: S. dropout: of the weights. need_weights: whether they are wanted.
    """
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else q.dtype
    # The backward pass of 224 wants more shared memory than the GPUs from sm_86 to 89 have.
    fits = head_size % 8 == 0 and (head_size <= 192 or 224 < head_size <= 256)
    return (
        q.device.type == "cuda" and dtype in (torch.float16, torch.bfloat16) and fits
        and keys >= FEWEST_KEYS and dropout == 0.0 and not need_weights and not transformed()
        and runs_varlen(q.device))


@lru_cache
def kernel() -> Callable[..., Any] | None:
    """PyTorch's varlen_attn as it is from 2.11 on, or None. Importing it takes a second, by
    TorchDynamo."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # PyTorch before 2.10
        return None
    return varlen_attn if "window_size" in inspect.signature(varlen_attn).parameters else None


@lru_cache
def runs_varlen(device: torch.device) -> bool:
    """Whether this PyTorch has the kernel and this GPU (from sm_80) runs it."""
    return (
        kernel() is not None and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(device) >= (8, 0))


class Reorder(torch.autograd.Function):
    """Rows of x (N, C) in another order; ``inverse`` is the way back, which the gradient takes:
    a copy, where indexing's own gradient adds up.

    Raises:
        NotImplementedError: a second derivative is wanted, which the kernel in between has not.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.set_materialize_grads(False)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None, None]:
        if grad is None:
            return None, None, None
        (inverse,) = ctx.saved_tensors
        ordered = grad.index_select(0, inverse)
        if torch.is_grad_enabled():
            ordered = _NoDerivative.apply(ordered.detach().requires_grad_())
        return ordered, None, None


class _NoDerivative(torch.autograd.Function):
    """x itself, which cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise NotImplementedError(
            "PyTorch's attention of sentences of different lengths has no second derivative: take "
            "float32, for which a mask is used")


def _reorder(x: Tensor, packing: Packing) -> Tensor:
    return Reorder.apply(x.flatten(0, 1), packing.order, packing.inverse)
