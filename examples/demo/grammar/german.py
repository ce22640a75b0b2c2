"""Meaning to German: inflection, then the fields of the German clause."""

from __future__ import annotations

import re
from functools import singledispatch

from .meaning import (
    Amount,
    Clause,
    Clock,
    Command,
    Comparison,
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

# Rows nominative, accusative, dative, genitive; columns masculine, feminine, neuter, plural.
_CASES = ("nominative", "accusative", "dative", "genitive")
_COLUMNS = "mfnp"


def _paradigm(rows: str) -> dict:
    return {
        (case, column): "" if form == "-" else form
        for case, row in zip(_CASES, rows.split("/"))
        for column, form in zip(_COLUMNS, row.split())
    }


ARTICLE = _paradigm("der die das die / den die das die / dem der dem den / des der des der")
RELATIVE = _paradigm("der die das die / den die das die / dem der dem denen")
EIN = _paradigm("- e - e / en e - e / em er em en / es er es er")  # ein, kein, mein
STRONG = _paradigm("er e es e / en e es e / em er em en / en er en er")  # no article
WEAK = _paradigm("e e e en / en e e en / en en en en / en en en en")  # after der
MIXED = _paradigm("er e es en / en e es en / en en en en / en en en en")  # after ein

_PRONOUN = {
    "nominative": {"1s": "ich", "2s": "du", "m": "er", "f": "sie", "n": "es", "1p": "wir"},
    "accusative": {"1s": "mich", "2s": "dich", "m": "ihn", "f": "sie", "n": "es", "1p": "uns"},
    "dative": {"1s": "mir", "2s": "dir", "m": "ihm", "f": "ihr", "n": "ihm", "1p": "uns"},
}
_THEY = {"nominative": "sie", "accusative": "sie", "dative": "ihnen"}
_POSSESSIVE = {"1s": "mein", "2s": "dein", "m": "sein", "f": "ihr", "n": "sein", "1p": "unser"}
_REFLEXIVE = {"1s": "mich", "2s": "dich", "1p": "uns"}
_CONTRACTION = {
    "in dem": "im",
    "in das": "ins",
    "an dem": "am",
    "zu dem": "zum",
    "zu der": "zur",
    "von dem": "vom",
}

_UNITS = " ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf".split(" ")
_TEENS = {16: "sechzehn", 17: "siebzehn"}
_TENS = "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig".split()

# ich, du, er, wir, sie
_IRREGULAR = {
    "sein": "bin bist ist sind sind",
    "haben": "habe hast hat haben haben",
    "werden": "werde wirst wird werden werden",
    "wissen": "weiß weißt weiß wissen wissen",
    "können": "kann kannst kann können können",
    "müssen": "muss musst muss müssen müssen",
    "wollen": "will willst will wollen wollen",
    "sollen": "soll sollst soll sollen sollen",
    "dürfen": "darf darfst darf dürfen dürfen",
}
_PRETERITE = {
    "sein": "war warst war waren waren",
    "haben": "hatte hattest hatte hatten hatten",
    "können": "konnte konntest konnte konnten konnten",
    "müssen": "musste musstest musste mussten mussten",
    "wollen": "wollte wolltest wollte wollten wollten",
    "dürfen": "durfte durftest durfte durften durften",
}
_DEGREE = {"very": "sehr", "too": "zu", "quite": "ziemlich"}


def number(n: int) -> str:
    """1 <= n <= 999, as it stands before a plural noun."""
    hundreds, rest = divmod(n, 100)
    words = ""
    if hundreds:
        words = ("" if hundreds == 1 else _UNITS[hundreds]) + "hundert"
    if rest <= 12:
        return words + _UNITS[rest]
    if rest < 20:
        return words + _TEENS.get(rest, _UNITS[rest - 10] + "zehn")
    tens, units = divmod(rest, 10)
    return words + (_UNITS[units] + "und" if units else "") + _TENS[tens - 2]


def clock(time: Clock) -> str:
    this, following = (
        "eins" if hour == 1 else _UNITS[hour] for hour in (time.hour, time.hour % 12 + 1)
    )
    if time.minute == 0:
        return f"{_UNITS[time.hour]} Uhr"
    return {
        5: f"fünf nach {this}",
        10: f"zehn nach {this}",
        15: f"Viertel nach {this}",
        20: f"zwanzig nach {this}",
        25: f"fünf vor halb {following}",
        30: f"halb {following}",
        35: f"fünf nach halb {following}",
        40: f"zwanzig vor {following}",
        45: f"Viertel vor {following}",
        50: f"zehn vor {following}",
        55: f"fünf vor {following}",
    }[time.minute]


def _key(pronoun: Pronoun) -> str:
    if pronoun.person == 3:
        return pronoun.gender
    return f"{pronoun.person}{'p' if pronoun.plural else 's'}"


def _they(pronoun: Pronoun) -> bool:
    return pronoun.person == 3 and pronoun.plural


def _agreement(phrase: Phrase) -> Pronoun:
    if isinstance(phrase, Pronoun):
        return phrase
    return phrase.pronoun if isinstance(phrase, NounPhrase) else Pronoun(3, True)


def _column(np: NounPhrase) -> str:
    return "p" if np.plural else np.noun.gender


def adjective(stem: str, ending: str) -> str:
    """müde: müder; teuer: teure."""
    return re.sub(r"e$", "", re.sub(r"euer$", "eur", stem)) + ending


def noun(np: NounPhrase, case: str) -> str:
    what = np.noun
    if np.plural:
        needs_n = case == "dative" and what.german_plural[-1] not in "ns"
        return what.german_plural + ("n" if needs_n else "")
    if what.weak and case != "nominative":
        return what.german_plural
    if case == "genitive" and what.gender != "f":
        syllables = len(re.findall(r"[aeiouyäöü]+", what.german.lower()))
        return what.german + ("es" if syllables == 1 else "s")
    return what.german


def _determiner(np: NounPhrase, case: str) -> tuple[str, dict]:
    """The determiner and the paradigm of the adjective behind it."""
    cell = (case, _column(np))
    if np.determiner == "the":
        return ARTICLE[cell], WEAK
    if np.determiner == "my":
        stem = "ihr" if _they(np.owner) else _POSSESSIVE[_key(np.owner)]
    else:
        stem = {"a": "ein", "no": "kein"}.get(np.determiner, "")
    if not stem or (stem == "ein" and np.plural):
        return number(np.count) if np.count else "", STRONG
    return stem + EIN[cell], MIXED


def noun_phrase(np: NounPhrase, case: str) -> str:
    determiner, endings = _determiner(np, case)
    words = [determiner]
    if np.adjective:
        words.append(adjective(np.adjective.german, endings[case, _column(np)]))
    words.append(noun(np, case))
    if np.possessor:
        words.append(noun_phrase(np.possessor, "genitive"))
    if np.relative:
        role, clause = np.relative
        words[-1] += f", {_relative(np, role, clause)},"
    return " ".join(filter(None, words))


def phrase(what: Phrase, case: str) -> str:
    if isinstance(what, NounPhrase):
        return noun_phrase(what, case)
    if isinstance(what, Amount):
        return f"{number(what.number)} {'Euro' if what.unit == 'euro' else 'Jahre'}"
    return _THEY[case] if _they(what) else _PRONOUN[case][_key(what)]


def prepositional(preposition: str, what: Phrase, case: str) -> str:
    words = f"{preposition} {phrase(what, case)}"
    head = " ".join(words.split()[:2])
    return words.replace(head, _CONTRACTION[head], 1) if head in _CONTRACTION else words


def _parts(verb: Verb) -> tuple[str, str]:
    """(prefix, bare infinitive) of the verb without its reflexive."""
    prefix, _, bare = verb.german.replace("sich ", "").rpartition("|")
    return prefix, bare


def _form(table: str, subject: Pronoun) -> str:
    return table.split()[3 + subject.person // 3 if subject.plural else subject.person - 1]


def present(bare: str, changed: str, subject: Pronoun) -> str:
    if bare in _IRREGULAR:
        return _form(_IRREGULAR[bare], subject)
    if subject.plural:
        return bare
    stem = bare[:-2] if bare.endswith("en") else bare[:-1]
    if subject.person == 1:
        return stem + "e"
    if changed:
        stem, link = changed, ""
    else:
        link = "e" if re.search(r"([td]|[gkf]n|chn)$", stem) else ""
    if subject.person == 2:
        return stem + link + ("t" if re.search(r"[sßzx]$", stem) else "st")
    return stem + link + ("" if changed and stem.endswith("t") else "t")


def _verb(clause: Clause) -> tuple[str, str, str]:
    """(finite verb, separable prefix left behind, right bracket)."""
    verb, subject = clause.verb, _agreement(clause.subject)
    prefix, bare = _parts(verb)
    infinitive = prefix + bare
    if clause.modal:
        table = _PRETERITE if clause.tense == "past" else _IRREGULAR
        return _form(table[clause.modal], subject), "", infinitive
    if clause.tense == "pluperfect":
        return _form(_PRETERITE[verb.auxiliary], subject), "", verb.participle
    if clause.tense == "past":
        if bare == "sein":
            return _form(_PRETERITE[bare], subject), "", ""
        return _form(_IRREGULAR[verb.auxiliary], subject), "", verb.participle
    if clause.tense == "future" and not clause.time:
        return _form(_IRREGULAR["werden"], subject), "", infinitive
    return present(bare, verb.changed, subject), prefix, ""


def _place(clause: Clause) -> str:
    place, kind = clause.place
    preposition = (place.where if kind == "where" else place.whither)[0]
    case = "dative" if kind == "where" or preposition == "zu" else "accusative"
    return prepositional(preposition, NounPhrase(place.noun), case)


def _predicate(what) -> str:
    if isinstance(what, Quality):
        degree = _DEGREE[what.degree] + " " if what.degree else ""
        return degree + what.adjective.german
    if isinstance(what, Comparison):
        than = phrase(what.than, "nominative")
        if what.equal:
            return f"so {what.adjective.german} wie {than}"
        return f"{what.adjective.german_more} als {than}"
    if isinstance(what, Clock):
        return clock(what)
    return f"{phrase(what, 'nominative')} alt"


def _slots(clause: Clause) -> dict[str, str]:
    """The constituents of the middle field, in its order."""
    slots = {"subject": phrase(clause.subject, "nominative")}
    if clause.verb.german.startswith("sich "):
        reflexive = {"reflexive": _REFLEXIVE.get(_key(_agreement(clause.subject)), "sich")}
        pronoun = isinstance(clause.subject, Pronoun)  # weil er sich, weil sich der Mann
        slots = {**slots, **reflexive} if pronoun else {**reflexive, **slots}
    # pronouns before nouns, the accusative one first; then the definite recipient
    late = {}
    for role in ("accusative", "dative"):
        what = getattr(clause, role)
        if isinstance(what, Pronoun):
            slots[role] = phrase(what, role)
        elif what:
            late[role] = phrase(what, role)
    definite = isinstance(clause.dative, NounPhrase) and clause.dative.determiner in ("the", "my")
    if definite:
        slots["dative"] = late.pop("dative")
    if clause.time:
        slots["time"] = clause.time.german
    if clause.clock:
        slots["clock"] = f"um {clock(clause.clock)}"
    if clause.tense == "progressive":
        slots["now"] = "gerade"
    slots.update((role, late[role]) for role in ("dative", "accusative") if role in late)
    if clause.negated and getattr(clause.accusative, "determiner", "") != "no":
        slots["not"] = "nicht"
    if clause.place:
        slots["place"] = _place(clause)
    if clause.prepositional:
        verb = clause.verb
        slots["prepositional"] = prepositional(
            verb.preposition, clause.prepositional, verb.preposition_case
        )
    if clause.spot:
        (preposition, _), case, what = clause.spot
        slots["spot"] = prepositional(preposition, what, case)
    if clause.predicate:
        slots["predicate"] = _predicate(clause.predicate)
    return slots


def _join(words: list[str]) -> str:
    return re.sub(r",+", ",", " ".join(filter(None, words)))


def verb_second(clause: Clause, front: str | None = None) -> str:
    """Main clause. `front`: a word or clause already said; default: the constituent in front."""
    finite, prefix, right = _verb(clause)
    slots = _slots(clause)
    first = slots.pop(clause.front) if front is None else front
    return _join([first, finite, *slots.values(), prefix, right])


def verb_final(clause: Clause) -> str:
    finite, prefix, right = _verb(clause)
    return _join([*_slots(clause).values(), right, prefix + finite])


def _infinitive(clause: Clause) -> str:
    prefix, bare = _parts(clause.verb)
    slots = _slots(clause)
    del slots["subject"]
    return _join([*slots.values(), f"{prefix}zu{bare}" if prefix else f"zu {bare}"])


def _relative(np: NounPhrase, role: str, clause: Clause) -> str:
    verb = clause.verb
    case = {"subject": "nominative", "prepositional": verb.preposition_case}.get(role, role)
    pronoun = RELATIVE[case, _column(np)]
    if role == "prepositional":
        pronoun = f"{verb.preposition} {pronoun}"
    finite, prefix, right = _verb(clause)
    slots = _slots(clause)
    del slots[role]
    return _join([pronoun, *slots.values(), right, prefix + finite])


def _sentence(words: str, mark: str) -> str:
    return words[0].upper() + words[1:].rstrip(",") + mark


@singledispatch
def realise(meaning: Sentence) -> str:
    raise TypeError(f"no German for {type(meaning).__name__}")


@realise.register
def _(meaning: Statement) -> str:
    return _sentence(verb_second(meaning.clause), ".")


@realise.register
def _(meaning: Question) -> str:
    return _sentence(verb_second(meaning.clause, front=meaning.word[0]), "?")


@realise.register
def _(meaning: Command) -> str:
    clause = meaning.clause
    prefix, bare = _parts(clause.verb)
    slots = _slots(clause)
    del slots["subject"]
    reflexive = "sich" if slots.pop("reflexive", "") else ""
    return _sentence(_join([bare, "Sie", reflexive, "bitte", *slots.values(), prefix]), "!")


@realise.register
def _(meaning: Linked) -> str:
    conjunction, kind = meaning.conjunction[0], meaning.kind
    if kind == "leading":
        subordinate = f"{conjunction} {verb_final(meaning.first)},"
        return _sentence(verb_second(meaning.second, front=subordinate), ".")
    first = verb_second(meaning.first)
    if kind == "trailing":
        second = f"{conjunction} {verb_final(meaning.second)}"
    elif kind == "main":
        second = f"{conjunction} {verb_second(meaning.second)}"
    else:
        second = verb_second(meaning.second, front=conjunction)
    return _sentence(f"{first}, {second}", ".")


@realise.register
def _(meaning: Report) -> str:
    words = f"{verb_second(meaning.main)}, {meaning.conjunction[0]} {verb_final(meaning.content)}"
    return _sentence(words, ".")


@realise.register
def _(meaning: Purpose) -> str:
    words = _join([meaning.opener[0], _infinitive(meaning.content)])
    return _sentence(f"{verb_second(meaning.main)}, {words}", ".")


@realise.register
def _(meaning: Presentation) -> str:
    copula = "sind" if meaning.what.plural else "ist"
    return _sentence(f"das {copula} {phrase(meaning.what, 'nominative')}", ".")


@realise.register
def _(meaning: Text) -> str:
    return " ".join(map(realise, meaning.sentences))
