"""From a request for text to its response: the road that chats and completions share."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from starlette.responses import Response

from elision.contract import Completion, Delta, Usage, collect
from elision.errors import PermissionDeniedError
from elision.middleware.gateway.body import read_json
from elision.middleware.gateway.limits.meter import meter_of
from elision.middleware.gateway.relaying import RelayStream, relay_whole
from elision.middleware.gateway.service import (
    EPOCH_HEADER,
    Service,
    grant_of,
    service_of,
    tenant_of,
)
from elision.middleware.gateway.streaming import EventStream, events, until_gone
from elision.middleware.relaying import relayed
from elision.middleware.rendering import Chunks, Head

if TYPE_CHECKING:
    from starlette.requests import Request

    from elision.middleware.engines.upstream.relaying import Relayed
    from elision.middleware.gateway.auth import Grant
    from elision.middleware.wire import Parsed


class Whole(Protocol):
    """Renders a whole reply."""

    def __call__(self, head: Head, completion: Completion, *, logprobs: bool) -> dict[str, Any]:
        """Return the body."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What tells one endpoint from the other.

    Attributes:
        prefix: Of its replies' ids.
        parse: Reads its bodies.
        chunks: Renders its streams.
        whole: Renders its whole replies.
    """

    prefix: str
    parse: Callable[[object], Parsed]
    chunks: Callable[[Head], Chunks]
    whole: Whole


async def reply(request: Request, shape: Shape) -> Response:
    """Answer *request* in *shape*.

    Raises:
        ElisionError: Whatever stands against it, before a byte of the response was sent.
        ClientDisconnect: If the client left.
    """
    began = time.perf_counter()
    service = service_of(request)
    body = await read_json(request, service.settings.body_limit_bytes)
    parsed = shape.parse(body)
    tenant = bound_tenant(request, parsed)
    meter = meter_of(request)
    await meter.ask(parsed.requests, service.pipeline)
    # An upstream counts a stream for those alone who ask: else nobody knew what the key has used.
    counted = not meter.counts_tokens or not parsed.stream or parsed.include_usage
    if counted and (answer := await _relayed(request, service, parsed, body)) is not None:
        if parsed.stream:
            return RelayStream(answer, service.metrics, began, meter)
        return await relay_whole(request, answer, service.metrics, began, meter)
    head = _head(service, shape, parsed)
    if meter.observed is not None:
        meter.observed.id = head.id
    guarded = service.shadow.watch(in_turn(service, parsed, grant_of(request)), tenant)
    deltas = service.metrics.watch(guarded, began, meter)
    if parsed.stream:
        # Read before the guard is: what is compiled then is at least as new.
        epoch = await service.pipeline.epoch(tenant)
        return EventStream(events(deltas, shape.chunks(head)), headers={EPOCH_HEADER: str(epoch)})
    asked = time.perf_counter()
    completion = await until_gone(request.receive, collect(deltas))
    answered = time.perf_counter()
    whole = shape.whole(head, completion, logprobs=parsed.request.logprobs is not None)
    data = orjson.dumps(whole)
    overhead_ms = (time.perf_counter() - answered + asked - began) * 1e3
    headers = {"x-elision-overhead-ms": f"{overhead_ms:.3f}", EPOCH_HEADER: _epoch(completion)}
    return Response(data, headers=headers, media_type="application/json")


async def _relayed(
    request: Request, service: Service, parsed: Parsed, body: Mapping[str, Any]
) -> Relayed | None:
    grant = grant_of(request)
    return await relayed(
        service.pipeline,
        parsed.request,
        body=body,
        stream=parsed.stream,
        tenant=grant.tenant,
        key=grant.name,
    )


async def in_turn(service: Service, parsed: Parsed, grant: Grant) -> AsyncIterator[Delta]:
    """Yield the replies to every prompt, one prompt after the other, as one reply.

    In turn, because prompts side by side would take the queue's places from other callers.
    The choices of prompt ``i`` are numbered from ``i * n``; usage is summed.
    """
    usage, reports, extra = Usage(), list[Mapping[str, Any]](), dict[str, Any]()
    for index, request in enumerate(parsed.requests):
        run = service.pipeline.run(request, tenant=grant.tenant, key=grant.name)
        async with aclosing(run) as deltas:
            async for delta in deltas:
                if delta.usage is None and delta.report is None:
                    # Copied only where it must be: this runs for every token.
                    first = index * request.n
                    yield replace(delta, choice=first + delta.choice) if first else delta
                    continue
                usage = _sum(usage, delta.usage)
                reports += [delta.report] if delta.report is not None else []
                extra.update(delta.extra)
    report = reports[0] if len(reports) == 1 else {"requests": reports}
    yield Delta(usage=usage, report=report, extra=extra)


def _epoch(completion: Completion) -> str:
    """Return the epoch that the reply was guarded under; of several replies, the oldest."""
    report = completion.report
    return str(min(part["epoch"] for part in report.get("requests", (report,))))


def _sum(usage: Usage, more: Usage | None) -> Usage:
    if more is None:
        return usage
    return Usage(
        prompt_tokens=usage.prompt_tokens + more.prompt_tokens,
        completion_tokens=usage.completion_tokens + more.completion_tokens,
        cached_tokens=usage.cached_tokens + more.cached_tokens,
        extra={**usage.extra, **more.extra},
    )


def bound_tenant(request: Request, parsed: Parsed) -> str:
    """Return the tenant that the caller's key is bound to.

    Raises:
        PermissionDeniedError: If he asks for another one.
    """
    tenant = tenant_of(request)
    if parsed.request.options.get("tenant", tenant) != tenant:
        raise PermissionDeniedError(
            "'elision.tenant' is not the tenant that this key is bound to; leave it out"
        )
    return tenant


def _head(service: Service, shape: Shape, parsed: Parsed) -> Head:
    return Head(
        id=shape.prefix + uuid.uuid4().hex,
        created=int(time.time()),
        model=parsed.request.model,
        fingerprint=service.fingerprint,
        usage=parsed.include_usage,
        report=parsed.report,
    )
