"""Shapes and derivatives of the recurrence's operators: first order by kernels, second by the
loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fairseq_sru.ops.derivatives import transformed, warn_plain_loop
from fairseq_sru.ops.extension import COMPILED, STATES_EVERY
from fairseq_sru.ops.reference import recurrence_ref, state_dtype

# The operators' arguments, in the order of their schema.
_INPUTS = ("u", "x", "weight_c", "bias", "c0", "pad", "mask_c")
_DIFFERENTIABLE = ("u", "x", "weight_c", "bias", "c0", "mask_c")


def _plain_gradients(
    inputs: dict[str, Tensor | None], grad_h: Tensor, grad_c_last: Tensor, **options: Any
) -> tuple[Tensor | None, ...]:
    """The gradients of the plain loop, themselves differentiable, one for each of
    ``_DIFFERENTIABLE``."""
    with torch.enable_grad():
        used = {name: _followed(inputs[name]) for name in _DIFFERENTIABLE}
        outputs = recurrence_ref(**used, pad=inputs["pad"], **options)  # type: ignore[arg-type]
        wanted = [tensor for tensor in used.values() if tensor is not None]
        grads = iter(torch.autograd.grad(
            outputs, wanted, (grad_h, grad_c_last), create_graph=True, allow_unused=True))
    return tuple(None if tensor is None else next(grads) for tensor in used.values())


def _followed(tensor: Tensor | None) -> Tensor | None:
    """The tensor as one that autograd.grad can ask for, still part of the graph that it is in."""
    if tensor is None:
        return None
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.scale, ctx.bidirectional, ctx.save_c = inputs
    c = output[2]
    ctx.save_for_backward(*tensors, c)
    ctx.mark_non_differentiable(c)
    ctx.set_materialize_grads(False)  # of c too, which is as large as u


def _setup_second_context(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, _, ctx.scale, ctx.bidirectional = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _second_backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
    """Of the gradients with respect to the inputs and the gradients that they are made of."""
    warn_plain_loop()
    with torch.enable_grad():
        tensors: list[Any] = [t if t is None or t.dtype == torch.bool else _followed(t)
                              for t in ctx.saved_tensors]
    grad_h, grad_c_last, *own = tensors
    grads = _plain_gradients(
        dict(zip(_INPUTS, own)), grad_h, grad_c_last, scale=ctx.scale,
        bidirectional=ctx.bidirectional)
    pairs = [(grad, cotangent) for grad, cotangent in zip(grads, cotangents)
             if grad is not None and grad.requires_grad and cotangent is not None]
    result: list[Tensor | None] = [None] * 12
    wanted = [i for i, t in enumerate(tensors) if t is not None and ctx.needs_input_grad[i]]
    if pairs and wanted:
        found = torch.autograd.grad(
            [grad for grad, _ in pairs], [tensors[i] for i in wanted],
            [cotangent for _, cotangent in pairs], create_graph=torch.is_grad_enabled(),
            allow_unused=True)
        for i, grad in zip(wanted, found):
            result[i] = grad
    return tuple(result)


def register(namespace: str, states_every: int = 1) -> None:
    """Give ``recurrence`` and ``recurrence_backward`` of a namespace of torch.ops their shapes and
    derivatives.

    Args:
        states_every: on a GPU, c has the state before every so many steps, and not after each.
    """

    @torch.library.register_fake(f"{namespace}::recurrence")
    def _(u, x, weight_c, bias, c0, pad, mask_c, scale, bidirectional, save_c):
        length, batch, _, size = u.shape
        h = u.new_empty(length, batch, size)
        kept = -(-length // states_every) if u.device.type == "cuda" else length
        c = u.new_empty((kept, batch, size) if save_c else (0,), dtype=state_dtype(u.dtype))
        return h, c.new_empty(batch, size), c

    @torch.library.register_fake(f"{namespace}::recurrence_backward")
    def _(grad_h, grad_c_last, u, x, weight_c, bias, c0, pad, mask_c, c, scale, bidirectional):
        def like(tensor):
            return torch.empty_like(tensor) if tensor is not None else c.new_empty(0)

        grad_x = torch.empty_like(x) if x is not None else u.new_empty(0)
        return (torch.empty_like(u), grad_x, like(weight_c), torch.empty_like(bias),
                torch.empty_like(grad_c_last), like(mask_c))

    def _backward(ctx, grad_h, grad_c_last, _):
        if not ctx.save_c:
            raise RuntimeError(f"{namespace}::recurrence was called with save_c=False: no backward")
        if grad_h is None and grad_c_last is None:
            return (None,) * 10
        *tensors, c = ctx.saved_tensors
        inputs = dict(zip(_INPUTS, tensors))
        length, batch, _, size = inputs["u"].shape
        if grad_h is None:
            grad_h = inputs["u"].new_zeros(length, batch, size)
        if grad_c_last is None:
            grad_c_last = c.new_zeros(batch, size)
        if transformed():  # a batch of gradients
            warn_plain_loop()
            grads = _plain_gradients(
                inputs, grad_h, grad_c_last, scale=ctx.scale, bidirectional=ctx.bidirectional)
        else:
            found = getattr(torch.ops, namespace).recurrence_backward(
                grad_h.contiguous(), grad_c_last.contiguous(), *tensors, c, ctx.scale,
                ctx.bidirectional)
            grads = tuple(None if inputs[name] is None else grad
                          for name, grad in zip(_DIFFERENTIABLE, found))
        return (*grads[:5], None, grads[5], None, None, None)

    torch.library.register_autograd(
        f"{namespace}::recurrence", _backward, setup_context=_setup_context)
    torch.library.register_autograd(
        f"{namespace}::recurrence_backward", _second_backward,
        setup_context=_setup_second_context)


if COMPILED:
    register("fairseq_sru", STATES_EVERY)
