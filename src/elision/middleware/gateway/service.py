"""What the routes share, from the application's start to its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import orjson
from starlette.responses import Response

from elision.middleware.gateway.metrics import Metrics

if TYPE_CHECKING:
    from starlette.requests import Request

    from elision.guards.register.register import Register
    from elision.middleware.gateway.auth import Grant
    from elision.middleware.gateway.checking import Checkers
    from elision.middleware.gateway.shadow import Shadow
    from elision.middleware.pipeline import Pipeline
    from elision.settings import Settings

EPOCH_HEADER = "x-forget-epoch"
"""On every response that a register stands behind: the tenant's epoch it was made under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Everything a route may need.

    Attributes:
        pipeline: The only way to a reply.
        settings: As read at start.
        metrics: Counters and histograms of this application.
        shadow: What observing targets have met since the start.
        checkers: Compiled checks, by tenant and epoch.
        began: When the application was made, in seconds since 1970.
        fingerprint: Names the software that writes replies.
    """

    pipeline: Pipeline
    settings: Settings
    metrics: Metrics
    shadow: Shadow
    checkers: Checkers
    began: int = field(default_factory=lambda: int(time.time()))
    fingerprint: str = field(default_factory=lambda: f"elision-{version('elision')}")

    @property
    def register(self) -> Register:
        """The forget register behind the pipeline."""
        return self.pipeline.register


def service_of(request: Request) -> Service:
    """Return the service behind *request*."""
    return cast("Service", request.app.state.service)


def grant_of(request: Request) -> Grant:
    """Return who calls, and what he may do."""
    return cast("Grant", request.state.grant)


def tenant_of(request: Request) -> str:
    """Return the tenant that the caller's key is bound to."""
    return grant_of(request).tenant


def answer(
    body: Mapping[str, Any], *, status: int = 200, epoch: int | None = None, **headers: str
) -> Response:
    """Return *body* as JSON, with the epoch it belongs to; ``_`` in a header's name is ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if epoch is not None:
        named[EPOCH_HEADER] = str(epoch)
    return Response(orjson.dumps(body), status, named, "application/json")
