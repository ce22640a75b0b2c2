"""Meaning to English: inflection, then subject, auxiliary, verb, objects, place, time."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import singledispatch

from .meaning import (
    Amount,
    Clause,
    Clock,
    Command,
    Comparison,
    Gap,
    Linked,
    NounPhrase,
    Phrase,
    Presentation,
    Pronoun,
    Purpose,
    Quality,
    Question,
    Report,
    Sentence,
    Statement,
    Text,
    Verb,
)

_SUBJECT = {"1s": "I", "2s": "you", "m": "he", "f": "she", "n": "it", "1p": "we"}
_OBJECT = {"1s": "me", "2s": "you", "m": "him", "f": "her", "n": "it", "1p": "us"}
_POSSESSIVE = {"1s": "my", "2s": "your", "m": "his", "f": "her", "n": "its", "1p": "our"}

_SMALL = (
    " one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen"
).split(" ")
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_MINUTES = {
    5: "five",
    10: "ten",
    15: "a quarter",
    20: "twenty",
    25: "twenty-five",
    30: "half",
}
_BE = {"present": ("am", "is", "are"), "past": ("was", "was", "were")}
_IRREGULAR = {"have": "has", "go": "goes"}


def number(n: int) -> str:
    """1 <= n <= 999."""
    hundreds, rest = divmod(n, 100)
    words = []
    if hundreds:
        words.append(f"{_SMALL[hundreds]} hundred")
    if rest and rest < 20:
        words.append(_SMALL[rest])
    elif rest:
        tens, units = divmod(rest, 10)
        words.append(_TENS[tens - 2] + (f"-{_SMALL[units]}" if units else ""))
    return " and ".join(words)


def clock(time: Clock) -> str:
    if time.minute == 0:
        return f"{_SMALL[time.hour]} o'clock"
    if time.minute <= 30:
        return f"{_MINUTES[time.minute]} past {_SMALL[time.hour]}"
    return f"{_MINUTES[60 - time.minute]} to {_SMALL[time.hour % 12 + 1]}"


def _key(pronoun: Pronoun) -> str:
    if pronoun.person == 3:
        return pronoun.sex
    return f"{pronoun.person}{'p' if pronoun.plural else 's'}"


def _pick(table: dict, they: str, pronoun: Pronoun) -> str:
    return they if pronoun.person == 3 and pronoun.plural else table[_key(pronoun)]


def _agreement(phrase: Phrase) -> Pronoun:
    if isinstance(phrase, Pronoun):
        return phrase
    return phrase.pronoun if isinstance(phrase, NounPhrase) else Pronoun(3, True)


def noun_phrase(np: NounPhrase) -> str:
    words = [np.adjective.english] if np.adjective else []
    words.append(np.noun.english_plural if np.plural else np.noun.english)
    if np.possessor:
        words.insert(0, noun_phrase(np.possessor) + "'s")
    elif np.determiner == "my":
        words.insert(0, _pick(_POSSESSIVE, "their", np.owner))
    elif np.count:
        words.insert(0, number(np.count))
    elif np.determiner == "the":
        words.insert(0, "the")
    elif np.determiner == "no":
        countable = np.noun.english_plural and not np.plural
        words.insert(0, _article(words[0]) if countable else "any")
    elif np.determiner == "a" and not np.plural:
        words.insert(0, _article(words[0]))
    if np.relative:
        role, clause = np.relative
        words.append(_relative(np, role, clause))
    return " ".join(words)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def phrase(what: Phrase, subject: bool = False) -> str:
    if isinstance(what, NounPhrase):
        return noun_phrase(what)
    if isinstance(what, Gap):
        return ""
    if isinstance(what, Amount):
        return f"{number(what.number)} {'euros' if what.unit == 'euro' else 'years'}"
    return _pick(_SUBJECT, "they", what) if subject else _pick(_OBJECT, "them", what)


def third_person(base: str) -> str:
    if base in _IRREGULAR:
        return _IRREGULAR[base]
    if re.search(r"[^aeiou]y$", base):
        return base[:-1] + "ies"
    return base + ("es" if re.search(r"(s|sh|ch|x|o)$", base) else "s")


def ing(base: str) -> str:
    if re.search(r"[^e]e$", base):
        return base[:-1] + "ing"
    if re.search(r"^[^aeiou]*[aeiou][^aeiouwxy]$", base):
        return base + base[-1] + "ing"
    return base + "ing"


def _be(tense: str, subject: Pronoun) -> str:
    first, third, plural = _BE[tense]
    if subject.plural or subject.person == 2:
        return plural
    return first if subject.person == 1 else third


def _finite(base: str, past: str, tense: str, subject: Pronoun) -> str:
    if tense == "past":
        return past
    singular = subject.person == 3 and not subject.plural
    return third_person(base) if singular else base


def _modal(clause: Clause, subject: Pronoun, supported: bool) -> tuple[str, str]:
    """(auxiliary or nothing, what stands before the base form)."""
    past = clause.tense == "past"
    if clause.modal == "können":
        return "could" if past else "can", ""
    if clause.modal == "sollen":
        return "should", ""
    if clause.modal == "dürfen":
        if clause.negated and not past:
            return "must", ""  # darf nicht; muss nicht is "does not have to"
        return _be(clause.tense, subject), "allowed to"
    base, irregular = {"müssen": ("have", "had"), "wollen": ("want", "wanted")}[clause.modal]
    if supported:
        return _do(clause.tense, subject), f"{base} to"
    return "", f"{_finite(base, irregular, clause.tense, subject)} to"


def _do(tense: str, subject: Pronoun) -> str:
    return _finite("do", "did", tense, subject)


def _verb(clause: Clause, subject: Pronoun, question: bool) -> tuple[str, list[str]]:
    """(auxiliary or nothing, words of the verb without its particles)."""
    verb, tense = clause.verb, clause.tense
    base = verb.english.split()[0]
    supported = clause.negated or question
    if clause.modal:
        auxiliary, middle = _modal(clause, subject, supported)
        return auxiliary, [middle, base]
    if tense == "progressive":
        return _be("present", subject), [ing(base)]
    if tense == "pluperfect":
        return "had", [verb.english_participle]
    if tense == "future":
        return "will", [base]
    if base == "be":
        return _be(tense, subject), []
    if supported:
        return _do(tense, subject), [base]
    return "", [_finite(base, verb.english_past, tense, subject)]


def _roles(clause: Clause) -> tuple[Phrase, Phrase]:
    """(subject, dative) as English sees them."""
    if clause.verb.swapped:
        return clause.dative, clause.subject
    return clause.subject, clause.dative


def _objects(verb: Verb, clause: Clause, dative: Phrase) -> list[str]:
    particles = verb.english.split()[1:]
    recipient = "accusative" in verb.frame  # gives the book to him; helps him
    thing = clause.accusative or clause.prepositional or (None if recipient else dative)
    said = phrase(thing) if thing else ""
    if "*" in particles:
        particles[particles.index("*")] = said
    else:
        particles.append(said)
    if recipient and dative:
        particles.append(f"to {phrase(dative)}".strip())
    return particles


def _predicate(what) -> str:
    if isinstance(what, Quality):
        return f"{what.degree} {what.adjective.english}".strip()
    if isinstance(what, Comparison):
        than = phrase(what.than)
        if what.equal:
            return f"as {what.adjective.english} as {than}"
        return f"{what.adjective.english_more} than {than}"
    if isinstance(what, Clock):
        return clock(what)
    return f"{phrase(what)} old"


def _after_verb(clause: Clause, dative: Phrase, time: bool) -> list[str]:
    words = _objects(clause.verb, clause, dative)
    if clause.predicate:
        words.append(_predicate(clause.predicate))
    if clause.spot:
        (_, preposition), _, what = clause.spot
        words.append(f"{preposition} {phrase(what)}")
    if clause.place:
        place, kind = clause.place
        preposition = (place.where if kind == "where" else place.whither)[1]
        words.append(f"{preposition} the {place.noun.english}")
    if clause.clock:
        words.append(f"at {clock(clause.clock)}")
    if time and clause.time and not clause.time.frequency:
        words.append(clause.time.english)
    return words


def _join(words: list[str]) -> str:
    return " ".join(filter(None, words)).replace("can not", "cannot")


def _often(clause: Clause) -> str:
    return clause.time.english if clause.time and clause.time.frequency else ""


def clause(meaning: Clause, said_subject: bool = True) -> str:
    """A clause in its normal order."""
    subject, dative = _roles(meaning)
    auxiliary, words = _verb(meaning, _agreement(subject), question=False)
    leads = meaning.front == "time" and not meaning.time.frequency
    return _join(
        [
            meaning.time.english if leads else "",
            phrase(subject, subject=True) if said_subject else "",
            auxiliary,
            "not" if meaning.negated else "",
            _often(meaning),
            *words,
            *_after_verb(meaning, dative, time=not leads),
        ]
    )


def _question(meaning: Clause) -> str:
    subject, dative = _roles(meaning)
    auxiliary, words = _verb(meaning, _agreement(subject), question=True)
    negation = "not" if meaning.negated else ""
    said = phrase(subject, subject=True)
    tail = _after_verb(meaning, dative, time=True)
    return _join([auxiliary, said, negation, _often(meaning), *words, *tail])


def _base(meaning: Clause) -> str:
    head = meaning.verb.english.split()[0]
    return _join([head, *_after_verb(meaning, meaning.dative, time=True)])


def _relative(np: NounPhrase, role: str, meaning: Clause) -> str:
    if role == "subject":
        return f"{'that' if np.noun.sex == 'n' else 'who'} {clause(meaning, said_subject=False)}"
    pronoun = "that" if np.noun.sex == "n" else "whom"
    return f"{pronoun} {clause(replace(meaning, **{role: Gap()}))}"


def _sentence(words: str, mark: str) -> str:
    return words[0].upper() + words[1:] + mark


@singledispatch
def realise(meaning: Sentence) -> str:
    raise TypeError(f"no English for {type(meaning).__name__}")


@realise.register
def _(meaning: Statement) -> str:
    return _sentence(clause(meaning.clause), ".")


@realise.register
def _(meaning: Question) -> str:
    return _sentence(_join([meaning.word[1], _question(meaning.clause)]), "?")


@realise.register
def _(meaning: Command) -> str:
    return _sentence(f"please {_base(meaning.clause)}", "!")


@realise.register
def _(meaning: Linked) -> str:
    conjunction, first, second = meaning.conjunction[1], meaning.first, meaning.second
    if meaning.kind == "leading":
        return _sentence(f"{conjunction} {clause(first)}, {clause(second)}", ".")
    comma = "" if meaning.kind == "trailing" else ","
    return _sentence(f"{clause(first)}{comma} {conjunction} {clause(second)}", ".")


@realise.register
def _(meaning: Report) -> str:
    return _sentence(
        f"{clause(meaning.main)} {meaning.conjunction[1]} {clause(meaning.content)}", "."
    )


@realise.register
def _(meaning: Purpose) -> str:
    negation = "not" if meaning.content.negated else ""
    words = _join([meaning.opener[1], negation, "to", _base(meaning.content)])
    return _sentence(f"{clause(meaning.main)} {words}", ".")


@realise.register
def _(meaning: Presentation) -> str:
    start = "these are" if meaning.what.plural else "this is"
    return _sentence(f"{start} {phrase(meaning.what)}", ".")


@realise.register
def _(meaning: Text) -> str:
    return " ".join(map(realise, meaning.sentences))
