"""Linear layers whose weights are packed for inference on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """x W^T in float32, of weights in float32, bfloat16 or int8.

    Args:
        weight: (outputs, inputs).
        scale: (outputs,), with int8: what multiplies each output's integers.
        isa: which instructions, one of ``torch.ops.fairseq_sru.packed_isas(weight.dtype)``;
            "" for the best that the CPU has.

    Raises:
        ValueError, TypeError: shapes or types do not fit, or the CPU lacks ``isa``.
    """

    def __init__(self, weight: Tensor, scale: Tensor | None = None, isa: str = "") -> None:
        super().__init__()
        self._out = weight.size(0)
        self._matrix: Any = torch.classes.fairseq_sru.PackedMatrix(weight, scale, isa)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) float32 -> (..., outputs) float32."""
        y = torch.ops.fairseq_sru.packed_product(self._matrix, x.flatten(0, -2), None)
        return y.view(*x.shape[:-1], self._out)


def pack_linears(module: nn.Module, tensors: dict[str, Tensor], isa: str = "") -> None:
    """Replace the linear layers of ``module`` by packed ones.

    Args:
        tensors: their weights and scales, by name; those used are taken out.

    Raises:
        KeyError: a weight is missing.
    """
    for name, part in list(module.named_modules()):
        if isinstance(part, nn.Linear):
            parent, _, own = name.rpartition(".")
            packed = PackedLinear(
                tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.scale", None), isa)
            setattr(module.get_submodule(parent), own, packed)
