"""``POST /v1/forget/{id}/OPERATION``: a target's way from draft to purged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from elision.errors import RequestError
from elision.guards.fields import check_keys, kind_of, moment_of
from elision.guards.targets import iso
from elision.middleware.gateway.body import read_json
from elision.middleware.gateway.routes import OPERATIONS
from elision.middleware.gateway.service import answer, grant_of, service_of
from elision.middleware.gateway.shapes import (
    CHANGED,
    NEEDED_REASON,
    NEW_END,
    REASON,
    answers,
    takes,
)

if TYPE_CHECKING:
    from elision.guards.register.register import Changed, Register

router = APIRouter(prefix="/v1/forget", tags=["forget"])

_DOES = MappingProxyType(
    {
        "submit": "Hand a draft in: to whoever approves, or into force where nobody has to.",
        "approve": "Approve what somebody else has requested.",
        "activate": "Put a target in force now.",
        "suspend": "Take a target out of force for a while.",
        "resume": "Put a suspended target in force again.",
        "revoke": "Take a target out of force for good; `reason` is required.",
        "extend": "Give a target another end; null: none.",
        "purge": "Destroy the key of a revoked or expired target; its words are gone for good.",
    }
)


@router.delete("/{target_id}", response_model=None, responses=answers(CHANGED, 403, 404, 409))
async def revoke_target(request: Request, target_id: str, reason: str = "unspecified") -> Response:
    """Take a target out of force; done twice, the second time changes nothing."""
    register, grant = service_of(request).register, grant_of(request)
    changed = await asyncio.to_thread(
        register.revoke, grant.tenant, target_id, actor=grant.name, reason=reason
    )
    return answer(changed_body(changed), epoch=changed.epoch)


def _route(operation: str) -> Callable[[Request, str], Awaitable[Response]]:
    async def change(request: Request, target_id: str) -> Response:
        service, grant = service_of(request), grant_of(request)
        body = await read_json(request, service.settings.body_limit_bytes, optional=True)
        options = options_of(operation, body)
        changed = await asyncio.to_thread(
            apply, service.register, operation, grant.tenant, target_id, grant.name, options
        )
        drop = service.pipeline.erase if operation == "purge" else service.pipeline.flush
        await asyncio.to_thread(drop, grant.tenant)
        return answer(changed_body(changed), epoch=changed.epoch)

    change.__doc__ = _DOES[operation]
    return change


def apply(
    register: Register,
    operation: str,
    tenant: str,
    target_id: str,
    actor: str,
    options: Mapping[str, Any],
) -> Changed:
    """Do *operation* to a target; *options* are those of `options_of`."""
    done: Changed = getattr(register, operation)(tenant, target_id, actor=actor, **options)
    return done


def options_of(operation: str, body: object) -> dict[str, Any]:
    """Return what *body* says beside which target: a reason, and for `extend` the new end.

    Raises:
        RequestError: If it is no object, or lacks what the operation needs.
        TargetError: If a key is not known, or the end is no time.
    """
    if not isinstance(body, Mapping):
        raise RequestError(f"the body is {kind_of(body)}; write an object", code="invalid_type")
    ends = operation == "extend"
    check_keys(body, ("reason", "expires_at") if ends else ("reason",))
    for key in ("expires_at",) if ends else ("reason",) if operation == "revoke" else ():
        if key not in body or (key == "reason" and body[key] is None):
            raise RequestError(
                f"{key!r} is missing; {operation} needs it",
                param=key,
                code="missing_required_parameter",
            )
    reason = body.get("reason")
    if reason is not None and not isinstance(reason, str):
        raise RequestError("'reason' must be a string", param="reason", code="invalid_type")
    options: dict[str, Any] = {} if reason is None else {"reason": reason}
    return options | ({"expires_at": moment_of(body, "expires_at")} if ends else {})


def changed_body(changed: Changed) -> dict[str, Any]:
    """Return what is answered to a change."""
    target = changed.target
    return {
        "id": target.id,
        "state": target.state,
        "epoch": changed.epoch,
        "expires_at": iso(target.expires_at),
    }


for _operation in OPERATIONS:
    router.add_api_route(
        f"/{{target_id}}/{_operation}",
        _route(_operation),
        methods=["POST"],
        name=f"{_operation}_target",
        operation_id=f"{_operation}_target",
        description=_DOES[_operation],
        response_model=None,
        responses=answers(CHANGED, 400, 403, 404, 409),
        openapi_extra=takes(
            {"extend": NEW_END, "revoke": NEEDED_REASON}.get(_operation, REASON),
            required=_operation in ("extend", "revoke"),
        ),
    )
