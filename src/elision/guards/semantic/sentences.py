"""Words and sentences of a text that is still being written.

Where they end depends on the text alone, never on the pieces in which it came: a sentence ends
where the white space behind its full stop is seen, a word where something follows that is no part
of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple
from unicodedata import category, normalize

MAX_CHARS: Final = 400
"""Characters after which a sentence is judged as if it ended, so that nothing is held for ever."""
MAX_WORD_CHARS: Final = 64
WINDOW_WORDS: Final = 24
STRIDE_WORDS: Final = 12
"""Longer sentences are also compared window by window: length dilutes a cosine."""
LEAD_WORDS: Final = 12
"""Words from before a cut that are read again with what follows it."""

_INNER: Final = frozenset("'’-_‐‑")
_MARKS: Final = frozenset({"Mn", "Mc", "Me", "Cf"})
_WORDS: Final = re.compile(r"\S+")
_STOPS: Final = frozenset("。！？｡")
_ENDING: Final = re.compile(r"(\S*?)([.!?…]+)[\"'”’»)\]*_]*\Z")
_DOTTED: Final = re.compile(r"(?:\w\.)*\w\Z")
_ABBREVIATIONS: Final = frozenset(
    "dr mr mrs ms prof rev hon gen col lt capt sgt sr jr st mt vs etc al inc ltd corp approx dept "
    "est vol fig eds cf ca jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
_UNSEEN: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0]"
)
_SPELLED_OUT: Final = re.compile(r"(?<![^\W_])(?:[^\W_][ .\-_·*]){2,}[^\W_](?![^\W_])")


class Piece(NamedTuple):
    """A word or a sentence that has ended.

    Attributes:
        kind: Which.
        text: It; a sentence begins with what it continues from before a cut or a prefill.
        start: Raw position of its first character that the reply may still change.
        end: One past its last.
        floor: Where the sentence that it belongs to begins, or what of it can still be changed.
        lead: How many characters of *text* stand before *floor*.
    """

    kind: Literal["word", "sentence"]
    text: str
    start: int
    end: int
    floor: int
    lead: int = 0


class Running(NamedTuple):
    """The sentence that is being written: an immutable value, a function of the text so far.

    Attributes:
        text: Of the running sentence; the words before a cut included.
        end: Raw characters of the reply so far.
        floor: Where the running sentence begins, or what of it the reply wrote.
        word: Characters at the end that are a word in the making.
    """

    text: str = ""
    end: int = 0
    floor: int = 0
    word: int = 0

    @classmethod
    def after(cls, before: str) -> Running:
        """Return the beginning of a reply that continues *before*."""
        running = cls().read(before[-4 * MAX_CHARS :])[0]
        return running._replace(end=0, floor=0)

    def read(self, text: str) -> tuple[Running, tuple[Piece, ...]]:
        """Return what is running after *text*, and what has ended in it, in order."""
        running, pieces = self, list[Piece]()
        for char in text:
            running = running._step(char, pieces)
        return running, tuple(pieces)

    def finish(self) -> tuple[Running, tuple[Piece, ...]]:
        """Return what is running after the end of the text: nothing; and what ended there."""
        pieces = list[Piece]()
        self._end_word(pieces)
        self._end_sentence(self.end, pieces)
        return Running("", self.end, self.end), tuple(pieces)

    def left(self) -> Running:
        """Return the same place in a text of which all has left already."""
        return self._replace(floor=self.end)

    def _step(self, char: str, pieces: list[Piece]) -> Running:
        inside = in_word(char) and self.word < MAX_WORD_CHARS
        if not inside:
            self._end_word(pieces)
            if char == "\n" or (char.isspace() and _ends(self.text)):
                self._end_sentence(self.end, pieces)
                return Running(char, self.end + 1, self.end)
        word = self.word + 1 if inside else int(in_word(char))
        grown = Running(self.text + char, self.end + 1, self.floor, word)
        if char in _STOPS:
            grown._end_sentence(grown.end, pieces)
            return Running("", grown.end, grown.end)
        return grown if grown.end - grown.floor < MAX_CHARS else grown._cut(pieces)

    def _cut(self, pieces: list[Piece]) -> Running:
        """End the sentence before the running word, and begin another that overlaps it."""
        at = self.end - self.word
        self._end_sentence(at, pieces)
        done = self.text[: len(self.text) - self.word]
        starts = [found.start() for found in _WORDS.finditer(done)][-LEAD_WORDS:]
        return Running(self.text[starts[0] if starts else at :], self.end, at, self.word)

    def _end_word(self, pieces: list[Piece]) -> None:
        raw = self.text[len(self.text) - self.word :]
        word = raw.strip("".join(_INNER))
        start = self.end - len(raw) + raw.find(word)
        if word and start + len(word) > self.floor:
            start, end = max(start, self.floor), start + len(word)
            pieces.append(Piece("word", word, start, end, self.floor))

    def _end_sentence(self, end: int, pieces: list[Piece]) -> None:
        """Note the sentence up to *end*, if the reply wrote anything of it that can be read."""
        text = self.text[: len(self.text) - (self.end - end)]
        lead = max(0, len(text) - (end - self.floor))
        own = text[lead:]
        if not any(map(str.isalnum, own)):
            return
        start = self.floor + len(own) - len(own.lstrip())
        last = end - (len(own) - len(own.rstrip()))
        pieces.append(Piece("sentence", text, start, last, self.floor, lead))


def in_word(char: str) -> bool:
    """Return whether *char* is part of a word: letters, digits, marks, inner apostrophes."""
    return char.isalnum() or char in _INNER or (char > "\x7f" and category(char) in _MARKS)


def words(text: str) -> Iterator[str]:
    """Yield the words of a whole text."""
    running, pieces = Running().read(text)
    for piece in (*pieces, *running.finish()[1]):
        if piece.kind == "word":
            yield piece.text


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a whole text."""
    running, pieces = Running().read(text)
    for piece in (*pieces, *running.finish()[1]):
        if piece.kind == "sentence":
            yield piece.text.strip()


def views(text: str) -> tuple[str, ...]:
    """Return what of *text* is compared: the whole, and if it is long its windows."""
    found = text.split()
    if len(found) <= WINDOW_WORDS:
        return (" ".join(found),) if found else ()
    last = len(found) - WINDOW_WORDS
    starts = [*range(0, last, STRIDE_WORDS), last]
    windows = (" ".join(found[at : at + WINDOW_WORDS]) for at in starts)
    return (" ".join(found), *windows)


def plain(text: str) -> str:
    """Return *text* as an encoder should read it.

    Compatibility forms become ordinary letters, invisible characters vanish, white space is one
    space, and a word that is spelled out letter by letter is written together.
    """
    shown = " ".join(_UNSEEN.sub("", normalize("NFKC", text)).split())
    return _SPELLED_OUT.sub(_together, shown)


def _together(found: re.Match[str]) -> str:
    return "".join(char for char in found[0] if char.isalnum())


def _ends(text: str) -> bool:
    """Return whether the full stop at the end of *text* ends a sentence."""
    found = _ENDING.search(text[-MAX_WORD_CHARS:])
    if found is None:
        return False
    before, stop = found[1].lstrip("([\"'“‘«*_"), found[2]
    if stop != ".":
        return True
    is_numbering = before.isdigit() and text.strip() == before + stop
    is_short = before.lower() in _ABBREVIATIONS or _DOTTED.match(before) is not None
    return bool(before) and not is_numbering and (not is_short or before.isdigit())
