"""A text as B parallel streams, batches of their segments, and the state between the batches."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np
import torch
import torch.distributed
from fairseq.data import FairseqDataset
from fairseq.data.iterators import CountingIterator, EpochBatchIterator
from fairseq.distributed import utils as distributed_utils
from torch import Tensor

from fairseq_sru.errors import UsageError
from fairseq_sru.state import StreamMemory, StreamState


class Text(FairseqDataset):
    """The lines of a text, and its tokens from any one to any other.

    Args:
        lines: of token indices. sizes: their lengths.
        training: whether it is trained on.
    """

    def __init__(self, lines: Sequence[Tensor], sizes: np.ndarray, training: bool) -> None:
        self.lines = lines
        self.training = training
        self._ends = np.cumsum(sizes, dtype=np.int64)

    def __getitem__(self, index: int) -> Tensor:
        return self.lines[index]

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def num_words(self) -> int:
        return int(self._ends[-1]) if len(self) else 0

    def read(self, start: int, end: int) -> Tensor:
        """Tokens start to end - 1 of the whole text."""
        if start >= end:
            return torch.empty(0, dtype=torch.long)
        first, last = np.searchsorted(self._ends, [start, end - 1], side="right")
        before = int(self._ends[first - 1]) if first else 0
        tokens = torch.cat([self.lines[i] for i in range(first, last + 1)])
        return tokens[start - before : end - before].long()


class Streams(FairseqDataset):
    """A process's share of the streams a text is cut into; item i is the i-th segment of each.

    The text is cut into ``streams`` x ``num_shards`` contiguous pieces whose lengths differ by at
    most one token; process ``shard`` has ``streams`` of them, next to each other. Every token is
    the target once. A segment's inputs are the tokens before its targets, </s> before the first.

    Raises:
        UsageError: the text has fewer tokens than there are streams.
    """

    def __init__(
        self,
        text: Text,
        streams: int,
        segment: int,
        pad: int,
        eos: int,
        num_shards: int = 1,
        shard: int = 0,
    ) -> None:
        total = streams * num_shards
        if text.num_words < total:
            raise UsageError(f"a text of {text.num_words} tokens cannot fill {total} streams: "
                             "lower --batch-size, or give more text")
        self.text = text
        self.segment = segment
        self.pad = pad
        self.eos = eos
        bounds = [text.num_words * i // total for i in range(total + 1)]
        first = shard * streams
        self.spans = list(zip(bounds, bounds[1:]))[first : first + streams]
        self._longest = -(-text.num_words // total)

    def __len__(self) -> int:
        return -(-self._longest // self.segment)

    def __getitem__(self, index: int) -> tuple[int, Tensor, Tensor]:
        """index, source (B, T), target (B, T)."""
        length = min(self.segment, self._longest - index * self.segment)
        source = torch.full((len(self.spans), length), self.pad)
        target = source.clone()
        for row, (start, end) in enumerate(self.spans):
            here = start + index * self.segment
            # one token more, the one before, which the first segment has not
            tokens = self.text.read(max(start, here - 1), min(end, here + length))
            if index == 0:
                tokens = torch.cat([tokens.new_tensor([self.eos]), tokens])
            if len(tokens) > 1:
                source[row, : len(tokens) - 1] = tokens[:-1]
                target[row, : len(tokens) - 1] = tokens[1:]
        return index, source, target

    def collater(self, samples: list[tuple[int, Tensor, Tensor]]) -> dict[str, Any]:
        """fairseq's batch from one item."""
        (_, source, target), = samples
        real = target.ne(self.pad)
        return {
            "id": torch.arange(len(source)),
            "nsentences": len(source),
            "ntokens": int(real.sum()),
            "net_input": {
                "src_tokens": source,
                "src_lengths": real.sum(1),
                "padded": not bool(real.all()),
            },
            "target": target,
        }


class SegmentIterator(CountingIterator):
    """Batches in order, each with the memory in which the batch before left its state."""

    def __init__(self, batches: CountingIterator, memory: StreamMemory) -> None:
        super().__init__(batches, start=batches.n, total=batches.total)
        self.memory = memory

    def __next__(self) -> dict[str, Any]:
        batch = super().__next__()
        self.memory = self.memory.next()
        batch["net_input"]["memory"] = self.memory
        return batch


class StreamBatchIterator(EpochBatchIterator):
    """Passes over streams; each pass has a memory of its own and starts without any.

    In the middle of a pass the state is part of :meth:`state_dict`, that of all processes if
    :meth:`gather` was called on each, so that a resumed run continues exactly.

    Args:
        streams: what to iterate over.
        memory: the memory a pass starts with.
        num_shards, shard: number of processes, and which of them this is.
        others: see EpochBatchIterator.
    """

    def __init__(
        self,
        streams: Streams,
        memory: StreamMemory,
        num_shards: int = 1,
        shard: int = 0,
        **others: Any,
    ) -> None:
        super().__init__(
            streams,
            streams.collater,
            batch_sampler=[[i] for i in range(len(streams))],
            disable_shuffling=True,
            **others,
        )
        self.processes = num_shards
        self.process = shard
        self._memory = memory
        self._resumed: StreamState | None = None
        self._gathered: list[StreamState] | None = None

    def _get_iterator_for_epoch(self, epoch, shuffle, fix_batches_to_gpus=False, offset=0):
        batches = super()._get_iterator_for_epoch(epoch, shuffle, fix_batches_to_gpus, offset)
        if batches is None:
            return None
        memory = StreamMemory(
            self._memory.train_context, self._memory.eval_context, self._resumed)
        self._resumed = None
        return SegmentIterator(batches, memory)

    def gather(self) -> None:
        """Bring the states of all processes together for the next :meth:`state_dict`."""
        if self.processes == 1 or self.end_of_epoch():
            return
        everywhere = self._cur_epoch_itr.memory.after.map(_all_gather)
        self._gathered = [
            everywhere.map(lambda tensors, process=process: tensors[process])
            for process in range(self.processes)
        ]

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if state["iterations_in_epoch"] > 0:
            states = self._gathered or [self._cur_epoch_itr.memory.after]
            state["streams"] = [s.to(torch.device("cpu")).as_dict() for s in states]
        self._gathered = None
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict.get("iterations_in_epoch", 0) > 0:
            self._resumed = self._restore(state_dict.get("streams"))
        super().load_state_dict(state_dict)

    def _restore(self, saved: list[dict[str, Any]] | None) -> StreamState:
        rows = len(self.dataset.spans)
        if saved is None:
            raise UsageError("the checkpoint was written in the middle of an epoch by another "
                             "task: add --reset-dataloader to start an epoch of this one")
        if len(saved) != self.processes or saved[0]["cells"].size(1) != rows:
            raise UsageError(
                f"the checkpoint is from the middle of an epoch over {len(saved)} x "
                f"{saved[0]['cells'].size(1)} streams (processes x batch size), this run has "
                f"{self.processes} x {rows}: use as many, or start a new epoch with "
                "--reset-dataloader")
        return StreamState(**saved[self.process])


def _all_gather(tensor: Tensor) -> list[Tensor]:
    group = distributed_utils.get_data_parallel_group()
    tensor = tensor.contiguous()
    tensors = [torch.empty_like(tensor) for _ in range(distributed_utils.get_world_size(group))]
    torch.distributed.all_gather(tensors, tensor, group)
    return [t.cpu() for t in tensors]
