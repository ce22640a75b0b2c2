"""The recurrence's operators by Triton, for GPUs that the extension has no kernels for: one built
without CUDA or not at all, or an AMD GPU. Triton itself is imported when one is first called."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from fairseq_sru.ops.recurrence_autograd import register
from fairseq_sru.ops.reference import state_dtype

NAMESPACE = "fairseq_sru_triton"
#: from 3.3 on, which comes with PyTorch 2.7
HAS_TRITON = find_spec("triton") is not None and tuple(
    map(int, torch.__version__.split(".")[:2])) >= (2, 7)
#: a lane has one channel; AMD's GPUs have 64 lanes a warp
BLOCK = 64 if torch.version.hip else 32


def _forward(
    u: Tensor, x: Tensor | None, weight_c: Tensor | None, bias: Tensor, c0: Tensor | None,
    pad: Tensor | None, mask_c: Tensor | None, scale: float, bidirectional: bool, save_c: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As the extension's operator; c (L, B, D) is the state after each step, or (0,)."""
    from fairseq_sru.ops import triton_kernels

    length, batch, blocks, size = u.shape
    h = u.new_empty(length, batch, size)
    c_last = u.new_empty(batch, size, dtype=state_dtype(u.dtype))
    c = c_last.new_empty(h.shape if save_c else 0)
    _launch(
        triton_kernels.forward, c_last.numel(), u, x, weight_c, bias, c0, pad, mask_c, h, c_last,
        c if save_c else None, length, batch, size, SCALE=1.0 if x is None else scale,
        BLOCKS=blocks, BOTH_WAYS=bidirectional)
    return h, c_last, c


def _backward(
    grad_h: Tensor, grad_c_last: Tensor, u: Tensor, x: Tensor | None, weight_c: Tensor | None,
    bias: Tensor, c0: Tensor | None, pad: Tensor | None, mask_c: Tensor | None, c: Tensor,
    scale: float, bidirectional: bool,
) -> tuple[Tensor, ...]:
    """As the extension's operator, from the c of :func:`_forward`."""
    from fairseq_sru.ops import triton_kernels

    length, batch, blocks, size = u.shape
    grad_u = torch.empty_like(u)
    grad_x = u.new_empty(0) if x is None else torch.empty_like(x)
    grad_mask_c = c.new_empty(0) if mask_c is None else torch.empty_like(mask_c)
    grad_c0 = torch.empty_like(grad_c_last)
    gates = c.new_empty(batch, 4, size)
    _launch(
        triton_kernels.backward, grad_c0.numel(), grad_h, grad_c_last, u, x, weight_c, bias, c0,
        pad, mask_c, c, grad_u, grad_x, gates, grad_c0, grad_mask_c, length, batch, size,
        SCALE=1.0 if x is None else scale, BLOCKS=blocks, BOTH_WAYS=bidirectional)
    grad_weight_c, grad_bias = gates.sum(0).chunk(2)
    return (
        grad_u, grad_x, c.new_empty(0) if weight_c is None else grad_weight_c.clone(),
        grad_bias.clone(), grad_c0, grad_mask_c)


def _launch(kernel: Any, columns: int, *args: Any, **options: Any) -> None:
    """A block of columns each."""
    if columns:
        with torch.cuda.device_of(args[0]):
            kernel[(-(-columns // BLOCK),)](*args, **options, BLOCK=BLOCK, num_warps=1)


if HAS_TRITON:
    torch.library.define(
        f"{NAMESPACE}::recurrence",
        "(Tensor u, Tensor? x, Tensor? weight_c, Tensor bias, Tensor? c0, Tensor? pad, "
        "Tensor? mask_c, float scale, bool bidirectional, bool save_c) "
        "-> (Tensor h, Tensor c_last, Tensor c)")
    torch.library.define(
        f"{NAMESPACE}::recurrence_backward",
        "(Tensor grad_h, Tensor grad_c_last, Tensor u, Tensor? x, Tensor? weight_c, Tensor bias, "
        "Tensor? c0, Tensor? pad, Tensor? mask_c, Tensor c, float scale, bool bidirectional) "
        "-> (Tensor grad_u, Tensor grad_x, Tensor grad_weight_c, Tensor grad_bias, "
        "Tensor grad_c0, Tensor grad_mask_c)")
    torch.library.impl(f"{NAMESPACE}::recurrence", "default", _forward)
    torch.library.impl(f"{NAMESPACE}::recurrence_backward", "default", _backward)
    register(NAMESPACE)
