"""Write {train,valid,test}.{de,en} of IWSLT'14 as lower-cased tokens.

Beside them goes test.txt: the English of the test set as the archive has it.
"""

from __future__ import annotations

import argparse
import re
import sys
import tarfile
from pathlib import Path
from typing import Dict, List, Tuple
from xml.sax.saxutils import unescape

import numpy
from sacremoses import MosesTokenizer

LANGUAGES = ("de", "en")
SOURCE = "http://dl.fbaipublicfiles.com/fairseq/data/iwslt14/de-en.tgz"
TEST_SETS = {
    "paper": ("TED.dev2010", "TED.tst2010", "TED.tst2011", "TED.tst2012"),
    "fairseq": ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012"),
}

Pair = Tuple[str, str]
Corpus = Dict[str, List[Pair]]


class Archive:
    """The files of de-en.tgz, packed or unpacked.

    Raises:
        FileNotFoundError: there is no archive at ``path``.
    """

    def __init__(self, path: Path) -> None:
        for place in (path, path / "de-en", path / "de-en.tgz"):
            if place.is_file() or (place / "train.tags.de-en.de").is_file():
                self.place = place
                return
        raise FileNotFoundError(
            f"no IWSLT'14 archive in {path}: download {SOURCE} and set IWSLT14 to that file"
        )

    def read(self, name: str) -> str:
        if self.place.is_dir():
            return (self.place / name).read_bytes().decode("utf-8")
        with tarfile.open(self.place) as archive:
            return archive.extractfile(f"de-en/{name}").read().decode("utf-8")

    def training(self, language: str) -> list[str]:
        """The lines of one side, tags included."""
        return self.read(f"train.tags.de-en.{language}").rstrip("\n").split("\n")

    def test(self, language: str, name: str) -> list[str]:
        """The segments of one side of a test set."""
        text = self.read(f"IWSLT14.{name}.de-en.{language}.xml")
        return [line.strip() for line in re.findall(r'<seg id="\d+">(.*)</seg>', text)]


def pair_up(german: list[str], english: list[str], name: str) -> list[Pair]:
    """Raises ValueError if the two are not of one length."""
    if len(german) != len(english):
        raise ValueError(f"{name} has {len(german)} lines of German, {len(english)} of English")
    return list(zip(german, english))


def tokenise(pairs: list[Pair], escape: bool) -> list[Pair]:
    """Moses tokens in lower case; ``escape`` writes &apos; and the like for special characters."""
    german, english = map(MosesTokenizer, LANGUAGES)
    return [
        (
            german.tokenize(de, return_str=True, escape=escape).lower(),
            english.tokenize(en, return_str=True, escape=escape).lower(),
        )
        for de, en in pairs
    ]


def paper(german: list[str], english: list[str], test: list[Pair]) -> Corpus:
    """As Lin et al. (2020), whose code the SRU++ paper trains and evaluates with.

    Lines with a tag are left out; a random 4%, drawn the way they draw it, is for validation.
    """
    pairs = [
        (de, en)
        for de, en in pair_up(german, english, "train.tags")
        if de and en and not de.startswith("<") and not en.startswith("<")
    ]
    random = numpy.random.RandomState(1234)
    chosen = set(random.choice(len(pairs), int(0.04 * len(pairs)), replace=False).tolist())
    splits = {
        "train": [pair for number, pair in enumerate(pairs) if number not in chosen],
        "valid": [pair for number, pair in enumerate(pairs) if number in chosen],
        "test": test,
    }
    return {
        split: tokenise([(plain(de), plain(en)) for de, en in pairs], escape=False)
        for split, pairs in splits.items()
    }


def fairseq(german: list[str], english: list[str], test: list[Pair]) -> Corpus:
    """As fairseq's examples/translation/prepare-iwslt14.sh.

    Titles and descriptions are text; pairs of more than 175 tokens, or one side more than 1.5 times
    as long as the other, are dropped; every 23rd of the rest is for validation.
    """
    pairs = tokenise(pair_up(strip_tags(german), strip_tags(english), "train.tags"), escape=True)
    pairs = [(de, en) for de, en in pairs if is_clean(len(de.split()), len(en.split()))]
    apostrophes = [(de.replace("’", "'"), en.replace("’", "'")) for de, en in test]
    return {
        "train": [pair for number, pair in enumerate(pairs, start=1) if number % 23],
        "valid": pairs[22::23],
        "test": tokenise(apostrophes, escape=True),
    }


def strip_tags(lines: list[str]) -> list[str]:
    """Without the lines of url, talkid and keywords; titles and descriptions lose their tags."""
    text = (line for line in lines if not re.search("<(url|talkid|keywords)>", line))
    return [re.sub("</?(title|description)>", "", line) for line in text]


def is_clean(german: int, english: int) -> bool:
    shorter, longer = sorted((german, english))
    return 1 <= shorter and longer <= 175 and longer <= 1.5 * shorter


def plain(text: str) -> str:
    """The text behind XML's entities, some of which have come apart in the archive."""
    return unescape(text.replace("& amp ;", "&amp;"), {"&quot;": '"', "&apos;": "'"})


def write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("protocol", choices=sorted(TEST_SETS))
    parser.add_argument("archive", type=Path, help="de-en.tgz, or a folder with it or its content")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()

    prepare = {"paper": paper, "fairseq": fairseq}[options.protocol]
    try:
        archive = Archive(options.archive)
        test = [
            pair
            for name in TEST_SETS[options.protocol]
            for pair in pair_up(archive.test("de", name), archive.test("en", name), name)
        ]
        corpus = prepare(archive.training("de"), archive.training("en"), test)
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        sys.exit(f"corpus.py: {error.args[0] if isinstance(error, KeyError) else error}")

    options.out.mkdir(parents=True)
    for split, pairs in corpus.items():
        for side, language in enumerate(LANGUAGES):
            write(options.out / f"{split}.{language}", [pair[side] for pair in pairs])
        print(f"{split}: {len(pairs):,} pairs")
    write(options.out / "test.txt", [" ".join(plain(en).split()) for _, en in test])


if __name__ == "__main__":
    main()
