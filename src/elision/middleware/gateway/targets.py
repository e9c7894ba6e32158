"""``GET /v1/forget``: forget targets are listed and shown, to an auditor without their words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, get_args

from fastapi import APIRouter, Query, Request, Response

from elision.errors import RequestError
from elision.guards.targets import ForgetTarget, State
from elision.middleware.gateway.service import answer, grant_of, service_of
from elision.middleware.gateway.shapes import TARGET, TARGETS, answers

if TYPE_CHECKING:
    from elision.middleware.gateway.auth import Grant

router = APIRouter(prefix="/v1/forget", tags=["forget"])

MAX_PAGE = 10_000
_PAGE = 1_000
_WORDS = (
    "title", "phrases", "names", "probes", "passages", "answers", "exceptions", "case_ref",
    "legal_basis",
)  # fmt: skip
_READS_WORDS = frozenset({"requester", "approver", "operator"})


@router.get("", response_model=None, responses=answers(TARGETS, 400, 403))
async def list_targets(
    request: Request,
    state: Annotated[list[str] | None, Query()] = None,
    include_revoked: bool = False,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = _PAGE,
) -> Response:
    """List the tenant's targets in the order of their registration.

    `state` may be repeated; `after` takes the id that a page ended with.
    """
    register, grant = service_of(request).register, grant_of(request)
    states = _states(state)
    epoch = await asyncio.to_thread(register.epoch, grant.tenant)
    targets = await asyncio.to_thread(
        register.list, grant.tenant, states=states, include_revoked=include_revoked
    )
    first = _place_after(targets, after)
    page = targets[first : first + limit]
    data = [_shown(target, grant) for target in page]
    body = {"object": "list", "data": data, "has_more": first + limit < len(targets)}
    return answer(body, epoch=epoch)


@router.get("/{target_id}", response_model=None, responses=answers(TARGET, 403, 404))
async def get_target(request: Request, target_id: str) -> Response:
    """Return one target, whatever its state."""
    register, grant = service_of(request).register, grant_of(request)
    target = await asyncio.to_thread(register.get, grant.tenant, target_id)
    return answer(_shown(target, grant))


def _shown(target: ForgetTarget, grant: Grant) -> dict[str, Any]:
    """Return *target* as the caller may see it: an auditor sees the record, not its words."""
    body = target.to_body()
    if grant.roles & _READS_WORDS:
        return body
    kept = {key: value for key, value in body.items() if key not in _WORDS}
    return kept | {"withheld": [key for key in _WORDS if body[key]]}


def _states(given: list[str] | None) -> tuple[State, ...] | None:
    known = get_args(State)
    if given is None:
        return None
    if wrong := [state for state in given if state not in known]:
        raise RequestError(
            f"{len(wrong)} of the states are not known; write one of {', '.join(known)}",
            param="state",
            code="invalid_value",
        )
    return tuple(state for state in known if state in given)


def _place_after(targets: tuple[ForgetTarget, ...], after: str | None) -> int:
    if after is None:
        return 0
    for place, target in enumerate(targets):
        if target.id == after:
            return place + 1
    raise RequestError(
        "'after' is the id of no target in this list; write the last id of the page before",
        param="after",
        code="invalid_value",
    )
