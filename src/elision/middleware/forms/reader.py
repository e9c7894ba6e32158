"""One choice's raw text, taken apart into content, thoughts and calls as it comes.

Whatever the pieces in which the text arrives, the same leaves, and as early as it is certain.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from elision.middleware.forms.dialects import Dialect
    from elision.middleware.forms.form import Form

Kind = Literal["content", "thought", "call", "arguments"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a message.

    Attributes:
        kind: What it is part of.
        text: What it adds; of a ``call``, the tool's name.
        start: Where it stands in the raw text, in characters.
        call: Number of the call that it belongs to.
    """

    kind: Kind
    text: str
    start: int
    call: int = 0

    @property
    def message(self) -> dict[str, Any]:
        """The piece in the form of OpenAI's ``delta``; empty for content."""
        match self.kind:
            case "content":
                return {}
            case "thought":
                return {"reasoning_content": self.text, "reasoning": self.text}
            case "call":
                function = {"name": self.text, "arguments": ""}
                begun = {"index": self.call, "id": new_id(), "type": "function"}
                return {"tool_calls": [{**begun, "function": function}]}
            case "arguments":
                function = {"arguments": self.text}
                return {"tool_calls": [{"index": self.call, "function": function}]}


def new_id() -> str:
    """Return an id for a call; nobody can guess it, and it says nothing."""
    return f"call_{secrets.token_hex(12)}"


