"""Phrases that an earlier turn has begun are not completed by a later one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from elision.contract import ALLOW, REFUSE, Context, Here, Lexicon, Redact, Rewind, Stage, Verdict
from elision.guards.conversation.accumulator import Accumulator, Turns
from elision.guards.conversation.follower import Follower, strictest

if TYPE_CHECKING:
    from torch import Tensor

    from elision.guards.targets import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class AccumulatedWatch:
    """Complete no phrase that an earlier turn has begun.

    A recipe, made for one request. The token that would complete it never leaves: where a target
    restricts, it is banned at its place; else it is redacted, or ends the answer.

    Attributes:
        accumulator: The phrases.
        turns: What the earlier turns come to.
    """

    accumulator: Accumulator
    turns: Turns
    rank: int = 3
    stage = Stage.HARD_MASK

    def begin(self, context: Context) -> AccumulatedSession:
        """Open a session for one choice, behind the text that the reply continues."""
        follower = Follower.begin(self.accumulator, self.turns, context.user_text)
        follower = follower.read(context.before, [])
        return AccumulatedSession(follower, context.lexicon, self.accumulator.encoded.marker)


@dataclass(frozen=True, slots=True)
class AccumulatedSession:
    """One choice under an `AccumulatedWatch`.

    Attributes:
        position: Tokens read.
        length: Characters read.
        last: The token since which something waits for the end of a word, and where it began.
        n_observed: Phrases counted.
    """

    follower: Follower
    lexicon: Lexicon
    marker: str
    pending: bytes = b""
    verdict: Verdict = ALLOW
    position: int = 0
    length: int = 0
    last: tuple[int, int, int] | None = None
    n_observed: int = 0

    @property
    def held(self) -> int:
        """Characters that wait for the end of a word."""
        return 0 if self.last is None else self.length - self.last[2]

    @property
    def tally(self) -> Mapping[str, float]:
        """What has been counted in this choice so far, by the key it is noted under."""
        return {"guard.observed_turns": self.n_observed} if self.n_observed else {}

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the very same scores."""
        return logits

    def advance(self, token: int) -> AccumulatedSession:
        """Return the session after *token*."""
        text, pending = self.lexicon.write(self.pending, token)
        last = self.last or (self.position, token, self.length)
        moved = replace(self, pending=pending, position=self.position + 1, last=last)
        return moved._after(text)

    def read(self, text: str) -> AccumulatedSession:
        """Return the session after *text*, which no whole token wrote."""
        return self._after(text)

    def finish(self) -> AccumulatedSession:
        """Return the session after the end of the text."""
        found: list[Action] = []
        text = self.lexicon.finish(self.pending)
        self.follower.read(text, found).finish(found)
        return self._judged(found, self.length + len(text))

    def _after(self, text: str) -> AccumulatedSession:
        found: list[Action] = []
        follower = self.follower.read(text, found)
        judged = self._judged(found, self.length + len(text))
        last = judged.last if follower.is_waiting else None
        return replace(judged, follower=follower, last=last)

    def _judged(self, found: list[Action], length: int) -> AccumulatedSession:
        """Return this session with what *found* calls for as its verdict."""
        action = strictest(found)
        verdict: Verdict = ALLOW
        position, token, start = self.last or (0, 0, self.length)
        if action == "refuse" or (action == "restrict" and self.last is None):
            verdict = REFUSE
        elif action == "restrict":
            verdict = Rewind(position, frozenset({token}))
        elif action == "redact":
            verdict = Redact(start, length, self.marker)
        n_observed = self.n_observed + ("observe" in found)
        return replace(self, verdict=verdict, length=length, n_observed=n_observed)
