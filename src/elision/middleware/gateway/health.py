"""``/healthz``, ``/readyz``, ``/metrics``, and how the engines are, for who runs them."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from elision.middleware.gateway.engine_shapes import ENGINES, STATUS
from elision.middleware.gateway.service import service_of
from elision.middleware.gateway.shapes import answers

router = APIRouter(tags=["health"])

_PAGE = answers({"type": "string"}, media="text/plain")


@router.get("/healthz", responses=answers(STATUS))
async def healthz() -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses=answers(STATUS) | answers(STATUS, status=503))
async def readyz(request: Request, response: Response) -> dict[str, str]:
    """Say whether requests for text can be served; 503 if not."""
    if service_of(request).pipeline.ready:
        return {"status": "ready"}
    response.status_code = 503
    return {"status": "not ready"}


@router.get("/metrics", response_class=Response, responses=_PAGE)
async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus's text format."""
    return Response(service_of(request).metrics.expose(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/engines", responses=answers(ENGINES))
async def engines(request: Request) -> dict[str, Any]:
    """Say how each engine is, and each server behind it; servers are greeted first."""
    served = service_of(request).pipeline.engines
    told = await asyncio.gather(*(_told(name, engine) for name, engine in served.items()))
    return {"object": "list", "data": told}


async def _told(name: str, engine: object) -> dict[str, Any]:
    stats = dict(getattr(engine, "stats", dict)())
    health = getattr(engine, "health", None)
    replicas = [] if health is None else [asdict(one) for one in await health()]
    return {"id": name, "object": "engine", "stats": stats, "replicas": replicas}
