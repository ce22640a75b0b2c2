"""What a stack carries from one token, or one segment of a text, to the next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class KeyValueCache:
    """Keys and values of one layer for N sentences, in a buffer that doubles when it is full.

    A sentence's slots hold its source tokens, then for every target token one slot per
    hypothesis. Which slots a hypothesis sees is the mask's business (:class:`DecodingState`), so
    hypotheses share the source, and reordering them moves no keys.
    """

    def __init__(self, keys_values: Tensor) -> None:
        """keys_values: (S, N, 2C), of the source."""
        self._buffer = keys_values.transpose(0, 1).contiguous()
        self._length = keys_values.size(0)

    @property
    def keys_values(self) -> Tensor:
        """(N, slots, 2C)"""
        return self._buffer[:, : self._length]

    def append(self, keys_values: Tensor) -> None:
        """keys_values: (N, beam, 2C), one slot per hypothesis."""
        end = self._length + keys_values.size(1)
        self._buffer = _with_room(self._buffer, end, 0.0)
        self._buffer[:, self._length : end] = keys_values
        self._length = end

    def select(self, sentences: Tensor) -> None:
        self._buffer = self._buffer.index_select(0, sentences)


class DecodingState:
    """Cells, caches and the visible slots of R = N * beam hypotheses, beam of each sentence.

    Attributes:
        cells: (R, D) per layer, None before the first token.
        caches: per layer, None where it does not attend.
        length: number of target tokens read.
    """

    def __init__(
        self, caches: list[KeyValueCache | None], source_mask: Tensor, rows: int
    ) -> None:
        """source_mask: (N, S) float, 0 where visible, else very negative.

        Raises:
            ValueError: ``rows`` is not a multiple of N.
        """
        sentences = source_mask.size(0)
        if rows % sentences:
            raise ValueError(f"{rows} hypotheses cannot be shared out among {sentences} sentences")
        self.caches = caches
        self.cells: list[Tensor | None] = [None] * len(caches)
        self.length = 0
        self.beam = rows // sentences
        self._hidden = torch.finfo(source_mask.dtype).min / 2
        self._mask = source_mask.unsqueeze(1).repeat(1, self.beam, 1)
        self._slots = source_mask.size(1)
        self._own_slot = torch.arange(self.beam, device=source_mask.device)

    def grow(self) -> Tensor:
        """Add a slot per hypothesis, visible to itself: mask (N, 1, beam, slots)."""
        end = self._slots + self.beam
        self._mask = _with_room(self._mask, end, self._hidden, dim=2)
        self._mask[:, self._own_slot, self._slots + self._own_slot] = 0
        self._slots = end
        self.length += 1
        return self._mask[:, :, :end].unsqueeze(1)

    def reorder(self, new_order: Tensor) -> None:
        """Row i continues what row new_order[i] was; sentences may be dropped or repeated.

        Args:
            new_order: (R',) rows of the present state.
        """
        self.cells = [c if c is None else c.index_select(0, new_order) for c in self.cells]
        mask = self._mask.flatten(0, 1).index_select(0, new_order)
        old_sentences = self._mask.size(0)
        sentences = new_order.div(self.beam, rounding_mode="floor")
        together = sentences.numel() % self.beam == 0
        if together:
            grouped = sentences.view(-1, self.beam)
            together = bool((grouped == grouped[:, :1]).all())
            sentences = grouped[:, 0] if together else sentences
        if not together:
            self.beam = 1
            self._own_slot = self._own_slot[:1]
        self._mask = mask.view(sentences.numel(), self.beam, -1)
        identity = torch.arange(old_sentences, device=sentences.device)
        if not torch.equal(sentences, identity):
            for cache in self.caches:
                if cache is not None:
                    cache.select(sentences)


@dataclass
class StreamState:
    """What B streams carry from one segment of their text to the next, free of gradients.

    Attributes:
        cells: (layers, B, D), after the last token.
        inputs: (S, B, C) per layer, its last S inputs; None where it does not attend.
        pad: (S, B) bool, True = padding, or None.
    """

    cells: Tensor
    inputs: list[Tensor | None]
    pad: Tensor | None = None

    @classmethod
    def after(
        cls,
        before: StreamState | None,
        cells: Tensor,
        inputs: list[Tensor | None],
        pad: Tensor | None,
        context: int,
    ) -> StreamState:
        """The state after another L tokens; of the layer inputs the last ``context`` remain.

        Args:
            before: None at the start of the streams.
            cells: (layers, B, D). inputs: (L, B, C) per layer. pad: (L, B) or None.
        """

        def keep(old: Tensor | None, new: Tensor | None) -> Tensor | None:
            if new is None:
                return None
            new = new.detach()
            if old is not None and len(new) < context:
                new = torch.cat([old, new])
            return new[max(0, len(new) - context) :]

        old_inputs = [None] * len(inputs) if before is None else before.inputs
        old_pad = None if before is None else before.pad
        attending = [pair for pair in zip(old_inputs, inputs) if pair[1] is not None]
        if not attending:
            pad = None
        elif pad is not None or old_pad is not None:
            old, new = attending[0]
            pad = _no_padding(new) if pad is None else pad
            old_pad = _no_padding(old) if old_pad is None and old is not None else old_pad
        return cls(
            cells.detach(), [keep(*pair) for pair in zip(old_inputs, inputs)], keep(old_pad, pad)
        )

    def to(self, device: torch.device) -> StreamState:
        return StreamState(
            self.cells.to(device),
            [x if x is None else x.to(device) for x in self.inputs],
            self.pad if self.pad is None else self.pad.to(device),
        )


class StreamMemory:
    """Hands the state of streams from one batch of segments to the next; every batch has one.

    A batch that is read again, as after a gradient overflow, starts from the same state; one that
    is never read leaves the state as it was.

    Attributes:
        train_context: how many layer inputs of earlier segments training keeps.
        eval_context: how many tokens before itself a token sees in evaluation.
        before, after: the state before and after the batch, None at the start of the streams.
    """

    def __init__(
        self, train_context: int, eval_context: int, state: StreamState | None = None
    ) -> None:
        self.train_context = train_context
        self.eval_context = eval_context
        self.before = self.after = state
        self._next: StreamMemory | None = None

    def next(self) -> StreamMemory:
        """The memory of the batch after this one."""
        self._next = StreamMemory(self.train_context, self.eval_context, self.after)
        return self._next

    def leave(self, state: StreamState) -> None:
        """Set what the next batch starts from."""
        self.after = state
        if self._next is not None:
            self._next.before = state
            self._next.leave(state)


def _no_padding(x: Tensor) -> Tensor:
    """(S, B) of False for x (S, B, C)."""
    return torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)


def _with_room(buffer: Tensor, length: int, fill: float, dim: int = 1) -> Tensor:
    """``buffer``, or if it is shorter than ``length`` along ``dim`` a copy of twice that."""
    if buffer.size(dim) >= length:
        return buffer
    shape = list(buffer.shape)
    shape[dim] = 2 * length
    larger = buffer.new_full(shape, fill)
    larger.narrow(dim, 0, buffer.size(dim)).copy_(buffer)
    return larger
