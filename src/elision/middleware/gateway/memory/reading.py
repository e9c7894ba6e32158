"""``/v1/memory``: records are listed, shown, searched and counted, and entries moved."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from elision.errors import NotFoundError, RequestError
from elision.memory.learning.entries import ADVICE
from elision.memory.learning.states import Action
from elision.memory.records import Record, Scope
from elision.middleware.fields import Fields, reject
from elision.middleware.gateway.body import read_json
from elision.middleware.gateway.memory import shapes
from elision.middleware.gateway.memory.objects import effect_object, hit_object, record_object
from elision.middleware.gateway.service import answer, grant_of, service_of, tenant_of
from elision.middleware.gateway.shapes import answers, takes

if TYPE_CHECKING:
    from elision.memory.memory import Memory

router = APIRouter(prefix="/v1/memory", tags=["memory"])

MAX_PAGE = 1_000
_PAGE = 100
_MOST_HITS = 100


async def memory_of(request: Request) -> Memory:
    """Return the memory behind *request*, opened now if nobody has asked for it.

    Raises:
        NotFoundError: If the server keeps none.
    """
    agentic = service_of(request).pipeline.agentic
    if agentic is None:
        raise NotFoundError("this server keeps no memory", code="memory_not_found")
    return await agentic.memory()


@router.get("/records", response_model=None, responses=answers(shapes.RECORDS, 400, 403))
async def list_records(
    request: Request,
    namespace: Annotated[list[str] | None, Query()] = None,
    kind: Annotated[list[str] | None, Query()] = None,
    state: Annotated[list[str] | None, Query()] = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = _PAGE,
) -> Response:
    """List the tenant's records, oldest first; `namespace` once per label, widest first.

    `kind` and `state` may be repeated; `after` takes the id that a page ended with.
    """
    store = (await memory_of(request)).store
    scope = Scope(tenant_of(request), tuple(namespace or ()))
    found = await asyncio.to_thread(
        store.list, scope, kinds=kind or (), states=state or (), after=after, limit=limit
    )
    return answer({"object": "list", "data": [record_object(record) for record in found]})


@router.get("/records/{record_id}", response_model=None, responses=answers(shapes.RECORD, 403, 404))
async def get_record(request: Request, record_id: str) -> Response:
    """Return one record; of an entry, what showing it did as well."""
    memory, tenant = await memory_of(request), tenant_of(request)
    return answer(await asyncio.to_thread(_shown, memory, tenant, record_id))


@router.post(
    "/records/{record_id}/move",
    response_model=None,
    responses=answers(shapes.RECORD, 400, 403, 404, 409),
    openapi_extra=takes(shapes.ACTION),
)
async def move_entry(request: Request, record_id: str) -> Response:
    """Quarantine, approve, demote, restore or retire an entry of the playbook."""
    memory, grant = await memory_of(request), grant_of(request)
    body = await read_json(request, service_of(request).settings.body_limit_bytes)
    action, reason = _action(body)
    await asyncio.to_thread(
        memory.playbook.act, grant.tenant, record_id, action, actor=grant.name, reason=reason
    )
    return answer(await asyncio.to_thread(_shown, memory, grant.tenant, record_id))


@router.post(
    "/search",
    response_model=None,
    responses=answers(shapes.FOUND, 400, 403),
    openapi_extra=takes(shapes.QUERY),
)
async def search_records(request: Request) -> Response:
    """Return the records most similar to a text, each with its cosine."""
    store = (await memory_of(request)).store
    body = await read_json(request, service_of(request).settings.body_limit_bytes)
    scope, query, options = _query(body, tenant_of(request))
    found = await asyncio.to_thread(store.search, scope, query, **options)
    hits = [hit_object(hit) for hit in found.hits]
    return answer({"object": "list", "data": hits, "code": found.code, "took_ms": found.took_ms})


@router.get("/stats", response_model=None, responses=answers(shapes.STATS, 403))
async def memory_stats(request: Request) -> Response:
    """Count what is remembered for the tenant."""
    store = (await memory_of(request)).store
    return answer(dict(await asyncio.to_thread(store.stats, tenant_of(request))))


def _shown(memory: Memory, tenant: str, record_id: str) -> dict[str, Any]:
    record = _found(memory, tenant, record_id)
    if record.kind != ADVICE:
        return record_object(record)
    effect = memory.playbook.effect(tenant, record_id)
    return record_object(record) | {"effect": effect_object(effect)}


def _found(memory: Memory, tenant: str, record_id: str) -> Record:
    for record in memory.store.find(tenant, (record_id,)):
        return record
    raise NotFoundError("there is no record of that id", code="record_not_found")


def _action(body: object) -> tuple[Action, str]:
    fields = Fields(body)
    wanted, known = fields.need("action"), [action.value for action in Action]
    if wanted not in known or wanted == Action.ERASE:
        raise reject("action", "must be admit, approve, demote, quarantine, restore or retire")
    reason = fields.word("reason", 64) or ""
    if fields.rest():
        raise RequestError("the body may hold action and reason, nothing else")
    return Action(wanted), reason


def _query(body: object, tenant: str) -> tuple[Scope, str, dict[str, Any]]:
    fields = Fields(body)
    query = fields.word("query", 100_000)
    if query is None:
        raise reject("query", "is required", "missing_required_parameter")
    scope = Scope(tenant, tuple(texts(fields, "namespace") or ()))
    options: dict[str, Any] = {
        "k": fields.integer("k", 1, _MOST_HITS),
        "kinds": texts(fields, "kinds"),
        "states": texts(fields, "states"),
        "where": fields.take("where"),
        "least_similarity": fields.number("least_similarity", -1, 1),
    }
    if not isinstance(options["where"], Mapping | None):
        raise reject("where", "must be an object", "invalid_type")
    if fields.rest():
        known = "k, kinds, least_similarity, namespace, query, states and where"
        raise RequestError(f"the body may hold {known}, nothing else")
    return scope, query, {key: value for key, value in options.items() if value is not None}


def texts(fields: Fields, key: str) -> list[str] | None:
    """Return a list of texts; None if it is absent.

    Raises:
        RequestError: If it is no such list.
    """
    value = fields.take(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise reject(key, "must be an array of strings", "invalid_type")
    return value
