"""What the routes share, from the application's start to its end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, cast

from elision.middleware.gateway.metrics import Metrics

if TYPE_CHECKING:
    from starlette.requests import Request

    from elision.middleware.pipeline import Pipeline
    from elision.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Everything a route may need.

    Attributes:
        pipeline: The only way to a reply.
        settings: As read at start.
        metrics: Counters and histograms of this application.
        began: When the application was made, in seconds since 1970.
        fingerprint: Names the software that writes replies.
    """

    pipeline: Pipeline
    settings: Settings
    metrics: Metrics
    began: int = field(default_factory=lambda: int(time.time()))
    fingerprint: str = field(default_factory=lambda: f"elision-{version('elision')}")


def service_of(request: Request) -> Service:
    """Return the service behind *request*."""
    return cast("Service", request.app.state.service)


def tenant_of(request: Request) -> str:
    """Return the tenant that the caller's key is bound to."""
    return cast("str", request.state.tenant)
