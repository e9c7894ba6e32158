"""The application: routes, and the layers that every request passes.

::

    Boundary   id, envelope, count, log line
      KeyGate  key, tenant, roles
        MeterGate  the key's limits, OpenTelemetry
        Direct   /v1/chat/completions, /v1/completions, /v1/responses: no router, no validation
        /v1/models, /v1/forget, /v1/memory, ...   FastAPI
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from elision.middleware.gateway import (
    audit,
    checking,
    embeddings,
    forget,
    health,
    impact,
    lifecycle,
    litellm,
    models,
    receipts,
    targets,
    tokens,
    transfer,
)
from elision.middleware.gateway.auth import KeyGate, Keyring
from elision.middleware.gateway.boundary import Boundary
from elision.middleware.gateway.chat import create_chat_completion
from elision.middleware.gateway.completions import create_completion
from elision.middleware.gateway.cors import across_origins
from elision.middleware.gateway.direct import Direct
from elision.middleware.gateway.errors import failure_of
from elision.middleware.gateway.guardrail.growing import Growing
from elision.middleware.gateway.limits.allowance import Allowances
from elision.middleware.gateway.limits.gate import MeterGate
from elision.middleware.gateway.memory import episodes, erasing, moving, reading
from elision.middleware.gateway.metrics import Metrics
from elision.middleware.gateway.responses.answering import create_response
from elision.middleware.gateway.responses.kept import Kept
from elision.middleware.gateway.responses.reading import router as responses
from elision.middleware.gateway.responses.recalling import Recalling
from elision.middleware.gateway.routes import check_table
from elision.middleware.gateway.schema import describe
from elision.middleware.gateway.service import Service
from elision.middleware.gateway.shadow import Shadow
from elision.middleware.gateway.spans import Telemetry
from elision.middleware.tokenizing import Tokenizers

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

    from elision.middleware.pipeline import Pipeline
    from elision.settings import Settings


_UNTOLD: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}
"""FastAPI's own telemetry tells queries and what did not validate; `spans` tells neither."""

_DIRECT = {
    "/v1/chat/completions": create_chat_completion,
    "/v1/completions": create_completion,
    "/v1/responses": create_response,
}


def create_app(pipeline: Pipeline, settings: Settings) -> FastAPI:
    """Return the ASGI application that serves *pipeline*.

    The application owns the pipeline from here on: its shutdown closes it.

    Args:
        pipeline: What answers.
        settings: Keys, ``tenant``, ``approval`` and ``body_limit_bytes`` are read.
    """
    metrics = Metrics(pipeline.stats)
    allowances = Allowances.of(settings)
    register = pipeline.register
    app = FastAPI(
        title="Elision",
        version=version("elision"),
        lifespan=_lifespan,
        docs_url=None,  # the page would load its scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_UNTOLD,
        middleware=[
            *across_origins(settings.cors_origins),
            Middleware(Boundary, metrics=metrics),
            Middleware(
                KeyGate,
                keyring=Keyring.of(settings),
                tenant=settings.tenant,
                origins=settings.cors_origins,
            ),
            Middleware(MeterGate, allowances=allowances, telemetry=Telemetry()),
            Middleware(Direct, routes=_DIRECT),
        ],
        exception_handlers={HTTPException: _envelope, RequestValidationError: _envelope},
    )
    app.state.service = Service(
        pipeline=pipeline,
        settings=settings,
        metrics=metrics,
        shadow=Shadow(register, metrics),
        checkers=checking.Checkers(register),
    )
    app.state.growing = Growing()
    kept = Kept(limit=settings.responses_kept, ttl_s=settings.responses_kept_s)
    pipeline.conversations.join(kept)  # what is erased of a tenant is erased there too
    app.state.responses = Recalling(kept, limit_bytes=settings.body_limit_bytes)
    app.state.allowances = allowances
    app.state.tokenizers = Tokenizers(pipeline)
    for path, answer in _DIRECT.items():  # for what is no POST, and for the description
        app.add_route(path, answer, methods=["POST"])
    # Routes with a word where others have an id come first.
    for room in (
        models, transfer, forget, targets, lifecycle, impact, receipts, audit, checking, litellm,
        embeddings, tokens, health, reading, erasing, episodes, moving,
    ):  # fmt: skip
        app.include_router(room.router)
    app.include_router(responses)
    check_table(app)
    describe(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    pipeline = app.state.service.pipeline
    meeting = asyncio.create_task(pipeline.meet())  # a server may be slow: requests do not wait
    yield
    meeting.cancel()
    await asyncio.wait([meeting])
    await app.state.allowances.aclose()
    await pipeline.aclose()


async def _envelope(_request: Request, exc: Any) -> Response:
    return failure_of(exc).response()
