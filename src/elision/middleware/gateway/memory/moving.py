"""``/v1/memory/export`` and ``/v1/memory/import``: records leave and come back, signed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, Literal, get_args

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse

from elision.errors import RequestError
from elision.memory.records import Scope
from elision.memory.transfer import export_to, import_from
from elision.middleware.gateway.audit import JSON_LINES
from elision.middleware.gateway.errors import BodyTooLargeError
from elision.middleware.gateway.memory import shapes
from elision.middleware.gateway.memory.reading import memory_of
from elision.middleware.gateway.service import answer, service_of, tenant_of
from elision.middleware.gateway.shapes import answers
from elision.middleware.staging import staged

if TYPE_CHECKING:
    from typing import Any

    from elision.memory.store import Store
    from elision.memory.transfer import ImportReport

router = APIRouter(prefix="/v1/memory", tags=["memory"])

Conflict = Literal["skip", "overwrite", "new_ids"]
_CHUNK: Final = 1 << 18
_TAKES = {"requestBody": {"required": True, "content": {JSON_LINES: {"schema": shapes.RECORD}}}}


@router.get(
    "/export",
    response_class=Response,
    response_model=None,
    responses=answers(shapes.RECORD, 400, 403, media=JSON_LINES),
)
async def export_memory(
    request: Request, namespace: Annotated[list[str] | None, Query()] = None
) -> Response:
    """Return the tenant's records in clear, one a line, signed at the end."""
    store = (await memory_of(request)).store
    scope = Scope(tenant_of(request), tuple(namespace or ()))
    with staged(service_of(request).settings.home) as file:
        await asyncio.to_thread(export_to, store, scope, file)
        bundle = file.open("rb")
    length = {"content-length": str(os.fstat(bundle.fileno()).st_size)}
    return StreamingResponse(_chunks(bundle), media_type=JSON_LINES, headers=length)


@router.post(
    "/import",
    status_code=201,
    response_model=None,
    responses=answers(shapes.STATS, 400, 403, 409, 413, status=201),
    openapi_extra=_TAKES,
)
async def import_memory(
    request: Request, on_conflict: str = "skip", revive: bool = False, dry_run: bool = False
) -> Response:
    """Take in what an export of this server wrote; what was erased stays away unless revived.

    Bundles that another server signed are imported on the command line, where its key is vouched
    for.
    """
    store, tenant = (await memory_of(request)).store, tenant_of(request)
    if on_conflict not in get_args(Conflict):
        known = ", ".join(get_args(Conflict))
        raise RequestError(f"'on_conflict' must be one of {known}", param="on_conflict")
    settings = service_of(request).settings
    with staged(settings.home) as file:
        await _save(request.stream(), file, settings.body_limit_bytes)
        options = {"on_conflict": on_conflict, "revive": revive, "dry_run": dry_run}
        report = await asyncio.to_thread(_take_in, store, file, tenant, options)
    return answer(import_object(report), status=200 if dry_run else 201)


def import_object(report: ImportReport) -> dict[str, Any]:
    """Return what an import did, as the wire and the command line write it."""
    return {
        "object": "memory.import",
        "records": report.n_records,
        **{str(fate): n for fate, n in sorted(report.fates.items())},
        "orphans": report.n_orphans,
        "subjects_lost": report.n_subjects_lost,
        "encoded": report.n_embedded,
        "key_id": report.key_id,
        "known_signer": report.is_known,
        "dry_run": report.dry_run,
    }


def _chunks(bundle: BinaryIO) -> Iterator[bytes]:
    """Yield what lies in *bundle*, whose name is gone: with its reader it goes too."""
    with bundle:
        while data := bundle.read(_CHUNK):
            yield data


def _take_in(store: Store, file: Path, tenant: str, options: dict[str, Any]) -> ImportReport:
    return import_from(store, file, tenant=tenant, **options)


async def _save(chunks: AsyncIterator[bytes], file: Path, limit: int) -> None:
    n = 0
    with file.open("wb") as out:
        async for chunk in chunks:
            if (n := n + len(chunk)) > limit:
                raise BodyTooLargeError(f"the request body is longer than {limit} bytes; send less")
            out.write(chunk)
