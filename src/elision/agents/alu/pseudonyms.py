"""Invented names: like a given one in script, length and first letter, and nobody's."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from importlib.resources import files
from random import Random
from typing import Final, Literal, TypeAlias

from elision.agents.alu.name_parts import (
    BEGINNINGS,
    ENDINGS,
    FUNCTION_WORDS,
    GIVEN,
    MIDDLES,
    PLAIN,
)
from elision.guards.phrases.advice import common_words
from elision.guards.phrases.normal import N

Digest: TypeAlias = Callable[[bytes], str]
"""A keyed digest in hex: without the key nobody can tell which invented name stands for which."""
Part: TypeAlias = Literal["given", "family"]

PARTICLES: Final = frozenset(
    "a al an and at bin bint da das de del della den der des di do dos du e el for from ibn in la "
    "le los mac mc of on or san st the to und van von with y zu zum".split()
)
"""Words of names that many names have; they tell nobody apart, and stay."""
LEGAL_FORMS: Final = frozenset("ag bv co corp gmbh inc kg llc ltd nv plc sa sarl se spa".split())
_TRIES: Final = 200
_ALIKE: Final = 0.7
_SHORT: Final = 4
_LONG: Final = 10
_ROOM: Final = 4
"""Letters by which a surname may be longer where nothing fits in as many as it has."""

_ONSETS: Final = tuple(
    "b br c ch d dr f fl g gr h j k kl l m n p pr r s sh st t th tr v w y z".split()
)
_CODAS: Final = tuple("b d l ll m n nd nn r rd rn s ss st t v".split())
_VOWELS: Final = tuple("a a e e i i o o u ai ea ia".split())
_ENDINGS: Final[dict[Part, tuple[str, ...]]] = {
    "given": tuple("a ah an e el en ette ia ie in ina ira is ita on or ric wen".split()),
    "family": tuple(
        "ani ard by den der ell ers ett ez ford ham i ini ley man mond nen ner ov sen son ston "
        "well wick worth".split()
    ),
}
_SCRIPTS: Final[dict[str, tuple[str, str]]] = {
    "CYRILLIC": ("бвгдзклмнпрст", "аеиоу"),
    "GREEK": ("βγδζθκλμνπρστ", "αειου"),
    "HEBREW": ("בגדזטלמנספקרשת", "וי"),
    "ARABIC": ("بتجحخدرزسشعفقكلمن", "اوي"),
    "DEVANAGARI": ("कगचजटडतदनपबभमरलवसह", "अइउए"),
    "HANGUL": ("가나다라마민서선수연영예우윤은재정주준지진하현혜호", ""),
    "HIRAGANA": ("かきくさしたちとなにはひまみやゆよらりる", "あいうえお"),
    "KATAKANA": ("カキクサシタチトナニハヒマミヤユヨラリル", "アイウエオ"),
    "CJK": ("安佳嘉家德文明志思晓清雨秀英建国海玉芳伟", ""),
}
"""Letters to write other scripts with: consonants, vowels."""
_GIVEN: Final = frozenset(GIVEN)
_SURNAMES: Final = "杜邓方傅郭韩贺江孔雷廖陆孟潘秦沈汤田魏严"


class Pseudonyms:
    """Invents a word for each word of a name; the same one for the same word, as long as its key.

    Given names are real ones, surnames put together of parts that many have, and none that is known
    or a word: so it sounds like somebody, and is nobody. A word begins as the one it stands for
    does and has about as many letters.

    Args:
        digest: Keyed by the tenant's secret.
        taken: Normal forms of words that must not come out: those of registered names.
    """

    def __init__(self, digest: Digest, *, taken: frozenset[str] = frozenset()) -> None:
        self._digest = digest
        self._taken = taken

    def __repr__(self) -> str:
        return "Pseudonyms()"

    def word(self, word: str, part: Part, *, plain: bool = False, draw: int = 0) -> str:
        """Return what stands for *word*, in small letters; *word* itself if it tells nobody apart.

        Args:
            word: A word of a registered name.
            part: Where it stands in the name.
            plain: Whether an ordinary word is to become another ordinary word, as in a title.
            draw: Which of many; for where an earlier one cannot be taken.
        """
        word = unicodedata.normalize("NFC", word).casefold()
        if word in PARTICLES or len(word) < 2:
            return word
        if plain and word in LEGAL_FORMS:
            return word
        key = "\x1f".join((word, part, "plain" if plain else "", *([str(draw)] if draw else [])))
        chance = Random(self._digest(key.encode()))  # noqa: S311 -- keyed by the digest
        if plain and N(word) in common_words():
            return chance.choice([it for it in PLAIN if it != word and N(it) not in self._taken])
        return self._invented(word, part, chance)

    def _invented(self, word: str, part: Part, draw: Random) -> str:
        made = ""
        for longer in range(_ROOM):
            for _ in range(_TRIES // _ROOM):
                made = _made(word, part, draw, longer)
                if self._fits(made, word):
                    return made
        return made + draw.choice(("rali", "lino", "nora")) if word.isascii() else made

    def _fits(self, made: str, word: str) -> bool:
        form = N(made)
        if form == N(word) or form in self._taken or form in common_words():
            return False
        if not is_given(made) and (form in _ordinary_words() or made in FUNCTION_WORDS):
            return False
        alike = SequenceMatcher(None, made, word, autojunk=False).ratio()
        return len(word) <= _SHORT or alike < _ALIKE


@lru_cache(maxsize=1)
def _ordinary_words() -> frozenset[str]:
    """Return words, and names of people and places that are known (see the file's head)."""
    text = files("elision.agents.alu").joinpath("ordinary_words.txt").read_text("utf-8")
    return frozenset(
        word for line in text.splitlines() if not line.startswith("#") for word in line.split()
    )


def is_given(word: str) -> bool:
    """Return whether *word* is a given name that real people bear."""
    return word.casefold() in _GIVEN


def is_plain(word: str) -> bool:
    """Return whether *word* is one of the ordinary words that stand for ordinary words."""
    return word.casefold() in PLAIN


def _made(word: str, part: Part, draw: Random, longer: int) -> str:
    script = _script(word)
    if script == "LATIN":
        return _spoken(N(word)[:1] or "a", max(_SHORT, len(word)) + longer, part, draw)
    if script == "CJK":
        first = draw.choice(_SURNAMES) if len(word) <= _SHORT else draw.choice(_SCRIPTS[script][0])
        return first + "".join(draw.choice(_SCRIPTS[script][0]) for _ in word[1:])
    return "".join(_respelt(char, script, draw) for char in word)


def _spoken(initial: str, n: int, part: Part, draw: Random) -> str:
    """Return a Latin name of *n* letters; of syllables, where no common name or parts fit."""
    known = _names(part, initial, n)
    # Few choices would make few names: then it may be any.
    is_known = len(known) > 1 and draw.random() < 1 - 1 / len(known)
    return draw.choice(known) if is_known else _syllables(initial, n, part, draw)


@lru_cache(maxsize=512)
def _names(part: Part, initial: str, n: int) -> tuple[str, ...]:
    if part == "given":
        return tuple(it for it in GIVEN if it[0] == initial and abs(len(it) - n) < 3)
    starts = [it for it in BEGINNINGS if it[0] == initial]
    stems = starts if n < _LONG else [a + b for a in starts for b in MIDDLES]
    return tuple(a + b for a in stems for b in ENDINGS if len(a) + len(b) == n)


def _script(word: str) -> str:
    """Return the script of *word*'s first letter, as Unicode names it; Latin if it has none."""
    for char in word:
        name = unicodedata.name(char, "LATIN")
        if char.isalpha():
            return name.partition(" ")[0]
    return "LATIN"


def _respelt(char: str, script: str, draw: Random) -> str:
    """Return another letter for *char*, vowel for vowel; what is no letter stays."""
    if not char.isalpha():
        return draw.choice("0123456789") if char.isdigit() else char
    if script not in _SCRIPTS:
        near = [chr(ord(char) + step) for step in range(-9, 10)]
        return draw.choice([it for it in near if it.isalpha()])
    consonants, vowels = _SCRIPTS[script]
    return draw.choice(vowels if char in vowels else consonants)


def _syllables(initial: str, n: int, part: Part, draw: Random) -> str:
    """Return *n* Latin letters that can be spoken, the first of them *initial*."""
    if not initial.isascii() or not initial.isalpha():
        initial = draw.choice("bdklmnrstv")
    endings = [it for it in _ENDINGS[part] if len(it) + 3 <= n]
    ending = draw.choice(endings) if endings else ""
    stem = initial
    while len(stem) < n - len(ending):
        stem += _next(stem, n - len(ending) - len(stem), draw)
    return _joined(stem, ending)


def _next(stem: str, room: int, draw: Random) -> str:
    """Return what may follow *stem*: vowels after a consonant, else consonants; *room* at most."""
    if stem[-1] not in "aeiou":
        return _short(_VOWELS, room, draw)
    closing = room <= 2
    return _short(_CODAS if closing else _ONSETS, room, draw)


def _short(choices: Sequence[str], room: int, draw: Random) -> str:
    return draw.choice([it for it in choices if len(it) <= room])


def _joined(stem: str, ending: str) -> str:
    """Return both, and where two vowels or three consonants would meet, *stem*'s last changed."""
    if ending and len(stem) > 1 and (stem[-1] in "aeiou") == (ending[0] in "aeiou"):
        stem = stem[:-1] + ("r" if ending[0] in "aeiou" else "e")
    return stem + ending
