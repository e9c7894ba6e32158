"""``/v1/forget/export`` and ``/v1/forget/import``: a tenant's targets leave and come back."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from elision.errors import RequestError
from elision.middleware.gateway.audit import JSON_LINES, written
from elision.middleware.gateway.body import read_lines
from elision.middleware.gateway.service import answer, grant_of, service_of, tenant_of
from elision.middleware.gateway.shapes import EXPORTED, IMPORTED, answers

router = APIRouter(prefix="/v1/forget", tags=["forget"])

_TAKES = {"requestBody": {"required": True, "content": {"application/jsonl": {"schema": EXPORTED}}}}


@router.get(
    "/export",
    response_class=Response,
    response_model=None,
    responses=answers(EXPORTED, 403, media=JSON_LINES),
)
async def export_targets(request: Request) -> Response:
    """Return every target of the tenant in clear, one a line, and a signed manifest."""
    lines = service_of(request).register.export(tenant_of(request))
    return StreamingResponse(written(lines), media_type=JSON_LINES)


@router.post(
    "/import",
    status_code=201,
    response_model=None,
    responses=answers(IMPORTED, 400, 403, 409, 413, status=201),
    openapi_extra=_TAKES,
)
async def import_targets(request: Request) -> Response:
    """Take in what an export wrote, all of it or nothing."""
    service, grant = service_of(request), grant_of(request)
    lines = await read_lines(request, service.settings.body_limit_bytes)
    if lines is None:
        raise RequestError(
            f"an import is what an export wrote; send it with content-type: {JSON_LINES}",
            param="content-type",
            code="invalid_type",
        )
    for n, line in enumerate(lines, start=1):
        if not isinstance(line, dict):
            raise RequestError(f"line {n} of the body is no object; send an export as it was made")
    register = service.register
    done = await asyncio.to_thread(register.import_, grant.tenant, lines, actor=grant.name)
    epoch = await asyncio.to_thread(register.epoch, grant.tenant)
    return answer({"n": len(done), "epoch": epoch}, status=201, epoch=epoch)
