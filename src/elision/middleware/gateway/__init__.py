"""The HTTP face: OpenAI's endpoints, the forget register's, health and metrics."""

from __future__ import annotations

from elision.errors import MissingExtraError

try:
    from elision.middleware.gateway.app import create_app as create_app
    from elision.middleware.gateway.serve import Listener as Listener
    from elision.middleware.gateway.serve import serve as serve
except ModuleNotFoundError as exc:
    if exc.name is None or exc.name.startswith("elision"):
        raise
    raise MissingExtraError(exc.name, extra="serve") from exc
