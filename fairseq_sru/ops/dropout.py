"""Dropout."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_sru.ops.derivatives import transformed
from fairseq_sru.ops.extension import COMPILED, fits_cpu_kernel


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """torch's dropout; on the CPU by a kernel whose mask is a function of a seed alone.

    PyTorch draws a CPU mask one number after another, 10 ns each, and keeps it for the backward
    pass. The seed comes from PyTorch's CPU generator, so torch.manual_seed and activation
    checkpointing work as ever.

    Args:
        x: any shape. p: probability of zero; what is kept is divided by 1 - p.

    Raises:
        ValueError: p is not a probability.
    """
    if not 0 <= p <= 1:  # NaN passes PyTorch's own check
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0.0:
        return x
    if not 0 < p < 1 or not fits_cpu_kernel(x) or transformed():
        return F.dropout(x, p)
    return torch.ops.fairseq_sru.dropout(x, p, int(torch.randint(2**63 - 1, ())))


if COMPILED:

    @torch.library.register_fake("fairseq_sru::dropout")
    def _(input, p, seed):
        return torch.empty_like(input, memory_format=torch.contiguous_format)

    def _setup_context(ctx, inputs, output):
        _, ctx.p, ctx.seed = inputs
        ctx.set_materialize_grads(False)

    def _backward(ctx, grad):
        if grad is None:
            return None, None, None
        if transformed():  # a batch of gradients, which share the mask
            mask = torch.ones(grad.shape, dtype=grad.dtype, device=grad.device)
            return grad * torch.ops.fairseq_sru.dropout(mask, ctx.p, ctx.seed), None, None
        return torch.ops.fairseq_sru.dropout(grad, ctx.p, ctx.seed), None, None

    torch.library.register_autograd(
        "fairseq_sru::dropout", _backward, setup_context=_setup_context)
