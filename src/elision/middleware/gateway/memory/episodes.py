"""``/v1/episodes``: what came of a reply is said later, so that the next one may be better."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from elision.errors import PermissionDeniedError, RequestError
from elision.middleware.fields import Fields, reject
from elision.middleware.gateway.body import read_json
from elision.middleware.gateway.memory import shapes
from elision.middleware.gateway.memory.objects import episode_object
from elision.middleware.gateway.memory.reading import memory_of
from elision.middleware.gateway.service import answer, grant_of, service_of, tenant_of
from elision.middleware.gateway.shapes import answers, takes

if TYPE_CHECKING:
    from elision.memory.memory import Memory
    from elision.settings import Role

router = APIRouter(prefix="/v1/episodes", tags=["memory"])

_SOURCES = ("checker", "env", "human", "judge")
_MEASURED = ("checker", "env")
"""Nobody's word replaces theirs."""


@router.get("/{episode_id}", response_model=None, responses=answers(shapes.EPISODE, 400, 403, 404))
async def get_episode(request: Request, episode_id: str) -> Response:
    """Return an episode: figures and codes, never the task."""
    memory = await memory_of(request)
    return answer(await asyncio.to_thread(_shown, memory, tenant_of(request), episode_id))


@router.post(
    "/{episode_id}/reward",
    response_model=None,
    responses=answers(shapes.REWARDED, 400, 403, 404),
    openapi_extra=takes(shapes.REWARD),
)
async def reward_episode(request: Request, episode_id: str) -> Response:
    """Say how good a reply was, from 0 to 1; an episode without a reward teaches nothing.

    Sent twice it counts once. `by` ranks it: a checker's word is not replaced by a person's, nor a
    person's by a judge's.
    """
    memory, tenant = await memory_of(request), tenant_of(request)
    body = await read_json(request, service_of(request).settings.body_limit_bytes)
    reward, options = _reward(body, grant_of(request).roles)
    agentic = service_of(request).pipeline.agentic
    if options["success"] is None and agentic is not None:
        options["success"] = reward >= agentic.config.success_from
    taken = await asyncio.to_thread(memory.episodes.reward, tenant, episode_id, reward, **options)
    episode = await asyncio.to_thread(memory.episodes.get, tenant, episode_id)
    return answer({"id": episode_id, "taken": taken, "reward": episode.reward})


def _shown(memory: Memory, tenant: str, episode_id: str) -> dict[str, Any]:
    episodes = memory.episodes
    return episode_object(episodes.get(tenant, episode_id), episodes.spent(tenant, episode_id))


def _reward(body: object, roles: frozenset[Role]) -> tuple[float, dict[str, Any]]:
    fields = Fields(body)
    reward = fields.number("reward", 0, 1)
    if reward is None:
        raise reject("reward", "is required", "missing_required_parameter")
    by = fields.take("by")
    by = "human" if by is None else by
    if by not in _SOURCES:
        raise reject("by", f"must be one of {', '.join(_SOURCES)}")
    if by in _MEASURED and "operator" not in roles:
        raise PermissionDeniedError(
            f"'by': {by!r} says that it was measured; only an operator's key may say so"
        )
    success = fields.flag("success") if fields.take("success") is not None else None
    if fields.rest():
        raise RequestError("the body may hold by, reward and success, nothing else")
    return float(reward), {"by": by, "success": success}
