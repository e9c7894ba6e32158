"""``GET /v1/models`` and ``GET /v1/models/{id}``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from elision.errors import NotFoundError
from elision.middleware.gateway.service import service_of

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
async def list_models(request: Request) -> dict[str, Any]:
    """List every model, alone and with each profile."""
    service = service_of(request)
    models = service.pipeline.models()
    return {"object": "list", "data": [_model(model, service.began) for model in models]}


@router.get("/{model:path}")
async def retrieve_model(request: Request, model: str) -> dict[str, Any]:
    """Return one model; hub ids have slashes, so the whole rest of the path is the id."""
    service = service_of(request)
    if model not in service.pipeline.models():
        raise NotFoundError(
            "there is no such model; GET /v1/models lists those there are",
            code="model_not_found",
            param="model",
        )
    return _model(model, service.began)


def _model(model: str, created: int) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": created, "owned_by": "elision"}
