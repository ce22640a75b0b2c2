"""A stack of layers, whatever the layers: whole sequences at once, or token by token."""

from __future__ import annotations

from typing import Any, Callable, Collection, NamedTuple, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import _register_namedtuple
from torch.utils.checkpoint import checkpoint

from fairseq_sru.modules.checks import (
    check_cells,
    check_context,
    check_direction,
    check_input,
    check_padding,
    check_tensors,
    check_type,
)
from fairseq_sru.modules.formats import refuse_tracing
from fairseq_sru.modules.packed import pack, swap, unpack
from fairseq_sru.ops import Linear
from fairseq_sru.ops.attention import additive, attention_reach, check_mask, check_window
from fairseq_sru.ops.padding import zero_padding
from fairseq_sru.ranges import check_ranges
from fairseq_sru.state import DecodingState


class StackOutput(NamedTuple):
    """What :meth:`Stack.read` returns."""

    h: Any  # (L, B, D), or a PackedSequence if x is one
    c: Tensor  # (layers, B, D)
    inputs: list[Tensor]  # the input of each layer, (L, B, input size): the next segment's context
    weights: list[Tensor | None]  # (B, H, L, S + L) of each layer, None unless asked for


# for torch.export.save and load
_register_namedtuple(StackOutput, serialized_type_name="fairseq_sru.StackOutput")


