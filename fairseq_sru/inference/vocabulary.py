"""Tokens and their numbers, without fairseq."""

from __future__ import annotations

from pathlib import Path
from typing import Iterable, Sequence

import torch
from torch import Tensor

from fairseq_sru.files import read_lines


class Vocabulary:
    """The tokens of one side in the order of their numbers, as in fairseq's dictionary.

    Args:
        tokens: all of them, fairseq's own <s>, <pad>, </s> and <unk> included.
        unk, eos: numbers of <unk> and </s>.
        pad: number of <pad>.
    """

    def __init__(self, tokens: Sequence[str], pad: int, unk: int, eos: int) -> None:
        self.tokens = list(tokens)
        self.pad, self.unk, self.eos = pad, unk, eos
        self._numbers = {token: number for number, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, line: str) -> Tensor:
        """Numbers (S,) of the tokens of ``line``, which spaces separate, and of </s>."""
        numbers = [self._numbers.get(token, self.unk) for token in line.split()]
        return torch.tensor([*numbers, self.eos])

    def decode(self, numbers: Iterable[int]) -> str:
        """The tokens separated by spaces, without </s>."""
        return " ".join(self.tokens[n] for n in numbers if n != self.eos)

    def words(self) -> set[str]:
        """The tokens that come from text: not fairseq's own, nor what pads a dictionary."""
        return {t for t in self.tokens[self.unk + 1 :] if not t.startswith("madeupword")}

    def save(self, path: Path) -> None:
        """Write a token a line."""
        path.write_bytes("".join(f"{token}\n" for token in self.tokens).encode())

    @classmethod
    def load(cls, path: Path, pad: int, unk: int, eos: int) -> Vocabulary:
        """Read what :meth:`save` wrote.

        Raises:
            UsageError: the file is missing or no UTF-8.
        """
        return cls(read_lines(path), pad, unk, eos)
