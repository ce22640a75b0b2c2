"""Names and layouts of the reference implementation's state dicts, and ours.

The reference keeps the rows of Wo with the block running fastest, in the order candidate, forget,
reset, highway; ours are block by block, in the order forget, reset, candidate, highway.
"""

from __future__ import annotations

from functools import partial
from typing import Callable, Iterator, Mapping, NamedTuple

import torch
from torch import Tensor

from fairseq_sru.errors import UsageError
from fairseq_sru.modules import SRU, SRULayer, SRUpp, SRUppLayer
from fairseq_sru.modules.recurrence import Recurrence


class ConversionError(UsageError):
    """A state dict that does not fit; the message lists everything that is wrong with it."""


class Layout(NamedTuple):
    """How one tensor differs between us and them; both functions only move numbers."""

    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


class Entry(NamedTuple):
    """One parameter under both names."""

    ours: str
    theirs: str
    layout: Layout


def blocks_to_ours(rows: Tensor, num_blocks: int, dim: int = 0) -> Tensor:
    """(D * k) candidate, forget, reset[, highway] -> (k * D) forget, reset, candidate[, highway],
    along ``dim``."""
    split = rows.unflatten(dim, (-1, num_blocks))
    order = torch.tensor([1, 2, 0, 3][:num_blocks], device=rows.device)
    return split.index_select(dim + 1, order).transpose(dim, dim + 1).flatten(dim, dim + 1)


def _blocks_to_theirs(rows: Tensor, num_blocks: int) -> Tensor:
    order = torch.tensor([2, 0, 1, 3][:num_blocks], device=rows.device)
    split = rows.unflatten(0, (num_blocks, -1)).index_select(0, order)
    return split.transpose(0, 1).flatten(0, 1)


SAME = Layout(lambda t: t, lambda t: t)
PAIR = Layout(lambda t: t.view(2, -1), lambda t: t.reshape(-1))
BLOCKS = {
    k: Layout(partial(blocks_to_ours, num_blocks=k), partial(_blocks_to_theirs, num_blocks=k))
    for k in (3, 4)
}


def stack_entries(stack: SRU | SRUpp, ours: str = "", theirs: str = "") -> list[Entry]:
    """Every parameter of ``stack``; ``ours`` and ``theirs`` prefix the names."""
    found = []
    if stack.input_proj is not None:
        found.append(Entry("input_proj.weight", "input_to_hidden.weight", SAME))
    for i, layer in enumerate(stack.layers):
        names = _srupp_layer(layer) if isinstance(layer, SRUppLayer) else _sru_layer(layer)
        found += [Entry(f"layers.{i}.{a}", f"rnn_lst.{i}.{b}", layout) for a, b, layout in names]
    return [Entry(ours + a, theirs + b, layout) for a, b, layout in found]


def _recurrence(layer: SRULayer | SRUppLayer) -> Iterator[Entry]:
    yield Entry("recurrence.weight_c", "weight_c", PAIR)
    yield Entry("recurrence.bias", "bias", PAIR)
    for norm in ("pre_norm", "post_norm"):
        if getattr(layer, norm) is not None:
            yield from _norm(norm, "layer_norm")


def _norm(ours: str, theirs: str) -> Iterator[Entry]:
    for name in ("weight", "bias"):
        yield Entry(f"{ours}.{name}", f"{theirs}.{name}", SAME)


def _sru_layer(layer: SRULayer) -> Iterator[Entry]:
    yield from _recurrence(layer)
    blocks = BLOCKS[layer.recurrence.num_blocks]
    if layer.in_proj is None:
        yield Entry("out_proj.weight", "transform_module.weight", blocks)
    else:
        yield Entry("in_proj.weight", "transform_module.0.weight", SAME)
        yield Entry("out_proj.weight", "transform_module.1.weight", blocks)


def _srupp_layer(layer: SRUppLayer) -> Iterator[Entry]:
    yield from _recurrence(layer)
    yield Entry("q_proj.weight", "transform_module.linear1.weight", SAME)
    last = "linear2"
    if layer.kv_proj is not None:
        yield Entry("kv_proj.weight", "transform_module.linear2.weight", SAME)
        yield Entry("alpha", "transform_module.alpha", SAME)
        last = "linear3"
    blocks = BLOCKS[layer.recurrence.num_blocks]
    yield Entry("out_proj.weight", f"transform_module.{last}.weight", blocks)
    if layer.attn_norm is not None:
        yield from _norm("attn_norm", "transform_module.layer_norm")


def to_ours(
    entries: list[Entry], state: Mapping[str, Tensor], expected: Mapping[str, Tensor],
    ignored: frozenset[str] = frozenset(),
) -> dict[str, Tensor]:
    """``state`` under our names and in our layout.

    Args:
        expected: tensors of the wanted shapes, by our names.
        ignored: further names that ``state`` must have.

    Raises:
        ConversionError: names missing or unknown, or shapes wrong: all of them.
    """
    shapes = {
        entry.theirs: tuple(entry.layout.to_theirs(expected[entry.ours]).shape)
        for entry in entries
    }
    known = shapes.keys() | ignored
    wrong = [f"{name} is missing" for name in sorted(known - state.keys())]
    wrong += [f"{name} is unknown" for name in sorted(state.keys() - known)]
    wrong += [
        f"{name} is {tuple(state[name].shape)}, not {shape}"
        for name, shape in shapes.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if wrong:
        raise ConversionError("the state dict does not fit: " + "; ".join(wrong))
    return {entry.ours: entry.layout.to_ours(state[entry.theirs]) for entry in entries}


def to_theirs(entries: list[Entry], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way: ``state`` under their names and in their layout."""
    return {e.theirs: e.layout.to_theirs(state[e.ours]).contiguous() for e in entries}


def load_stack(stack: SRU | SRUpp, state: Mapping[str, Tensor]) -> None:
    """Fill ``stack`` from a state dict of the reference's SRU or SRUpp, in its number type.

    Raises:
        ConversionError: names, shapes or rescaling do not fit.
    """
    entries = stack_entries(stack)
    scales = {f"rnn_lst.{i}.scale_x": layer.recurrence for i, layer in enumerate(stack.layers)}
    converted = to_ours(entries, state, stack.state_dict(), frozenset(scales))
    stack.to(next(iter(converted.values())).dtype).load_state_dict(converted)
    for name, recurrence in scales.items():
        read_scale(recurrence, name, state[name])


def read_scale(recurrence: Recurrence, name: str, scale_x: Tensor) -> None:
    """Take over the factor of the highway input, which the reference stores as a buffer."""
    scale = float(scale_x)
    if recurrence.scale == 1.0 and scale != 1.0:
        raise ConversionError(f"{name} is {scale:g}, so the layer needs rescale=True")
    recurrence.scale = scale


def export_stack(stack: SRU | SRUpp) -> dict[str, Tensor]:
    """The state dict that the reference's SRU or SRUpp would have.

    A stack without v * c gets zeros there.
    """
    state = stack.state_dict()
    scales = {}
    for i, layer in enumerate(stack.layers):
        bias = state[f"layers.{i}.recurrence.bias"]
        state.setdefault(f"layers.{i}.recurrence.weight_c", torch.zeros_like(bias))
        scales[f"rnn_lst.{i}.scale_x"] = bias.new_tensor([layer.recurrence.scale])
    return {**to_theirs(stack_entries(stack), state), **scales}
