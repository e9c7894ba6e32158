"""Hold-back across turns, for engines that only speak text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elision.contract import ALLOW, REFUSE, Verdict
from elision.guards.conversation.accumulator import Accumulator, Turns
from elision.guards.conversation.follower import Follower, strictest

if TYPE_CHECKING:
    from elision.guards.targets import Action


class AccumulatedHold:
    """The same for a stream of text: what an earlier turn has begun is not completed.

    Nothing can be chosen otherwise here: a target that restricts is refused.

    Args:
        accumulator: The phrases.
        turns: What the earlier turns come to.
        user_text: The caller's own words, for phrases that allow echo.
        before: The text that the reply continues.
    """

    def __init__(
        self, accumulator: Accumulator, turns: Turns, *, user_text: str = "", before: str = ""
    ) -> None:
        self._follower = Follower.begin(accumulator, turns, user_text).read(before, [])
        self._marker = accumulator.encoded.marker
        self._tail = ""
        self._refused = False
        self.n_redacted = 0
        self.n_observed = 0

    def feed(self, text: str) -> tuple[str, Verdict]:
        """Take in *text*; return what may leave now, and whether the answer may go on."""
        out = "".join([self._take(char)[0] for char in text])
        return out, REFUSE if self._refused else ALLOW

    def finish(self) -> tuple[str, Verdict]:
        """Return what may leave at the end of the text, and the verdict on it."""
        found: list[Action] = []
        self._follower.finish(found)
        return self._pass(found, is_waiting=False)

    def _take(self, char: str) -> tuple[str, Verdict]:
        found: list[Action] = []
        self._tail += char
        self._follower = self._follower.read(char, found)
        return self._pass(found, is_waiting=self._follower.is_waiting)

    def _pass(self, found: list[Action], *, is_waiting: bool) -> tuple[str, Verdict]:
        action = strictest(found)
        self._refused = self._refused or action in {"refuse", "restrict"}
        if self._refused:
            self._tail = ""
            return "", REFUSE
        self.n_observed += "observe" in found
        if action == "redact":
            self._tail = self._marker
            self.n_redacted += 1
        out = "" if is_waiting else self._tail
        self._tail = self._tail if is_waiting else ""
        return out, ALLOW