class Reader:
    """Reads one choice. Feed it what arrives; it returns what has become certain.

    Text before calls is content, without the white space in between; so are thoughts without the
    white space around them. Arguments are cut out of the source as they stand.

    Args:
        form: What was asked for.
        dialect: How the model writes.
        is_thinking: Whether the text begins within a thought.

    Attributes:
        n_calls: Calls that have begun.
        n_whole: Calls that are complete.
        at: How much of the raw text has been read for certain, in characters.
    """

    def __init__(self, form: Form, dialect: Dialect, *, is_thinking: bool = False) -> None:
        self._dialect = dialect
        self._names = {dialect.head(tool.name): tool.name for tool in form.callable}
        self._object = ObjectEnd()
        self._is_first = True  # of what may be skipped: nothing of it has left
        self._buffer = ""
        self._pieces: list[Piece] = []
        self._state: Callable[[], bool] = self._in_thought if is_thinking else self._opening
        self.at = self.n_calls = self.n_whole = 0

    def feed(self, text: str) -> list[Piece]:
        """Take in *text*; return what has become certain."""
        self._buffer += text
        while self._buffer and self._state():
            pass
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> list[Piece]:
        """Return what is left at the end of the text; a call whose name is not whole is left out.

        A call that is cut off later stands as it is.
        """
        if self._state in (self._in_text, self._opening, self._behind):
            self._leave("content", len(self._buffer))
        elif self._state == self._in_thought:
            self._leave("thought", len(self._buffer.rstrip()))
        self._skip(len(self._buffer))
        pieces, self._pieces = self._pieces, []
        return pieces

    # --- states: each returns whether it got on --------------------------------------------------

    def _opening(self) -> bool:
        """At the very beginning: a thought, or what follows one."""
        if self._dialect.think is None:
            return self._go(self._in_text)
        begin, text = self._dialect.think[0], self._buffer.lstrip()
        if text.startswith(begin):
            self._skip(len(self._buffer) - len(text) + len(begin))
            return self._go(self._in_thought)
        return False if begin.startswith(text) else self._go(self._in_text)

    def _in_thought(self) -> bool:
        assert self._dialect.think is not None
        end = self._dialect.think[1]
        if self._is_first:
            self._skip(len(self._buffer) - len(self._buffer.lstrip()))
        place = self._buffer.find(end)
        ready = self._buffer[:place] if place >= 0 else _without(self._buffer, end)
        if ready.rstrip():
            self._leave("thought", len(ready.rstrip()))
        if place < 0:
            return False
        self._skip(self._buffer.index(end) + len(end))
        return self._go(self._behind)

    def _behind(self) -> bool:
        """Behind a thought: white space says nothing."""
        self._skip(len(self._buffer) - len(self._buffer.lstrip()))
        return bool(self._buffer) and self._go(self._in_text)

    def _in_text(self) -> bool:
        if not self._names:
            self._leave("content", len(self._buffer))
            return False
        marker = self._dialect.marker
        if not marker:
            return self._at_bare_call()
        place = self._buffer.find(marker)
        ready = self._buffer[:place] if place >= 0 else _without(self._buffer, marker)
        if ready.rstrip():
            self._leave("content", len(ready.rstrip()))
        if place < 0:
            return False
        self._skip(self._buffer.index(marker))
        return self._go(self._in_head)

    def _at_bare_call(self) -> bool:
        """Where nothing marks calls: a call if the whole reply begins as one, else text."""
        heads = [self._dialect.calls_begin + head for head in self._names]
        text = self._buffer.lstrip(" \n")
        if self._is_first and any(text.startswith(head) for head in heads):
            self._skip(len(self._buffer) - len(text) + len(self._dialect.calls_begin))
            return self._go(self._in_head)
        if self._is_first and any(head.startswith(text) for head in heads):
            return False
        self._leave("content", len(self._buffer))
        return False

    def _in_head(self) -> bool:
        for head, name in self._names.items():
            if self._buffer.startswith(head):
                self._skip(len(head))
                self.n_calls += 1
                self._pieces.append(Piece("call", name, self.at, self.n_calls - 1))
                self._object = ObjectEnd()
                return self._go(self._in_arguments)
        if any(head.startswith(self._buffer) for head in self._names):
            return False
        return self._go(self._in_rest)

    def _in_arguments(self) -> bool:
        end = self._object.find(self._buffer)
        self._leave("arguments", len(self._buffer) if end is None else end)
        return end is not None and self._go(self._in_tail)

    def _in_tail(self) -> bool:
        tail = self._dialect.tail
        if self._buffer.startswith(tail):
            self._skip(len(tail))
            self.n_whole += 1
            return self._go(self._between)
        return False if tail.startswith(self._buffer) else self._go(self._in_rest)

    def _between(self) -> bool:
        """Behind a call: another, or the end."""
        separator, end = self._dialect.separator, self._dialect.calls_end
        if separator is not None:
            following = separator + (self._dialect.marker or "{")
            if self._buffer.startswith(following):
                self._skip(len(separator))
                return self._go(self._in_head)
            if following.startswith(self._buffer):
                return False
        if end and self._buffer.startswith(end):
            self._skip(len(end))
        return self._go(self._in_rest)

    def _in_rest(self) -> bool:
        """Behind all that a grammar lets pass: whatever it is, it is said."""
        self._leave("content", len(self._buffer))
        return False

    # --- what they are made of -------------------------------------------------------------------

    def _go(self, state: Callable[[], bool]) -> bool:
        self._is_first = state in (self._in_thought, self._behind, self._in_text)
        self._state = state
        return True

    def _leave(self, kind: Kind, n_chars: int) -> None:
        if n_chars:
            self._is_first = False
            call = max(0, self.n_calls - 1)
            self._pieces.append(Piece(kind, self._buffer[:n_chars], self.at, call))
            self._skip(n_chars)

    def _skip(self, n_chars: int) -> None:
        self._buffer = self._buffer[n_chars:]
        self.at += n_chars


_QUOTE: Final = '"'


class ObjectEnd:
    """Finds where a JSON object ends in a source that arrives in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._is_escaped = False

    def find(self, source: str) -> int | None:
        """Take in *source*; return how much of it belongs to the object, None if all does."""
        for place, char in enumerate(source):
            if self._in_string:
                self._string(char)
            elif char == _QUOTE:
                self._in_string = True
            else:
                self._depth += (char in "{[") - (char in "}]")
                if self._depth <= 0:
                    return place + 1
        return None

    def _string(self, char: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif char == "\\":
            self._is_escaped = True
        else:
            self._in_string = char != _QUOTE


def _without(text: str, marker: str) -> str:
    """Return *text* without an ending that *marker* may begin with."""
    for length in range(min(len(marker) - 1, len(text)), 0, -1):
        if text.endswith(marker[:length]):
            return text[:-length]
    return text
