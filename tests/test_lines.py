"""A line ends at a newline, whoever reads it, whatever else stands in it."""

from __future__ import annotations

import ast
import codecs
import io
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import make_dataset

from fairseq_sru.errors import UsageError
from fairseq_sru.files import lines, read_lines
from fairseq_sru.inference.vocabulary import Vocabulary

# what str.splitlines takes for ends of lines besides \n; fairseq takes a carriage return, too
BREAKS = ["\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
SENTENCES = [f"ein{mark} Hund{mark}läuft {mark}" for mark in BREAKS] + ["", "die Katze"]


def source_files() -> list[Path]:
    return [path for folder in ("fairseq_sru", "examples", "benchmarks")
            for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_cuts_text_at_other_places(path):
    """Only a module's own docstring may be cut by splitlines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr == "splitlines":
            assert isinstance(node.value, ast.Name) and node.value.id == "__doc__"
        if isinstance(node, ast.Attribute) and node.attr == "readlines":
            pytest.fail("readlines cuts text files at carriage returns")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "no newline at the end"])
def test_readers_agree(tmp_path, end, last):
    contents = ("".join(sentence + end for sentence in SENTENCES) + last).encode()
    expected = [sentence.rstrip("\r") for sentence in SENTENCES] + [last] * bool(last)
    path = tmp_path / "text"
    path.write_bytes(contents)
    assert read_lines(path) == list(lines(io.BytesIO(contents))) == expected


@pytest.mark.parametrize("text", ["eins\nzwei\n", "\ufeffeins\n\ufeff\n", "", "\n"])
def test_a_byte_order_mark_is_no_text(tmp_path, text):
    """At the start of a file; anywhere else it is a character."""
    path = tmp_path / "text"
    path.write_bytes(codecs.BOM_UTF8 + text.encode())
    assert read_lines(path) == list(lines(io.BytesIO(path.read_bytes()))) == text.split("\n")[:-1]


def test_unreadable_text_is_named(tmp_path):
    with pytest.raises(UsageError, match="cannot read .*none: No such file"):
        read_lines(tmp_path / "none")
    (tmp_path / "latin").write_bytes("läuft\n".encode("latin-1"))
    with pytest.raises(UsageError, match="latin is not UTF-8"):
        read_lines(tmp_path / "latin")


def test_vocabularies_hold_any_token(tmp_path):
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *BREAKS[1:], "a"]
    saved = Vocabulary(tokens, pad=1, unk=3, eos=2)
    saved.save(tmp_path / "target.txt")
    assert Vocabulary.load(tmp_path / "target.txt", 1, 3, 2).tokens == tokens


def run(monkeypatch, script: str, *args) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, args)])
    monkeypatch.syspath_prepend(str((ROOT / script).parent))
    runpy.run_path(str(ROOT / script), run_name="__main__")


@pytest.mark.command
@pytest.mark.parametrize("normalization", ["nmt_nfkc", "identity"])
def test_pieces_keep_the_pairs(tmp_path, monkeypatch, normalization):
    """fairseq-preprocess then finds as many lines as there are sentences."""
    german = SENTENCES * 20
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir(), out.mkdir()
    for split in "train", "valid", "test":
        (corpus / f"{split}.de").write_bytes("".join(f"{s}\n" for s in german).encode())
        english = "".join(f"line {number}\n" for number in range(len(german)))
        (corpus / f"{split}.en").write_bytes(english.encode())
    run(monkeypatch, "examples/pieces.py", corpus, out, "--vocabulary", 60,
        "--normalization", normalization)
    for language in "de", "en":
        assert (out / f"test.{language}").read_bytes().count(b"\n") == len(german)
    subprocess.run(
        [sys.executable, "-m", "fairseq_cli.preprocess", "-s", "de", "-t", "en", "--trainpref",
         out / "train", "--destdir", out / "binary"], check=True, capture_output=True)
    for language in "de", "en":
        binary = make_dataset(str(out / "binary" / f"train.de-en.{language}"), "mmap")
        assert len(binary) == len(german)


def test_bytes_are_cut_at_newlines(tmp_path, monkeypatch):
    text = "".join(f"{sentence}\n" for sentence in SENTENCES).encode()
    for split in "train", "valid", "test":
        (tmp_path / split).write_bytes(text)
    run(monkeypatch, "examples/byte_text.py", tmp_path / "out",
        *(x for split in ("train", "valid", "test") for x in (f"--{split}", tmp_path / split)))
    binary = make_dataset(str(tmp_path / "out" / "test"), "mmap")
    assert len(binary) == len(SENTENCES)
    assert int(np.sum(binary.sizes)) == len(text)
    assert len(Dictionary.load(str(tmp_path / "out" / "dict.txt"))) == 4 + len(set(text))
    assert all(item.dtype == torch.int64 for item in binary)
