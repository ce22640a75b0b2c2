"""Inputs of layers and stacks that cannot be read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


def check_layer_input(x: Any, pad: Tensor | None, input_size: int, projection: nn.Module) -> None:
    """Raises TypeError for a PackedSequence, which stacks take and layers do not, and ValueError
    for other shapes and types than those of x (L, B, input_size) and pad (L, B)."""
    if isinstance(x, PackedSequence):
        raise TypeError("a layer reads tensors (L, B, C): a stack such as SRU(..., num_layers=1) "
                        "or SRUpp(..., num_layers=1) takes a PackedSequence")
    check_input(x, input_size)
    check_padding("pad", pad, tuple(x.shape[:2]))
    check_type("input", x, projection)


def check_tensors(x: Any, c0: Any, pad: Any) -> None:
    """Raises TypeError for one that is neither a tensor nor None; x may be a PackedSequence."""
    if not isinstance(x, (Tensor, PackedSequence)):
        raise TypeError(f"input must be a tensor, got {type(x).__name__}")
    if isinstance(c0, tuple):
        raise TypeError("c0 must be a tensor (layers, B, D): these layers have cells alone, where "
                        "torch.nn.LSTM has a tuple of two states")
    for name, value in ("c0", c0), ("pad", pad):
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")


def check_input(x: Tensor, input_size: int, batch_first: bool = False) -> None:
    """Raises ValueError for another shape than (L, B, input_size), or (B, L, input_size), and for
    integers."""
    if x.dim() != 3 or x.size(-1) != input_size:
        layout = "B, L" if batch_first else "L, B"
        raise ValueError(f"input must be ({layout}, {input_size}), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"input must be a floating point tensor, got {x.dtype}")


def check_direction(causal: bool, recurrence: Any) -> None:
    """Raises ValueError for a mask of the future beside a recurrence that reads it."""
    if causal and recurrence.bidirectional:
        raise ValueError("causal=True is of no use with a bidirectional recurrence, which reads "
                         "what comes after: leave out one of them")


def check_cells(c0: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raises ValueError for another shape."""
    if c0 is not None and tuple(c0.shape) != shape:
        raise ValueError(f"c0 must be {shape}, got {tuple(c0.shape)}")


def check_padding(name: str, pad: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raises ValueError for another shape, or another type than bool, and TypeError for what is no
    tensor."""
    if pad is None:
        return
    if not isinstance(pad, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(pad).__name__}")
    if tuple(pad.shape) != shape:
        raise ValueError(f"{name} must be {shape}, got {tuple(pad.shape)}")
    if pad.dtype != torch.bool:
        raise ValueError(f"{name} must be bool (True = padding), got {pad.dtype}")


def check_type(name: str, x: Tensor, projection: nn.Module) -> None:
    """Raises ValueError for an input of another type than the weight of its projection, unless
    autocast converts it, or a projection whose weight is packed or no plain tensor."""
    weight: Any = getattr(projection, "weight", None)
    if type(weight) not in (Tensor, nn.Parameter) or not weight.is_floating_point():
        return
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(f"{name} is {x.dtype}, the parameters are {weight.dtype}: convert one of "
                         "them, or use torch.autocast")


def check_context(
    context: Tensor | None, batch_size: int | None = None, size: int | None = None
) -> None:
    """Raises ValueError unless the context is (S, batch_size, size), where None is any number, and
    TypeError for what is no tensor."""
    if context is None:
        return
    if not isinstance(context, Tensor):
        raise TypeError(f"context must be a tensor, got {type(context).__name__}")
    shape = ("S", batch_size or "B", size or "D")
    if context.dim() != 3 or any(
            wanted is not None and found != wanted
            for found, wanted in zip(context.shape[1:], (batch_size, size))):
        raise ValueError(f"context must be ({', '.join(map(str, shape))}), got "
                         f"{tuple(context.shape)}")
