"""The recurrence as Triton kernels.

A program walks a block of columns, the B D channels of all batch elements, through time. The rows
of a group of steps are loaded together, while the group before is computed.
"""

from __future__ import annotations

import triton
import triton.language as tl

GROUP = tl.constexpr(8)


@triton.jit
def _columns(batch, size, BLOCK: tl.constexpr):
    """The block's columns, which of them there are, and their batch elements and channels."""
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    b = column // size
    return column, b < batch, b, column % size


@triton.jit
def _time(step, length, channel, size, BOTH_WAYS: tl.constexpr):
    """The t of a step in the direction of a channel."""
    if BOTH_WAYS:
        t = tl.where(channel >= size // 2, length - 1 - step, step)
    else:
        t = step
    return t.to(tl.int64)


@triton.jit
def _parameters(weight_c, bias, mask_c, column, inside, channel, size):
    """v_f, v_r, b_f, b_r and the mask."""
    b_f = tl.load(bias + channel, mask=inside, other=0)
    b_r = tl.load(bias + size + channel, mask=inside, other=0)
    v_f = tl.zeros_like(b_f)
    v_r = tl.zeros_like(b_r)
    if weight_c is not None:
        v_f = tl.load(weight_c + channel, mask=inside, other=0)
        v_r = tl.load(weight_c + size + channel, mask=inside, other=0)
    mask = tl.full(b_f.shape, 1, b_f.dtype)
    if mask_c is not None:
        mask = tl.load(mask_c + column, mask=inside, other=0)
    return v_f, v_r, b_f, b_r, mask


@triton.jit
def _step(
    u, x, pad, t, exists, column, b, batch, size, BLOCKS: tl.constexpr, STATE: tl.constexpr
):
    """u0, u1, u2, the highway input before it is scaled, and whether the step counts. What lies
    behind padding is not read."""
    real = exists
    if pad is not None:
        real = exists & (tl.load(pad + t * batch + b, mask=exists, other=1) == 0)
    row = u + t * (batch * BLOCKS * size) + column + b * ((BLOCKS - 1) * size)
    u0 = tl.load(row, mask=real, other=0).to(STATE)
    u1 = tl.load(row + size, mask=real, other=0).to(STATE)
    u2 = tl.load(row + 2 * size, mask=real, other=0).to(STATE)
    if BLOCKS == 4:
        s = tl.load(row + 3 * size, mask=real, other=0).to(STATE)
    elif x is not None:
        s = tl.load(x + t * (batch * size) + column, mask=real, other=0).to(STATE)
    else:
        s = tl.zeros_like(u0)
    return u0, u1, u2, s, real


@triton.jit
def _gate(z):
    return 1 / (1 + tl.exp(-z))


@triton.jit
def _forward_group(
    u, x, pad, first, length, column, inside, b, channel, batch, size, BLOCKS: tl.constexpr,
    BOTH_WAYS: tl.constexpr, STATE: tl.constexpr
):
    group = ()
    for k in tl.static_range(GROUP):
        t = _time(first + k, length, channel, size, BOTH_WAYS)
        group = group + (_step(u, x, pad, t, inside & (first + k < length), column, b, batch, size,
                               BLOCKS, STATE),)
    return group


@triton.jit
def forward(
    u, x, weight_c, bias, c0, pad, mask_c, h, c_last, states, length, batch, size,
    SCALE: tl.constexpr, BLOCKS: tl.constexpr, BOTH_WAYS: tl.constexpr, BLOCK: tl.constexpr
):
    STATE: tl.constexpr = bias.dtype.element_ty
    column, inside, b, channel = _columns(batch, size, BLOCK)
    v_f, v_r, b_f, b_r, mask = _parameters(weight_c, bias, mask_c, column, inside, channel, size)
    c = tl.zeros_like(b_f)
    if c0 is not None:
        c = tl.load(c0 + column, mask=inside, other=0)
    ahead = _forward_group(u, x, pad, 0, length, column, inside, b, channel, batch, size, BLOCKS,
                           BOTH_WAYS, STATE)
    for first in range(0, length, GROUP):
        group = ahead
        ahead = _forward_group(u, x, pad, first + GROUP, length, column, inside, b, channel, batch,
                               size, BLOCKS, BOTH_WAYS, STATE)
        for k in tl.static_range(GROUP):
            u0, u1, u2, s, real = group[k]
            exists = inside & (first + k < length)
            row = _time(first + k, length, channel, size, BOTH_WAYS) * (batch * size) + column
            s = SCALE * s
            f = _gate(u0 + b_f + v_f * c)
            r = _gate(u1 + b_r + v_r * c)
            c = tl.where(real, f * c + (u2 - f * u2), c)
            tl.store(h + row, tl.where(real, s + (c - s) * (mask * r), 0), mask=exists)
            if states is not None:
                tl.store(states + row, c, mask=exists)
    tl.store(c_last + column, c, mask=inside)


@triton.jit
def _backward_group(
    u, x, c0, pad, states, grad_h, first, length, column, inside, b, channel, batch, size,
    BLOCKS: tl.constexpr, BOTH_WAYS: tl.constexpr, STATE: tl.constexpr
):
    """As _forward_group, from step ``first`` back, with the state before each and its grad_h."""
    group = ()
    for k in tl.static_range(GROUP):
        step = first - k
        t = _time(step, length, channel, size, BOTH_WAYS)
        before = _time(step - 1, length, channel, size, BOTH_WAYS)
        row = _step(u, x, pad, t, inside & (step >= 0), column, b, batch, size, BLOCKS, STATE)
        c = tl.load(states + before * (batch * size) + column, mask=inside & (step > 0), other=0)
        if c0 is not None:
            c += tl.load(c0 + column, mask=inside & (step == 0), other=0)
        grad = tl.load(grad_h + t * (batch * size) + column, mask=row[4], other=0).to(STATE)
        group = group + (row + (c, grad),)
    return group


@triton.jit
def backward(
    grad_h, grad_c_last, u, x, weight_c, bias, c0, pad, mask_c, states, grad_u, grad_x, grad_gates,
    grad_c0, grad_mask_c, length, batch, size,
    SCALE: tl.constexpr, BLOCKS: tl.constexpr, BOTH_WAYS: tl.constexpr, BLOCK: tl.constexpr
):
    """grad_gates: (B, 4, D), the parts of each batch element in grad_weight_c and grad_bias."""
    STATE: tl.constexpr = bias.dtype.element_ty
    column, inside, b, channel = _columns(batch, size, BLOCK)
    v_f, v_r, b_f, b_r, mask = _parameters(weight_c, bias, mask_c, column, inside, channel, size)
    grad_c = tl.load(grad_c_last + column, mask=inside, other=0)
    grad_v_f = tl.zeros_like(b_f)
    grad_v_r = tl.zeros_like(b_f)
    grad_b_f = tl.zeros_like(b_f)
    grad_b_r = tl.zeros_like(b_f)
    grad_mask = tl.zeros_like(b_f)
    ahead = _backward_group(u, x, c0, pad, states, grad_h, length - 1, length, column, inside, b,
                            channel, batch, size, BLOCKS, BOTH_WAYS, STATE)
    for done in range(0, length, GROUP):
        first = length - 1 - done
        group = ahead
        ahead = _backward_group(u, x, c0, pad, states, grad_h, first - GROUP, length, column,
                                inside, b, channel, batch, size, BLOCKS, BOTH_WAYS, STATE)
        for k in tl.static_range(GROUP):
            u0, u1, u2, s, real, prev, grad = group[k]
            s = SCALE * s
            f = _gate(u0 + b_f + v_f * prev)
            r = _gate(u1 + b_r + v_r * prev)
            c = f * prev + (u2 - f * u2)
            grad_c_total = grad_c + grad * (mask * r)
            grad_u0 = tl.where(real, grad_c_total * (prev - u2) * (f * (1 - f)), 0)
            grad_u1 = grad * (c - s) * mask * (r * (1 - r))
            grad_u2 = tl.where(real, grad_c_total * (1 - f), 0)
            grad_s = grad - grad * (mask * r)
            grad_c = tl.where(real, grad_c_total * f + grad_u0 * v_f + grad_u1 * v_r, grad_c)
            grad_mask += grad * (c - s) * r
            grad_v_f += grad_u0 * prev
            grad_v_r += grad_u1 * prev
            grad_b_f += grad_u0
            grad_b_r += grad_u1
            exists = inside & (first >= k)
            t = _time(first - k, length, channel, size, BOTH_WAYS)
            row = grad_u + t * (batch * BLOCKS * size) + column + b * ((BLOCKS - 1) * size)
            tl.store(row, grad_u0, mask=exists)
            tl.store(row + size, grad_u1, mask=exists)
            tl.store(row + 2 * size, grad_u2, mask=exists)
            if BLOCKS == 4:
                tl.store(row + 3 * size, grad_s, mask=exists)
            elif x is not None:
                tl.store(grad_x + t * (batch * size) + column, SCALE * grad_s, mask=exists)
    tl.store(grad_c0 + column, grad_c, mask=inside)
    if mask_c is not None:
        tl.store(grad_mask_c + column, grad_mask, mask=inside)
    gates = grad_gates + column + b * (3 * size)
    tl.store(gates, grad_v_f, mask=inside)
    tl.store(gates + size, grad_v_r, mask=inside)
    tl.store(gates + 2 * size, grad_b_f, mask=inside)
    tl.store(gates + 3 * size, grad_b_r, mask=inside)
