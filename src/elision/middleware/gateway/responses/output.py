"""What a response puts out, item by item; each tells its events from beginning to end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import orjson

from elision.contract import joined
from elision.middleware.gateway.responses.items import Item, new_id

Event = dict[str, Any]
"""One event, its number left out."""


class Output(Protocol):
    """One item of a response's output. Lives as long as the response is written.

    Attributes:
        id: Its id.
    """

    id: str

    def object(self, status: str) -> Item:
        """Return the item as far as it is written."""
        ...

    def end(self, at: int, status: str) -> list[Event]:
        """Return the events that end the item, the one of the item itself left out."""
        ...


class _Part:
    """A part of an item's content: a text that grows."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.logprobs: list[dict[str, Any]] = []
        self.annotations: list[Item] = []

    def object(self) -> Item:
        text = "".join(self.pieces)
        match self.kind:
            case "refusal":
                return {"type": self.kind, "refusal": text}
            case "output_text":
                found: Item = {"type": self.kind, "text": text, "annotations": [*self.annotations]}
                return found | {"logprobs": [*self.logprobs]}
        return {"type": self.kind, "text": text}


_CITED: Final = {"start_index": int, "end_index": int, "title": str, "url": str}
_EVENTS: Final[Mapping[str, str]] = {
    "output_text": "response.output_text",
    "refusal": "response.refusal",
    "reasoning_text": "response.reasoning_text",
}


class _Spoken:
    """An item whose content is parts."""

    prefix = ""

    def __init__(self) -> None:
        self.id = new_id(self.prefix)
        self._parts: list[_Part] = []

    def begin(self, at: int) -> list[Event]:
        """Return the event that begins the item at place *at* of the output."""
        return [_added(at, self.object("in_progress"))]

    def say(
        self, at: int, kind: str, text: str, logprobs: list[dict[str, Any]] | None = None
    ) -> list[Event]:
        """Add *text* to the part of that *kind*; return the events of it."""
        events: list[Event] = []
        n = next((n for n, part in enumerate(self._parts) if part.kind == kind), None)
        if n is None:
            n = len(self._parts)
            self._parts.append(_Part(kind))
            opened = self._parts[n].object()
            events.append(self._of("response.content_part.added", at, n, part=opened))
        part = self._parts[n]
        part.pieces.append(text)
        part.logprobs += logprobs or []
        told: Event = {"delta": text}
        if kind == "output_text":
            told["logprobs"] = logprobs or []
        if text or logprobs:
            events.append(self._of(f"{_EVENTS[kind]}.delta", at, n, **told))
        return events

    def end(self, at: int, status: str) -> list[Event]:
        """See `Output.end`."""
        events = []
        for n, part in enumerate(self._parts):
            whole = part.object()
            told = {key: whole[key] for key in ("text", "refusal", "logprobs") if key in whole}
            events.append(self._of(f"{_EVENTS[part.kind]}.done", at, n, **told))
            events.append(self._of("response.content_part.done", at, n, part=whole))
        return events

    def object(self, status: str) -> Item:
        """See `Output.object`."""
        raise NotImplementedError

    def _content(self) -> list[Item]:
        return [part.object() for part in self._parts]

    def _of(self, kind: str, at: int, n: int, **told: Any) -> Event:
        place = {"item_id": self.id, "output_index": at, "content_index": n}
        return {"type": kind, **place, **told}


class Said(_Spoken):
    """What the assistant says: text, or why he does not."""

    prefix = "msg"

    def __init__(self) -> None:
        super().__init__()
        self._further: dict[str, Any] = {}

    def add(self, fields: Mapping[str, Any]) -> None:
        """Take note of further fields of the message: what some servers tell beside a text."""
        self._further = joined(self._further, fields)

    def annotate(self, at: int, sources: object) -> list[Event]:
        """Add the sources of what is said, as a chat cites them; return the events of it."""
        events = self.say(at, "output_text", "")
        n = next(n for n, part in enumerate(self._parts) if part.kind == "output_text")
        noted = self._parts[n].annotations
        for source in sources if isinstance(sources, list | tuple) else ():
            cited = source.get("url_citation") if isinstance(source, Mapping) else None
            if isinstance(cited, Mapping) and _is_citation(cited):
                noted.append({"type": "url_citation", **cited})
                told = {"annotation": noted[-1], "annotation_index": len(noted) - 1}
                events.append(self._of("response.output_text.annotation.added", at, n, **told))
        return events

    def object(self, status: str) -> Item:
        """See `Output.object`."""
        found = {"id": self.id, "type": "message", "role": "assistant", "status": status}
        return {**self._further, **found, "content": self._content()}


class Thought(_Spoken):
    """What the model thinks before it speaks, as it stands: nobody sums it up."""

    prefix = "rs"

    def object(self, status: str) -> Item:
        """See `Output.object`."""
        found = {"id": self.id, "type": "reasoning", "status": status, "summary": []}
        return found | {"content": self._content()}


class Called:
    """A call of a tool. It begins once its arguments do: then its name is whole."""

    def __init__(self) -> None:
        self.id = new_id("fc")
        self.has_begun = False
        self._call_id = new_id("call")
        self._entry: dict[str, Any] = {}
        self._arguments: list[str] = []

    def add(self, at: int, entry: Mapping[str, Any]) -> list[Event]:
        """Add a piece of the call; return the events of it."""
        function = entry.get("function")
        function = dict(function) if isinstance(function, Mapping) else {}
        text = function.pop("arguments", None)
        if not isinstance(text, str | None):  # some engines tell the object itself
            text = orjson.dumps(text).decode()
        self._entry = joined(self._entry, {**entry, "function": function})
        if not text:
            return []
        begun = self.begin(at)
        self._arguments.append(text)
        return [*begun, self._of("delta", at, delta=text)]

    def begin(self, at: int) -> list[Event]:
        """Return the event that begins the item, once."""
        if self.has_begun:
            return []
        self.has_begun = True
        return [_added(at, self.object("in_progress"))]

    def end(self, at: int, status: str) -> list[Event]:
        """See `Output.end`."""
        begun = self.begin(at)
        told = {"arguments": "".join(self._arguments), "name": self._name}
        return [*begun, self._of("done", at, **told)]

    def object(self, status: str) -> Item:
        """See `Output.object`."""
        return {
            "id": self.id,
            "type": "function_call",
            "call_id": str(self._entry.get("id") or self._call_id),
            "name": self._name,
            "arguments": "".join(self._arguments),
            "status": status,
        }

    @property
    def _name(self) -> str:
        return str(self._entry.get("function", {}).get("name") or "")

    def _of(self, kind: str, at: int, **told: Any) -> Event:
        place = {"item_id": self.id, "output_index": at}
        return {"type": f"response.function_call_arguments.{kind}", **place, **told}


def _is_citation(cited: Mapping[str, Any]) -> bool:
    return all(type(cited.get(key)) is kind for key, kind in _CITED.items())


def ended(item: Output, at: int, status: str) -> list[Event]:
    """Return every event that ends *item* at place *at*."""
    done = {"type": "response.output_item.done", "output_index": at}
    return [*item.end(at, status), {**done, "item": item.object(status)}]


def _added(at: int, item: Item) -> Event:
    return {"type": "response.output_item.added", "output_index": at, "item": item}
