"""Who may call: a static key, or whoever reaches a loopback address from no web page."""

from __future__ import annotations

import hmac
import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from elision.errors import AuthenticationError
from elision.middleware.gateway.errors import OriginError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Routes that need no key when asked from the same machine."""


class KeyGate:
    """Lets requests with the right key through and binds them to its tenant.

    Without a key everyone may call, except web pages of other origins: a browser would let any
    page post to a server on the loopback address.
    """

    def __init__(self, app: ASGIApp, *, key: str | None, tenant: str) -> None:
        """Stand before *app*.

        Args:
            app: What is protected.
            key: The key to ask for; None asks for none.
            tenant: Whose register applies to requests that pass.
        """
        self._app = app
        self._key = None if key is None else key.encode()
        self._tenant = tenant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or raise."""
        if scope["type"] == "http":
            self._admit(scope)
            scope.setdefault("state", {})["tenant"] = self._tenant
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._key is None:
            _refuse_foreign(headers)
        elif not (scope["path"] in PROBES and is_loopback((scope.get("client") or ("",))[0])):
            self._check(headers)

    def _check(self, headers: Headers) -> None:
        assert self._key is not None
        sent = _sent_key(headers)
        if sent is None:
            raise AuthenticationError("no key was sent; send 'Authorization: Bearer KEY'")
        if not hmac.compare_digest(sent, self._key):
            raise AuthenticationError("the key that was sent is not the server's")


def is_loopback(host: str) -> bool:
    """Whether *host*, a name or an address, never leaves this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _sent_key(headers: Headers) -> bytes | None:
    """Return the key's bytes as they came; header values are read as Latin-1."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else ""
    return (key or headers.get("api-key", "")).encode("latin-1") or None


def _refuse_foreign(headers: Headers) -> None:
    origin = headers.get("origin")
    if origin is None:
        return
    host = urlsplit(origin).hostname or ""
    if not is_loopback(host) and host != urlsplit("//" + headers.get("host", "")).hostname:
        raise OriginError("web pages of other origins may not call a server that asks for no key")
