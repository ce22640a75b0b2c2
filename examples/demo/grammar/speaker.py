"""Thinks of something to say: draws meanings that make sense from a seeded generator."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from . import english, german
from .lexicon import ADJECTIVES, NOUN, NOUNS, PEOPLE, PLACES, TIMES, VERB, VERBS
from .meaning import (
    Adverb,
    Amount,
    Clause,
    Clock,
    Command,
    Comparison,
    Linked,
    Noun,
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

ME, YOU, US = Pronoun(1), Pronoun(2), Pronoun(1, plural=True)
HE, SHE, THEY = Pronoun(3), Pronoun(3, gender="f", sex="f"), Pronoun(3, plural=True)
IT = Pronoun(3, gender="n", sex="n")
ANYBODY = (ME, YOU, US, HE, SHE, THEY)
UNOWNED = ("Mann", "Frau", "Junge", "Mädchen")  # meine Frau is my wife
GOODS = ("thing", "clothes", "text", "furniture", "vehicle", "device")

BE, COST = VERB["sein"], VERB["kosten"]
# How things lie, stand or hang, and where: German says it with the verb, English with "be", "put".
_ON, _UNDER = ("auf", "on"), ("unter", "under")
_NEXT, _BEHIND = ("neben", "next to"), ("hinter", "behind")
_SEATS = "Tisch Stuhl Regal Bank Sofa Bett Küchentisch Gartentisch Bürostuhl".split()
_POSTURES = (
    ("Schlüssel Messer Ball Geschenk Brief Buch Zeitung Hut".split(), (_ON, _UNDER, _NEXT), _SEATS),
    ("Flasche Glas Koffer Tasche Lampe Radio Kamera".split(), (_ON, _NEXT, _BEHIND), _SEATS),
    ("Mantel Jacke Hemd Kleid".split(), (("in", "in"),), ("Schrank", "Schlafzimmerschrank")),
)


class Speaker:
    """An endless source of sentences, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._topics = {
            self._statement: 26,
            self._question: 9,
            self._command: 3,
            self._reason: 14,
            self._condition: 5,
            self._sequence: 5,
            self._coordination: 6,
            self._report: 9,
            self._attempt: 6,
            self._errand: 4,
            self._introduction: 7,
            self._search: 4,
            self._stated_fact: 10,
        }

    def sentence(self) -> Sentence:
        topics, weights = zip(*self._topics.items())
        return self._random.choices(topics, weights)[0]()

    # Draws

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _choice(self, options):
        return self._random.choice(options)

    def _number(self, least: int, most: int) -> int:
        return least + int(self._random.random() * (most - least + 1))

    def _clock(self) -> Clock:
        return Clock(self._number(1, 12), 5 * self._number(0, 11))

    # Times and places

    def _time(self, tense: str) -> Adverb | None:
        if tense == "present":
            return self._choice(TIMES[self._choice(("habit", "frequency"))])
        if tense not in ("past", "future") or self._chance(0.3):
            return None
        roll = self._random.random()
        if roll < 0.15:
            return self._choice(TIMES["weekday"])
        return self._distance(tense) if roll < 0.35 else self._choice(TIMES[tense])

    def _distance(self, tense: str) -> Adverb:
        n = self._number(2, 12)
        unit, english_unit = self._choice(
            (("Stunden", "hours"), ("Tagen", "days"), ("Wochen", "weeks"), ("Monaten", "months"))
        )
        span, english_span = f"{german.number(n)} {unit}", f"{english.number(n)} {english_unit}"
        if tense == "past":
            return Adverb(f"vor {span}", f"{english_span} ago")
        return Adverb(f"in {span}", f"in {english_span}")

    # Noun phrases

    def _noun(self, kinds: tuple[str, ...], other_than: Noun | None = None) -> Noun:
        kind = self._choice(kinds)
        return self._choice([n for n in NOUNS if n.kind == kind and n is not other_than])

    def _adjective(self, kind: str, comparable: bool = False):
        fitting = [
            a for a in ADJECTIVES if kind in a.kinds and (a.german_more or not comparable)
        ]
        return self._choice(fitting) if fitting else None

    def _definite(self, noun: Noun, owner: Pronoun | None = None) -> NounPhrase:
        """the ... or my ...; relatives always are somebody's."""
        plural = bool(noun.german_plural) and self._chance(0.15)
        adjective = self._adjective(noun.kind) if self._chance(0.25) else None
        ownable = noun.kind != "drink" and noun.german not in UNOWNED
        if noun.kind == "family" or (ownable and self._chance(0.2)):
            owner = owner or self._choice((ME, ME, US, YOU))
            return NounPhrase(noun, "my", plural, adjective, owner)
        if noun.kind not in ("person", "drink") and self._chance(0.08):
            possessor = NounPhrase(self._noun(("person",)))
            return NounPhrase(noun, "the", plural, adjective, possessor=possessor)
        return NounPhrase(noun, "the", plural, adjective)

    def _indefinite(self, noun: Noun) -> NounPhrase:
        adjective = self._adjective(noun.kind) if self._chance(0.35) else None
        if noun.kind == "drink":
            return NounPhrase(noun, "bare", adjective=adjective)
        if self._chance(0.3):
            most = self._choice((9, 12, 99))
            return NounPhrase(noun, "a", True, adjective, count=self._number(2, most))
        return NounPhrase(noun, "a", self._chance(0.15), adjective)

    def _noun_phrase(
        self,
        kinds: tuple[str, ...],
        owner: Pronoun | None = None,
        other_than: Noun | None = None,
        definite: bool = False,
    ) -> NounPhrase:
        noun = self._noun(kinds, other_than)
        if definite or noun.kind == "family" or self._chance(0.6):
            return self._definite(noun, owner)
        return self._indefinite(noun)

    def _somebody(
        self, kinds: tuple[str, ...] = PEOPLE, other_than: Noun | None = None
    ) -> Phrase:
        if "person" in kinds and self._chance(0.35):
            return self._choice(ANYBODY)
        return self._noun_phrase(kinds, other_than=other_than, definite=self._chance(0.8))

    def _other(self, subject: Phrase) -> Pronoun:
        """Somebody else than the subject."""
        person = _pronoun(subject).person
        return self._choice([p for p in ANYBODY if p.person == 3 or p.person != person])

    # Clauses

    def _clause(
        self,
        subject: Phrase | None = None,
        tense: str = "",
        verb: Verb | None = None,
        *,
        bare: bool = False,
        negatable: bool = True,
        event: bool = False,
        fixed: dict | None = None,
    ) -> Clause:
        """Something that happens. bare: without time, clock and modal; event: no lasting state;
        fixed: phrases by role."""
        fixed = fixed or {}
        verb = verb or self._verb(subject, fixed, event or tense == "progressive")
        used = next((what.noun for what in fixed.values()), None)
        subject = subject or fixed.get("subject") or self._somebody(verb.frame["subject"], used)
        tense = tense or self._choice(("present", "past", "past", "future", "progressive"))
        if tense == "progressive" and verb.stative:
            tense = "present"
        if verb.swapped and tense == "future":
            tense = "past"
        able = not (bare or verb.stative or verb.involuntary)
        modal = self._modal(tense) if able and self._chance(0.2) else ""
        intransitive = len(verb.frame) == 1
        negated = negatable and self._chance(0.18) and (tense != "progressive" or intransitive)
        phrases = self._phrases(verb, subject, negated, fixed)
        clause = Clause(verb, subject, tense, modal=modal, negated=negated, **phrases)
        if not (bare or (verb.stative and not verb.anywhere)):
            clause = self._timed(clause)
        if verb.anywhere and not negated and self._chance(0.25):
            clause = replace(clause, place=(self._choice(PLACES), "where"))
        return clause

    def _timed(self, clause: Clause) -> Clause:
        if not (clause.tense == "present" and (clause.modal or clause.negated)):
            clause = replace(clause, time=self._time(clause.tense))
        if clause.negated or clause.tense not in ("past", "future", "present"):
            return clause
        if not _bare_plural(clause.accusative) and self._chance(0.14):
            clause = replace(clause, clock=self._clock())
        return clause

    def _verb(self, subject: Phrase | None, fixed: dict, event: bool) -> Verb:
        """A verb that can be said of these phrases."""

        def fits(verb: Verb) -> bool:
            if verb.swapped and (fixed or subject):
                return False
            if event and verb.stative:
                return False
            if subject and not set(_kinds(subject)) & set(verb.frame["subject"]):
                return False
            return all(
                role in verb.frame and set(_kinds(what)) & set(verb.frame[role])
                for role, what in fixed.items()
            )

        return self._choice([verb for verb in VERBS["plain"] if fits(verb)])

    def _modal(self, tense: str) -> str:
        if tense == "present":
            return self._choice(("können", "müssen", "wollen", "sollen", "dürfen"))
        return self._choice(("können", "müssen", "wollen", "dürfen")) if tense == "past" else ""

    def _phrases(self, verb: Verb, subject: Phrase, negated: bool, fixed: dict) -> dict:
        owner = _pronoun(subject) if _kinds(subject)[0] in PEOPLE else None
        used = getattr(subject, "noun", None)
        phrases = {}
        for role, kinds in verb.frame.items():
            if role == "subject":
                continue
            if role in fixed:
                phrases[role] = fixed[role]
            elif "person" in kinds and self._chance(0.4 if verb.swapped else 0.15):
                phrases[role] = self._other(subject)
            elif role == "accusative" and negated and self._chance(0.5):
                phrases[role] = replace(
                    self._indefinite(self._noun(tuple(k for k in kinds if k != "family"), used)),
                    determiner="no",
                    count=0,
                )
            else:
                definite = role != "accusative" or negated
                phrases[role] = self._noun_phrase(kinds, owner, used, definite)
            used = getattr(phrases[role], "noun", used)
        return phrases

    def _arranged(self, clause: Clause) -> Clause:
        """A main clause with something other than the subject in front, now and then."""
        fronts = ["subject"]
        if clause.time and clause.time.german not in ("immer", "nie", "selten"):
            fronts += ["time"]
        if clause.accusative:
            if _recognisable(clause.accusative):
                fronts.append("accusative")
        elif isinstance(clause.dative, NounPhrase):
            fronts.append("dative")
        front = self._choice(fronts)
        return replace(clause, front=front) if self._chance(0.7) else clause

    def _fact(self, subject: Phrase | None = None, past: bool = False) -> Clause:
        """Something that is so, rather than happens."""
        tense = "past" if past else "present"
        if subject is None:
            return self._choice(
                (self._quality, self._comparison, self._price, self._age, self._position,
                 self._hour, self._weather)
            )(tense)
        return self._age(tense, subject) if self._chance(0.2) else self._quality(tense, subject)

    def _quality(self, tense: str, subject: Phrase | None = None) -> Clause:
        subject = subject or self._noun_phrase(PEOPLE + ("animal",) + GOODS, definite=True)
        adjective = self._adjective(_kinds(subject)[0])
        degree = self._choice(("", "", "very", "too", "quite")) if adjective.german_more else ""
        negated = not degree and self._chance(0.3)
        predicate = Quality(adjective, degree)
        return Clause(BE, _plain(subject), tense, predicate=predicate, negated=negated)

    def _comparison(self, tense: str) -> Clause:
        kind = self._choice(PEOPLE + ("animal", "vehicle", "furniture", "text", "clothes"))
        one = self._definite(self._noun((kind,)))
        other = self._definite(self._noun((kind,), other_than=one.noun))
        adjective = self._adjective(kind, comparable=True)
        comparison = Comparison(adjective, _plain(other), equal=self._chance(0.35))
        return Clause(BE, _plain(one), tense, predicate=comparison, negated=self._chance(0.25))

    def _price(self, tense: str) -> Clause:
        amount = self._number(2, self._choice((99, 999)))
        subject = self._noun_phrase(GOODS, definite=True)
        amount += amount % 100 == 1  # hundertein Euro is nobody's favourite
        return Clause(COST, replace(subject, plural=False), tense, Amount(amount, "euro"))

    def _age(self, tense: str, subject: Phrase | None = None) -> Clause:
        subject = _plain(subject or self._noun_phrase(PEOPLE, definite=True))
        return Clause(BE, subject, tense, predicate=Amount(self._number(2, 99), "year"))

    def _hour(self, tense: str) -> Clause:
        return Clause(BE, IT, tense, predicate=self._clock())

    def _weather(self, tense: str) -> Clause:
        tense = self._choice(("past", "future", "progressive")) if tense == "present" else tense
        return Clause(self._choice(VERBS["weather"]), IT, tense, time=self._time(tense))

    def _position(self, tense: str) -> Clause:
        """The key is on the table; she puts the key on the table."""
        what, where, supports, posture = self._placement()
        support = NounPhrase(NOUN[self._choice(supports)])
        relation = self._choice(where)
        if self._chance(0.5):
            verb = VERBS["posture"][posture]
            return Clause(
                verb, what, tense, spot=(relation, "dative", support), negated=self._chance(0.2)
            )
        somebody = self._somebody()
        time = self._time(tense)
        return Clause(
            VERBS["placing"][posture], somebody, tense, what, time=time,
            spot=(relation, "accusative", support),
        )

    def _placement(self):
        posture = self._choice((0, 0, 1, 1, 2))
        names, where, supports = _POSTURES[posture]
        what = replace(self._definite(NOUN[self._choice(names)]), plural=False)
        return what, where, supports, posture

    # Sentences

    def _statement(self) -> Sentence:
        if self._chance(0.15):
            return Statement(self._with_relative())
        return Statement(self._arranged(self._clause()))

    def _with_relative(self) -> Clause:
        """The man whom the woman saw works in the garden."""
        noun = self._noun(("person", "person", "animal", "thing", "clothes", "text"))
        np = NounPhrase(noun, plural=self._chance(0.2))
        role = self._choice(("subject", "accusative", "dative", "prepositional"))
        if noun.kind not in ("person", "animal"):
            role = "accusative"
        inner = self._clause(fixed={role: np}, tense=self._choice(("past", "past", "progressive")))
        inner = replace(inner, clock=None, modal="")
        whole = replace(np, relative=(role, inner))
        if noun.kind == "person" and self._chance(0.6):
            return self._clause(whole)
        return self._quality(self._choice(("present", "past")), whole)

    def _stated_fact(self) -> Sentence:
        return Statement(self._arranged(self._fact(past=self._chance(0.2))))

    def _question(self) -> Sentence:
        clause = self._clause(tense=self._finished_or_planned(), negatable=False)
        word = self._choice(("", "", "wann", "warum", "wo"))
        if word == "wann":
            return Question(replace(clause, time=None, clock=None), (word, "when"))
        if word == "wo" and clause.verb.anywhere:
            return Question(replace(clause, place=None), (word, "where"))
        return Question(clause, ("warum", "why") if word == "warum" else ("", ""))

    def _finished_or_planned(self) -> str:
        return self._choice(("past", "past", "future"))

    def _deed(self, subject: Pronoun) -> Clause:
        """Something one can try, plan or be asked to do."""
        verbs = [
            verb for verb in VERBS["plain"]
            if verb.frame["subject"] == PEOPLE and not verb.stative and not verb.involuntary
        ]
        verb = self._choice(verbs)
        return self._clause(subject, "present", verb, bare=True, negatable=False)

    def _command(self) -> Sentence:
        clause = self._deed(ME)
        while isinstance(clause.accusative, Pronoun) or isinstance(clause.dative, Pronoun):
            clause = self._deed(ME)
        return Command(replace(clause, subject=YOU))

    def _pair(self, tenses: tuple[str, str], **options) -> tuple[Clause, Clause]:
        """Two clauses; the second often speaks of the first one's subject again."""
        first = self._clause(self._somebody(), tenses[0], **options)
        subject = _pronoun(first.subject) if self._chance(0.55) else None
        return first, self._clause(subject, tenses[1], **options)

    def _linked(self, main: Clause, other: Clause, conjunction: tuple[str, str]) -> Linked:
        """Main and subordinate clause in either order; the pronoun comes after its noun."""
        if self._chance(0.5):
            return Linked(self._arranged(main), other, conjunction, "trailing")
        return self._leading(other, main, conjunction)

    def _leading(self, other: Clause, main: Clause, conjunction: tuple[str, str]) -> Linked:
        if other.subject == _pronoun(main.subject):
            noun, pronoun = main.subject, other.subject
            main, other = replace(main, subject=pronoun), replace(other, subject=noun)
        return Linked(other, main, conjunction, "leading")

    def _reason(self) -> Sentence:
        conjunction = self._choice((("weil", "because"), ("weil", "because"),
                                    ("obwohl", "although")))
        tense = self._choice(("past", "past", "present", "progressive", "future"))
        main, other = self._pair((tense, "past" if tense == "progressive" else tense))
        if self._chance(0.45):
            subject = other.subject if isinstance(other.subject, Pronoun) else None
            other = self._fact(subject, past=tense == "past")
        return self._linked(main, other, conjunction)

    def _condition(self) -> Sentence:
        main, other = self._pair(("future", "present"), bare=True)
        if self._chance(0.3):
            habitual = replace(main, tense="present")
            return self._leading(other, habitual, ("immer wenn", "whenever"))
        if self._chance(0.5):
            other = replace(other, time=self._choice(TIMES["future"]))
        if self._chance(0.2):
            other = Clause(self._choice(VERBS["weather"]), IT, "present",
                           time=self._choice(TIMES["future"]))
        return self._linked(main, other, ("wenn", "if"))

    def _sequence(self) -> Sentence:
        tense, conjunction = self._choice(
            (("past", ("bevor", "before")), ("pluperfect", ("nachdem", "after")))
        )
        main, other = self._pair(("past", tense), bare=True, negatable=False, event=True)
        return self._linked(main, other, conjunction)

    def _coordination(self) -> Sentence:
        first, second = self._pair((self._choice(("past", "present", "future")),) * 2)
        first = self._arranged(first)
        if self._chance(0.5):
            return Linked(first, self._arranged(second), ("aber", "but"), "main")
        return Linked(first, second, ("deshalb", "so"), "inverting")

    def _report(self) -> Sentence:
        content = self._fact() if self._chance(0.35) else self._clause()
        if self._chance(0.6):
            verb = self._choice(VERBS["report"])
            return Report(Clause(verb, self._somebody(), "present"), ("dass", "that"), content)
        word = self._choice((("ob", "whether"), ("ob", "whether"), ("warum", "why"),
                             ("wann", "when")))
        if word[0] == "wann":
            content = self._clause(tense=self._finished_or_planned(), negatable=False)
            content = replace(content, time=None, clock=None)
        knows = Clause(VERB["wissen"], self._somebody(), "present", negated=True)
        asks = Clause(VERBS["ask"][0], self._somebody(), "present")
        return Report(self._choice((knows, asks)), word, content)

    def _attempt(self) -> Sentence:
        main = Clause(self._choice(VERBS["attempt"]), self._somebody(), "past",
                      time=self._time("past"))
        content = self._deed(_pronoun(main.subject))
        if main.verb.german in ("versuchen", "beschließen", "versprechen") and self._chance(0.15):
            if not content.accusative and not content.place:
                content = replace(content, negated=True)
        return Purpose(self._arranged(main), content)

    def _errand(self) -> Sentence:
        tense = self._choice(("present", "past", "future", "progressive"))
        main = Clause(self._choice(VERBS["motion"]), self._somebody(), tense,
                      time=self._time(tense), place=(self._choice(PLACES), "whither"))
        if self._chance(0.35):
            return Statement(self._arranged(main))
        content = self._deed(_pronoun(main.subject))
        return Purpose(self._arranged(main), replace(content, place=None), ("um", "in order"))

    def _introduction(self) -> Sentence:
        """This is my brother. I visited him yesterday."""
        noun = self._noun(PEOPLE + ("animal",) + GOODS)
        np = self._definite(noun) if noun.kind == "family" else self._choice(
            (self._definite, self._indefinite))(noun)
        person = noun.kind in PEOPLE
        role = self._choice(("accusative", "dative", "prepositional") if person else
                            ("accusative",))
        clause = self._clause(fixed={role: np})
        clause = replace(clause, **{role: np.pronoun})
        return Text((Presentation(np), Statement(self._arranged(clause))))

    def _search(self) -> Sentence:
        what, where, supports, posture = self._placement()
        if self._chance(0.5):
            spot = (self._choice(where), "dative", NounPhrase(NOUN[self._choice(supports)]))
            answer = Clause(VERBS["posture"][posture], what.pronoun, "present", spot=spot)
            return Text((Question(Clause(BE, what, "present"), ("wo", "where")),
                         Statement(answer)))
        clause = self._clause(ME, "past", fixed={"accusative": what}, negatable=False)
        clause = replace(clause, accusative=what.pronoun)
        asked = Clause(VERB["sehen"], YOU, "past", what)
        return Text((Question(asked), Statement(self._arranged(clause))))


def _plain(phrase: Phrase) -> Phrase:
    return replace(phrase, adjective=None) if isinstance(phrase, NounPhrase) else phrase


def _recognisable(phrase: Phrase) -> bool:
    """Den Hund sucht die Frau: only a definite masculine cannot be taken for the subject."""
    if not isinstance(phrase, NounPhrase) or phrase.plural:
        return False
    return phrase.determiner in ("the", "my") and phrase.noun.gender == "m"


def _bare_plural(phrase: Phrase | None) -> bool:
    """um fünf vor halb drei Hemden: half past two and three shirts, or half past two and shirts?"""
    return isinstance(phrase, NounPhrase) and phrase.plural and phrase.determiner == "a"


def _kinds(phrase: Phrase) -> tuple[str, ...]:
    return PEOPLE if isinstance(phrase, Pronoun) else (phrase.noun.kind,)


def _pronoun(phrase: Phrase) -> Pronoun:
    return phrase if isinstance(phrase, Pronoun) else phrase.pronoun
