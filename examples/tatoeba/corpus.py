"""Pairs of Tatoeba and Multi30k as train, valid and test; no sentence in two splits.

Tatoeba translates a sentence many times over, so an English sentence is in one split with all its
translations, by its hash. Pairs of train either side of which occurs in valid or test are left out,
those of Multi30k too.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
from pathlib import Path
from typing import Iterable, NamedTuple

from fairseq_sru.errors import UsageError, one_line
from fairseq_sru.files import read_lines

SHARE = {0: "valid", 1: "test"}  # of 100; the rest is train


class Pair(NamedTuple):
    de: str
    en: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tatoeba", type=Path, help="English, tab, German; .tsv.xz")
    parser.add_argument("multi30k", type=Path, help="folder of {train,valid,test}.{de,en}")
    parser.add_argument("out", type=Path, help="existing folder")
    options = parser.parse_args()
    splits: dict[str, list[Pair]] = {"train": [], "valid": [], "test": []}
    for pair in tatoeba(options.tatoeba):
        splits[split_of(pair.en)].append(pair)
    splits["test1"] = multi30k(options.multi30k, "test")
    splits["valid"] += multi30k(options.multi30k, "valid")
    splits["train"] += multi30k(options.multi30k, "train")
    kept = [pair for name in ("valid", "test", "test1") for pair in splits[name]]
    splits["train"] = without(splits["train"], kept)
    for name, pairs in splits.items():
        for language in Pair._fields:
            text = "".join(getattr(pair, language) + "\n" for pair in pairs)
            (options.out / f"{name}.{language}").write_text(text, encoding="utf-8", newline="\n")
        print(f"{name}: {len(pairs):,} pairs")


def tatoeba(path: Path) -> list[Pair]:
    """Every pair once, in the order of the file."""
    try:
        with lzma.open(path, "rt", encoding="utf-8", newline="\n") as file:
            rows = [line.rstrip("\n").split("\t") for line in file]
    except (EOFError, lzma.LZMAError) as error:
        raise UsageError(f"{path} is no whole .xz file: {error}") from error
    if not all(len(row) == 2 for row in rows):
        raise UsageError(f"{path}: a line is not English, a tab and German")
    return list(dict.fromkeys(Pair(de, en) for en, de in rows))


def multi30k(folder: Path, split: str) -> list[Pair]:
    sides = [read_lines(folder / f"{split}.{language}") for language in Pair._fields]
    if len(sides[0]) != len(sides[1]):
        raise UsageError(f"{folder}/{split}.de and .en have {len(sides[0])} and {len(sides[1])} "
                         "lines")
    return [Pair(*row) for row in zip(*sides)]


def split_of(sentence: str) -> str:
    digest = hashlib.sha256(sentence.lower().encode()).digest()
    return SHARE.get(int.from_bytes(digest[:4], "big") % 100, "train")


def without(pairs: Iterable[Pair], others: Iterable[Pair]) -> list[Pair]:
    """The pairs neither side of which is, but for case, a side of the others."""
    seen = {side.lower() for pair in others for side in pair}
    return [pair for pair in pairs if not seen & {side.lower() for side in pair}]


if __name__ == "__main__":
    with one_line():
        main()
