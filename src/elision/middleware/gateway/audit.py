"""``/v1/audit``: who did what when, verified and exported."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse

from elision.crypto.signing import key_id_of
from elision.errors import ConfigError, RequestError
from elision.guards.register.checkpoints import Checkpoint
from elision.middleware.gateway.body import read_json
from elision.middleware.gateway.service import answer, service_of, tenant_of
from elision.middleware.gateway.shapes import (
    CHECKPOINT,
    ENTRIES,
    ENTRY,
    PUBLIC_KEY,
    VERIFIED,
    answers,
    takes,
)

router = APIRouter(prefix="/v1/audit", tags=["audit"])

MAX_PAGE = 1_000
JSON_LINES = "application/jsonl"


@router.get("", response_model=None, responses=answers(ENTRIES, 400, 403))
async def list_entries(
    request: Request,
    after: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> Response:
    """List the tenant's entries behind place `after`, oldest first."""
    log = service_of(request).register.audit
    found = await asyncio.to_thread(log.entries, tenant_of(request), after=after, limit=limit + 1)
    data = [entry.to_body() for entry in found[:limit]]
    return answer({"object": "list", "data": data, "has_more": len(found) > limit})


@router.get("/verify", response_model=None, responses=answers(VERIFIED, 403))
async def verify_log(request: Request) -> Response:
    """Read the whole log and say whether it is as it was written."""
    return await _verified(request, None)


@router.post(
    "/verify",
    response_model=None,
    responses=answers(VERIFIED, 400, 403),
    openapi_extra=takes(CHECKPOINT),
)
async def verify_log_against(request: Request) -> Response:
    """Hold the log against a checkpoint kept elsewhere: a cut tail shows against that alone."""
    body = await read_json(request, service_of(request).settings.body_limit_bytes)
    try:
        expected = Checkpoint.from_body(body)
    except ConfigError as exc:
        raise RequestError(str(exc), code="invalid_value") from exc
    return await _verified(request, expected)


async def _verified(request: Request, expected: Checkpoint | None) -> Response:
    log = service_of(request).register.audit
    found = await asyncio.to_thread(log.verify, expected)
    return answer(asdict(found))


@router.get("/checkpoint", response_model=None, responses=answers(CHECKPOINT, 403))
async def make_checkpoint(request: Request) -> Response:
    """Return a signed checkpoint of the log as it stands; keep it where the log is not."""
    log = service_of(request).register.audit
    return answer((await asyncio.to_thread(log.checkpoint)).to_body())


@router.get("/key", response_model=None, responses=answers(PUBLIC_KEY))
async def public_key(request: Request) -> Response:
    """Return the key that receipts, checkpoints and exports are verified with."""
    pem = service_of(request).register.audit.public_key()
    return answer({"algorithm": "Ed25519", "key_id": key_id_of(pem), "public_key": pem})


@router.get(
    "/export",
    response_class=Response,
    response_model=None,
    responses=answers(ENTRY, 403, media=JSON_LINES),
)
async def export_log(request: Request) -> Response:
    """Return the whole chain, an entry a line; of other tenants' entries only the links."""
    log = service_of(request).register.audit
    return StreamingResponse(written(log.export(tenant_of(request))), media_type=JSON_LINES)


def written(lines: Iterator[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield each of *lines* as JSON with its line end."""
    for line in lines:
        yield orjson.dumps(line) + b"\n"
