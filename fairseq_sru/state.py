"""What a stack carries from one token, or one segment of a text, to the next."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Callable

import torch
from torch import Tensor

from fairseq_sru.ops.attention import additive
from fairseq_sru.ranges import check_ranges


class Slots:
    """A tensor (rows, slots, ...) that grows at its end and may shrink at its front.

    When its buffer is full, the slots in use move to one with room for twice as many: adding
    slots costs constant time on average, and the buffer stays within twice what is in use.
    """

    def __init__(self, values: Tensor) -> None:
        self._buffer = values
        self._first, self._end = 0, values.size(1)

    @property
    def values(self) -> Tensor:
        """(rows, slots, ...)"""
        return self._buffer[:, self._first : self._end]

    def append(self, values: Tensor) -> None:
        """values: (rows, new slots, ...)"""
        if torch.is_grad_enabled() and (values.requires_grad or self._buffer.requires_grad):
            self._buffer = torch.cat([self.values, values], 1)  # autograd needs what it has read
            self._first, self._end = 0, self._buffer.size(1)
            return
        end = self._end + values.size(1)
        if end > self._buffer.size(1):
            used = self.values
            end -= self._first
            self._buffer = used.new_empty(used.size(0), 2 * end, *used.shape[2:])
            self._buffer[:, : used.size(1)] = used
            self._first, self._end = 0, used.size(1)
        self._buffer[:, self._end : end] = values
        self._end = end

    def drop(self, count: int) -> None:
        """Forget the first ``count`` slots."""
        self._first += count

    def select(self, rows: Tensor) -> None:
        """Row i becomes what row rows[i] was."""
        self._buffer = self._buffer.index_select(0, rows)


class DecodingState:
    """Cells of R = N * beam hypotheses, beam of each sentence; keys and values where layers attend.

    A sentence's slots hold its source tokens, then for every target token one slot per
    hypothesis. A mask says which slots a hypothesis sees, so hypotheses share the source, and
    reordering them moves no keys.

    Attributes:
        cells: (R, D) per layer, None before the first token.
        caches: keys and values (N, slots, 2C) per layer, None where it does not attend.
        masks: dropout masks (R, D) per layer, the same for all tokens; None where nothing is
            dropped.
        length: number of target tokens read.
        beam: hypotheses per sentence.
    """

    def __init__(
        self,
        caches: list[Slots | None],
        source_mask: Tensor,
        rows: int,
        window: int | None = None,
        masks: list[Tensor | None] | None = None,
    ) -> None:
        """
        Args:
            caches: of the source.
            source_mask: (N, S) float, 0 where visible, else very negative.
            rows: R.
            window: how many tokens before itself a token sees, those of the source being right
                before the first one of the target; older ones are forgotten. None: all.
            masks: see above; None: nothing is dropped.

        Raises:
            ValueError: ``rows`` is not a multiple of N, or ``window`` negative.
        """
        if window is not None:
            check_ranges(window=window)
        sentences, length = source_mask.shape
        if rows % sentences:
            raise ValueError(f"{rows} hypotheses cannot be shared out among {sentences} sentences")
        self.caches = caches
        self.cells: list[Tensor | None] = [None] * len(caches)
        self.masks: list[Tensor | None] = [None] * len(caches) if masks is None else masks
        self.length = 0
        self.beam = rows // sentences
        attends = any(cache is not None for cache in caches)
        self._window = window if attends else 0
        own = torch.eye(self.beam, dtype=torch.bool, device=source_mask.device)
        self._own = additive(own, source_mask.dtype)
        self._widths = deque([1] * length)  # slots of each token not yet forgotten
        self._mask = Slots(source_mask.repeat_interleave(self.beam, 0))  # (R, slots)

    @property
    def rows(self) -> int:
        """R"""
        return self._mask.values.size(0)

    def grow(self) -> Tensor:
        """Add a slot per hypothesis, visible to itself: mask (N, 1, beam, slots).

        The caches' slots for this token are still to be appended.
        """
        own = self._own[: self.beam, : self.beam]
        self._mask.append(own.repeat(self.rows // self.beam, 1))
        self._widths.append(self.beam)
        self.length += 1
        while self._window is not None and len(self._widths) > self._window + 1:
            self._forget(self._widths.popleft())
        mask = self._mask.values.unflatten(0, (-1, self.beam)).unsqueeze(1)
        # fused attention on a GPU wants a mask whose memory starts at a round address
        return mask if self._window is None else mask.clone()

    def _forget(self, slots: int) -> None:
        self._mask.drop(slots)
        for cache in self.caches:
            if cache is not None:
                cache.drop(slots)

    def reorder(self, new_order: Tensor) -> None:
        """Row i continues what row new_order[i] was; sentences may be dropped or repeated.

        Args:
            new_order: (R',) rows of the present state.
        """
        old_sentences = self.rows // self.beam
        self.cells, self.masks = (
            [x if x is None else x.index_select(0, new_order) for x in of_layers]
            for of_layers in (self.cells, self.masks))
        self._mask.select(new_order)
        sentences = new_order.div(self.beam, rounding_mode="floor")
        together = sentences.numel() % self.beam == 0
        if together:
            grouped = sentences.view(-1, self.beam)
            together = bool((grouped == grouped[:, :1]).all())
            sentences = grouped[:, 0] if together else sentences
        if not together:
            self.beam = 1
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
        inputs: (S, B, C) per layer, its last S inputs, or keys and values; None where it does not
            attend.
        pad: (S, B) bool, True = padding, or None.
        projected: whether ``inputs`` are keys and values.
    """

    cells: Tensor
    inputs: list[Tensor | None]
    pad: Tensor | None = None
    projected: bool = False

    @classmethod
    def after(
        cls,
        before: StreamState | None,
        cells: Tensor,
        inputs: list[Tensor | None],
        pad: Tensor | None,
        context: int,
        projected: bool = False,
    ) -> StreamState:
        """The state after another L tokens; of the layer inputs the last ``context`` remain.

        Args:
            before: None at the start of the streams; of the same kind.
            cells: (layers, B, D). inputs: (L, B, C) per layer. pad: (L, B) or None.
            projected: see :class:`StreamState`.
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
        attending = [(old, new) for old, new in zip(old_inputs, inputs) if new is not None]
        if not attending:
            pad = None
        elif pad is not None or old_pad is not None:
            old, new = attending[0]
            pad = _no_padding(new) if pad is None else pad
            old_pad = _no_padding(old) if old_pad is None and old is not None else old_pad
        return cls(
            cells.detach(), [keep(*pair) for pair in zip(old_inputs, inputs)], keep(old_pad, pad),
            projected)

    def map(self, function: Callable[[Any], Any]) -> StreamState:
        """The state whose tensors are what ``function`` makes of these."""

        def made(tensor: Any) -> Any:
            return None if tensor is None else function(tensor)

        return StreamState(
            made(self.cells), [made(x) for x in self.inputs], made(self.pad), self.projected)

    def to(self, device: torch.device) -> StreamState:
        return self.map(lambda tensor: tensor.to(device))

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint; ``StreamState(**state.as_dict())`` is the state again."""
        return dict(vars(self))


class StreamMemory:
    """Hands the state of streams from one batch of segments to the next; every batch has one.

    A batch that is read again, as after a gradient overflow, starts from the same state; one that
    is never read leaves the state as it was. Several models may read the same batches: each finds
    the state in which it left them itself.

    Args:
        state: what the first model that reads begins with; others begin without any.

    Attributes:
        train_context: how many layer inputs of earlier segments training keeps.
        eval_context: how many tokens before itself a token sees in evaluation.

    Raises:
        ValueError: a negative context.
    """

    def __init__(
        self, train_context: int, eval_context: int, state: StreamState | None = None
    ) -> None:
        check_ranges(train_context=train_context, eval_context=eval_context)
        self.train_context = train_context
        self.eval_context = eval_context
        self._start = state
        self._before: dict[Any, StreamState | None] = {}
        self._left: dict[Any, StreamState] = {}
        self._next: StreamMemory | None = None

    @property
    def before(self) -> StreamState | None:
        """The first reader's state before the batch, None at the start of the streams."""
        return next(iter(self._before.values()), self._start)

    @property
    def after(self) -> StreamState | None:
        """The first reader's state after the batch."""
        return next(iter(self._after().values()), self._start)

    def before_of(self, reader: Any) -> StreamState | None:
        """The state before the batch of one of its readers."""
        if not self._before:
            self._before[reader] = self._start
        return self._before.get(reader)

    def next(self) -> StreamMemory:
        """The memory of the batch after this one."""
        self._next = StreamMemory(self.train_context, self.eval_context, self._start)
        self._next._before = self._after()
        return self._next

    def leave(self, state: StreamState, reader: Any = None) -> None:
        """Set what ``reader`` finds before the next batch."""
        self._left[reader] = state
        if self._next is not None:
            self._next._before[reader] = state
            self._next.leave(state, reader)

    def _after(self) -> dict[Any, StreamState | None]:
        return {**self._before, **self._left}


def _no_padding(x: Tensor) -> Tensor:
    """(S, B) of False for x (S, B, C)."""
    return torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
