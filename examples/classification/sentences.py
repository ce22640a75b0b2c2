"""Labelled sentences: from files to training, validation and test sentences.

python sentences.py OUT --folder FOLDER --set SET [--fold K]

A line of a file is the class, a blank, and the tokenised sentence. SET is MR, SUBJ, TREC, SST-2, CR
or MPQA, or the NAME of NAME.all or of NAME.train, NAME.test and perhaps NAME.dev, plain or gzip.
Without NAME.dev a tenth of NAME.train is for validation. NAME.all is cut into ten folds: K for the
test, the one after it for validation, the others for training. What is cut is cut by a hash of the
sentence, so that the parts are the same everywhere and no sentence is in two of them.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
from pathlib import Path
from typing import Dict, List, NamedTuple

from fairseq_sru.errors import UsageError, one_line

FOLDS = 10
NAMES = {
    "MR": "rt-polarity", "SUBJ": "subj", "TREC": "TREC", "SST-2": "stsa.binary", "CR": "custrev",
    "MPQA": "mpqa",
}


class Sentence(NamedTuple):
    """A sentence, whose words are separated by blanks, and its class."""

    label: str
    text: str


Parts = Dict[str, List[Sentence]]  # train, valid, test


def has_split(folder: Path, name: str) -> bool:
    """Whether the set has a test file of its own.

    Raises:
        UsageError: it has no file at all.
    """
    if _find(folder, name, "test"):
        return True
    if _find(folder, name, "all"):
        return False
    stem = NAMES.get(name, name)
    raise UsageError(f"no {stem}.all and no {stem}.test in {folder}, plain or .gz: set "
                     "CLASSIFICATION to their folder, or SET to their name")


def load(folder: Path, name: str, fold: int = 0) -> Parts:
    """The parts of a set; ``fold``, from 0, is of one that has no test file of its own.

    Raises:
        UsageError: files are missing or malformed, there is no such fold, or training has not all
            classes, or only one.
    """
    if has_split(folder, name):
        if fold:
            raise UsageError(f"{name} has a test file and no folds: leave FOLD={fold} out")
        parts = {part: _read(folder, name, part) for part in ("train", "test")}
        if _find(folder, name, "dev"):
            parts["valid"] = _read(folder, name, "dev")
        else:
            sentences = parts["train"]
            parts["train"] = [s for s in sentences if fold_of(s) != 0]
            parts["valid"] = [s for s in sentences if fold_of(s) == 0]
    else:
        if not 0 <= fold < FOLDS:
            raise UsageError(f"the folds are 0 to {FOLDS - 1}, got {fold}")
        parts = {"train": [], "valid": [], "test": []}
        special = {fold: "test", (fold + 1) % FOLDS: "valid"}
        for sentence in _read(folder, name, "all"):
            parts[special.get(fold_of(sentence), "train")].append(sentence)
    _check(parts, name)
    return parts


def fold_of(sentence: Sentence) -> int:
    """The same for the same text, whatever its class."""
    return int(hashlib.sha256(sentence.text.encode()).hexdigest(), 16) % FOLDS


def labels_of(parts: Parts) -> list[str]:
    """The classes of the training sentences."""
    return sorted({sentence.label for sentence in parts["train"]})


def _check(parts: Parts, name: str) -> None:
    for part, sentences in parts.items():
        if not sentences:
            raise UsageError(f"{name} has too few sentences: none is left for {part}")
    labels = labels_of(parts)
    if len(labels) < 2:
        raise UsageError(f"all training sentences of {name} are of class {labels[0]!r}: there is "
                         "nothing to learn")
    for part, sentences in parts.items():
        for sentence in sentences:
            if sentence.label not in labels:
                raise UsageError(f"class {sentence.label!r} of {part} is unknown in training: "
                                 f"{name} has {' '.join(labels)} there")


def _find(folder: Path, name: str, part: str) -> Path | None:
    stem = NAMES.get(name, name)
    candidates = [folder / f"{stem}.{part}{end}{packed}"
                  for end in ("", ".all") for packed in ("", ".gz")]
    return next((path for path in candidates if path.is_file()), None)


def _read(folder: Path, name: str, part: str) -> list[Sentence]:
    path = _find(folder, name, part)
    if path is None:
        raise UsageError(f"no {NAMES.get(name, name)}.{part} in {folder}, plain or .gz")
    return read(path)


def read(path: Path) -> list[Sentence]:
    """The sentences of a file; lines end at a newline and nowhere else.

    Raises:
        UsageError: the file cannot be read, is not UTF-8, or has a line without a class.
    """
    try:
        contents = path.read_bytes()
        if path.suffix == ".gz":
            contents = gzip.decompress(contents)
        rows = contents.decode("utf-8-sig").split("\n")
    except (EOFError, OSError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: convert it, perhaps by iconv -f latin1 -t utf-8"
                         ) from error
    if rows[-1] == "":
        rows.pop()
    sentences = []
    for number, row in enumerate(rows, start=1):
        label, _, text = row.rstrip("\r").partition(" ")
        if label.split() != [label]:
            raise UsageError(f"{path}: line {number} has no class: a line is the class, a blank, "
                             "and the sentence")
        sentences.append(Sentence(label, " ".join(text.split())))
    return sentences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="new folder for PART.input0 and PART.label")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--set", required=True)
    parser.add_argument("--fold", type=int, default=0)
    args = parser.parse_args()
    parts = load(args.folder, args.set, args.fold)
    args.out.mkdir()
    for part, sentences in parts.items():
        for end, column in ("input0", "text"), ("label", "label"):
            rows = (getattr(sentence, column) + "\n" for sentence in sentences)
            (args.out / f"{part}.{end}").write_text("".join(rows), encoding="utf-8", newline="\n")
    print({part: len(sentences) for part, sentences in parts.items()})


if __name__ == "__main__":
    with one_line():
        main()
