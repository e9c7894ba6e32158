"""``POST /v1/forget``: forget targets are registered, one or many, or only evaluated."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from elision.errors import RequestError, TargetError
from elision.guards.evidence.preview import collisions
from elision.guards.evidence.selftest import self_test
from elision.guards.fields import check_flag, kind_of
from elision.guards.lifecycle import in_force
from elision.guards.phrases.advice import advise
from elision.guards.targets import ForgetTarget, State
from elision.middleware.gateway.body import read_json
from elision.middleware.gateway.service import Service, answer, grant_of, service_of, tenant_of
from elision.middleware.gateway.shapes import (
    EVALUATED,
    MANY_EVALUATED,
    MANY_REGISTERED,
    REGISTERED,
    TARGET_BODY,
    answers,
    list_of,
    takes,
)

if TYPE_CHECKING:
    from elision.guards.register.register import Registered
    from elision.middleware.gateway.auth import Grant

router = APIRouter(prefix="/v1/forget", tags=["forget"])

MAX_BATCH = 10_000
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_ANSWERS = answers({"anyOf": [REGISTERED, MANY_REGISTERED]}, 400, 403, 409, 413, status=201) | {
    200: answers({"anyOf": [EVALUATED, MANY_EVALUATED]})[200]
    | {"description": "Evaluated, not stored (dry_run)"}
}


@router.post(
    "",
    status_code=201,
    response_model=None,
    responses=_ANSWERS,
    openapi_extra=takes({"anyOf": [TARGET_BODY, list_of(TARGET_BODY) | {"minItems": 1}]}),
)
async def add_target(
    request: Request,
    dry_run: bool = False,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Response:
    """Register a target, or a list of them; active ones hold from the next request on.

    With `dry_run` it is evaluated and nothing is stored. Sent again with the same
    `Idempotency-Key` and the same body, it is answered as the first time.
    """
    service = service_of(request)
    body = await read_json(request, service.settings.body_limit_bytes)
    if isinstance(body, list):
        return await _add_many(request, body, dry_run=dry_run, key=idempotency_key)
    # In a thread: checking fifty thousand phrases takes longer than a token.
    if dry_run:
        return answer(await asyncio.to_thread(_evaluate, service, body, tenant_of(request)))
    made = await asyncio.to_thread(
        _register, service, [body], grant_of(request), _checked(idempotency_key), many=False
    )
    headers = {"location": f"/v1/forget/{made[0].target.id}", **_replayed(made)}
    return answer(made[0].to_body(), status=201, epoch=made[0].epoch, **headers)


@router.post(
    "/batch",
    status_code=201,
    response_model=None,
    responses=answers(MANY_REGISTERED, 400, 403, 409, 413, status=201)
    | {200: answers(MANY_EVALUATED)[200] | {"description": "Evaluated, not stored (dry_run)"}},
    openapi_extra=takes({"type": "object", "properties": {"targets": {"type": "array",
                         "items": TARGET_BODY}}, "required": ["targets"]}),
)  # fmt: skip
async def add_targets(
    request: Request,
    dry_run: bool = False,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Response:
    """Register many targets, all of them or none."""
    body = await read_json(request, service_of(request).settings.body_limit_bytes)
    if isinstance(body, Mapping):
        body = body.get("targets")
    if not isinstance(body, list):
        raise TargetError(f"targets is {kind_of(body)}; write a list of targets", param="targets")
    return await _add_many(request, body, dry_run=dry_run, key=idempotency_key)


def _register(
    service: Service, bodies: list[Any], grant: Grant, key: str | None, *, many: bool
) -> tuple[Registered, ...]:
    read = [
        _read(body, grant.tenant, f"targets[{n}]" if many else "") for n, body in enumerate(bodies)
    ]
    drafts = {draft for draft, _ in read}
    if len(drafts) > 1:
        raise TargetError("some are drafts and some are not; send them apart", param="draft")
    targets = [target for _, target in read]
    made = service.register.add_many(
        targets, actor=grant.name, idempotency_key=key, draft=drafts == {True}
    )
    service.pipeline.flush(grant.tenant)
    return made


async def _add_many(
    request: Request, bodies: list[Any], *, dry_run: bool, key: str | None
) -> Response:
    if not bodies or len(bodies) > MAX_BATCH:
        raise TargetError(
            f"there are {len(bodies)} targets; send 1 to {MAX_BATCH} at a time", param="targets"
        )
    service, grant = service_of(request), grant_of(request)
    if dry_run:
        done = [await asyncio.to_thread(_evaluate, service, body, grant.tenant) for body in bodies]
        return answer({"object": "list", "data": done})
    made = await asyncio.to_thread(_register, service, bodies, grant, _checked(key), many=True)
    body = {"object": "list", "data": [registered.to_body() for registered in made]}
    return answer(body, status=201, epoch=made[-1].epoch, **_replayed(made))


def _replayed(made: tuple[Registered, ...]) -> dict[str, str]:
    return {"idempotent_replayed": "true"} if made[0].repeated else {}


def _evaluate(service: Service, body: object, tenant: str) -> dict[str, Any]:
    """Say what would come of a registration."""
    draft, target = _read(body, tenant)
    return {
        "dry_run": True,
        "state": _state_of(target, draft=draft, service=service),
        "warnings": [*advise(target)],
        "collisions": [c._asdict() for c in collisions(target, service.register.active(tenant))],
        "self_test": self_test(target).to_body(),
    }


def _state_of(target: ForgetTarget, *, draft: bool, service: Service) -> State:
    if draft:
        return "draft"
    if service.register.approval_required:
        return "pending_approval"
    return in_force(target.effective_at, time.time())


def _read(body: object, tenant: str, where: str = "") -> tuple[bool, ForgetTarget]:
    """Return whether a draft is wanted, and the target.

    Raises:
        TargetError: With the place in a batch, if *where* names one.
    """
    try:
        draft = body.get("draft", False) if isinstance(body, Mapping) else False
        check_flag(draft, "draft")
        rest = (
            {k: v for k, v in body.items() if k != "draft"} if isinstance(body, Mapping) else body
        )
        return draft, ForgetTarget.from_body(rest, tenant=tenant)
    except TargetError as exc:
        if not where:
            raise
        param = f"{where}.{exc.param}" if exc.param else where
        raise TargetError(f"{where}: {exc}", param=param) from exc


def _checked(key: str | None) -> str | None:
    if key is None or _KEY.fullmatch(key):
        return key
    raise RequestError(
        "the Idempotency-Key must be 1 to 255 visible ASCII characters",
        param="Idempotency-Key",
        code="invalid_value",
    )
