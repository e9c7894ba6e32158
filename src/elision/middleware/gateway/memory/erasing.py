"""``POST /v1/memory/erase``: what is remembered goes, every copy of it, and a receipt stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from elision.errors import NotFoundError, RequestError
from elision.memory.erasure.selector import Selector
from elision.middleware.fields import Fields
from elision.middleware.gateway.body import read_json
from elision.middleware.gateway.memory import shapes
from elision.middleware.gateway.memory.reading import memory_of, texts
from elision.middleware.gateway.service import answer, grant_of, service_of, tenant_of
from elision.middleware.gateway.shapes import answers, takes
from elision.middleware.screening import RegisterScreen

if TYPE_CHECKING:
    from elision.guards.register.register import Register
    from elision.memory.erasure.receipts import Receipt

router = APIRouter(tags=["memory"])

_CONDITIONS = ("namespace", "ids", "subject", "kinds", "older_than_s", "target")


@router.post(
    "/v1/memory/erase",
    response_model=None,
    responses=answers({"anyOf": [shapes.ERASED, shapes.PLANNED]}, 400, 403, 404)
    | answers(shapes.ERASED, status=202),
    openapi_extra=takes(shapes.SELECTOR),
)
async def erase_memory(request: Request) -> Response:
    """Erase the records that meet every condition, whatever was made from them, and every copy.

    `target` means those that a forget target concerns; `everything` all of the tenant's; `dry_run`
    only counts. The status is 202 while a reader or a backup keeps a copy: the receipt says so, and
    the erasure goes on when the server starts again.
    """
    memory, grant = await memory_of(request), grant_of(request)
    body = await read_json(request, service_of(request).settings.body_limit_bytes)
    fields = Fields(body)
    dry_run, reason = fields.flag("dry_run"), fields.word("reason", 64) or "request"
    selector = selector_of(fields, grant.tenant, service_of(request).register)
    if dry_run:
        plan = await asyncio.to_thread(memory.eraser.plan, selector)
        return answer({"object": "memory.erasure", "dry_run": True, "counts": dict(plan.counts)})
    receipt = await asyncio.to_thread(memory.erase, selector, reason=reason, actor=grant.name)
    return _told(receipt)


@router.get("/v1/memory/erasures", response_model=None, responses=answers(shapes.RECEIPTS, 403))
async def list_erasures(request: Request) -> Response:
    """Return the receipts of the tenant's erasures, oldest first."""
    memory = await memory_of(request)
    receipts = await asyncio.to_thread(memory.eraser.receipts, tenant_of(request))
    return answer({"object": "list", "data": [receipt.to_body() for receipt in receipts]})


@router.get(
    "/v1/memory/erasures/{erasure_id}",
    response_model=None,
    responses=answers(shapes.ERASED, 403, 404),
)
async def get_erasure(request: Request, erasure_id: str) -> Response:
    """Return one receipt."""
    memory = await memory_of(request)
    for receipt in await asyncio.to_thread(memory.eraser.receipts, tenant_of(request)):
        if receipt.id == erasure_id:
            return answer(receipt.to_body())
    raise NotFoundError("there is no erasure of that id", code="erasure_not_found")


@router.get(
    "/v1/forget/{target_id}/memory",
    response_model=None,
    responses=answers(shapes.CONCERNED, 403, 404),
)
async def memory_of_target(request: Request, target_id: str) -> Response:
    """Count the records that a target concerns: what erasing by it would take."""
    memory, tenant = await memory_of(request), tenant_of(request)
    concerned = await asyncio.to_thread(
        RegisterScreen(service_of(request).register).concerned, tenant, target_id
    )
    selector = Selector(tenant=tenant, matching=concerned)
    plan = await asyncio.to_thread(memory.eraser.plan, selector)
    return answer({"target_id": target_id, "counts": dict(plan.counts)})


def selector_of(fields: Fields, tenant: str, register: Register) -> Selector:
    """Return what a body's conditions select.

    Raises:
        RequestError: If there is none and ``everything`` is not true, or one is wrong.
        NotFoundError: If there is no such target.
    """
    matching = _matching(fields.word("target", 64), tenant, register)
    selector = Selector(
        tenant=tenant,
        namespace=_tuple(fields, "namespace"),
        ids=_tuple(fields, "ids"),
        subject=fields.word("subject", 256),
        kinds=_tuple(fields, "kinds"),
        older_than_s=fields.number("older_than_s", 0, float("inf")),
        matching=matching,
    )
    everything = fields.flag("everything")
    if fields.rest():
        known = ", ".join((*_CONDITIONS, "reason", "everything"))
        raise RequestError(f"the body may hold {known} and dry_run, nothing else")
    if everything != (selector.is_scope and not selector.namespace):
        raise RequestError(
            "name what to erase by at least one condition, or 'everything': true and none",
            param="everything",
        )
    return selector


def _matching(
    target_id: str | None, tenant: str, register: Register
) -> Callable[[str], bool] | None:
    return None if target_id is None else RegisterScreen(register).concerned(tenant, target_id)


def _tuple(fields: Fields, key: str) -> tuple[str, ...] | None:
    found = texts(fields, key)
    return None if found is None else tuple(found)


def _told(receipt: Receipt) -> Response:
    body: dict[str, Any] = receipt.to_body()
    return answer(body, status=200 if receipt.state == "verified" else 202)