class Stack(nn.Module):
    """Layers on top of each other.

    A layer has ``attends``, ``input_size``, ``recurrence`` and ``forward(x, c0, pad, mask_c,
    zeroed) -> h, c``; one whose ``attends`` is true takes and returns more, and has ``step``,
    ``start``, ``head_size`` and ``attention_dropout``: see :class:`fairseq_sru.modules.SRUppLayer`.

    Args:
        input_size: size of the input and of the context.
        hidden_size: d of every layer, per direction.
        build_layer: called with the number of the layer, its input size and options.
        bidirectional: of every layer.
        batch_first: of :meth:`read` and forward: x, pad, context, context_pad, h and inputs have
            the batch before the time, as in torch.nn.LSTM.
        project_input: if input_size is not D, map the input to D first (no bias).
        checkpoint_activations: in training keep only the layers' inputs, and compute the rest anew
            in the backward pass.
        layer: options of every layer.

    Raises:
        ValueError: impossible sizes.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        build_layer: Callable[..., nn.Module],
        *,
        bidirectional: bool = False,
        batch_first: bool = False,
        project_input: bool = False,
        checkpoint_activations: bool = False,
        **layer: Any,
    ) -> None:
        super().__init__()
        check_ranges(
            input_size=input_size, hidden_size=hidden_size, num_layers=num_layers,
            bidirectional=bidirectional, batch_first=batch_first, project_input=project_input,
            checkpoint_activations=checkpoint_activations)
        self.input_size = input_size
        self.output_size = hidden_size * (2 if bidirectional else 1)
        self.batch_first = batch_first
        self.checkpoint_activations = checkpoint_activations
        self.input_proj = None
        if project_input and input_size != self.output_size:
            self.input_proj = Linear(input_size, self.output_size, bias=False)
            nn.init.xavier_uniform_(self.input_proj.weight)
            input_size = self.output_size
        sizes = [input_size] + [self.output_size] * (num_layers - 1)
        self.layers: Any = nn.ModuleList(
            build_layer(i, size, bidirectional=bidirectional, **layer)
            for i, size in enumerate(sizes))

    @property
    def attends(self) -> bool:
        """Whether any layer does."""
        return any(layer.attends for layer in self.layers)

    def read(
        self,
        x: Tensor | PackedSequence,
        c0: Tensor | None = None,
        pad: Tensor | None = None,
        context: Tensor | Sequence[Tensor | None] | None = None,
        context_pad: Tensor | None = None,
        **reach: Any,
    ) -> StackOutput:
        """Run the stack over whole sequences.

        Args:
            x: (L, B, input_size), or a PackedSequence, which has its own padding. Sequences have
                the order in which they were packed in all other arguments and results.
            c0: (layers, B, D), the cell states before the first step, or None.
            pad: (L, B) bool, True = padding.
            context: what all layers (one tensor (S, B, D)) or each of them (a list, None where a
                layer does not attend) attend to besides their input: the encoder's output, or the
                memory of the last segment.
            context_pad: (S, B) bool. causal, window: see
                :func:`fairseq_sru.ops.attention_mask`.
            projected: the context is a list of keys and values, (S, B, 2 d'), and in ``inputs``
                the layers that attend return theirs, which are the next segment's context: it
                need not be projected again.
            mask: (L, S + L), bool (True = takes part) or float (added to the scores), besides
                the others.
            need_weights: also return the attention weights of all layers, or of those with these
                numbers, from 0.

        Raises:
            TypeError: x, c0 or pad is no tensor.
            ValueError: shapes or types do not fit, a PackedSequence with ``pad``, ``causal`` with
                both directions, or ``window`` without ``causal`` or negative, whether any layer
                attends or not.
        """
        refuse_tracing()
        check_tensors(x, c0, pad)
        if isinstance(x, PackedSequence):
            if pad is not None:
                raise ValueError("a PackedSequence has its own padding: leave out pad")
            if self.batch_first:
                context, context_pad = swap(context), swap(context_pad)
            padded, pad = unpack(x)
            check_input(padded, self.input_size)
            out = self._read(padded, pad, c0, context, context_pad, **reach)
            inputs = swap(out.inputs) if self.batch_first else out.inputs
            return out._replace(h=pack(out.h, x), inputs=inputs)
        check_input(x, self.input_size, self.batch_first)
        check_padding("pad", pad, tuple(x.shape[:2]))
        if not self.batch_first:
            return self._read(x, pad, c0, context, context_pad, **reach)
        out = self._read(swap(x), swap(pad), c0, swap(context), swap(context_pad), **reach)
        return out._replace(h=swap(out.h), inputs=swap(out.inputs))

    def _read(
        self,
        x: Tensor,
        pad: Tensor | None,
        c0: Tensor | None,
        context: Tensor | Sequence[Tensor | None] | None,
        context_pad: Tensor | None,
        *,
        causal: bool = False,
        window: int | None = None,
        mask: Tensor | None = None,
        need_weights: bool | Collection[int] = False,
        projected: bool = False,
    ) -> StackOutput:
        check_cells(c0, (len(self.layers), x.size(1), self.output_size))
        check_ranges(causal=causal, projected=projected)
        check_window(window, causal)
        check_direction(causal, self.layers[0].recurrence)
        wanted = self._wanted(need_weights)
        contexts = self._contexts(context, x.size(1))
        given_contexts = [c for c in contexts if c is not None]
        context_length = given_contexts[0].size(0) if given_contexts else 0
        if any(c.size(0) != context_length for c in given_contexts):
            raise ValueError("contexts of all layers must have one length, got "
                             f"{[c.size(0) for c in given_contexts]}")
        check_padding("context_pad", context_pad, (context_length, x.size(1)))
        if mask is not None:
            check_mask(mask, (x.size(0), context_length + x.size(0)))
        attending = [i for i, layer in enumerate(self.layers) if layer.attends]
        reaches = {}
        for needed in sorted({i in wanted for i in attending}):
            layer = self.layers[attending[0]]  # heads and dropout are alike in all
            reaches[needed] = attention_reach(
                x, layer.head_size, pad=pad, context_length=context_length,
                context_pad=context_pad, causal=causal, window=window, mask=mask,
                dropout=layer.attention_dropout if layer.drops else 0.0,
                need_weights=needed)
        given, x = x, zero_padding(x, pad)
        if context_pad is not None:
            zeroed = {id(c): zero_padding(c, context_pad) for c in given_contexts}
            contexts = [None if c is None else zeroed[id(c)] for c in contexts]
        if self.input_proj is not None:
            check_type("input", x, self.input_proj)
            x = self.input_proj(x)
        inputs: list[Tensor] = []
        cells: list[Tensor] = []
        weights: list[Tensor | None] = []
        for i, layer in enumerate(self.layers):
            attention: dict[str, Any] = {}
            if layer.attends:
                attention = dict(context=contexts[i], need_weights=i in wanted,
                                 projected=projected, **reaches[i in wanted])
            inputs.append(x if i or self.input_proj is not None else given)
            x, c, *attended = self._run(
                layer, x, None if c0 is None else c0[i], pad, zeroed=True, **attention)
            cells.append(c)
            weights.append(attended[0] if attended else None)
            if projected and layer.attends:
                inputs[i] = attended[1]
        return StackOutput(x, torch.stack(cells), inputs, weights)

    def start(
        self,
        rows: int,
        context: Tensor | None = None,
        context_pad: Tensor | None = None,
        window: int | None = None,
    ) -> DecodingState:
        """State before the first token.

        Args:
            rows: R, hypotheses in all, a multiple of the number of sentences N.
            context: (S, N, D), projected to keys and values here, once per sentence and layer.
            context_pad: (S, N) bool.
            window: see :func:`fairseq_sru.ops.attention_mask`; tokens out of reach are forgotten.

        Raises:
            ValueError: the stack is bidirectional, ``rows`` is not a multiple of N or below 1,
                ``window`` negative, or context or padding have another shape or type.
        """
        if self.layers[0].recurrence.bidirectional:
            raise ValueError("a bidirectional stack reads whole sequences, not token by token")
        check_ranges(rows=rows)
        if window is not None:
            check_ranges(window=window)
        first = self.layers[0]
        if context is not None:
            for layer in self.layers:
                check_context(context, size=layer.input_size if layer.attends else None)
            check_type("context", context, first.out_proj)
        check_padding(
            "context_pad", context_pad, (0, rows) if context is None else tuple(context.shape[:2]))
        weight = first.out_proj.weight
        context = None if context is None else zero_padding(context, context_pad)
        caches = [layer.start(rows, context) if layer.attends else None for layer in self.layers]
        real = torch.ones(
            (0, rows) if context is None else context.shape[:2], dtype=torch.bool,
            device=weight.device)
        mask = additive(real if context_pad is None else ~context_pad, weight.dtype)
        masks = [layer.recurrence.draw_mask(rows) for layer in self.layers]
        return DecodingState(caches, mask.t(), rows, window, masks)

    def step(
        self, x: Tensor, state: DecodingState, need_weights: bool | Collection[int] = False
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Read the next token, or the next L where no layer attends. The state is advanced in
        place.

        Args:
            x: (1 or L, R, input_size).
            need_weights: see :meth:`read`.

        Returns:
            h (1 or L, R, D), weights per layer (N, H, beam, slots) or None.

        Raises:
            TypeError: no tensor, or no state of :meth:`start`.
            ValueError: several tokens for layers that attend, other rows than the state's, or a
                state of other layers.
        """
        refuse_tracing()
        if not isinstance(x, Tensor):
            raise TypeError(f"step reads a tensor (1, R, C), got {type(x).__name__}")
        check_input(x, self.input_size)
        if not isinstance(state, DecodingState):
            raise TypeError(f"state must be of start, got {type(state).__name__}")
        if len(state.cells) != len(self.layers):
            raise ValueError(f"state must be of {len(self.layers)} layers, got "
                             f"{len(state.cells)}")
        if [cache is not None for cache in state.caches] != [
                layer.attends for layer in self.layers]:
            raise ValueError("state must be of a stack in which the same layers attend")
        if x.size(1) != state.rows:
            raise ValueError(f"input must be (1, {state.rows}, {self.input_size}), the state being "
                             f"that of {state.rows} rows; got {tuple(x.shape)}")
        wanted = self._wanted(need_weights)
        if len(x) != 1 and self.attends:
            raise ValueError(f"layers that attend read one token a step, got {len(x)}")
        for _ in range(len(x)):
            mask = state.grow()
        if self.input_proj is not None:
            x = self.input_proj(x)
        weights: list[Tensor | None] = []
        for i, layer in enumerate(self.layers):
            if layer.attends:
                x, state.cells[i], w = layer.step(
                    x, state.cells[i], state.caches[i], mask, i in wanted, state.masks[i])
            else:
                (x, state.cells[i], *_), w = (
                    layer(x, state.cells[i], mask_c=state.masks[i]), None)
            weights.append(w)
        return x, weights

    def _run(self, layer: nn.Module, *args: Any, **options: Any) -> tuple[Tensor, ...]:
        if self.checkpoint_activations and self.training and torch.is_grad_enabled():
            return checkpoint(layer, *args, use_reentrant=False, **options)
        return layer(*args, **options)

    def _contexts(
        self, context: Tensor | Sequence[Tensor | None] | None, batch_size: int
    ) -> Sequence[Tensor | None]:
        if context is None or isinstance(context, Tensor):
            context = [context] * len(self.layers)
        if len(context) != len(self.layers):
            raise ValueError(f"context must have one tensor for each of the {len(self.layers)} "
                             f"layers, got {len(context)}")
        for tensor in context:
            check_context(tensor, batch_size)
        return context

    def _wanted(self, need_weights: bool | Collection[int]) -> Collection[int]:
        """The layers whose weights are wanted."""
        layers = range(len(self.layers))
        if isinstance(need_weights, bool):
            return layers if need_weights else ()
        if not isinstance(need_weights, Collection) or not all(i in layers for i in need_weights):
            raise ValueError(f"need_weights must be True, False or layers from 0 to {layers[-1]}, "
                             f"got {need_weights!r}")
        return need_weights
