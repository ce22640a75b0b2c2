"""Write a German-English corpus made by the grammar: {train,valid,test}.{de,en}."""

from __future__ import annotations

import argparse
from pathlib import Path

from grammar import english, german
from grammar.speaker import Speaker

from fairseq_sru.errors import UsageError, one_line

SEED = 20211107  # EMNLP 2021, where SRU++ was published


def pairs(count: int, seed: int = SEED) -> list[tuple[str, str]]:
    """`count` pairs; no German and no English sentence occurs twice."""
    speaker = Speaker(seed)
    seen: set[str] = set()
    found: list[tuple[str, str]] = []
    while len(found) < count:
        meaning = speaker.sentence()
        pair = german.realise(meaning), english.realise(meaning)
        if seen.isdisjoint(pair):
            seen.update(pair)
            found.append(pair)
    return found


def write(folder: Path, train: int, valid: int, test: int, seed: int = SEED) -> None:
    """Split the first pairs into files of one sentence a line."""
    corpus = iter(pairs(train + valid + test, seed))
    folder.mkdir(parents=True, exist_ok=True)
    for split, size in (("test", test), ("valid", valid), ("train", train)):
        chosen = [next(corpus) for _ in range(size)]
        for side, language in enumerate(("de", "en")):
            text = "".join(pair[side] + "\n" for pair in chosen)
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=10000)
    parser.add_argument("--valid", type=int, default=500)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    if min(options.train, options.valid, options.test) < 0:
        raise UsageError("--train, --valid and --test must be numbers of sentences, at least 0")
    write(**vars(options))


if __name__ == "__main__":
    with one_line():
        main()
