"""CORS: which web pages a browser lets call. Off unless origins are named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

_METHODS: Final = ("GET", "POST", "DELETE")
_TOLD: Final = (
    "x-request-id", "x-forget-epoch", "x-elision-overhead-ms", "x-elision-relayed",
    "idempotent-replayed", "retry-after", "retry-after-ms", "x-should-retry",
    *(
        f"x-ratelimit-{figure}-{kind}"
        for figure in ("limit", "remaining", "reset")
        for kind in ("requests", "tokens")
    ),
)  # fmt: skip
_KEPT_S: Final = 600


def across_origins(origins: Sequence[str]) -> list[Middleware]:
    """Return the outermost layer of a server that pages of *origins* may call; none if none may.

    Outermost, so that errors can be read by the page too, and so that a preflight, which carries no
    key, is answered before anything looks for one. Any request header may be sent, because clients
    send their own; keys travel in headers, so cookies are never asked for.
    """
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=_METHODS,
            allow_headers=("*",),
            allow_credentials=False,
            expose_headers=_TOLD,
            max_age=_KEPT_S,
        )
    ]
