"""Another reading of a raw stream, guarded: its escapes undone, or only some of its characters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from elision.contract import ALLOW, REFUSE, Refuse, Verdict

if TYPE_CHECKING:
    from elision.guards.phrases.unescape import Char, Source
    from elision.middleware.holding.holds import Hold


def as_read(chars: Iterable[Char]) -> str:
    """Return what *chars* spell, for a guard that reads no escapes.

    What an escape makes a backslash is none to the guard, which would take it for an escape.
    """
    return "".join([char.value for char in chars]).replace("\\", "/")


class Reading:
    """Guards a raw stream by what a reader makes of it; see `HoldBack`. Refuses, never redacts.

    Args:
        hold: Guards what is read.
        source: Reads.
        mark: Raw characters that the source has read before, and that have left.
        leaves_out: Whether the source reads only some of the characters. Where the guard waits for
            nothing, those that are left out then leave with what stands before them.
    """

    def __init__(
        self, hold: Hold, source: Source, *, mark: int = 0, leaves_out: bool = False
    ) -> None:
        self._hold = hold
        self._source = source
        self._mark = mark
        self._leaves_out = leaves_out
        self._ends: list[int] = []  # raw ends of the characters that were read and wait
        self._tail = ""
        self._is_refused = False

    @property
    def held(self) -> int:
        """Raw characters that have come and not left."""
        return len(self._tail)

    def feed(self, text: str) -> tuple[str, Verdict]:
        """See `Hold.feed`."""
        if self._is_refused:
            return "", REFUSE
        self._tail += text
        return self._left([*self._source.read(text)])

    def finish(self) -> tuple[str, Verdict]:
        """See `Hold.finish`."""
        if self._is_refused:
            return "", REFUSE
        out, verdict = self._left([*self._source.finish()])
        if isinstance(verdict, Refuse):
            return out, verdict
        rest, verdict = self._hold.finish()
        if isinstance(verdict, Refuse):
            return out + self._refused(len(rest)), verdict
        return out + self._release(self._mark + len(self._tail)), verdict

    def _left(self, chars: list[Char]) -> tuple[str, Verdict]:
        self._ends += [char.end for char in chars]
        out, verdict = self._hold.feed(as_read(chars))
        if isinstance(verdict, Refuse):
            return self._refused(len(out)), verdict
        n_held = int(getattr(self._hold, "held", 0))
        if self._leaves_out and not n_held:
            self._ends.clear()
            return self._release(self._mark + len(self._tail)), ALLOW
        return self._release_first(len(self._ends) - n_held), ALLOW

    def _refused(self, n_left: int) -> str:
        out = self._release_first(n_left)
        self._is_refused, self._tail = True, ""
        return out

    def _release_first(self, n_chars: int) -> str:
        """Let go what writes the first characters of those that wait."""
        if n_chars <= 0:
            return ""
        end = self._ends[n_chars - 1]
        del self._ends[:n_chars]
        return self._release(end)

    def _release(self, end: int) -> str:
        n_chars = end - self._mark
        out, self._tail, self._mark = self._tail[:n_chars], self._tail[n_chars:], end
        return out
