"""A conversation read across its turns, for texts that are handed over piece by piece."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise, zip_longest
from typing import Any, NamedTuple

from elision.guards.phrases.normal import N


class Piece(NamedTuple):
    """A part of a message.

    Attributes:
        message: Its message's index.
        start: Where it begins there.
        text: What it says.
    """

    message: int
    start: int
    text: str


class Joined:
    """Pieces of several messages read as one text.

    Args:
        pieces: In reading order.
        separator: What stands between them.

    Attributes:
        text: All of them.
    """

    def __init__(self, pieces: Sequence[Piece], *, separator: str = "\n") -> None:
        self._pieces = pieces
        self.text = separator.join(piece.text for piece in pieces)
        lengths = (len(piece.text) + len(separator) for piece in pieces)
        self._starts = [0, *accumulate(lengths)][: len(pieces)]

    def locate(self, start: int, end: int) -> Piece | None:
        """Return the part of the last message that the span reaches; None if it is within one."""
        first = bisect_right(self._starts, start) - 1
        last = bisect_right(self._starts, end - 1) - 1
        if first == last:
            return None
        piece = self._pieces[last]
        return Piece(piece.message, piece.start, piece.text[: end - self._starts[last]])


class Zipped:
    """The letters of two messages by turns: one held the odd ones, the other the even.

    Args:
        odd: What begins.
        even: What follows.

    Attributes:
        text: Both, in N.
    """

    def __init__(self, odd: Piece, even: Piece) -> None:
        self._even = even
        pairs = zip_longest(N(odd.text), N(even.text), fillvalue="")
        self.text = "".join(letter for pair in pairs for letter in pair)

    def locate(self, start: int, end: int) -> Piece | None:
        """Return the second message: every place is spread over both."""
        return self._even


def text_of(message: Mapping[str, Any]) -> str:
    """Return all that a message says: content, reasoning, arguments of tool calls, a line each.

    Total: what is no text is left out.
    """
    return "\n".join(part for part in _parts(message) if part)


def _parts(message: Mapping[str, Any]) -> Iterator[str]:
    content = message.get("content")
    yield from _strings(content if isinstance(content, list | tuple) else [content])
    yield from _strings([message.get(key) for key in ("reasoning", "reasoning_content", "refusal")])
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list | tuple) else ():
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping):
            yield from _strings([function.get("name"), function.get("arguments")])


def _strings(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        text = value.get("text") if isinstance(value, Mapping) else value
        if isinstance(text, str):
            yield text


def readings_across(
    messages: Sequence[Mapping[str, Any]], texts: Sequence[str]
) -> Iterator[tuple[str, Joined | Zipped]]:
    """Yield the ways to read a conversation across its turns, each with its name."""
    every = [Piece(index, 0, text) for index, text in enumerate(texts)]
    said = [piece for piece in every if messages[piece.message].get("role") == "assistant"]
    yield "turns", Joined(said)
    yield "last lines", Joined([_last_line(piece) for piece in said], separator="")
    for odd, even in pairwise(said):
        for first, second in ((odd, even), (_last_line(odd), _last_line(even))):
            if len(N(first.text)) - len(N(second.text)) in {0, 1}:
                yield "two turns", Zipped(first, second)
    if len(said) < len(every):
        yield "all turns", Joined(every)


def _last_line(piece: Piece) -> Piece:
    text = piece.text.rstrip()
    start = max(text.rfind("\n"), text.rfind("\r")) + 1
    return Piece(piece.message, piece.start + start, text[start:])
