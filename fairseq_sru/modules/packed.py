"""PyTorch's other layouts of batches: packed sequences, and the batch first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


def unpack(packed: PackedSequence) -> tuple[Tensor, Tensor]:
    """Padded x (L, B, C), in the order before packing, and its padding (L, B)."""
    x, lengths = pad_packed_sequence(packed)
    steps = torch.arange(x.size(0), device=x.device)
    return x, steps[:, None] >= lengths.to(x.device)


def pack(h: Tensor, like: PackedSequence) -> PackedSequence:
    """h (L, B, D) with every token at the place that it has in ``like``."""
    if like.sorted_indices is not None:
        h = h.index_select(1, like.sorted_indices)
    sizes = like.batch_sizes
    lengths = (sizes > torch.arange(int(sizes[0]))[:, None]).sum(1)
    data = pack_padded_sequence(h, lengths).data
    return PackedSequence(data, sizes, like.sorted_indices, like.unsorted_indices)


def swap(x: Any) -> Any:
    """Time and batch change places in x (B, L, ...), or in each of several; None stays None.

    Raises:
        ValueError: fewer than two dimensions.
    """
    if x is None:
        return None
    if not isinstance(x, Tensor):
        return [swap(part) for part in x]
    if x.dim() < 2:
        raise ValueError(f"batch_first wants (B, L, ...), got {tuple(x.shape)}")
    return x.transpose(0, 1)
