"""Translation of text."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Iterable, Iterator, NamedTuple, Sequence

import torch
from torch import Tensor

from fairseq_sru.errors import UsageError
from fairseq_sru.inference.engine import Engine, Hypothesis
from fairseq_sru.inference.export import Package, load
from fairseq_sru.inference.search_options import GenerationOptions
from fairseq_sru.ranges import check_ranges

LINES = 4096  # sorted by length together
CHUNK = 256  # lines a thread translates at a time


class Translation(NamedTuple):
    """A translation of a line."""

    text: str
    score: float  # log-probability, divided by its length to the power of the length penalty


class Translator:
    """A trained translation model that takes and gives text. Threads may share it.

    ::

        translator = Translator("exported")
        translator.translate(["Ein Hund läuft."])

    Args:
        model: a folder that ``python -m fairseq_sru.export`` wrote, which loads without fairseq,
            or a fairseq checkpoint.
        options: of :func:`fairseq_sru.inference.from_fairseq.import_checkpoint`; a folder has none.

    Raises:
        UsageError: the model is missing, damaged or of another kind.
    """

    def __init__(self, model: str | Path | Package, **options: Any) -> None:
        package = model if isinstance(model, Package) else read_package(Path(model), **options)
        if package.source is None:
            raise UsageError("a language model does not translate")
        self._source, self._target, self._text = package.source, package.target, package.text
        try:
            self._engine = Engine(package.weights)
        except UsageError:
            raise
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(f"{model} is damaged, export it again: {reason}") from error

    def translate(self, lines: Sequence[str], **options: Any) -> list[str]:
        """The best translation of each line; an empty line stays empty.

        Args:
            options: of :class:`fairseq_sru.inference.GenerationOptions`.

        Raises:
            ValueError, TypeError: impossible or unknown options, or lines that are no text.
            UsageError: the model's scores of a line are not finite.
        """
        return [best[0].text for best in self.best(lines, **options)]

    def best(self, lines: Sequence[str], **options: Any) -> list[list[Translation]]:
        """The ``nbest`` best translations of each line, see :meth:`translate`.

        Where the search finds fewer, as between short lengths, the others are empty and have the
        score -inf.
        """
        return self._best(list(_text(lines)), self._search(options))

    def stream(
        self, lines: Iterable[str], threads: int = 1, **options: Any
    ) -> Iterator[list[Translation]]:
        """As :meth:`best`, line by line, of any number of lines.

        Args:
            lines: read :data:`LINES` at a time.
            threads: how many translate side by side, each with one core.

        Raises:
            ValueError, TypeError: as :meth:`translate`, of options and threads at once.
            UsageError: the model's scores of a line are not finite.
        """
        check_ranges(threads=threads)
        return self._stream(_text(lines), threads, self._search(options))

    def _search(self, options: dict[str, Any]) -> GenerationOptions:
        search = GenerationOptions(**options)
        self._engine.check(search)
        return search

    def _stream(
        self, lines: Iterator[str], threads: int, search: GenerationOptions
    ) -> Iterator[list[Translation]]:
        def run(chunk: list[int]) -> list[list[Translation]]:
            return self._best([window[i] for i in chunk], search)

        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            while window := list(islice(lines, LINES)):
                order = sorted(range(len(window)), key=lambda i: -len(window[i]))
                chunks = [order[i : i + CHUNK] for i in range(0, len(order), CHUNK)]
                found: list[list[Translation]] = [[] for _ in window]
                for chunk, translations in zip(chunks, pool.map(run, chunks)):
                    for i, best in zip(chunk, translations):
                        found[i] = best
                yield from found

    def _best(self, lines: Sequence[str], search: GenerationOptions) -> list[list[Translation]]:
        numbers = [self._source.encode(self._text.encode(line)) for line in lines]
        full = [i for i, line in enumerate(numbers) if len(line) > 1]
        translated = [[Translation("", 0.0)] * search.nbest for _ in lines]
        for i, found in zip(full, self._engine.translate([numbers[i] for i in full], search)):
            if not found:
                raise UsageError(f"the model's scores are not finite: {lines[i][:60]!r}")
            missing = [Translation("", -math.inf)] * (search.nbest - len(found))
            translated[i] = [self._read(hypothesis) for hypothesis in found] + missing
        return translated

    def _read(self, hypothesis: Hypothesis) -> Translation:
        tokens: Tensor = hypothesis.tokens
        return Translation(
            self._text.decode(self._target.decode(tokens.tolist())), hypothesis.score)


def read_package(model: Path, **options: Any) -> Package:
    """The exported folder or fairseq checkpoint ``model``, see :class:`Translator`."""
    if not model.exists():
        raise UsageError(f"{model} does not exist")
    if not model.is_dir():
        from fairseq_sru.inference.from_fairseq import import_checkpoint

        return import_checkpoint(model, **options)
    if options:
        raise UsageError(f"{model} is an exported model, which takes no option "
                         + ", ".join(sorted(options)))
    return load(model)


def _text(lines: Iterable[str]) -> Iterator[str]:
    """The lines, each checked when it is read."""
    if isinstance(lines, (str, bytes)):
        raise TypeError("lines must be a list of lines, got one: translate([line])")
    return map(_line, lines)


def _line(line: str) -> str:
    if not isinstance(line, str):
        raise TypeError(f"a line must be a str, got {type(line).__name__}")
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a line has half of a surrogate pair: {line[:60]!r}") from error
    return line
