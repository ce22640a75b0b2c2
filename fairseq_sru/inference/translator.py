"""Translation of text."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Iterable, Iterator, NamedTuple, Sequence

import torch
from torch import Tensor

from fairseq_sru.errors import UsageError
from fairseq_sru.inference.engine import Engine, GenerationOptions, Hypothesis
from fairseq_sru.inference.export import Package, load

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
        self._engine = Engine(package.weights)

    def translate(self, lines: Sequence[str], **options: Any) -> list[str]:
        """The best translation of each line; an empty line stays empty.

        Args:
            options: of :class:`fairseq_sru.inference.GenerationOptions`.

        Raises:
            ValueError, TypeError: impossible or unknown options.
        """
        return [best[0].text for best in self.best(lines, **options)]

    def best(self, lines: Sequence[str], **options: Any) -> list[list[Translation]]:
        """The ``nbest`` best translations of each line, see :meth:`translate`."""
        search = GenerationOptions(**options)
        numbers = [self._source.encode(self._text.encode(line)) for line in lines]
        full = [i for i, line in enumerate(numbers) if len(line) > 1]
        found = iter(self._engine.translate([numbers[i] for i in full], search))
        empty = [Translation("", 0.0)] * search.nbest
        translated = dict(zip(full, ([self._read(h) for h in best] for best in found)))
        return [translated.get(i, empty) for i in range(len(lines))]

    def stream(
        self, lines: Iterable[str], threads: int = 1, **options: Any
    ) -> Iterator[list[Translation]]:
        """The ``nbest`` best translations of each line in order, of any number of lines.

        Args:
            lines: read :data:`LINES` at a time.
            threads: how many translate side by side, each with one core.

        Raises:
            ValueError, TypeError: impossible or unknown options.
        """

        def run(chunk: list[int]) -> list[list[Translation]]:
            return self.best([window[i] for i in chunk], **options)

        lines = iter(lines)
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            while window := list(islice(lines, LINES)):
                order = sorted(range(len(window)), key=lambda i: -len(window[i]))
                chunks = [order[i : i + CHUNK] for i in range(0, len(order), CHUNK)]
                found: list[list[Translation]] = [[] for _ in window]
                for chunk, translations in zip(chunks, pool.map(run, chunks)):
                    for i, best in zip(chunk, translations):
                        found[i] = best
                yield from found

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
