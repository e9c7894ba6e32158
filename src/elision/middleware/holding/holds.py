"""Guards for one stream of text, one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from elision.contract import ALLOW, REFUSE, Refuse, Verdict


class Hold(Protocol):
    """A guard for one stream of text."""

    def feed(self, text: str) -> tuple[str, Verdict]:
        """Take in *text*; return what may leave, and what is called for."""
        ...

    def finish(self) -> tuple[str, Verdict]:
        """Return what may leave at the end, and what is called for."""
        ...


class Holds:
    """Several guards in a row: what one lets go the next one takes in."""

    def __init__(self, holds: Sequence[Hold]) -> None:
        self._holds = tuple(holds)

    def feed(self, text: str) -> tuple[str, Verdict]:
        """See `Hold.feed`."""
        for n, hold in enumerate(self._holds):
            text, verdict = hold.feed(text)
            if isinstance(verdict, Refuse):
                return self._pass_on(text, n + 1), verdict
        return text, ALLOW

    def finish(self) -> tuple[str, Verdict]:
        """See `Hold.finish`."""
        left = ""
        for n, hold in enumerate(self._holds):
            text, verdict = hold.finish()
            rest = Holds(self._holds[n + 1 :])
            if isinstance(verdict, Refuse):
                return left + rest._pass_on(text, 0), verdict
            text, verdict = rest.feed(text)
            left += text
            if isinstance(verdict, Refuse):
                return left, verdict
        return left, ALLOW

    def _pass_on(self, text: str, n: int) -> str:
        """Return what the guards from the *n*-th on let go of what left before a refusal."""
        rest = Holds(self._holds[n:])
        text, verdict = rest.feed(text)
        return text if isinstance(verdict, Refuse) else text + rest.finish()[0]


class Shut:
    """Lets nothing through."""

    def feed(self, text: str) -> tuple[str, Verdict]:
        """See `Hold.feed`."""
        return "", REFUSE

    def finish(self) -> tuple[str, Verdict]:
        """See `Hold.finish`."""
        return "", REFUSE
