"""Binarise files byte by byte for fairseq: {train,valid,test}.{bin,idx} and dict.txt.

A token is a byte, newlines and spaces included; nothing is added, so counts are those of the
files and the loss is in bits per byte. `--bpe srupp_bytes` turns prompts into these tokens and
samples back into text.
"""

from __future__ import annotations

import argparse
from collections import Counter
from io import BytesIO
from pathlib import Path

import torch
from fairseq.data import Dictionary, indexed_dataset

from fairseq_sru.errors import UsageError, one_line
from fairseq_sru.tasks.byte_tokens import SYMBOLS

SPLITS = ("train", "valid", "test")


def read(path: Path) -> bytes:
    """Raises UsageError for an empty file."""
    text = path.read_bytes()
    if not text:
        raise UsageError(f"{path} is empty: give a file of text")
    return text


def build_dictionary(texts: list[bytes]) -> tuple[Dictionary, torch.Tensor]:
    """The bytes that occur, frequent ones first, and the index of each of the 256."""
    counts = sum((Counter(text) for text in texts), Counter())
    dictionary = Dictionary()
    indices = torch.full((256,), dictionary.unk())
    for byte, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        indices[byte] = dictionary.add_symbol(SYMBOLS[byte], n=count)
    return dictionary, indices


def write(text: bytes, stem: Path, indices: torch.Tensor, types: int) -> None:
    """One item a line, the newline at its end."""
    builder = indexed_dataset.make_builder(f"{stem}.bin", impl="mmap", vocab_size=types)
    for line in BytesIO(text):
        builder.add_item(indices[torch.frombuffer(bytearray(line), dtype=torch.uint8).long()])
    builder.finalize(f"{stem}.idx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    for split in SPLITS:
        parser.add_argument(f"--{split}", type=Path, required=True, metavar="FILE")
    options = parser.parse_args()

    texts = [read(getattr(options, split)) for split in SPLITS]
    dictionary, indices = build_dictionary(texts)
    options.out.mkdir(parents=True, exist_ok=True)
    dictionary.save(str(options.out / "dict.txt"))
    for split, text in zip(SPLITS, texts):
        write(text, options.out / split, indices, len(dictionary))
        print(f"{split}: {len(text):,} bytes")
    print(f"{len(dictionary) - dictionary.nspecial} types")


if __name__ == "__main__":
    with one_line():
        main()
