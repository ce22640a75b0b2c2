"""Attention of one decoding step."""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_sru.ops.attention import attention
from fairseq_sru.ops.derivatives import transformed
from fairseq_sru.ops.extension import COMPILED, fits_cpu_kernel


def step_attention(
    q: Tensor,
    keys_values: Tensor,
    mask: Tensor,
    alpha: Tensor,
    num_heads: int = 1,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """q + alpha * softmax(q K^T / sqrt(head size)) V, per head, for one token of every row.

    On the CPU by a kernel that reads keys and values where they lie, and only what a row sees;
    PyTorch's products would copy a bfloat16 cache at every step.

    Args:
        q: (1, R, C), rows of the same sentence being neighbours.
        keys_values: (N, slots, 2C), of N sentences, N a divisor of R.
        mask: (N, 1, R / N, slots), 0 where a row sees a slot, else very negative.
        alpha: (1,).
        dropout: probability, applied to the weights.
        need_weights: also return the weights (before dropout).

    Returns:
        (1, R, C), weights (N, H, R / N, slots) or None.

    Source: SRU++ paper section 3.
    """
    if dropout == 0.0 and not need_weights and _kernel_fits(q, keys_values, mask, alpha):
        y = torch.ops.fairseq_sru.step_attention(
            q[0], keys_values, mask.flatten(0, 2), float(alpha), num_heads)
        return y.unsqueeze(0), None
    sentences, _, beam, _ = mask.shape
    k, v = keys_values.transpose(0, 1).chunk(2, dim=-1)
    a, weights = attention(
        q.view(sentences, beam, -1).transpose(0, 1), k, v, mask, num_heads,
        dropout=dropout, need_weights=need_weights)
    return torch.addcmul(q, a.transpose(0, 1).reshape(q.shape), alpha), weights


def _kernel_fits(q: Tensor, *others: Tensor) -> bool:
    return (
        fits_cpu_kernel(q)
        and q.is_contiguous()
        and not transformed()
        and not (torch.is_grad_enabled() and any(t.requires_grad for t in (q, *others)))
    )


if COMPILED:

    @torch.library.register_fake("fairseq_sru::step_attention")
    def _(q, keys_values, mask, alpha, heads):
        return torch.empty_like(q)
