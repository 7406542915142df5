"""What may not differ between two messages that are to get one answer: a cheap check of words, in front of no model.

A static embedding is the mean of its words' vectors: it barely sees a changed number, a "not", or who does what to
whom. So two messages must also agree in these, word for word. What is not sure counts as different: a miss too many
is better than one wrong answer. Words are compared in lower case and without an English plural or genitive s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD = re.compile(r"[+-]?\d[\d.,:/]*\d%?|[+-]?\d%?|[^\W\d_]+(?:['’][^\W\d_]+)*|[^\w\s.,;:!?'\"’“”()-]")

#: Numbers said in words.
_NUMBERS = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "dozen": "12", "first": "1st",
    "second": "2nd", "third": "3rd", "hundred": "100", "thousand": "1000", "million": "1e6", "billion": "1e9",
    "once": "1x", "twice": "2x", "double": "2x", "triple": "3x", "half": "1/2", "quarter": "1/4",
    "single": "1", "both": "2", "couple": "2",
}  # fmt: skip
_NEGATIONS = _words("""
    no not never none nobody nothing nowhere neither nor without cannot except unless instead avoid stop fail lack
    refuse deny unable hardly barely nicht kein keine nie ohne pas jamais sans non nunca sin não
""")
#: Words that turn an answer round, or choose what it is about, while their vectors are near each other's.
_TELLING = _words("""
    before after more less most least fewer increase decrease raise lower reduce minimum maximum minimise minimize
    maximise maximize min max high highest low lowest best worst good bad better worse buy sell open close enable
    disable off out up down over under above below start end begin finish left right north south east west top
    bottom add remove delete create destroy install uninstall import export encrypt decrypt encode decode upload
    download send receive push pull win lose gain loss profit old new oldest newest young early late earliest latest
    earlier later past future yesterday today tomorrow now first last next previous always sometimes often rarely
    all some any every each only even odd true false positive negative legal illegal safe dangerous advantage
    disadvantage pro con benefit risk cause effect from ascending descending lock unlock log login logout morning
    evening day night summer winter spring autumn fall hot cold warm cool big small large short long brief detailed
    cheap expensive fast slow rich poor male female man woman men women boy girl he she his her him parent child
    father mother son daughter brother sister husband wife why when where who whose should must may might will did
    was were had they them english french german spanish italian portuguese dutch russian chinese japanese korean
    arabic hindi turkish polish python java javascript typescript rust golang ruby php kotlin swift scala perl bash
    sql kilometre kilometer km mile metre meter foot feet inch kg kilogram pound lb gram ounce litre liter gallon
    celsius fahrenheit kelvin second minute hour week month year dollar euro yen hourly daily weekly monthly yearly
    monday tuesday wednesday thursday friday saturday sunday or here this these those
""")
#: Words that carry no content: their order and number are free.
_SMALL = _words("""
    a an the of for and that it its what what's which please tell give show explain do does did
    is are was were be been am i me my we our us you your can could would will should may might how to in on at by
    with from as about into if then so there have has had i'm i'd i've it's let's need want like know help just
    some any who where when why
""")

_PERSONS = dict.fromkeys(("i", "me", "my", "mine", "we", "us", "our"), "i") | dict.fromkeys(
    ("you", "your", "yours"), "y"
)
#: Letters of a word behind a number that may be a unit, in which capitals count.
_UNIT = 3
#: Words that only look like a negation of another.
_KEPT = _words("""
    discus discuss display distance district distribute distribution disease dish disk disc
""")


@dataclass(frozen=True, slots=True)
class Marks:
    """What has to be the same in two messages, and the words whose order has to be."""

    telling: tuple[str, ...]  # numbers, signs, negations and telling words, sorted
    names: tuple[str, ...]  # words with a capital or a digit inside, sorted
    script: tuple[str, ...]  # of its letters
    order: tuple[str, ...]  # all words that carry content, as they stand
    persons: str  # "iyi": who speaks of whom, as they stand


def marks_of(text: str) -> Marks:
    """The marks of a message."""
    telling, names, order, persons = [], [], [], ""
    is_start, is_counted, is_loud = True, False, text.isupper()
    for found in _WORD.finditer(text):
        word = found.group()
        plain = _plain(word)
        kind = _telling(plain)
        if kind is None and ((is_counted and len(word) <= _UNIT) or (len(word) > 1 and word.isupper() and not is_loud)):
            kind = word  # MB and Mb, US and us
        is_counted = word[-1].isdigit()
        if kind is not None:
            telling.append(kind)
        elif plain not in _SMALL and not is_start and any(map(str.isupper, word)):
            names.append(plain)
        if kind is not None or plain not in _SMALL:
            order.append(kind if kind is not None else plain)
        person = _PERSONS.get(plain, "")
        persons += person if not persons.endswith(person) else ""
        is_start = text[found.end() : found.end() + 1] in (".", "!", "?", ":", "\n")
    return Marks(tuple(sorted(telling)), tuple(sorted(names)), _scripts(text), tuple(order), persons)


def may_be_alike(one: Marks, other: Marks, *, same_words: bool = True) -> bool:
    """Whether nothing that must not differ does; says nothing of whether they mean the same. With `same_words` every
    word that carries content has to be in both: a static embedding takes "accept" for "decline", and hardly sees a
    "former" in front of a "capital"."""
    if one.telling != other.telling or one.script != other.script:
        return False
    is_both = bool(one.persons) and bool(other.persons)
    if is_both and one.persons != other.persons and (len(one.persons) > 1) is (len(other.persons) > 1):
        return False  # of unlike lengths: "can you tell me" is as good as "tell me"
    if same_words and set(one.order) != set(other.order):
        return False
    return _same_names(one, other) and _same_order(one.order, other.order)


def _same_names(one: Marks, other: Marks) -> bool:
    """A name may stand first in the other message, where its capital tells nothing, or be written small there."""
    return all(name in other.order for name in one.names) and all(name in one.order for name in other.names)


def _same_order(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether the words that both have stand in the same order."""
    shared = frozenset(one) & frozenset(other)
    return [word for word in one if word in shared] == [word for word in other if word in shared]


def _plain(word: str) -> str:
    word = word.lower().replace("’", "'")
    if word.endswith("n't"):
        return word
    word = word.partition("'")[0] if "'" in word else word
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _telling(word: str) -> str | None:
    """A word that must be the same in both; all words of no are one."""
    if word in _NEGATIONS or word.endswith("n't") or _is_negated(word):
        return "not"
    if word in _NUMBERS:
        return _NUMBERS[word]
    if not word[0].isalpha():
        return word.replace(",", "")
    return word if word in _TELLING else None


def _is_negated(word: str) -> bool:
    return len(word) > 6 and word.startswith(("non", "unable", "dis")) and word not in _KEPT


def _scripts(text: str) -> tuple[str, ...]:
    """Blocks of 256 code points that its letters are of, but for Latin letters with accents."""
    return tuple(sorted({f"{ord(letter) >> 8:x}" for letter in text if letter > "\u024f" and letter.isalpha()}))
