"""``GET /v1/models`` and ``GET /v1/models/{id}``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from elision.errors import NotFoundError
from elision.middleware.gateway.engine_shapes import MODEL, MODELS
from elision.middleware.gateway.service import service_of
from elision.middleware.gateway.shapes import answers

if TYPE_CHECKING:
    from elision.middleware.pipeline import Pipeline

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", responses=answers(MODELS))
async def list_models(request: Request) -> dict[str, Any]:
    """List every model, alone and with each profile; the sentence encoder last."""
    service = service_of(request)
    models = _ids(service.pipeline)
    return {"object": "list", "data": [_model(model, service.began) for model in models]}


@router.get("/{model:path}", responses=answers(MODEL, 404))
async def retrieve_model(request: Request, model: str) -> dict[str, Any]:
    """Return one model; hub ids have slashes, so the whole rest of the path is the id."""
    service = service_of(request)
    if model not in _ids(service.pipeline):
        raise NotFoundError(
            "there is no such model; GET /v1/models lists those there are",
            code="model_not_found",
            param="model",
        )
    return _model(model, service.began)


def _ids(pipeline: Pipeline) -> tuple[str, ...]:
    encoder = pipeline.embeddings.name
    return (*pipeline.models(), encoder) if encoder else pipeline.models()


def _model(model: str, created: int) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": created, "owned_by": "elision"}
