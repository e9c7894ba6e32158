"""A short cut around the router, for the routes that stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from starlette.requests import Request

from elision.middleware.gateway.auth import route_path

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

Answer: TypeAlias = Callable[[Request], Awaitable["Response"]]


class Direct:
    """Answers POST requests to some routes itself and leaves all others to *app*.

    Every layer between server and route is passed by each chunk of a stream, twice.
    """

    def __init__(self, app: ASGIApp, *, routes: Mapping[str, Answer]) -> None:
        """Stand before *app*; *routes* are whole paths, behind where the application is mounted."""
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        answer = None
        if scope["type"] == "http" and scope["method"] == "POST":
            answer = self._routes.get(route_path(scope))
        if answer is None:
            await self._app(scope, receive, send)
            return
        response = await answer(Request(scope, receive, send))
        await response(scope, receive, send)
