"""What targets meet: in a corpus (preview), in supplied traffic (impact), in real replies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from elision.errors import RequestError
from elision.guards.evidence.impact import Line, lines_of, replay
from elision.guards.evidence.preview import preview
from elision.guards.fields import kind_of
from elision.guards.targets import iso
from elision.middleware.gateway.body import read_json, read_lines
from elision.middleware.gateway.service import Service, answer, grant_of, service_of
from elision.middleware.gateway.shapes import (
    CORPUS,
    IMPACT,
    PREVIEW,
    SEEN,
    TRAFFIC,
    answers,
    takes,
)

if TYPE_CHECKING:
    from elision.middleware.gateway.auth import Grant

router = APIRouter(tags=["forget"])

MAX_TARGETS = 10_000


@router.post(
    "/v1/forget/{target_id}/preview",
    response_model=None,
    responses=answers(PREVIEW, 400, 403, 404, 413),
    openapi_extra=takes(CORPUS, lines=CORPUS["properties"]["corpus"]["items"]),
)
async def preview_target(request: Request, target_id: str) -> Response:
    """Count what a target would meet in a corpus; a draft is marked as previewed.

    The body is an object with a `corpus`, or one JSON value a line. Only operators are shown
    examples, every match masked.
    """
    corpus, _ = await _lines(request, "corpus")
    body = await asyncio.to_thread(
        _preview, service_of(request), grant_of(request), target_id, corpus
    )
    return answer(body)


@router.post(
    "/v1/impact",
    response_model=None,
    responses=answers(IMPACT, 400, 403, 404, 413),
    openapi_extra=takes(TRAFFIC, lines=TRAFFIC["properties"]["lines"]["items"]),
)
async def replay_traffic(request: Request) -> Response:
    """Replay lines of traffic through targets, those in force unless ids are given.

    Lines that concern a target say so (`about`); hits in all others are false positives.
    """
    lines, ids = await _lines(request, "lines")
    service, tenant = service_of(request), grant_of(request).tenant
    return answer(await asyncio.to_thread(_replay, service, tenant, lines, ids))


@router.get("/v1/forget/{target_id}/impact", response_model=None, responses=answers(SEEN, 403, 404))
async def impact_of_target(request: Request, target_id: str) -> Response:
    """Count what an observing target has met in replies of this process since it began."""
    service, tenant = service_of(request), grant_of(request).tenant
    target = await asyncio.to_thread(service.register.get, tenant, target_id)
    hits, replies = service.shadow.seen(tenant, target_id)
    observing = target.state == "active" and target.action == "observe"
    counted = {"observing": observing, "hits": hits, "replies": replies}
    return answer({"target_id": target_id, **counted, "since": iso(service.began)})


async def _lines(request: Request, key: str) -> tuple[tuple[Line, ...], tuple[str, ...] | None]:
    """Read a body of lines: themselves, and the targets that it names."""
    limit = service_of(request).settings.body_limit_bytes
    body: Any = await read_lines(request, limit)
    if body is None:
        body = await read_json(request, limit)
    if isinstance(body, list):
        return lines_of(body, key), None
    if not isinstance(body, dict) or key not in body:
        raise RequestError(
            f"{key!r} is missing; write an object with a list of texts there",
            param=key,
            code="missing_required_parameter",
        )
    return lines_of(body[key], key), _ids(body.get("targets"))


def _ids(given: object) -> tuple[str, ...] | None:
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        raise RequestError(
            f"'targets' is {kind_of(given)}; write a list of ids",
            param="targets",
            code="invalid_type",
        )
    if len(given) > MAX_TARGETS:
        raise RequestError(
            f"'targets' has {len(given)} ids, at most {MAX_TARGETS} are possible", param="targets"
        )
    return tuple(dict.fromkeys(given))


def _preview(
    service: Service, grant: Grant, target_id: str, corpus: tuple[Line, ...]
) -> dict[str, Any]:
    register = service.register
    target = register.get(grant.tenant, target_id)
    found = preview(target, [line.text for line in corpus], active=register.active(grant.tenant))
    if target.state == "draft":
        target = register.mark_previewed(grant.tenant, target_id, actor=grant.name).target
    return {"state": target.state, **found.to_body(examples="operator" in grant.roles)}


def _replay(
    service: Service, tenant: str, lines: tuple[Line, ...], ids: tuple[str, ...] | None
) -> dict[str, Any]:
    register = service.register
    if ids is None:
        return replay(register.active(tenant), lines).to_body()
    return replay([register.get(tenant, target_id) for target_id in ids], lines).to_body()
