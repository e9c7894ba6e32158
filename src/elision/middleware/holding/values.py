"""The values of a JSON source in a row, or its names, as a reader may put them together.

A name split into a first and a last one stands in no string of its own, and between its halves
stands the name of a member.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elision.guards.phrases.unescape import Char, Json
from elision.middleware.holding.reading import Reading, as_read

if TYPE_CHECKING:
    from elision.middleware.holding.holds import Hold
    from elision.middleware.holding.layers import Layer


@dataclass(frozen=True, slots=True)
class InARow:
    """Another layer, over the values of a JSON source alone. To stand behind that layer.

    Where the other would redact, this refuses.

    Attributes:
        inner: The other.
        names: Whether it is over the names of members instead.
    """

    inner: Layer
    names: bool = False

    @property
    def is_masked(self) -> bool:
        """See `Layer.is_masked`: a mask reads the names too."""
        return False

    def open(self, before: str, *, json: bool) -> Hold:
        """See `Layer.open`."""
        source = Values(names=self.names)
        hold = self.inner.open(as_read(source.read(before)), json=True)
        return Reading(hold, source, mark=len(before), leaves_out=True)

    def may_go_otherwise(self, before: str, refused: str) -> bool:
        """Return False: what was said stands in several places."""
        return False


class Values:
    """The characters of a JSON source's values, escapes undone, a space behind each value.

    Args:
        names: Whether they are those of its members' names instead.
    """

    def __init__(self, *, names: bool = False) -> None:
        self._json = Json()
        self._names = names
        self._in_object: list[bool] = []
        self._in_string = self._is_name = False
        self._names_next = False

    def read(self, text: str) -> Iterator[Char]:
        """Yield what *text* adds."""
        for char in self._json.read(text):
            yield from self._of(char)

    def finish(self) -> Iterator[Char]:
        """Yield what is left when nothing follows."""
        for char in self._json.finish():
            yield from self._of(char)

    def _of(self, char: Char) -> Iterator[Char]:
        is_quote = char.value == '"' and char.end - char.start == 1  # an escaped one is wider
        if is_quote:
            self._in_string = not self._in_string
            if self._in_string:
                self._is_name = self._names_next
            elif self._is_name == self._names:
                yield char._replace(value=" ")
        elif self._in_string:
            if self._is_name == self._names:
                yield char
        elif char.value in "{[]},:":
            self._structure(char.value)
            yield char._replace(value=" ")
        elif not (self._names or char.value.isspace()):
            yield char

    def _structure(self, mark: str) -> None:
        if mark in "{[":
            self._in_object.append(mark == "{")
        elif mark in "}]" and self._in_object:
            self._in_object.pop()
        self._names_next = mark == "{" or (
            mark == "," and bool(self._in_object) and self._in_object[-1]
        )
