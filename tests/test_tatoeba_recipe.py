"""examples/tatoeba: no sentence in two splits, nothing else lost."""

from __future__ import annotations

import lzma
import random

import pytest
from conftest import ROOT, run_python
from test_lines import BREAKS

RECIPE = ROOT / "examples" / "tatoeba"
SPLITS = ("train", "valid", "test", "test1")


def sides(folder, split):
    return [(folder / f"{split}.{language}").read_text(encoding="utf-8").split("\n")[:-1]
            for language in ("de", "en")]


def write(path, pairs):
    """Tatoeba's file: English, tab, German."""
    with lzma.open(path, "wt", encoding="utf-8") as file:
        file.writelines(f"{en}\t{de}\n" for de, en in pairs)


@pytest.fixture(scope="module")
def pairs():
    """1,200 English sentences, each with up to three translations, some of them shared."""
    numbers = random.Random(1)
    return [(f"Satz {numbers.randrange(900)} ist hier.", f"Sentence {i} is here.")
            for i in range(1200) for _ in range(numbers.randint(1, 3))]


@pytest.fixture(scope="module")
def multi30k(tmp_path_factory, pairs):
    """Captions, of which two occur in Tatoeba, in other case or not, and one in two splits."""
    folder = tmp_path_factory.mktemp("multi30k")
    for split, own in ("train", 40), ("valid", 10), ("test", 10):
        rows = [(f"Ein Bild {split} {i}.", f"A picture {split} {i}.") for i in range(own)]
        if split == "test":
            rows += [(pairs[0][0].upper(), "Another one."), ("Ein Bild train 3.", "A picture.")]
        for side, language in enumerate(("de", "en")):
            text = "".join(row[side] + "\n" for row in rows)
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.command
def test_no_sentence_is_in_two_splits(pairs, multi30k, tmp_path):
    write(tmp_path / "pairs.tsv.xz", pairs)
    result = run_python(RECIPE / "corpus.py", tmp_path / "pairs.tsv.xz", multi30k, tmp_path)
    assert result.returncode == 0, result.stderr
    found = {split: list(zip(*sides(tmp_path, split))) for split in SPLITS}
    assert all(found.values())
    held_out = {side.lower() for split in SPLITS[1:] for pair in found[split] for side in pair}
    assert not held_out & {side.lower() for pair in found["train"] for side in pair}
    for split in SPLITS:  # a sentence has all its translations in one split
        english = {en for _, en in found[split]}
        others = {en for other in SPLITS if other != split for _, en in found[other]}
        assert not english & others
    lost = set(pairs) - {pair for rows in found.values() for pair in rows}
    assert lost and all(held_out & {de.lower(), en.lower()} for de, en in lost)
    assert len(found["train"]) == len(set(found["train"]))


@pytest.mark.command
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_captions_end_at_newlines(end, pairs, tmp_path):
    captions = [(f"Ein{mark} Bild {i}.", f"A picture{mark} {i}.") for i, mark in enumerate(BREAKS)]
    for split in "train", "valid", "test":
        for side, language in enumerate(("de", "en")):
            text = "".join(f"{split} {row[side]}{end}" for row in captions)
            (tmp_path / f"{split}.{language}").write_bytes(text.encode())
    write(tmp_path / "pairs.tsv.xz", pairs)
    (tmp_path / "out").mkdir()
    result = run_python(RECIPE / "corpus.py", tmp_path / "pairs.tsv.xz", tmp_path, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    found = [(tmp_path / "out" / f"train.{language}").read_bytes().decode().split("\n")
             for language in ("de", "en")]
    for german, english in captions:
        assert (f"train {german}", f"train {english}") in zip(*found)


@pytest.mark.command
@pytest.mark.parametrize("content", [b"", b"text", lzma.compress(b"a\tb\n" * 999)[:-20]])
def test_a_damaged_file_is_named(content, multi30k, tmp_path):
    (tmp_path / "pairs.tsv.xz").write_bytes(content)
    result = run_python(RECIPE / "corpus.py", tmp_path / "pairs.tsv.xz", multi30k, tmp_path)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "pairs.tsv.xz is no whole .xz file" in result.stderr


@pytest.mark.command
def test_a_line_without_a_tab_is_named(multi30k, tmp_path):
    with lzma.open(tmp_path / "pairs.tsv.xz", "wt") as file:
        file.write("no tab\n")
    result = run_python(RECIPE / "corpus.py", tmp_path / "pairs.tsv.xz", multi30k, tmp_path)
    assert result.returncode == 1
    assert result.stderr.strip().endswith("a line is not English, a tab and German")
