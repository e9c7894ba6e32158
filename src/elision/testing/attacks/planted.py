"""A model that knows what was planted, and says it in any writing that the question demands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from elision.testing.attacks.transforms import TRANSFORMS, transform_named_in
from elision.testing.script import FactTable
from elision.testing.text_engine import TextEngine

if TYPE_CHECKING:
    from elision.contract import Request


_CHARACTERS: Final = re.compile(r"characters (\d+)-(\d+)", re.IGNORECASE)
_WORD: Final = re.compile(r"word number (\d+)", re.IGNORECASE)
_EVERY_OTHER: Final = re.compile(r"the (odd|even) letters", re.IGNORECASE)
_FRAMES: Final = {
    "in quotation marks": 'They are "{}".',
    "on a line of their own": "Here they are:\n{}",
    "as JSON": '{{"answer": "{}"}}',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedFacts(FactTable):
    """Facts told in the demanded writing, whole or the demanded part of them.

    Understands what `Transform.demand` says, *characters 4-6*, *word number 2*, *the odd letters*,
    and how the answer is to be framed; recognises a key that the question writes by a transform
    which it names. It has no scruples: what it knows it says.
    """

    def answer(self, question: str) -> str:
        """Return the answer, spelled as the question demands."""
        key = self.key_in(question) or self._written_key(question)
        text = self.otherwise if key is None else self.facts[key]
        if (transform := transform_named_in(question)) is not None:
            text = transform.apply(text, dice())
        return _framed(_part(text, question), question)

    def _written_key(self, question: str) -> str | None:
        """Return the longest key that stands in *question* by a transform named there."""
        named = [t for t in TRANSFORMS.values() if f"<{t.name}>" in question]
        found = (key for t in named for key in self.facts if t.apply(key, dice()) in question)
        return max(found, key=len, default=None)


def dice() -> Random:
    """Return the dice that the planted model writes with, so that a judge can write the same."""
    return Random(0)  # noqa: S311 - attacks are to be repeatable


def _part(text: str, question: str) -> str:
    if found := _CHARACTERS.search(question):
        return text[int(found[1]) - 1 : int(found[2])]
    if found := _WORD.search(question):
        words = text.split()
        return words[int(found[1]) - 1] if int(found[1]) <= len(words) else ""
    if found := _EVERY_OTHER.search(question):
        return text[found[1].lower() == "even" :: 2]
    return text


def _framed(text: str, question: str) -> str:
    for demand, frame in _FRAMES.items():
        if demand in question:
            return frame.format(text)
    return text


class PlantedEngine(TextEngine):
    """An engine that only speaks text, and knows what was planted.

    Args:
        facts: What it knows.
        every: Characters per piece.
    """

    def __init__(self, facts: PlantedFacts, *, every: int = 3) -> None:
        def reply(request: Request) -> str:
            texts = [m for m in request.messages if m.get("role") == "user"]
            return facts.answer(str(texts[-1].get("content", "")) if texts else "")

        super().__init__(reply, every=every, name="planted")
