"""The recurrence of SRU and SRU++ as one differentiable operator."""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_sru.ops.backend import operators
from fairseq_sru.ops.derivatives import transformed, warn_plain_loop
from fairseq_sru.ops.reference import recurrence_ref, state_dtype
from fairseq_sru.ranges import FINITE, check_ranges


def recurrence(
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
    """Run the elementwise recurrence over a whole sequence.

    ::

        f[t] = sigmoid(u[t, 0] + v_f * c[t-1] + b_f)
        r[t] = sigmoid(u[t, 1] + v_r * c[t-1] + b_r)
        c[t] = f[t] * c[t-1] + (1 - f[t]) * u[t, 2]
        h[t] = s[t] + (c[t] - s[t]) * mask_c * r[t]

    The highway input ``s`` is ``scale * x`` if ``x`` is given, ``u[t, 3]`` if u has a fourth
    block, else 0. The state is float32 for float32, bfloat16 and float16, float64 for float64.

    Kernels run it forwards and backwards. Derivatives of other kinds (second order, forward mode,
    torch.func) are as right, and those of :func:`recurrence_ref`.

    Args:
        u: (L, B, k, D), k = 3 or 4: forget, reset, candidate[, highway].
        x: (L, B, D) or None.
        weight_c: (2, D), rows v_f and v_r; None leaves ``v * c`` out.
        bias: (2, D), rows b_f and b_r.
        c0: (B, D), the state before the first step; None is zero.
        pad: (L, B) bool, True = padding: c is carried through, h is 0.
        mask_c: (B, D), dropout mask shared over time, already divided by 1 - p.
        scale: factor of x, alpha in SRU paper section 3.2.
        bidirectional: channels [D/2, D) run from the last step to the first.

    Returns:
        h (L, B, D) in u's type, c (B, D) after each direction's last step in the state's type.

    Raises:
        TypeError: u, bias or another is no tensor.
        ValueError: shapes, types or devices do not fit each other.
        NotImplementedError: u is neither on a CPU nor on a GPU of CUDA or ROCm.

    Source: SRU++ paper eqs. 2-5; SRU paper section 3.2.
    """
    check_inputs(
        u, scale, bidirectional, x=x, weight_c=weight_c, bias=bias, c0=c0, pad=pad, mask_c=mask_c)
    kernels = operators(u.device.type)
    if kernels is not None and transformed():
        warn_plain_loop()
        kernels = None
    if kernels is None:
        return recurrence_ref(u, x, weight_c, bias, c0, pad, mask_c, scale, bidirectional)
    dtype = state_dtype(u.dtype)
    tensors = (
        u.contiguous(),
        None if x is None else x.to(u.dtype).contiguous(),
        None if weight_c is None else weight_c.to(dtype).contiguous(),
        bias.to(dtype).contiguous(),
        None if c0 is None else c0.to(dtype).contiguous(),
        None if pad is None else pad.contiguous(),
        None if mask_c is None else mask_c.to(dtype).contiguous(),
    )
    save_c = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    h, c_last, _ = kernels.recurrence(*tensors, float(scale), bidirectional, save_c)
    return h, c_last


def check_inputs(u: Tensor, scale: float, bidirectional: bool, **others: Tensor | None) -> None:
    """Raises ValueError or TypeError for what :func:`recurrence` does not take."""
    for name, tensor in {"u": u, **others}.items():
        if not isinstance(tensor, Tensor) and (tensor is not None or name in ("u", "bias")):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    check_ranges(bidirectional=bidirectional)
    if scale not in FINITE:
        raise ValueError(f"scale must be a finite number, which gets no gradient; got {scale}")
    if u.dim() != 4 or u.size(2) not in (3, 4):
        raise ValueError(f"u must be (L, B, 3 or 4, D), got {tuple(u.shape)}")
    if not u.is_floating_point():
        raise ValueError(f"u must be a floating point tensor, got {u.dtype}")
    length, batch, blocks, size = u.shape
    if bidirectional and size % 2:
        raise ValueError(f"bidirectional needs an even number of channels, got {size}")
    if blocks == 4 and others["x"] is not None:
        raise ValueError("x must be None when u has a fourth (highway) block")
    shapes = dict(x=(length, batch, size), weight_c=(2, size), bias=(2, size), c0=(batch, size),
                  pad=(length, batch), mask_c=(batch, size))
    for name, tensor in others.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shapes[name]:
            raise ValueError(f"{name} must be {shapes[name]} for u {tuple(u.shape)}, "
                             f"got {tuple(tensor.shape)}")
        if tensor.device != u.device:
            raise ValueError(f"{name} is on {tensor.device}, u on {u.device}")
        if name == "pad" and tensor.dtype != torch.bool:
            raise ValueError(f"pad must be bool (True = padding), got {tensor.dtype}")
        if name != "pad" and not tensor.is_floating_point():
            raise ValueError(f"{name} must be a floating point tensor, got {tensor.dtype}")
