"""``POST /v1/responses``: the body becomes a chat, and the chat's reply a response."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import orjson
from starlette.responses import Response

from elision.contract import Delta
from elision.contract import Request as Asking
from elision.errors import ElisionError
from elision.middleware.gateway.body import read_json
from elision.middleware.gateway.errors import failure_of
from elision.middleware.gateway.limits.meter import Meter, meter_of
from elision.middleware.gateway.replies import bound_tenant, in_turn
from elision.middleware.gateway.responses.asked import Asked, read_asked
from elision.middleware.gateway.responses.conversation import Messages
from elision.middleware.gateway.responses.items import Item
from elision.middleware.gateway.responses.kept import Entry
from elision.middleware.gateway.responses.recalling import Reader
from elision.middleware.gateway.responses.shapes import CLOSED, INSTEAD
from elision.middleware.gateway.responses.writing import Writing, new_head
from elision.middleware.gateway.service import EPOCH_HEADER, grant_of, service_of
from elision.middleware.gateway.streaming import EventStream, until_gone
from elision.middleware.wire import Parsed, parse_chat

if TYPE_CHECKING:
    from starlette.requests import Request

    from elision.middleware.gateway.responses.output import Event
    from elision.middleware.gateway.responses.recalling import Recalling


def recalling_of(request: Request) -> Recalling:
    """Return what keeps the responses of the application."""
    return cast("Recalling", request.app.state.responses)


async def create_response(request: Request) -> Response:
    """Answer a conversation, as a response.

    Raises:
        ElisionError: Whatever stands against it, before a byte of the response was sent.
        ClientDisconnect: If the client left.
    """
    began = time.perf_counter()
    service, meter = service_of(request), meter_of(request)
    asked = read_asked(await read_json(request, service.settings.body_limit_bytes))
    turn = await until_gone(request.receive, _turn(request, asked, meter))
    if meter.observed is not None:
        meter.observed.id = turn.writing.head.id
    said = in_turn(service, turn.parsed, grant_of(request))
    watched = service.shadow.watch(said, grant_of(request).tenant)
    deltas = service.metrics.watch(watched, began, meter)
    if turn.parsed.stream:
        headers = {EPOCH_HEADER: str(turn.reader.rules.epoch)}
        return _Events(_events(deltas, turn), turn.writing, headers=headers)
    asked_at = time.perf_counter()
    await until_gone(request.receive, _drained(deltas, turn))
    answered = time.perf_counter()
    data = turn.end()
    overhead_ms = (time.perf_counter() - answered + asked_at - began) * 1e3
    headers = {
        "x-elision-overhead-ms": f"{overhead_ms:.3f}",
        EPOCH_HEADER: str(turn.writing.epoch),
    }
    return Response(data, headers=headers, media_type="application/json")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """One response and what it takes to write and to keep it. Lives as long as its request."""

    parsed: Parsed
    writing: Writing
    messages: Messages
    reader: Reader
    recalling: Recalling
    previous: str | None
    keeps: bool
    since: int
    given: list[Item] = field(repr=False)

    def end(self) -> bytes:
        """Return the whole response, kept now if it is to be."""
        body = orjson.dumps(self.writing.body(self.writing.status))
        if self.keeps:
            entry = Entry(
                id=self.writing.head.id,
                tenant=self.reader.rules.tenant,
                key=self.reader.key,
                epoch=self.writing.epoch,
                engine=self.reader.engine,
                previous=self.previous,
                given=orjson.dumps(self.given),
                body=body,
                given_ids=tuple(item["id"] for item in self.given),
                said_ids=self.writing.ids,
            )
            self.recalling.kept.keep(entry, since=self.since)
        return body


async def _turn(request: Request, asked: Asked, meter: Meter) -> _Turn:
    service, grant, recalling = service_of(request), grant_of(request), recalling_of(request)
    since = recalling.kept.erasures(grant.tenant)
    engine, _ = service.pipeline.resolve(Asking(model=asked.chat["model"]))
    rules = await service.pipeline.rules(grant.tenant, engine.name, grant.name)
    reader = Reader(rules=rules, engine=engine.name, key=grant.name)
    before, given = await recalling.input_of(asked, reader)
    messages = Messages()
    if asked.instructions is not None:
        messages.instruct(asked.instructions)
    messages.extend([*before, *given])
    try:
        parsed = parse_chat({**asked.chat, "messages": messages.made})
    except ElisionError as exc:
        messages.rename_(exc)
        raise
    bound_tenant(request, parsed)
    await meter.ask(parsed.requests, service.pipeline)  # before more is done for him
    _, profile = service.pipeline.resolve(parsed.request)
    is_even = profile.alu == "even"  # nothing may show what is registered, a field left out either
    keeps = asked.store and recalling.kept.keeps and not is_even
    told = {**asked.told, "store": keeps}
    withheld = told.keys() - CLOSED if is_even else await recalling.withheld(told, reader)
    told |= {name: INSTEAD.get(name) for name in withheld}
    head = new_head(asked.chat["model"], told, report=parsed.report)
    return _Turn(
        parsed=parsed,
        writing=Writing(head),
        messages=messages,
        reader=reader,
        recalling=recalling,
        previous=asked.previous,
        keeps=keeps,
        since=since,
        given=[one.item for one in given],
    )


async def _drained(deltas: AsyncIterator[Delta], turn: _Turn) -> None:
    """Have everything in *deltas* written."""
    try:
        async with aclosing(deltas) as source:  # type: ignore[type-var] # generators all
            async for delta in source:
                turn.writing.of(delta)
    except ElisionError as exc:
        turn.messages.rename_(exc)
        raise
    turn.writing.tail()


async def _events(deltas: AsyncIterator[Delta], turn: _Turn) -> AsyncIterator[bytes]:
    """Yield the events of a response, those of one delta together."""
    writing = turn.writing
    try:
        async with aclosing(deltas) as source:  # type: ignore[type-var] # generators all
            async for delta in source:
                if data := _joined(writing.of(delta)):
                    yield data
    except ElisionError as exc:
        turn.messages.rename_(exc)
        raise
    events = writing.tail()
    turn.end()  # before the caller can ask for it
    yield _joined(events)


def _joined(events: list[Event]) -> bytes:
    return b"".join(
        b"event: " + event["type"].encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"
        for event in events
    )


class _Events(EventStream):
    """A response's stream: what breaks on its way is told as its own events."""

    def __init__(
        self, source: AsyncIterator[bytes], writing: Writing, *, headers: Mapping[str, str]
    ) -> None:
        super().__init__(source, headers=headers)
        self._writing = writing

    def told(self, exc: Exception) -> bytes:
        """Return the events ``error`` and ``response.failed``."""
        failure = failure_of(exc)
        try:
            return _joined(self._writing.failed(failure))
        except TypeError:  # an engine's own fields are what JSON cannot hold: that is the failure
            return _joined(self._writing.failed(failure, bare=True))
