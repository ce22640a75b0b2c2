"""Dropout masks that the reference recorded, replayed in our modules."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from fairseq_sru.convert.layout import ConversionError
from fairseq_sru.modules import SRU, SRULayer, SRUpp


@contextmanager
def replay(
    stack: SRU | SRUpp, tape: list[dict[str, Any]], shape: tuple[int, int], context_length: int = 0,
    input_dropout: float = 0.0,
) -> Iterator[None]:
    """Within it dropout multiplies by the masks of ``tape``.

    Args:
        tape: {p, mask (already divided by 1 - p)} in the order in which the reference draws them.
        shape: (L, B) of the input. context_length: S, of the memory.
        input_dropout: rnn_dropout, of what W reads: one mask a sequence, none of ours.

    Raises:
        ConversionError: the masks are not those that the stack needs.
    """
    if not stack.training:
        input_dropout = 0.0
    remaining = list(tape)
    drawn, hooks = [], []
    for layer in stack.layers if stack.training else []:
        masks = _layer_masks(layer, remaining, shape, context_length, input_dropout)
        drawn += [masks[kind] for kind in ("weights", "features", "recurrence") if kind in masks]
        if "input" in masks:
            hooks.append(_multiply_input(layer, masks["input"]))
    if remaining:
        raise ConversionError(f"the dropout tape has {len(remaining)} masks too many")
    with _Replay(drawn):
        yield
    for hook in hooks:
        hook.remove()
    if drawn:
        raise ConversionError(f"{len(drawn)} masks of the dropout tape were not used")


def _layer_masks(
    layer: Any, tape: list[dict[str, Any]], shape: tuple[int, int], context_length: int,
    input_dropout: float,
) -> dict[str, Tensor]:
    """Take the masks of one layer off ``tape``, in the reference's order."""
    length, batch = shape
    first = getattr(layer, "q_proj", None) or getattr(layer, "in_proj", None) or layer.out_proj
    wanted: list[tuple[str, float, tuple[int, ...]]] = [
        ("input", input_dropout, (batch, first.in_features)),
        ("recurrence", layer.recurrence.dropout, (batch, layer.recurrence.output_size)),
    ]
    if hasattr(layer, "q_proj"):
        if layer.kv_proj is not None:
            heads = (batch, layer.num_heads, length, context_length + length)
            wanted.append(("weights", layer.attention_dropout, heads))
        wanted.append(("features", layer.dropout, (length, batch, layer.q_proj.out_features)))
    masks = {}
    for kind, p, size in wanted:
        fits = bool(tape) and tape[0]["p"] == p and tape[0]["mask"].numel() == torch.Size(
            size).numel()
        if fits:
            mask = tape.pop(0)["mask"].view(size)
            if p > 0:
                masks[kind] = mask
        elif p > 0:
            raise ConversionError(f"the dropout tape lacks a mask of {size} with p = {p}")
    return masks


def _multiply_input(layer: SRULayer, mask: Tensor) -> RemovableHandle:
    first = layer.in_proj if layer.in_proj is not None else layer.out_proj
    return first.register_forward_pre_hook(lambda _, inputs: (inputs[0] * mask,))


class _Replay(TorchFunctionMode):
    """Answers every draw of a dropout mask from ``masks``, which it empties."""

    def __init__(self, masks: list[Tensor]) -> None:
        super().__init__()
        self.masks = masks

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.__name__ == "dropout":  # PyTorch's or that of fairseq_sru.ops
            return args[0] * self._next(args[0].shape)
        return func(*args, **kwargs)

    def _next(self, shape: torch.Size) -> Tensor:
        if not self.masks or self.masks[0].shape != shape:
            raise ConversionError(f"the dropout tape has no mask of {tuple(shape)} at this point")
        return self.masks.pop(0)
