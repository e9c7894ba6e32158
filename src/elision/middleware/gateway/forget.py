"""``/v1/forget``: the tenant's forget targets."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from elision.guards.targets import ForgetTarget
from elision.middleware.gateway.body import read_json
from elision.middleware.gateway.service import service_of, tenant_of

router = APIRouter(prefix="/v1/forget", tags=["forget"])

_PHRASE = {
    "oneOf": [
        {"type": "string"},
        {
            "type": "object",
            "required": ["text"],
            "properties": {
                "text": {"type": "string"},
                "mode": {"enum": ["hard", "soft"]},
                "boundary": {"enum": ["auto", "yes", "no"]},
                "allow_echo": {"type": "boolean"},
                "beta": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            },
        },
    ]
}
_BODY = {
    "type": "object",
    "required": ["title"],
    "properties": {
        "title": {"type": "string"},
        "kind": {"type": "string"},
        "names": {"type": "array", "items": {"type": "string"}},
        "phrases": {"type": "array", "items": _PHRASE},
        "action": {"enum": ["restrict", "refuse", "redact", "observe"]},
        "tenant": {"type": "string"},
    },
}
_SCHEMA = {"requestBody": {"required": True, "content": {"application/json": {"schema": _BODY}}}}


@router.post("", status_code=201, openapi_extra=_SCHEMA)
async def add_target(request: Request, response: Response) -> dict[str, Any]:
    """Register a target; it holds from the next request on."""
    service = service_of(request)
    body = await read_json(request, service.settings.body_limit_bytes)
    # In a thread: checking fifty thousand phrases takes longer than a token.
    registered = await asyncio.to_thread(_register, service.pipeline.register, body, request)
    response.headers["location"] = f"/v1/forget/{registered['id']}"
    return registered


@router.get("")
async def list_targets(request: Request, include_revoked: bool = False) -> dict[str, Any]:
    """List the tenant's targets in the order of their registration."""
    register, tenant = service_of(request).pipeline.register, tenant_of(request)
    targets = await asyncio.to_thread(register.list, tenant, include_revoked=include_revoked)
    return {"object": "list", "data": [target.to_body() for target in targets]}


@router.get("/{target_id}")
async def get_target(request: Request, target_id: str) -> dict[str, Any]:
    """Return one target, active or revoked."""
    register = service_of(request).pipeline.register
    target = await asyncio.to_thread(register.get, tenant_of(request), target_id)
    return target.to_body()


@router.delete("/{target_id}")
async def revoke_target(request: Request, target_id: str) -> dict[str, Any]:
    """Take a target out of force; done twice, the second time changes nothing."""
    register = service_of(request).pipeline.register
    epoch = await asyncio.to_thread(register.revoke, tenant_of(request), target_id)
    return {"id": target_id, "state": "revoked", "epoch": epoch}


def _register(register: Any, body: object, request: Request) -> dict[str, Any]:
    target = ForgetTarget.from_body(body, tenant=tenant_of(request))
    return register.add(target).to_body()  # type: ignore[no-any-return]
