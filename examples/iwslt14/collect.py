"""Lay translations beside their references: {translation,reference}.{tok,txt}, tokens and text."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from sacremoses import MosesDetokenizer

from fairseq_sru.errors import UsageError, one_line
from fairseq_sru.files import read_lines


def read_translations(generated: Path) -> dict[int, str]:
    """Number and tokens of every sentence fairseq-generate translated, in the order of the test.

    Raises:
        UsageError: there are none, or it is the output of something else.
    """
    found = {}
    for line in read_lines(generated):
        if line.startswith("H-"):
            parts = re.fullmatch(r"H-(\d+)\t[^\t]*\t([^\t]*)", line)
            if parts is None:
                raise UsageError(f"{generated}: {line[:60]!r} is not a number, a score and tokens, "
                                 "as fairseq-generate writes them")
            found[int(parts[1])] = parts[2]
    if not found:
        raise UsageError(f"{generated} has no translations: give the output of fairseq-generate")
    return dict(sorted(found.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("generated", type=Path, help="output of fairseq-generate --remove-bpe")
    parser.add_argument("corpus", type=Path, help="folder of test.en and test.txt")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()

    translations = read_translations(options.generated)
    tokens, text = (
        read_lines(options.corpus / name) for name in ("test.en", "test.txt")
    )
    for name, lines in (("test.en", tokens), ("test.txt", text)):
        if len(lines) <= max(translations):
            raise UsageError(f"{options.generated} translates sentence {max(translations)}, "
                             f"{options.corpus / name} has {len(lines)} lines: give the corpus it "
                             "is a translation of")
    detokenise = MosesDetokenizer("en").detokenize
    files = {
        "translation.tok": translations.values(),
        "translation.txt": [detokenise(line.split()) for line in translations.values()],
        "reference.tok": [tokens[number] for number in translations],
        "reference.txt": [text[number] for number in translations],
    }
    options.out.mkdir(parents=True)
    for name, lines in files.items():
        content = "".join(line + "\n" for line in lines)
        (options.out / name).write_text(content, encoding="utf-8")
    print(f"{len(translations):,} of {len(tokens):,} test sentences; the others are too long")


if __name__ == "__main__":
    with one_line():
        main()
