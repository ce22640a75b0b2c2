"""examples/iwslt14: both protocols, from an archive laid out like the original to the two BLEUs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from itertools import product
from pathlib import Path

import pytest
from conftest import ROOT

pytest.importorskip("sacremoses", reason="the recipe needs sacremoses: pip install sacremoses")
pytestmark = pytest.mark.command

NOUNS = [("Der Hund", "The dog"), ("Die Katze", "The cat"), ("Ein Kind", "A child"),
         ("Das Pferd", "The horse"), ("Unser Arzt", "Our doctor"), ("Der Vogel", "The bird")]
VERBS = [("sieht", "sees"), ("mag", "likes"), ("sucht", "seeks"), ("kennt", "knows"),
         ("hört", "hears"), ("findet", "finds"), ("malt", "paints")]
THINGS = [("den Baum", "the tree"), ("das Haus", "the house"), ("die Stadt", "the city"),
          ("das Buch", "the book"), ("den Fluss", "the river")]
SENTENCES = [
    tuple(f"{noun[side]} {verb[side]} {thing[side]}, {rain}."
          for side, rain in enumerate(("und es regnet", "and it rains")))
    for noun, verb, thing in product(NOUNS, VERBS, THINGS)
]  # 210
ODD = [
    SENTENCES[0],  # a second time: stays
    ("Zu kurz.", "This one is far too long for what stands on the other side."),
    (" ".join(["lang"] * 160) + ".", " ".join(["long"] * 160) + "."),
    (" ".join(["lang"] * 180) + ".", " ".join(["long"] * 180) + "."),
    ("", "Nobody translated this."),
    ("Das ist Anna's \"Hund & Katze\".", "That's Anna's \"dog & cat\"."),
]
SIZES = {"TED.dev2010": 9, "TEDX.dev2012": 4, "TED.tst2010": 8, "TED.tst2011": 7, "TED.tst2012": 6}
SPECIAL = ("Sie sagt: R&amp;B ist&#160;„gut“.", "She’s for R& amp ;B &lt;now&gt;.")
LONG = (" ".join(["Hund"] * 130), " ".join(["dog"] * 130))


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The unpacked archive: two talks to train on and five test sets."""
    folder = tmp_path_factory.mktemp("iwslt14") / "de-en"
    folder.mkdir()
    for side, language in enumerate(("de", "en")):
        lines = []
        for talk, pairs in enumerate((SENTENCES[:110], SENTENCES[110:] + ODD), start=1):
            lines += [
                f"<url>http://www.ted.com/talks/{talk}</url>",
                "<keywords>talks, animals</keywords>",
                f"<talkid>{talk}</talkid>",
                f"<title>{('Tiere heute', 'Animals today')[side]}</title>",
                f"<description>{('Ein Vortrag', 'A talk')[side]}.</description>",
                *(pair[side] for pair in pairs),
            ]
        (folder / f"train.tags.de-en.{language}").write_text("\n".join(lines) + "\n")
        start = 0
        for name, size in SIZES.items():
            segments = [pair[side] for pair in SENTENCES[start : start + size]]
            start += size
            if name == "TED.tst2011":
                segments[2:4] = [LONG[side], SPECIAL[side]]
            (folder / f"IWSLT14.{name}.de-en.{language}.xml").write_text(xml(segments, language))
    return folder


def xml(segments: list[str], language: str) -> str:
    return "\n".join([
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<mteval>\n<refset setid="set" srclang="german" trglang="{language}">',
        '<doc docid="1" genre="lectures">\n<title>No segment</title>',
        *(f'<seg id="{n}"> {segment} </seg>' for n, segment in enumerate(segments, start=1)),
        "</doc>\n</refset>\n</mteval>\n",
    ])


