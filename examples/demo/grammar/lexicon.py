"""The words of words/*.txt as objects."""

from __future__ import annotations

import re
from pathlib import Path

from .meaning import Adjective, Adverb, Noun, Place, Verb

PEOPLE = ("person", "family")
_ROLES = {"sub": "subject", "acc": "accusative", "dat": "dative"}


def _rows(name: str) -> list[list[str]]:
    text = (Path(__file__).parent / "words" / f"{name}.txt").read_text(encoding="utf-8")
    lines = (line for line in text.split("\n") if line and not line.startswith("#"))
    return [["" if cell == "-" else cell for cell in re.split(r"\s{2,}", line)] for line in lines]


def _kinds(names: str) -> tuple[str, ...]:
    found: list[str] = []
    for name in re.split(r"[, ]", names):
        found.extend(PEOPLE if name == "people" else (name,))
    return tuple(found)


def _noun(kind: str, gender: str, *forms: str) -> Noun:
    return Noun(kind, gender[0], gender.endswith("*"), *forms)


def _compounds(simple: tuple[Noun, ...]) -> tuple[Noun, ...]:
    """Küche and Tisch: Küchentisch, of the gender and plural of Tisch."""
    (_, *heads), *first_parts = _rows("compounds")
    by_name = {noun.german: noun for noun in simple}
    return tuple(
        Noun(
            head.kind,
            head.gender,
            head.weak,
            german + head.german.lower(),
            german + head.german_plural.lower(),
            f"{english} {head.english}",
            f"{english} {head.english_plural}",
        )
        for german, english in first_parts
        for head in (by_name[name] for name in heads)
    )


def _place(gender: str, german: str, english: str, where: str, whither: str) -> Place:
    noun = Noun("place", gender, False, german, "", english, "")
    return Place(noun, tuple(where.split(", ")), tuple(whither.split(", ")))


def _adjective(german: str, english: str, more: str, english_more: str, kinds: str) -> Adjective:
    return Adjective(german, english, more, english_more, _kinds(kinds))


def regular_past(base: str) -> str:
    if base.endswith("e"):
        return base + "d"
    if re.search(r"[^aeiou]y$", base):
        return base[:-1] + "ied"
    return base + "ed"


def _verb(
    german: str,
    changed: str,
    participle: str,
    auxiliary: str,
    english: str,
    past: str,
    english_participle: str,
    frame: str,
    flags: str = "",
) -> Verb:
    regular = regular_past(english.split()[0])
    roles = {"subject": PEOPLE}
    options: dict[str, str] = {}
    for part in frame.split():
        role, kinds = part.split("=")
        if ":" in role:
            options["preposition"], case = role.split(":")
            options["preposition_case"] = _ROLES[case]
            role = "prepositional"
        roles[_ROLES.get(role, role)] = _kinds(kinds)
    return Verb(
        german,
        changed,
        participle,
        auxiliary,
        english,
        past or regular,
        english_participle or regular,
        roles,
        **options,
        **{flag: True for flag in flags.split()},
    )


def _grouped(name: str, build) -> dict[str, tuple]:
    groups: dict[str, list] = {}
    for group, *cells in _rows(name):
        groups.setdefault(group, []).append(build(*cells))
    return {group: tuple(members) for group, members in groups.items()}



_SIMPLE = tuple(_noun(*row) for row in _rows("nouns"))
NOUNS = _SIMPLE + _compounds(_SIMPLE)
NOUN = {noun.german: noun for noun in NOUNS}
PLACES = tuple(_place(*row) for row in _rows("places"))
ADJECTIVES = tuple(_adjective(*row) for row in _rows("adjectives"))
VERBS = _grouped("verbs", _verb)
VERB = {verb.german: verb for group in VERBS.values() for verb in group}
TIMES = _grouped("times", Adverb)
TIMES["frequency"] = tuple(Adverb(t.german, t.english, True) for t in TIMES["frequency"])
