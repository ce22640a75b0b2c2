"""The demo's corpus: reproducible, no test sentence in training, German and English correct."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import corpus
import pytest
from grammar import english, german
from grammar.lexicon import ADJECTIVES, NOUN, NOUNS, PLACES, TIMES, VERB, VERBS
from grammar.meaning import (
    Amount,
    Clause,
    Clock,
    Comparison,
    Linked,
    NounPhrase,
    Presentation,
    Pronoun,
    Purpose,
    Quality,
    Question,
    Report,
    Statement,
    Text,
)

DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo"
SIZES = {"train": 10000, "valid": 500, "test": 500}
SHA256 = "75dd33d8ae52fa0cef9a47e1bdaee9b9339dbd2e6ad002eb6e9c273a24215621"

ME, HE, THEY = Pronoun(1), Pronoun(3), Pronoun(3, plural=True)
ADJECTIVE = {adjective.german: adjective for adjective in ADJECTIVES}
PLACE = {place.noun.german: place for place in PLACES}
TIME = {time.german: time for times in TIMES.values() for time in times}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    corpus.write(folder, **SIZES)
    return folder


@pytest.fixture(scope="module")
def sentences(folder) -> dict[str, list[str]]:
    return {path.name: path.read_text(encoding="utf-8").splitlines() for path in folder.iterdir()}


def test_the_same_text_everywhere(folder):
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.read_bytes())
    assert digest.hexdigest() == SHA256


@pytest.mark.command
def test_hash_seed_does_not_matter(tmp_path):
    texts = []
    for seed in ("1", "2"):
        command = [sys.executable, DEMO / "corpus.py", tmp_path / seed, "--train", "200"]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        texts.append((tmp_path / seed / "train.de").read_bytes())
    assert texts[0] == texts[1]


def test_another_seed_is_another_corpus():
    assert corpus.pairs(20, seed=1) != corpus.pairs(20, seed=2)


def test_counts_and_no_leak(sentences):
    for language in ("de", "en"):
        splits = [sentences[f"{split}.{language}"] for split in SIZES]
        assert [len(split) for split in splits] == list(SIZES.values())
        together = [sentence for split in splits for sentence in split]
        assert len(set(together)) == len(together)


def test_every_sentence_is_well_formed(sentences):
    for name, lines in sentences.items():
        for line in lines:
            assert re.fullmatch(r"[A-ZÄÖÜ].*[.?!]", line), (name, line)
            assert not re.search(r"  | [,.?!]|,,|\|", line), (name, line)


def test_every_word_is_used(sentences):
    text = {language: " ".join(sentences[f"train.{language}"]) for language in ("de", "en")}
    for noun in NOUNS:
        assert noun.german in text["de"] and noun.english in text["en"], noun
    for verb in VERBS["plain"]:
        assert verb.participle in text["de"], verb
        assert verb.english_past in text["en"], verb


@pytest.mark.parametrize(
    ("phenomenon", "language", "pattern", "least"),
    [
        ("weil", "de", r"\b[Ww]eil\b", 500),
        ("dass", "de", r"\bdass\b", 300),
        ("wenn", "de", r"\b[Ww]enn\b", 300),
        ("verb last", "de", r"weil [^,]* (hat|ist|war)[.,]", 200),
        ("separable verb", "de", r"\b(steht|ruft|macht|zieht|kommt|nimmt) .* (auf|an|zu|aus|mit)\b",
         100),
        ("separable infinitive", "de", r"\b(auf|an|zu|aus|mit|ein|zurück|weg)zu[a-z]+en\b", 200),
        ("perfect", "de", r"\b(hat|haben|ist|sind) .* (ge|\w+ge)\w+(t|en)[.?]", 1000),
        ("inversion", "de", r"^(Gestern|Morgen|Letzte Woche) (hat|haben|wird|ist|sind) ", 50),
        ("object first", "de", r"^Den \w+ (hat|habe|haben) ", 20),
        ("kein", "de", r"\bkeine?n?\b", 200),
        ("nicht", "de", r"\bnicht\b", 500),
        ("compound numeral", "de", r"\w+und(zwanzig|dreißig|vierzig|fünfzig|sechzig)\b", 150),
        ("half hours", "de", r"\bhalb \w+", 100),
        ("quarters", "de", r"\bViertel (vor|nach) \w+", 100),
        ("pronoun by gender", "de", r"Das ist [^.]*\. .*\b(er|ihn|ihm|sie|es|ihr)\b", 200),
        ("relative clause", "de", r"^D(er|ie|as) \w+, (de[rnm]|die|das|denen) ", 100),
        ("genitive", "de", r"\b(des [A-Z]\w+(s|n|en)|der [A-Z]\w+in)\b", 100),
        ("weak masculine", "de", r"\b(den|dem|des) (\w+ )?(Nachbarn|Studenten|Kunden)\b", 100),
        ("reflexive", "de", r"\b(mich|dich|sich|uns)\b", 300),
        ("contraction", "de", r"\b(im|ins|am|zum|zur|vom)\b", 500),
        ("compound noun", "de", r"\b(Küchen|Holz|Metall|Büro)(tisch|tür|stuhl|lampe)", 100),
        ("comparative", "en", r"\b(\w+er|more \w+) than\b", 50),
    ],
)
def test_what_makes_the_pair_hard_occurs(sentences, phenomenon, language, pattern, least):
    found = sum(bool(re.search(pattern, line)) for line in sentences[f"train.{language}"])
    assert found >= least, phenomenon


def the(noun: str, **options) -> NounPhrase:
    return NounPhrase(NOUN[noun], **options)


CASES = ("nominative", "accusative", "dative", "genitive")


@pytest.mark.parametrize(
    ("noun", "options", "forms"),
    [
        ("Hund", {}, "der alte Hund, den alten Hund, dem alten Hund, des alten Hundes"),
        ("Katze", {}, "die alte Katze, die alte Katze, der alten Katze, der alten Katze"),
        ("Pferd", {}, "das alte Pferd, das alte Pferd, dem alten Pferd, des alten Pferdes"),
        ("Hund", {"plural": True},
         "die alten Hunde, die alten Hunde, den alten Hunden, der alten Hunde"),
        ("Junge", {}, "der alte Junge, den alten Jungen, dem alten Jungen, des alten Jungen"),
        ("Hund", {"determiner": "a"},
         "ein alter Hund, einen alten Hund, einem alten Hund, eines alten Hundes"),
        ("Katze", {"determiner": "no"},
         "keine alte Katze, keine alte Katze, keiner alten Katze, keiner alten Katze"),
        ("Pferd", {"determiner": "my", "owner": ME},
         "mein altes Pferd, mein altes Pferd, meinem alten Pferd, meines alten Pferdes"),
        ("Pferd", {"determiner": "my", "owner": THEY, "plural": True},
         "ihre alten Pferde, ihre alten Pferde, ihren alten Pferden, ihrer alten Pferde"),
        ("Apfel", {"determiner": "a", "plural": True, "count": 21},
         "einundzwanzig alte Äpfel, einundzwanzig alte Äpfel, einundzwanzig alten Äpfeln, "
         "einundzwanzig alter Äpfel"),
        ("Kaffee", {"determiner": "bare"},
         "alter Kaffee, alten Kaffee, altem Kaffee, alten Kaffees"),
    ],
)
def test_german_agreement(noun, options, forms):
    np = the(noun, adjective=ADJECTIVE["alt"], **options)
    assert ", ".join(german.noun_phrase(np, case) for case in CASES) == forms


def test_adjectives_that_lose_an_e():
    table = the("Tisch", adjective=ADJECTIVE["teuer"])
    assert german.noun_phrase(table, "nominative") == "der teure Tisch"
    woman = the("Frau", determiner="a", adjective=ADJECTIVE["müde"])
    assert german.noun_phrase(woman, "dative") == "einer müden Frau"


@pytest.mark.parametrize(
    ("verb", "forms"),
    [
        ("arbeiten", "arbeite arbeitest arbeitet arbeiten arbeiten"),
        ("putzen", "putze putzt putzt putzen putzen"),
        ("lesen", "lese liest liest lesen lesen"),
        ("ein|laden", "lade lädst lädt laden laden"),
        ("sich unterhalten", "unterhalte unterhältst unterhält unterhalten unterhalten"),
        ("sich erinnern", "erinnere erinnerst erinnert erinnern erinnern"),
        ("wissen", "weiß weißt weiß wissen wissen"),
        ("regnen", "regne regnest regnet regnen regnen"),
    ],
)
def test_german_present(verb, forms):
    bare = VERB[verb].german.split("|")[-1].split()[-1]
    persons = (ME, Pronoun(2), HE, Pronoun(1, plural=True), THEY)
    assert " ".join(german.present(bare, VERB[verb].changed, p) for p in persons) == forms


def test_english_verbs():
    assert [english.third_person(v) for v in ("go", "watch", "try", "play", "have")] == [
        "goes", "watches", "tries", "plays", "has"]
    assert [english.ing(v) for v in ("write", "get", "visit", "see", "try", "look")] == [
        "writing", "getting", "visiting", "seeing", "trying", "looking"]


@pytest.mark.parametrize(
    ("number", "words", "english_words"),
    [
        (7, "sieben", "seven"),
        (16, "sechzehn", "sixteen"),
        (17, "siebzehn", "seventeen"),
        (21, "einundzwanzig", "twenty-one"),
        (30, "dreißig", "thirty"),
        (100, "hundert", "one hundred"),
        (235, "zweihundertfünfunddreißig", "two hundred and thirty-five"),
        (912, "neunhundertzwölf", "nine hundred and twelve"),
    ],
)
def test_numbers(number, words, english_words):
    assert (german.number(number), english.number(number)) == (words, english_words)


def test_no_two_numbers_are_the_same_word():
    for language in (german, english):
        assert len({language.number(n) for n in range(1, 1000)}) == 999


@pytest.mark.parametrize(
    ("hour", "minute", "words", "english_words"),
    [
        (1, 0, "ein Uhr", "one o'clock"),
        (2, 30, "halb drei", "half past two"),
        (12, 30, "halb eins", "half past twelve"),
        (7, 45, "Viertel vor acht", "a quarter to eight"),
        (1, 15, "Viertel nach eins", "a quarter past one"),
        (6, 25, "fünf vor halb sieben", "twenty-five past six"),
        (6, 35, "fünf nach halb sieben", "twenty-five to seven"),
        (12, 50, "zehn vor eins", "ten to one"),
    ],
)
def test_times(hour, minute, words, english_words):
    time = Clock(hour, minute)
    assert (german.clock(time), english.clock(time)) == (words, english_words)


def clause(verb: str, subject, tense: str = "present", **options) -> Clause:
    return Clause(VERB[verb], subject, tense, **options)


WOMAN, KEY, BUS = the("Frau"), the("Schlüssel"), the("Bus")
MY_BROTHER = the("Bruder", determiner="my", owner=ME)


@pytest.mark.parametrize(
    ("meaning", "pair"),
    [
        (Statement(clause("auf|stehen", WOMAN, clock=Clock(6, 30), time=TIME["jeden Tag"])),
         ("Die Frau steht jeden Tag um halb sieben auf.",
          "The woman gets up at half past six every day.")),
        (Statement(clause("suchen", WOMAN, "progressive", accusative=KEY, front="accusative")),
         ("Den Schlüssel sucht die Frau gerade.", "The woman is looking for the key.")),
        (Statement(clause("kaufen", HE, "past", negated=True,
                          accusative=the("Hut", determiner="no"))),
         ("Er hat keinen Hut gekauft.", "He did not buy a hat.")),
        (Statement(clause("lesen", ME, modal="dürfen", negated=True, accusative=the("Brief"))),
         ("Ich darf den Brief nicht lesen.", "I must not read the letter.")),
        (Statement(clause("lesen", ME, modal="müssen", negated=True, accusative=the("Brief"))),
         ("Ich muss den Brief nicht lesen.", "I do not have to read the letter.")),
        (Statement(clause("sich freuen", the("Mädchen"), "future", time=TIME["morgen"],
                          prepositional=the("Suppe"), front="time")),
         ("Morgen freut sich das Mädchen auf die Suppe.",
          "Tomorrow the girl will look forward to the soup.")),
        (Statement(clause("gefallen", the("Buch"), dative=MY_BROTHER, negated=True)),
         ("Das Buch gefällt meinem Bruder nicht.", "My brother does not like the book.")),
        (Statement(clause("geben", WOMAN, "past", time=TIME["gestern"], accusative=HE,
                          dative=the("Nachbar"))),
         ("Die Frau hat ihn dem Nachbarn gestern gegeben.",
          "The woman gave him to the neighbour yesterday.")),
        (Statement(clause("kosten", the("Auto"), accusative=Amount(321, "euro"))),
         ("Das Auto kostet dreihunderteinundzwanzig Euro.",
          "The car costs three hundred and twenty-one euros.")),
        (Statement(clause("sein", MY_BROTHER, predicate=Comparison(ADJECTIVE["alt"], WOMAN))),
         ("Mein Bruder ist älter als die Frau.", "My brother is older than the woman.")),
        (Statement(clause("arbeiten", the("Gast", relative=(
            "dative", clause("zeigen", WOMAN, "past", accusative=KEY, dative=the("Gast")))))),
         ("Der Gast, dem die Frau den Schlüssel gezeigt hat, arbeitet.",
          "The guest whom the woman showed the key to works.")),
        (Statement(clause("gehen", THEY, "past", place=(PLACE["Bahnhof"], "whither"))),
         ("Sie sind zum Bahnhof gegangen.", "They went to the station.")),
        (Question(clause("an|rufen", HE, "past", accusative=MY_BROTHER), ("warum", "why")),
         ("Warum hat er meinen Bruder angerufen?", "Why did he call my brother?")),
        (Linked(clause("warten", WOMAN, "progressive", prepositional=BUS),
                clause("sein", WOMAN.pronoun, predicate=Quality(ADJECTIVE["müde"], "very")),
                ("obwohl", "although"), "trailing"),
         ("Die Frau wartet gerade auf den Bus, obwohl sie sehr müde ist.",
          "The woman is waiting for the bus although she is very tired.")),
        (Linked(clause("an|kommen", BUS, time=TIME["morgen"]),
                clause("ab|holen", ME, "future", accusative=HE), ("wenn", "if"), "leading"),
         ("Wenn der Bus morgen ankommt, werde ich ihn abholen.",
          "If the bus arrives tomorrow, I will pick him up.")),
        (Linked(clause("ein|schlafen", HE, "past"), clause("weg|laufen", THEY, "past"),
                ("deshalb", "so"), "inverting"),
         ("Er ist eingeschlafen, deshalb sind sie weggelaufen.",
          "He fell asleep, so they ran away.")),
        (Report(clause("wissen", WOMAN, negated=True), ("ob", "whether"),
                clause("an|kommen", BUS, "past")),
         ("Die Frau weiß nicht, ob der Bus angekommen ist.",
          "The woman does not know whether the bus arrived.")),
        (Purpose(clause("versuchen", HE, "past"), clause("zu|machen", HE, accusative=the("Tür"))),
         ("Er hat versucht, die Tür zuzumachen.", "He tried to close the door.")),
        (Text((Presentation(KEY), Statement(clause("finden", ME, "past",
                                                   accusative=KEY.pronoun)))),
         ("Das ist der Schlüssel. Ich habe ihn gefunden.", "This is the key. I found it.")),
    ],
)  # fmt: skip
def test_known_pairs(meaning, pair):
    assert (german.realise(meaning), english.realise(meaning)) == pair


def run_prepare(out: Path, cwd: Path, **environment) -> str:
    """prepare.sh on a small corpus, with every proxy pointing nowhere: it needs no network."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    environment = {
        **os.environ, **nowhere, "PYTHON": sys.executable, "OUT": str(out),
        "TRAIN": "300", "VALID": "20", "TEST": "20", "VOCABULARY": "300", **environment,
    }
    done = subprocess.run(["bash", DEMO / "prepare.sh"], cwd=cwd, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.command
def test_prepare_makes_what_is_missing(tmp_path):
    pytest.importorskip("fairseq")
    pytest.importorskip("sentencepiece")
    out = tmp_path / "a run"
    half = out / "corpus.part"  # as an interrupted run leaves it
    half.mkdir(parents=True)
    (half / "train.de").write_text("Halb")
    run_prepare(out, tmp_path)
    assert not half.exists()
    for name in ("train", "valid", "test"):
        for language in ("de", "en"):
            assert (out / "binary" / f"{name}.de-en.{language}.bin").stat().st_size > 0
            sentences = (out / "corpus" / f"{name}.{language}").read_text("utf-8").splitlines()
            pieces = (out / "pieces" / f"{name}.{language}").read_text("utf-8").splitlines()
            joined = [line.replace(" ", "").replace("▁", " ").strip() for line in pieces]
            assert joined == sentences
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert run_prepare(out, DEMO).count("is there") == 3
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
