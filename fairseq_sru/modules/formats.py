"""Formats of PyTorch's that have no place for the recurrence."""

from __future__ import annotations

from typing import Any

import torch

INSTEAD = (
    "the recurrence has no {}: torch.compile and torch.export take these layers; to decode without "
    "fairseq, `python -m fairseq_sru.export` writes a folder for "
    "fairseq_sru.inference.translator.Translator"
)


class NoScript:
    """Part of a module that says what to use instead of TorchScript and ONNX."""

    def __prepare_scriptable__(self) -> Any:
        """Called by torch.jit.script before it compiles.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(INSTEAD.format("TorchScript"))


def refuse_tracing() -> None:
    """Raises NotImplementedError within torch.jit.trace and torch.onnx.export."""
    if torch.onnx.is_in_onnx_export():
        raise NotImplementedError(INSTEAD.format("ONNX"))
    if torch.jit.is_tracing():
        raise NotImplementedError(INSTEAD.format("TorchScript"))
