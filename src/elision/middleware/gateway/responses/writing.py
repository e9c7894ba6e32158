"""One response on its way out: a chat's deltas as events, and as the object that they come to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from elision.contract import Delta, Finish, Usage
from elision.middleware.gateway.responses.figures import error_of, logprobs_of, response_usage
from elision.middleware.gateway.responses.items import Item, new_id
from elision.middleware.gateway.responses.output import Called, Event, Output, Said, Thought, ended
from elision.middleware.rendering import traced

if TYPE_CHECKING:
    from elision.middleware.gateway.errors import Failure

_WHY: Final[Mapping[str, str]] = {
    "length": "max_output_tokens", "content_filter": "content_filter",
}  # fmt: skip
_TIERS: Final = ("auto", "default", "flex", "scale", "priority", "fast", "ultrafast")
_READ: Final = frozenset({
    "role", "content", "refusal", "reasoning_content", "reasoning", "annotations", "tool_calls",
    "function_call", "id", "type", "status",
})  # fmt: skip
_THOUGHTS: Final = ("reasoning_content", "reasoning")
"""Where servers put what a model thinks; where both are told, they say the same."""
OURS: Final = frozenset({
    "id", "access_programs", "created_at", "error", "incomplete_details", "instructions",
    "metadata", "model", "object", "output", "parallel_tool_calls", "temperature", "tool_choice",
    "tools", "top_p", "background", "completed_at", "conversation", "image",
    "input_transformations", "max_output_tokens", "max_tool_calls", "moderation",
    "previous_response_id", "prompt", "prompt_cache_diagnostics", "prompt_cache_key",
    "prompt_cache_options", "prompt_cache_retention", "reasoning", "safety_identifier",
    "service_tier", "status", "text", "tool_usage", "top_logprobs", "truncation", "usage", "user",
    "elision", "store",
})  # fmt: skip
"""Fields of a response: nothing that an upstream tells beside its reply takes their place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """What every object of one response repeats.

    Attributes:
        id: Its id.
        created: Seconds since 1970.
        model: As the caller wrote it.
        told: What else of the request it repeats.
        report: Whether it says what ran.
    """

    id: str
    created: int
    model: str
    told: Mapping[str, Any] = field(repr=False)
    report: bool = False


