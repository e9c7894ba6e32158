"""What a scripted model knows, and what it wants to write next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from unicodedata import normalize

from elision.testing.spellings import demanded, full_width

SEPARATORS = (" ", ".", "-", "\u200b", "\n")
"""What an insistent model slips between two letters that it may not write together."""

PATIENCE = 4
"""Characters beside the script after which it gives up on the word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactTable:
    """What the scripted model knows: its whole memory, planted by the test.

    Attributes:
        facts: Answer by a part of the question; the longest part that occurs in it wins, case
            aside.
        otherwise: The answer to everything else.
    """

    facts: Mapping[str, str]
    otherwise: str = "I do not know."

    def answer(self, question: str) -> str:
        """Return the answer, spelled as the question demands (see `spellings.SPELLINGS`)."""
        key = self.key_in(question)
        return demanded(question)(self.otherwise if key is None else self.facts[key])

    def key_in(self, text: str) -> str | None:
        """Return the longest key that occurs in *text*; None if none does."""
        flat = text.casefold()
        found = [key for key in self.facts if key.casefold() in flat]
        return max(found, key=len, default=None)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where in its script a reply stands: an immutable value, a function of the reply's text.

    The model insists. What it could not write it tries again in another spelling; a separator, or
    a wrong letter that a mask forced on it, leaves the cursor where it is. After `PATIENCE` of
    these it goes on with the next word.

    Attributes:
        script: What it wants to write.
        at: Characters of it that stand.
        astray: Characters beside it since the last that fitted.
    """

    script: str
    at: int = 0
    astray: int = 0

    def read(self, text: str) -> Cursor:
        """Return the cursor after *text*."""
        cursor = self
        for char in text:
            cursor = cursor._step(char)
        return cursor

    def _step(self, char: str) -> Cursor:
        if self.at < len(self.script) and _alike(char, self.script[self.at]):
            return Cursor(self.script, self.at + 1)
        if self.astray + 1 < PATIENCE or self.at == len(self.script):
            return replace(self, astray=self.astray + 1)
        return Cursor(self.script, self._next_word)

    @property
    def _next_word(self) -> int:
        """Where the space before the next word is; the script's end if it has no more words."""
        space = self.script.find(" ", self.at + 1)
        return len(self.script) if space < 0 else space

    def wishes(self) -> Iterator[str]:
        """Yield what it would like to write from here, the dearest first; nothing at the end."""
        rest = self.script[self.at :]
        if not rest:
            return
        yield rest
        yield rest[0].swapcase() + rest[1:]
        yield full_width(rest[0]) + rest[1:]
        yield from (separator + rest for separator in SEPARATORS)
        if after := self.script[self._next_word :]:
            yield after


def _alike(one: str, two: str) -> bool:
    return one == two or _flat(one) == _flat(two)


@lru_cache(maxsize=4096)
def _flat(char: str) -> str:
    return normalize("NFKC", char).casefold()
