"""What a stack carries from one token to the next while it decodes."""

from __future__ import annotations

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


def _with_room(buffer: Tensor, length: int, fill: float, dim: int = 1) -> Tensor:
    """``buffer``, or if it is shorter than ``length`` along ``dim`` a copy of twice that."""
    if buffer.size(dim) >= length:
        return buffer
    shape = list(buffer.shape)
    shape[dim] = 2 * length
    larger = buffer.new_full(shape, fill)
    larger.narrow(dim, 0, buffer.size(dim)).copy_(buffer)
    return larger