def recipe(script: str, *arguments: str, **environment: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", ROOT / "examples" / "iwslt14" / script, *arguments],
        env={
            **os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "VOCABULARY": "120",
            **{name: str(value) for name, value in environment.items()},
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


def succeeds(script: str, *arguments: str, **environment: object) -> str:
    result = recipe(script, *arguments, **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def prepared(archive, tmp_path_factory, command) -> Path:
    """Both protocols, one from the packed archive, the other from the unpacked."""
    out = tmp_path_factory.mktemp("out")
    packed = out / "de-en.tgz"
    with tarfile.open(packed, "w:gz") as file:
        file.add(archive, "de-en")
    succeeds("prepare.sh", OUT=out, IWSLT14=packed)
    succeeds("prepare.sh", OUT=out, IWSLT14=archive.parent, PROTOCOL="fairseq")
    return out


def read(folder: Path, split: str) -> list[tuple[str, str]]:
    german, english = (
        (folder / f"{split}.{language}").read_text().split("\n") for language in ("de", "en")
    )
    assert len(german) == len(english) and german.pop() == english.pop() == ""
    return list(zip(german, english))


def lower_tokens(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Enough of a tokeniser for SENTENCES."""
    return [tuple(re.sub("([.,])", r" \1", text).lower() for text in pair) for pair in pairs]


def test_paper_protocol(prepared):
    corpus = prepared / "paper" / "corpus"
    train, valid, test = (read(corpus, split) for split in ("train", "valid", "test"))
    # no titles, no descriptions, no empty side; nothing dropped for its length yet
    assert (len(train), len(valid)) == (215 - 8, int(0.04 * 215))
    expected = [
        *lower_tokens(SENTENCES + ODD[:4]),
        ("das ist anna ' s \" hund & katze \" .", "that 's anna 's \" dog & cat \" ."),
    ]
    assert sorted(train + valid) == sorted(expected)
    at = [expected.index(pair) for pair in valid]
    assert len({later - earlier for earlier, later in zip(at, at[1:])}) > 1  # drawn at random
    # no TEDX.dev2012
    assert len(test) == 9 + 8 + 7 + 6
    assert test[:9] + test[9:17] == lower_tokens(SENTENCES[:9] + SENTENCES[13:21])
    assert test[19] == (LONG[0].lower(), LONG[1])
    assert test[20][1] == "she ’ s for r & b < now > ."
    reference = (corpus / "test.txt").read_text().splitlines()
    assert len(reference) == 30 and reference[20] == "She’s for R&B <now>."
    assert reference[0] == SENTENCES[0][1]


def test_fairseq_protocol(prepared):
    corpus = prepared / "fairseq" / "corpus"
    train, valid, test = (read(corpus, split) for split in ("train", "valid", "test"))
    # titles and descriptions are text; the ratio, the length and the empty side fall out
    kept = [
        ("tiere heute", "animals today"), ("ein vortrag .", "a talk ."),
        *lower_tokens(SENTENCES[:110]),
        ("tiere heute", "animals today"), ("ein vortrag .", "a talk ."),
        *lower_tokens(SENTENCES[110:] + [ODD[0], ODD[2]]),
        ("das ist anna &apos; s &quot; hund &amp; katze &quot; .",
         "that &apos;s anna &apos;s &quot; dog &amp; cat &quot; ."),
    ]
    assert valid == kept[22::23]
    assert train == [pair for n, pair in enumerate(kept, start=1) if n % 23 != 0]
    # TEDX.dev2012 is the second set
    assert len(test) == sum(SIZES.values())
    assert test[:23] == lower_tokens(SENTENCES[:23])
    assert test[24][1] == "she &apos;s for r &amp; amp ; b &amp; lt ; now &amp; gt ; ."


@pytest.mark.parametrize("protocol", ["paper", "fairseq"])
def test_pieces_spell_the_tokens_and_each_side_has_its_dictionary(prepared, protocol):
    folder = prepared / protocol
    for split in "train", "valid", "test":
        cut = read(folder / "pieces", split)
        whole = [tuple(t.replace(" ", "").replace("▁", " ").strip() for t in p) for p in cut]
        assert whole == read(folder / "corpus", split)
    german, english = (
        {line.split(" ")[0] for line in (folder / "binary" / f"dict.{side}.txt").open()}
        for side in ("de", "en")
    )
    assert german - english and english - german and german & english


def test_train_and_evaluate(prepared):
    """The paper's settings with a tiny model; the test pair over 125 pieces is not scored."""
    environment = dict(OUT=prepared, ARCH="srupp_tiny", RUN="tiny", UPDATES=3)
    # three updates are one epoch
    succeeds("train.sh", "--batch-size", "80", "--required-batch-size-multiple", "1", **environment)
    run = prepared / "paper" / "tiny"
    log = [json.loads(line[line.index("{"):]) for line in (run / "train.log").open()
           if '{"epoch"' in line]
    assert [int(entry["valid_num_updates"]) for entry in log if "valid_num_updates" in entry] == [3]

    said = succeeds("evaluate.sh", **environment)
    assert "29 of 30 test sentences" in said and "published, not measured here" in said
    assert "tok:none" in said and "case:lc" in said and "tok:13a" in said
    scored = run / "best" / "collected"
    lengths = {path.name: len(path.read_text().splitlines()) for path in scored.iterdir()}
    assert lengths == dict.fromkeys(
        ("translation.tok", "translation.txt", "reference.tok", "reference.txt"), 29
    )
    assert (run / "curve.png").stat().st_size > 1000
    averaged = succeeds("evaluate.sh", AVERAGE=1, **environment)
    assert "average1 checkpoint" in averaged and (run / "average1" / "model.pt").exists()


@pytest.mark.parametrize("protocol", ["paper", "fairseq"])
def test_perfect_translations_score_100(prepared, protocol):
    """fairseq-generate prints by length: every sentence must meet its own reference."""
    folder = prepared / protocol
    result = folder / "perfect" / "best"
    result.mkdir(parents=True)
    tokens = [english for _, english in read(folder / "corpus", "test")]
    shuffled = sorted(enumerate(tokens), key=lambda pair: (len(pair[1]), pair[0] % 7))
    (result / "generated.txt").write_text(
        "".join(f"S-{n}\tx\nT-{n}\tx\nH-{n}\t-0.5\t{line}\nD-{n}\t-0.5\t{line}\n"
                for n, line in shuffled)
    )
    (folder / "perfect" / "curve.png").touch()
    succeeds("evaluate.sh", OUT=prepared, PROTOCOL=protocol, RUN="perfect")
    on_tokens, on_text = (
        json.loads((result / name).read_text()) for name in ("bleu_tokens.json", "bleu_text.json")
    )
    assert on_tokens["score"] == 100
    text, reference = (
        (result / "collected" / f"{name}.txt").read_text().splitlines()
        for name in ("translation", "reference")
    )
    differing = [pair for pair in zip(text, reference) if pair[0] != pair[1].lower()]
    # no detokeniser brings back broken entities and typographic apostrophes
    assert [pair[1] for pair in differing] == ["She’s for R&B <now>."] and on_text["score"] > 95


def test_what_is_missing_is_named(archive, tmp_path):
    missing = recipe("prepare.sh", OUT=tmp_path, IWSLT14=tmp_path / "nowhere")
    assert missing.returncode == 1
    (line,) = missing.stderr.splitlines()
    assert "no IWSLT'14 archive" in line and "de-en.tgz" in line and "set IWSLT14" in line

    wrong = recipe("prepare.sh", OUT=tmp_path, IWSLT14=archive, PROTOCOL="wmt")
    assert (wrong.returncode, wrong.stderr) == (1, "PROTOCOL=wmt: use paper or fairseq\n")

    cut = tmp_path / "cut"
    cut.mkdir()
    for path in archive.iterdir():
        (cut / path.name).write_text(path.read_text())
    english = cut / "train.tags.de-en.en"
    english.write_text("".join(english.read_text().splitlines(keepends=True)[:-1]))
    uneven = recipe("prepare.sh", OUT=tmp_path, IWSLT14=cut)
    assert uneven.returncode == 1
    assert "lines of German" in uneven.stderr and "Traceback" not in uneven.stderr
    assert not (tmp_path / "paper" / "corpus").exists()
