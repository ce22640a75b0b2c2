"""Word vectors: three formats, scaling, and what is wrong with a malformed file."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch
from test_classifier import build

from fairseq_sru.errors import UsageError
from fairseq_sru.word_vectors import read_vectors

VECTORS = {
    "w0": [3.0, 4.0, 0.0, 0.0],
    "w1": [0.1, -0.2, 0.3, -0.4],
    "größe": [1.0, 0.0, 0.0, 0.0],
    "w2": [0.25, 0.5, 1e-3, -2.0],
    "nicht": [0.0, 0.0, 0.0, 1.0],
}
HEADER = f"{len(VECTORS)} 4\n"
TEXT = "".join(f"{word} {' '.join(map(str, numbers))}\n" for word, numbers in VECTORS.items())
FORMATS = {
    "glove": TEXT.encode(),
    "word2vec text": (HEADER + TEXT).encode(),
    "word2vec text, blanks before line ends": (HEADER + TEXT.replace("\n", " \n")).encode(),
    "word2vec text, Windows line ends": (HEADER + TEXT).replace("\n", "\r\n").encode(),
    "word2vec binary": HEADER.encode() + b"".join(
        word.encode() + b" " + np.array(numbers, "<f4").tobytes()
        for word, numbers in VECTORS.items()),
    "word2vec binary with newlines": HEADER.encode() + b"".join(
        word.encode() + b" " + np.array(numbers, "<f4").tobytes() + b"\n"
        for word, numbers in VECTORS.items()),
}
WORDS = {"w0", "w1", "größe", "other"}


@pytest.fixture
def write(tmp_path):
    def write(contents):
        path = tmp_path / "vectors"
        path.write_bytes(contents)
        return path

    return write


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_vectors_of_the_words_asked_for(write, name):
    found = read_vectors(write(FORMATS[name]), 4, WORDS)
    assert found.keys() == {"w0", "w1", "größe"}
    for word, vector in found.items():
        assert vector.dtype == np.float32
        np.testing.assert_array_equal(vector, np.float32(VECTORS[word]))


def test_the_binary_format_is_known_by_its_bytes_whatever_the_numbers(write):
    generator = np.random.default_rng(0)
    for dim in (1, 2, 5):
        vectors = {f"w{i}": generator.normal(size=dim).astype("<f4") for i in range(50)}
        contents = b"50 %d\n" % dim + b"".join(
            word.encode() + b" " + vector.tobytes() for word, vector in vectors.items())
        found = read_vectors(write(contents), dim, vectors)
        assert all(np.array_equal(found[word], vectors[word]) for word in vectors)
        assert len(found) == 50


def test_words_with_blanks_or_odd_spaces_inside_are_one_word(write):
    contents = ". . . 1 2 3 4\nw0\u0085w1 1 2 3 4\nat me@home.org 5 6 7 8\n".encode()
    found = read_vectors(write(contents), 4, {". . .", "w0\u0085w1", "at me@home.org", "w0"})
    assert found.keys() == {". . .", "w0\u0085w1", "at me@home.org"}


def test_the_first_vector_of_a_word_counts(write):
    found = read_vectors(write(b"w0 1 2 3 4\nw0 5 6 7 8\n"), 4, WORDS)
    assert found["w0"].tolist() == [1, 2, 3, 4]


BINARY = FORMATS["word2vec binary"]


@pytest.mark.parametrize("contents, message", [
    (b"", "is empty"),
    (b"w0 1 2 3 4\nw1 1 2 3\n", "not 4 numbers .--embed-dim. after the word of line 2"),
    (b"w0 1 2 3 4 5\n", "not 4 numbers .--embed-dim. after the word of line 1"),
    (b"w0 1 2 3 4\n\nw1 1 2 3 4\n", "after the word of line 2"),
    (b"w0 1 2 3 4\nw1 1 x 3 4\n", "no number in line 2"),
    (b"w0 1 2 3 4\nw1 1 nan 3 4\n", "not finite in line 2"),
    (b"w0 1 2 3 4\nw\xe4 1 2 3 4\n", "not UTF-8: line 2"),
    (b"2 5\nw0 1 2 3 4 5\nw1 1 2 3 4 5\n", "vectors of 5 numbers, --embed-dim is 4"),
    (b"3 4\nw0 1 2 3 4\nw1 1 2 3 4\n", "2 vectors, 3 by its first line: it is truncated"),
    (b"3 4\n", "0 vectors, 3 by its first line"),
    (b"3 4\nw0 1 2 3 4\nw1 1 2\n", "after the word of line 3"),
    (b"1 4\nw\xe4 1 2 3 4\n", "not UTF-8: line 2"),
    (BINARY[:-1], "4 vectors, 5 by its first line: it is truncated"),
    (BINARY[:20], "0 vectors, 5 by its first line: it is truncated"),
    (BINARY.replace(b"\xc3\xb6", b"\xf6\xf6"), "not UTF-8: word 3"),
    (b"x 1 2 3 4\n", "none of the dictionary's words"),
    (gzip.compress(TEXT.encode(), mtime=0), "not"),
])
def test_a_malformed_file_is_refused_in_one_line(write, contents, message):
    path = write(contents)
    with pytest.raises(UsageError, match=message) as error:
        read_vectors(path, 4, WORDS)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="cannot read .*missing.txt: No such file"):
        read_vectors(tmp_path / "missing.txt", 4, WORDS)
    with pytest.raises(UsageError, match="cannot read .*: Is a directory"):
        read_vectors(tmp_path, 4, WORDS)


def test_an_embedding_takes_the_vectors_at_length_one(write):
    path = write(TEXT.encode())
    model = build(embed_dim=4, embed_path=str(path))
    weight, index = model.embed_tokens.weight, 4  # of w0, after fairseq's own symbols
    for word in ("w0", "w1", "w2"):
        expected = torch.tensor(VECTORS[word], dtype=torch.float64)
        found = weight[index + int(word[1])]
        torch.testing.assert_close(found, expected / expected.norm(), atol=1e-6, rtol=0)
    lengths = weight.norm(dim=-1)
    assert lengths[1] == 0  # padding
    others = torch.cat([lengths[:1], lengths[2:]])
    torch.testing.assert_close(others, torch.ones_like(others), atol=1e-6, rtol=0)


@pytest.mark.parametrize("freeze", [False, True])
def test_fixed_vectors_are_not_trained(write, freeze):
    path = write(TEXT.encode())
    model = build(embed_dim=4, embed_path=str(path), freeze_embed=freeze).float().train()
    before = model.embed_tokens.weight.clone()
    optimizer = torch.optim.Adam(p for p in model.parameters() if p.requires_grad)
    model(torch.tensor([[4, 5, 6]]))[0].sum().backward()
    optimizer.step()
    assert torch.equal(before, model.embed_tokens.weight) == freeze
