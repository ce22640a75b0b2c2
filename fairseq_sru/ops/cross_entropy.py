"""Losses of logits: cross entropy and divergence of each row."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_sru.ops.derivatives import transformed
from fairseq_sru.ops.extension import fits_cpu_kernel


def cross_entropy(
    logits: Tensor, target: Tensor, ignore_index: int = -100
) -> tuple[Tensor, Tensor]:
    """Negative log probability of the target, and the mean of the whole vocabulary's.

    On the CPU by kernels that keep no probabilities: PyTorch's operators copy logits of 16 bits to
    32, and hold four tensors of that size.

    Args:
        logits: (N, V), float32, float64 or bfloat16. target: (N), int64.
        ignore_index: the target of rows whose losses and gradients are 0, whatever their logits.

    Returns:
        Two tensors (N) in nats, float64 for float64 and float32 otherwise. Label smoothing is a
        weighted mean of both.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: target is not int64.
        IndexError: a target outside the vocabulary.
    """
    if fits_cpu_kernel(logits) and not transformed():
        return _CrossEntropy.apply(logits, target, ignore_index)
    return _plain_cross_entropy(logits, target, ignore_index)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(p || q) of each row of logits, differentiable in both.

    Args:
        p, q: (N, V), float32, float64 or bfloat16.

    Returns:
        (N) in nats, float64 for float64 and float32 otherwise.

    Raises:
        ValueError: the shapes differ.
        TypeError: the types differ.
    """
    if fits_cpu_kernel(p) and not transformed():
        return _Divergence.apply(p, q)
    return _plain_divergence(p, q)


def _plain_cross_entropy(logits: Tensor, target: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    no_row = target == ignored
    # the gradient of a NaN is NaN, even where it is multiplied by zero
    log_probs = _log_softmax(logits.masked_fill(no_row.unsqueeze(-1), 0))
    nll = F.nll_loss(log_probs, target, ignore_index=ignored, reduction="none")
    mean_nll = -log_probs.mean(-1)
    return nll, mean_nll.masked_fill(no_row, 0)


def _plain_divergence(p: Tensor, q: Tensor) -> Tensor:
    log_p, log_q = _log_softmax(p), _log_softmax(q)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _log_softmax(logits: Tensor) -> Tensor:
    return F.log_softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, ignored: int
    ) -> tuple[Tensor, Tensor]:
        nll, mean_nll, parts = torch.ops.fairseq_sru.cross_entropy(logits, target, ignored)
        ctx.save_for_backward(logits, target, parts)
        ctx.ignored = ignored
        return nll, mean_nll

    @staticmethod
    def backward(ctx: Any, grad_nll: Tensor, grad_mean_nll: Tensor) -> tuple[Any, ...]:
        logits, target, parts = ctx.saved_tensors
        if _differentiated():
            grads = _gradients(
                lambda x: _plain_cross_entropy(x, target, ctx.ignored), [logits],
                (grad_nll, grad_mean_nll))
            return *grads, None, None
        grad = torch.ops.fairseq_sru.cross_entropy_backward(
            grad_nll, grad_mean_nll, logits, target, parts, ctx.ignored)
        return grad, None, None


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, q: Tensor) -> Tensor:
        kl, *parts = torch.ops.fairseq_sru.divergence(p, q)
        ctx.save_for_backward(p, q, kl, *parts)
        return kl

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        p, q, *results = ctx.saved_tensors
        if _differentiated():
            return _gradients(_plain_divergence, [p, q], grad)
        return torch.ops.fairseq_sru.divergence_backward(grad, p, q, *results)


def _differentiated() -> bool:
    """Whether the gradient itself will be differentiated, or is a batch of them."""
    return torch.is_grad_enabled() or transformed()


def _gradients(function: Any, inputs: list[Tensor], cotangents: Any) -> tuple[Tensor, ...]:
    """The gradients of a function by PyTorch's own operators, themselves differentiable."""
    with torch.enable_grad():
        followed = [x.view_as(x) if x.requires_grad else x.detach().requires_grad_()
                    for x in inputs]
        return torch.autograd.grad(function(*followed), followed, cotangents, create_graph=True)
