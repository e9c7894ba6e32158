"""JSON inside a string, read as what its reader will parse, however deep it is nested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from elision.contract import ALLOW, REFUSE, Refuse, Verdict
from elision.guards.phrases.unescape import Json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elision.guards.phrases.unescape import Char
    from elision.middleware.holding.holds import Hold
    from elision.middleware.holding.layers import Layer

_MEMORY: Final = 4096
"""Characters before the first escape that are read again together with it."""


@dataclass(frozen=True, slots=True)
class Unescaped:
    """Another layer, over a text with its escapes undone. To stand behind that layer itself."""

    inner: Layer

    def open(self, before: str, *, json: bool) -> Hold:
        """See `Layer.open`."""
        return UnescapedHold(self.inner, before=before)

    def may_go_otherwise(self, before: str, refused: str) -> bool:
        """See `Layer.may_go_otherwise`."""
        return self.inner.may_go_otherwise(undone(before), undone(refused))


def undone(text: str) -> str:
    r"""Return *text* with ``\n``, ``\u00e9`` and the like undone, as often as they are escaped."""
    source = Json(nested=True)
    return _values([*source.read(text), *source.finish()])


def _values(chars: Iterable[Char]) -> str:
    # What an escape makes a backslash is none to the guard, which would take it for an escape.
    return "".join([char.value for char in chars]).replace("\\", "/")


class UnescapedHold:
    """Guards a stream of text as it will be read once it is parsed; see `HoldBack`.

    Passes all on until the first backslash: so far the text stands for itself, and the guards
    before this one have seen it.

    Args:
        layer: What guards the text without its escapes. Where it would redact, this refuses.
        before: The text that the stream continues.
    """

    def __init__(self, layer: Layer, *, before: str = "") -> None:
        self._layer = layer
        self._before = before[-_MEMORY:]
        self._source = Json(nested=True)
        self._ends: list[int] = []  # raw ends of the characters that wait
        self._tail = ""
        self._mark = 0
        self._is_refused = False
        self._hold: Hold | None = self._opened() if "\\" in before else None

    def _opened(self) -> Hold:
        return self._layer.open(undone(self._before), json=True)

    @property
    def held(self) -> int:
        """Raw characters that have come and not left."""
        return len(self._tail)

    def feed(self, text: str) -> tuple[str, Verdict]:
        """See `Hold.feed`."""
        if self._is_refused:
            return "", REFUSE
        if self._hold is None:
            if "\\" not in text:
                self._before = (self._before + text)[-_MEMORY:]
                return text, ALLOW
            self._hold = self._opened()
        self._tail += text
        return self._left(self._hold, [*self._source.read(text)])

    def finish(self) -> tuple[str, Verdict]:
        """See `Hold.finish`."""
        if self._is_refused:
            return "", REFUSE
        if self._hold is None:
            return "", ALLOW
        out, verdict = self._left(self._hold, [*self._source.finish()])
        if not isinstance(verdict, Refuse):
            rest, verdict = self._hold.finish()
            if isinstance(verdict, Refuse):
                return out + self._refused(len(rest)), verdict
            out += self._release(self._mark + len(self._tail))
        return out, verdict

    def _left(self, hold: Hold, chars: list[Char]) -> tuple[str, Verdict]:
        self._ends += [char.end for char in chars]
        out, verdict = hold.feed(_values(chars))
        if isinstance(verdict, Refuse):
            return self._refused(len(out)), verdict
        n_left = len(self._ends) - int(getattr(hold, "held", 0))
        return self._release_first(n_left), ALLOW

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