class Writing:
    """Takes in a chat's deltas; gives out the events of a response. Lives as long as it.

    There is one item for what is thought, one for what is said and one for each call. A guard may
    hold the end of one of them while the next has begun, so all end when the reply does, in order.

    Args:
        head: See `ResponseHead`.
    """

    def __init__(self, head: ResponseHead) -> None:
        self.head = head
        self._items: list[Output] = []
        self._places: dict[str, int] = {}
        self._said: Said | None = None
        self._thought: Thought | None = None
        self._calls: dict[object, Called] = {}
        self._finish: Finish | None = None
        self._usage: Usage | None = None
        self._report: Mapping[str, Any] = {}
        self._extra: dict[str, Any] = {}
        self._trace: list[dict[str, Any]] = []
        self._completed: int | None = None
        self._n_events = 0
        self._thinks_as = ""

    def of(self, delta: Delta) -> list[Event]:
        """Return the events that *delta* becomes; none if nothing of it is for the caller."""
        if delta.usage is not None or delta.report is not None:
            self._usage = delta.usage or self._usage
            self._report = delta.report or self._report
            self._beside(delta.extra)
            return []
        self._beside(delta.extra)
        self._finish = delta.finish or self._finish
        if delta.trace:
            self._trace += traced(delta.trace)["elision"]["trace"]
        events = [] if self._n_events else self._opening()
        return events + self._numbered(self._pieces(delta))

    def tail(self) -> list[Event]:
        """Return what follows the last delta: every item's end, and the response's."""
        events = [] if self._n_events else self._opening()
        return events + self._numbered([*self._ends(), self._last()])

    def failed(self, failure: Failure, *, bare: bool = False) -> list[Event]:
        """Return what is said of a reply that breaks on its way; *bare*: without what it said."""
        if bare:
            self._items, self._extra = [], {}
        error = {"code": failure.code, "message": failure.message, "param": failure.param}
        body = self.body("failed") | {"error": error_of(failure)}
        return self._numbered(
            [{"type": "error", **error}, {"type": "response.failed", "response": body}]
        )

    @property
    def status(self) -> str:
        """What became of the response, once it has ended."""
        return "incomplete" if self._finish in _WHY else "completed"

    @property
    def epoch(self) -> int:
        """The epoch that it was guarded under, once it has ended."""
        return int(self._report.get("epoch", 0))

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of its items, in order."""
        return tuple(item.id for item in self._items)

    def body(self, status: str) -> Item:
        """Return the response as far as it is written."""
        has_ended = status in {"completed", "incomplete"}
        body: Item = {
            key: [*value] if isinstance(value, list) else value  # a list grows on
            for key, value in self._extra.items()
            if key not in OURS
        }
        body |= {
            "id": self.head.id,
            "object": "response",
            "created_at": self.head.created,
            "completed_at": self._completed if has_ended else None,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": self.head.model,
            "output": [self._object(n, status) for n in range(len(self._items))],
            **self.head.told,
            "usage": None,
        }
        if self._extra.get("service_tier") in _TIERS:
            body["service_tier"] = self._extra["service_tier"]
        if has_ended:
            body |= self._summed(status)
        return body

    def _beside(self, extra: Mapping[str, Any]) -> None:
        """Note further fields: lists, such as token ids, go on; else the newer counts."""
        for key, new in extra.items():
            old = self._extra.get(key)
            if isinstance(old, list) and isinstance(new, list | tuple):
                old.extend(new)
            elif new is not None:
                self._extra[key] = [*new] if isinstance(new, list | tuple) else new

    def _summed(self, status: str) -> Item:
        found: Item = {"usage": response_usage(self._usage or Usage())}
        if status == "incomplete":
            found["incomplete_details"] = {"reason": _WHY[str(self._finish)]}
        told = dict(self._report) if self.head.report else {}
        if self._report.get("episode"):
            told["episode"] = self._report["episode"]
        told |= {"trace": self._trace} if self._trace else {}
        return found | ({"elision": told} if told else {})

    def _opening(self) -> list[Event]:
        body = self.body("in_progress")
        return self._numbered(
            [{"type": f"response.{name}", "response": body} for name in ("created", "in_progress")]
        )

    def _pieces(self, delta: Delta) -> list[Event]:
        message, events = delta.message, list[Event]()
        if thought := self._thinking(message):
            events += self._think(thought)
        if delta.text or delta.logprobs:
            events += self._say("output_text", delta.text, logprobs_of(delta))
        if refusal := message.get("refusal"):
            events += self._say("refusal", str(refusal), [])
        if sources := message.get("annotations"):
            events += self._note(sources)
        if further := {key: one for key, one in message.items() if one and key not in _READ}:
            events += self._add(further)
        for n, entry in enumerate(_calls(message.get("tool_calls"))):
            index = entry.get("index")
            events += self._call(index if isinstance(index, int) else ("nth", n), entry)
        for called in _calls([message.get("function_call")]):
            events += self._call("function_call", {"function": called})
        return events

    def _thinking(self, message: Mapping[str, Any]) -> str:
        for key in _THOUGHTS:
            if isinstance(message.get(key), str) and message[key]:
                self._thinks_as = self._thinks_as or key
        told = message.get(self._thinks_as)
        return told if isinstance(told, str) else ""

    def _think(self, text: str) -> list[Event]:
        events: list[Event] = []
        if self._thought is None:
            self._thought = Thought()
            events = self._thought.begin(self._place(self._thought))
        return events + self._thought.say(self._at(self._thought), "reasoning_text", text)

    def _say(self, kind: str, text: str, logprobs: list[dict[str, Any]]) -> list[Event]:
        events, said = self._open_said()
        return events + said.say(self._at(said), kind, text, logprobs)

    def _note(self, sources: Any) -> list[Event]:
        events, said = self._open_said()
        return events + said.annotate(self._at(said), sources)

    def _add(self, further: Mapping[str, Any]) -> list[Event]:
        events, said = self._open_said()
        said.add(further)
        return events

    def _open_said(self) -> tuple[list[Event], Said]:
        if self._said is not None:
            return [], self._said
        said = self._said = Said()
        return said.begin(self._place(said)), said

    def _call(self, index: object, entry: Mapping[str, Any]) -> list[Event]:
        call = self._calls.get(index)
        if call is None:
            call = self._calls[index] = Called()
            self._place(call)
        return call.add(self._at(call), entry)

    def _place(self, item: Output) -> int:
        self._places[item.id] = len(self._items)
        self._items.append(item)
        return self._places[item.id]

    def _at(self, item: Output) -> int:
        return self._places[item.id]

    def _ends(self) -> list[Event]:
        events = [] if self._items else self._say("output_text", "", [])
        self._completed = int(time.time())
        for at, item in enumerate(self._items):
            events += ended(item, at, self._item_status(at, self.status))
        return events

    def _last(self) -> Event:
        return {"type": f"response.{self.status}", "response": self.body(self.status)}

    def _object(self, at: int, status: str) -> Item:
        return self._items[at].object(self._item_status(at, status))

    def _item_status(self, at: int, status: str) -> str:
        """Return the status of one item: what a reply was cut off in is its last."""
        if status in {"in_progress", "completed"}:
            return status
        return "incomplete" if at == len(self._items) - 1 else "completed"

    def _numbered(self, events: list[Event]) -> list[Event]:
        first = self._n_events
        self._n_events += len(events)
        return [event | {"sequence_number": first + n} for n, event in enumerate(events)]


def _calls(entries: object) -> list[Mapping[str, Any]]:
    """Return those of *entries* that can be calls; an engine may say anything."""
    found = entries if isinstance(entries, list | tuple) else ()
    return [entry for entry in found if entry and isinstance(entry, Mapping)]


def new_head(model: str, told: Mapping[str, Any], *, report: bool) -> ResponseHead:
    """Return the head of a new response."""
    created = int(time.time())
    return ResponseHead(id=new_id("resp"), created=created, model=model, told=told, report=report)
