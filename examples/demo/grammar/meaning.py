"""What a sentence says, before either language has put it into words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    kind: str
    gender: str  # m, f, n
    weak: bool  # den Jungen, des Nachbarn
    german: str
    german_plural: str
    english: str
    english_plural: str

    @property
    def sex(self) -> str:
        """The gender of the English pronoun: das Mädchen is "she", der Tisch is "it"."""
        if self.kind not in ("person", "family"):
            return "n"
        return "m" if self.gender == "m" else "f"


@dataclass(frozen=True)
class Adjective:
    german: str
    english: str
    german_more: str
    english_more: str
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    noun: Noun
    where: tuple[str, str]  # in (+ dative), in
    whither: tuple[str, str]  # in (+ accusative), into; zu takes the dative


@dataclass(frozen=True)
class Verb:
    german: str  # infinitive, the separable prefix cut off by "|", "sich " in front
    changed: str  # stem of the second and third person singular if it differs
    participle: str
    auxiliary: str
    english: str  # base form; "*" marks the object's place in "pick * up"
    english_past: str
    english_participle: str
    frame: dict[str, tuple[str, ...]]  # subject, accusative, dative, preposition -> kinds of noun
    preposition: str = ""  # auf
    preposition_case: str = ""  # accusative
    stative: bool = False
    anywhere: bool = False  # can be said to happen at a place
    involuntary: bool = False
    swapped: bool = False  # das Buch gefällt der Frau: the woman likes the book


@dataclass(frozen=True)
class Pronoun:
    person: int
    plural: bool = False
    gender: str = "m"  # German: er, sie, es
    sex: str = "m"  # English: he, she, it


@dataclass(frozen=True)
class NounPhrase:
    noun: Noun
    determiner: str = "the"  # the, a, no, my (then owner), bare
    plural: bool = False
    adjective: Adjective | None = None
    owner: Pronoun | None = None
    possessor: NounPhrase | None = None  # der Hund des Nachbarn
    count: int = 0
    relative: tuple[str, Clause] | None = None  # (role this noun plays there, clause)

    @property
    def pronoun(self) -> Pronoun:
        return Pronoun(3, self.plural, self.noun.gender, self.noun.sex)


@dataclass(frozen=True)
class Amount:
    """dreihundert Euro, dreiundachtzig Jahre."""

    number: int
    unit: str  # euro, year


@dataclass(frozen=True)
class Gap:
    """Where a relative pronoun was taken from: whom we gave the book to _."""


@dataclass(frozen=True)
class Clock:
    hour: int  # 1..12
    minute: int  # a multiple of five


@dataclass(frozen=True)
class Quality:
    adjective: Adjective
    degree: str = ""  # sehr, zu, ziemlich


@dataclass(frozen=True)
class Comparison:
    adjective: Adjective
    than: NounPhrase
    equal: bool = False


@dataclass(frozen=True)
class Adverb:
    german: str
    english: str
    frequency: bool = False  # stands before the English verb: often


Phrase = "NounPhrase | Pronoun | Amount | Gap"


@dataclass(frozen=True)
class Clause:
    verb: Verb
    subject: Phrase
    tense: str  # present, progressive, past, pluperfect, future
    accusative: Phrase | None = None
    dative: Phrase | None = None
    prepositional: Phrase | None = None
    predicate: Quality | Comparison | Clock | Amount | None = None
    time: Adverb | None = None
    clock: Clock | None = None
    place: tuple[Place, str] | None = None  # (the kitchen, where or whither)
    spot: tuple[tuple[str, str], str, NounPhrase] | None = None  # ((auf, on), case, the table)
    modal: str = ""
    negated: bool = False
    front: str = "subject"  # what stands before the German finite verb


@dataclass(frozen=True)
class Statement:
    clause: Clause


@dataclass(frozen=True)
class Question:
    clause: Clause
    word: tuple[str, str] = ("", "")  # wann, when


@dataclass(frozen=True)
class Command:
    clause: Clause


@dataclass(frozen=True)
class Linked:
    """Two clauses, in the order in which they are said."""

    first: Clause
    second: Clause
    conjunction: tuple[str, str]
    kind: str  # leading or trailing subordinate clause; main: both verb-second; inverting: deshalb


@dataclass(frozen=True)
class Report:
    """sie weiß, dass ..."""

    main: Clause
    conjunction: tuple[str, str]
    content: Clause


@dataclass(frozen=True)
class Purpose:
    """sie hat vergessen, ... zu ...; sie geht in die Stadt, um ... zu ..."""

    main: Clause
    content: Clause
    opener: tuple[str, str] = ("", "")  # um, in order


@dataclass(frozen=True)
class Presentation:
    """Das ist mein Bruder."""

    what: NounPhrase


@dataclass(frozen=True)
class Text:
    sentences: tuple[Sentence, ...]


Sentence = "Statement | Question | Command | Linked | Report | Purpose | Presentation | Text"
