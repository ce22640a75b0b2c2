"""Reading word vectors: word2vec's text and binary formats, and GloVe's text format."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Container, Iterator, NamedTuple

import numpy as np

from fairseq_sru.errors import UsageError


class Record(NamedTuple):
    """A word and its numbers, as text or as bytes."""

    place: str
    word: str
    numbers: list[str] | bytes


def read_vectors(path: Path, dim: int, words: Container[str]) -> dict[str, np.ndarray]:
    """The vectors, float32 (dim,), that ``path`` has of ``words``; the first of a word counts.

    Numbers are read of these words alone, but every record must have ``dim`` of them. A file whose
    first line is two numbers, of vectors and of their size, is word2vec's; it is binary if what
    follows its first word cannot be text.

    Raises:
        UsageError: the file cannot be read, is empty, truncated or malformed, or has vectors of
            another size or of none of the words.

    Source: the formats as Mikolov et al. (2013) and Pennington et al. (2014) published them.
    """
    found: dict[str, np.ndarray] = {}
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                raise ValueError("is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for record in _records(data, dim):
                    if record.word in words and record.word not in found:
                        found[record.word] = _vector(record)
        if not found:
            raise ValueError("has none of the dictionary's words")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} {error}") from error
    return found


def _records(data: mmap.mmap, dim: int) -> Iterator[Record]:
    header = data.readline().split()
    if len(header) != 2 or not all(field.isdigit() for field in header):
        data.seek(0)
        yield from _text(data, dim, 1)
        return
    count, width = map(int, header)
    if width != dim:
        raise ValueError(f"has vectors of {width} numbers, --embed-dim is {dim}")
    records = _binary(data, dim, count) if _is_binary(data) else _text(data, dim, 2)
    read = 0
    for record in records:
        read += 1
        yield record
    if read != count:
        raise ValueError(f"has {read} vectors, {count} by its first line: it is truncated")


def _is_binary(data: mmap.mmap) -> bool:
    start = data.tell()
    _, _, numbers = data.readline().partition(b" ")
    data.seek(start)
    return not all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in numbers)


def _text(data: mmap.mmap, dim: int, first: int) -> Iterator[Record]:
    for number, line in enumerate(iter(data.readline, b""), start=first):
        try:
            # some words of GloVe's have blanks inside
            word, *numbers = line.decode().rstrip(" \t\r\n").rsplit(" ", dim)
        except UnicodeDecodeError:
            raise ValueError(f"is not UTF-8: line {number}") from None
        before, _, last = word.rpartition(" ")
        if len(numbers) != dim or before and _is_number(last):
            raise ValueError(f"has not {dim} numbers (--embed-dim) after the word of line {number}")
        yield Record(f"line {number}", word, numbers)


def _binary(data: mmap.mmap, dim: int, count: int) -> Iterator[Record]:
    size = 4 * dim
    start = data.tell()
    for number in range(1, count + 1):
        blank = data.find(b" ", start)
        if blank < 0 or len(data) < blank + 1 + size:
            return
        try:
            word = data[start:blank].decode().lstrip("\n")  # some writers end vectors by a newline
        except UnicodeDecodeError:
            raise ValueError(f"is not UTF-8: word {number}") from None
        start = blank + 1 + size
        yield Record(f"vector {number}", word, data[blank + 1 : start])


def _vector(record: Record) -> np.ndarray:
    try:
        if isinstance(record.numbers, bytes):
            vector = np.frombuffer(record.numbers, "<f4").astype(np.float32)
        else:
            vector = np.array(record.numbers, np.float32)
    except ValueError:
        raise ValueError(f"has something that is no number in {record.place}") from None
    if not np.isfinite(vector).all():
        raise ValueError(f"has a number that is not finite in {record.place}")
    return vector


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
