"""How far recorded numbers are from ours."""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_sru.convert.layout import ConversionError
from fairseq_sru.modules import SRU, SRUpp
from fairseq_sru.ops.padding import zero_padding

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}

MEMORY_NOT_NORMALISED = (
    "differs: the reference's pre-norm normalises the input but not the memory, ours both; "
    "compared with the memory left as it is")


class Result(NamedTuple):
    """What became of one case."""

    name: str
    error: float  # the largest
    worst: str  # where it is
    tolerance: float
    notes: list[str]  # where we differ on purpose, and what was not compared

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "FAILED"
        line = f"{self.name:32} {self.error:8.1e} {verdict:6} {self.worst}"
        return "\n".join([line] + [f"{'':32} {note}" for note in self.notes])


class Comparison:
    """The largest difference so far, relative to the tensor's largest number if that is above 1."""

    def __init__(self, dtype: torch.dtype) -> None:
        if dtype not in TOLERANCE:
            raise ConversionError(f"cases must be float64 or float32, got {dtype}")
        self.tolerance = TOLERANCE[dtype]
        self.error = 0.0
        self.worst = "-"
        self.notes: list[str] = []

    def add(
        self, name: str, ours: Tensor | None, theirs: Tensor | None, undefined: Tensor | None = None
    ) -> None:
        """Compare; None counts as zeros. Where ``undefined`` theirs may be NaN, ours may not."""
        given = theirs if ours is None else ours
        if given is None:
            return
        ours = torch.zeros_like(given) if ours is None else ours.detach()
        theirs = torch.zeros_like(given) if theirs is None else theirs
        if ours.shape != theirs.shape:
            raise ConversionError(f"{name} is {tuple(theirs.shape)}, ours {tuple(ours.shape)}")
        if undefined is not None:
            theirs = torch.where(undefined & theirs.isnan() & ours.isfinite(), ours, theirs)
        if not ours.numel():
            return
        error = ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)).item()
        if not error <= self.error:  # NaN too
            self.error = error if error == error else float("inf")
            self.worst = name

    def add_all(
        self, name: str, ours: list[Tensor], theirs: list[Tensor], undefined: Tensor | None = None
    ) -> None:
        if len(ours) != len(theirs):
            raise ConversionError(f"{len(theirs)} tensors for {name}, ours {len(ours)}")
        for i, pair in enumerate(zip(ours, theirs)):
            self.add(f"{name} {i}", *pair, undefined)

    def result(self, name: str) -> Result:
        return Result(name, self.error, self.worst, self.tolerance, self.notes)


def leave_memory_unnormalised(
    stack: SRU | SRUpp,
    memory: list[Tensor | None] | None,
    pad: Tensor | None,
    hooks: ExitStack,
    result: Comparison,
) -> None:
    """Until ``hooks`` is closed a pre-norm does to memory what the reference's does: nothing.

    ``pad``: of the memory.
    """
    if memory is None or stack.layers[0].pre_norm is None:
        return
    if MEMORY_NOT_NORMALISED not in result.notes:
        result.notes.append(MEMORY_NOT_NORMALISED)
    for layer, context in zip(stack.layers, memory):
        if context is None:
            continue
        read = zero_padding(context, pad)  # what the layer is given
        handle = layer.pre_norm.register_forward_hook(
            lambda _, args, out, read=read: args[0] if torch.equal(args[0], read) else out)
        hooks.callback(handle.remove)
