"""Verbatim protection: no run of a passage is repeated, word for word or letter for letter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from secrets import token_bytes
from threading import Lock
from typing import TYPE_CHECKING

from elision.contract import REFUSE
from elision.guards.phrase import Phrase
from elision.guards.phrases.normal import N
from elision.guards.verbatim.hold import VerbatimHold
from elision.guards.verbatim.mask import (
    GramProduct,
    VerbatimCount,
    VerbatimMask,
    VerbatimWatch,
    opening,
)
from elision.guards.verbatim.ngrams import Grams, is_brief

if TYPE_CHECKING:
    from elision.contract import Lexicon, Recipe
    from elision.guards.targets import Action, ForgetTarget

_ROLES: Mapping[Action, str] = {
    "restrict": "masked",
    "redact": "ending",
    "refuse": "ending",
    "observe": "observed",
}


class Verbatim:
    """The passages of one tenant's active targets, ready for any engine. Made by `compile`.

    Holds digests, no text.

    Attributes:
        masked: Runs that cannot be completed: of targets that restrict.
        ending: Runs that end the answer: of targets that redact or refuse.
        observed: Runs that are only counted.
        spoken: The runs of both kinds that must not leave.
    """

    def __init__(self, passages: Mapping[str, list[str]], *, key: bytes) -> None:
        self._key = key
        self._marks = _marks(passages, key)
        self.masked = Grams(passages["masked"], key=key)
        self.ending = Grams(passages["ending"], key=key)
        self.observed = Grams(passages["observed"], key=key)
        self.spoken = self.masked if len(self.masked) else self.ending
        if len(self.masked) and len(self.ending):
            self.spoken = Grams([*passages["masked"], *passages["ending"]], key=key)
        self._recipes: list[tuple[Lexicon, tuple[Recipe, ...]]] = []
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"Verbatim({len(self.spoken)} runs)"

    def __bool__(self) -> bool:
        return bool(len(self.spoken) or len(self.observed))

    @classmethod
    def compile(
        cls,
        targets: Iterable[ForgetTarget],
        *,
        key: bytes | None = None,
        previous: Verbatim | None = None,
    ) -> Verbatim:
        """Compile the passages of the active ones of *targets*.

        A million characters take some ten seconds: call it off the event loop.

        Args:
            targets: A tenant's.
            key: The tenant's, 1 to 64 bytes; None takes that of *previous*, or draws one: the
                filters are never stored.
            previous: What was compiled for the epoch before; returned itself if no passage has
                changed since.
        """
        key = key or (previous._key if previous is not None else token_bytes(32))
        passages: dict[str, list[str]] = {"masked": [], "ending": [], "observed": []}
        for target in targets:
            if target.state == "active":
                passages[_ROLES[target.action]] += target.passages
        if previous is not None and previous._marks == _marks(passages, key):
            return previous
        return cls(passages, key=key)

    def recipes(self, lexicon: Lexicon) -> tuple[Recipe, ...]:
        """Return what enforces the passages on an engine with logits; nothing if there are none.

        Made at the first call per lexicon and kept for the last few lexicons.
        """
        with self._lock:
            for known, recipes in self._recipes:
                if known is lexicon:
                    return recipes
            recipes = tuple(self._make_recipes(lexicon))
            self._recipes = [(lexicon, recipes), *self._recipes[:3]]
            return recipes

    def _make_recipes(self, lexicon: Lexicon) -> Iterator[Recipe]:
        if len(self.observed):
            yield VerbatimCount(product=GramProduct(self.observed, lexicon))
        if len(self.masked):
            yield VerbatimMask(product=GramProduct(self.masked, lexicon))
        if len(self.ending):
            yield VerbatimWatch(product=GramProduct(self.ending, lexicon))

    def hold(self, *, user_text: str = "", before: str = "", json: bool = False) -> VerbatimHold:
        """Return a guard for one stream of text from an engine without logits.

        Args:
            user_text: The caller's own words.
            before: The text that the reply continues.
            json: Whether the stream is JSON source, such as a tool call's arguments.
        """
        return VerbatimHold(self.spoken, before=opening(user_text, before), json=json)

    def hides(self, text: str) -> bool:
        """Return whether *text* holds a run that must not leave."""
        hold = VerbatimHold(self.spoken)
        return REFUSE in (hold.feed(text)[1], hold.finish()[1])


def brief_passages(target: ForgetTarget) -> tuple[Phrase, ...]:
    """Return *target*'s passages that are too short to have runs, as phrases; none without letters.

    Whoever compiles the target's phrases adds these; nothing else would protect them.
    """
    brief = filter(is_brief, target.passages)
    return tuple(Phrase(text=passage) for passage in brief if N(passage))


def _marks(passages: Mapping[str, list[str]], key: bytes) -> frozenset[tuple[str, bytes]]:
    """Return by which the passages can be told from others, under *key*."""
    return frozenset(
        (role, blake2b(text.encode("utf-8", "surrogatepass"), key=key).digest())
        for role, texts in passages.items()
        for text in texts
    )
