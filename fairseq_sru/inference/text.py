"""From a line of text to tokens separated by spaces and back."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fairseq_sru.errors import UsageError
from fairseq_sru.inference.vocabulary import Vocabulary


class Text(Protocol):
    """How a model's text is cut into tokens."""

    def encode(self, line: str) -> str:
        """Tokens separated by spaces."""

    def decode(self, tokens: str) -> str:
        """A line of text."""


class Words:
    """Text that is tokens already."""

    name = "words"

    def encode(self, line: str) -> str:
        return line

    def decode(self, tokens: str) -> str:
        return tokens


class SentencePiece:
    """Pieces of a sentencepiece model.

    Raises:
        UsageError: ``path`` is missing or no sentencepiece model.
    """

    name = "sentencepiece"

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        self.path = path
        try:
            self._model = SentencePieceProcessor(model_proto=path.read_bytes())
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from error
        except RuntimeError as error:
            raise UsageError(f"{path} is not a sentencepiece model") from error

    def encode(self, line: str) -> str:
        return " ".join(self._model.EncodeAsPieces(line))

    def decode(self, tokens: str) -> str:
        return tokens.replace(" ", "").replace("\N{LOWER ONE EIGHTH BLOCK}", " ").strip()

    def check(self, vocabulary: Vocabulary) -> None:
        """Raises UsageError if the vocabulary is not one of this model's pieces."""
        words = vocabulary.words()
        pieces = {self._model.IdToPiece(i) for i in range(self._model.GetPieceSize())}
        if len(words & pieces) < 0.9 * len(words):
            raise UsageError(
                f"{self.path} is the sentencepiece model of another vocabulary: it has "
                f"{len(words & pieces)} of the dictionary's {len(words)} tokens")


def check_words(vocabulary: Vocabulary) -> None:
    """Raises UsageError if the tokens are parts of words, of which nothing says how to cut them."""
    words = vocabulary.words()
    for mark, bpe, option in (
        ("\N{LOWER ONE EIGHTH BLOCK}", "sentencepiece", "--sentencepiece-model FILE"),
        ("@@", "subword_nmt", "--bpe-codes FILE"),
    ):
        if sum(w.startswith(mark) or w.endswith(mark) for w in words) > 0.1 * len(words):
            raise UsageError(f"the dictionary holds parts of words such as {bpe} makes: give "
                             f"--bpe {bpe} {option}")
