"""JSON inside a string, read as what its reader will parse, however deep it is nested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from elision.contract import ALLOW, Verdict
from elision.guards.phrases.unescape import Json
from elision.middleware.holding.reading import Reading, as_read

if TYPE_CHECKING:
    from elision.middleware.holding.holds import Hold
    from elision.middleware.holding.layers import Layer

_MEMORY: Final = 4096
"""Characters before the first escape that are read again together with it."""


@dataclass(frozen=True, slots=True)
class Unescaped:
    """Another layer, over a text with its escapes undone. To stand behind that layer itself."""

    inner: Layer

    @property
    def is_masked(self) -> bool:
        """See `Layer.is_masked`: a mask reads no escapes."""
        return False

    def open(self, before: str, *, json: bool) -> Hold:
        """See `Layer.open`."""
        return UnescapedHold(self.inner, before=before)

    def may_go_otherwise(self, before: str, refused: str) -> bool:
        """See `Layer.may_go_otherwise`."""
        return self.inner.may_go_otherwise(undone(before), undone(refused))


def undone(text: str) -> str:
    r"""Return *text* with ``\n``, ``\u00e9`` and the like undone, as often as they are escaped."""
    source = Json(nested=True)
    return as_read([*source.read(text), *source.finish()])


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
        self._reading = self._opened() if "\\" in before else None

    def _opened(self) -> Reading:
        hold = self._layer.open(undone(self._before), json=True)
        return Reading(hold, Json(nested=True))

    @property
    def held(self) -> int:
        """Raw characters that have come and not left."""
        return 0 if self._reading is None else self._reading.held

    def feed(self, text: str) -> tuple[str, Verdict]:
        """See `Hold.feed`."""
        if self._reading is None:
            if "\\" not in text:
                self._before = (self._before + text)[-_MEMORY:]
                return text, ALLOW
            self._reading = self._opened()
        return self._reading.feed(text)

    def finish(self) -> tuple[str, Verdict]:
        """See `Hold.finish`."""
        return ("", ALLOW) if self._reading is None else self._reading.finish()
