"""Who may call: the holder of a key, or whoever reaches a loopback address from no web page."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from elision.errors import AuthenticationError
from elision.middleware.gateway.errors import OriginError, RoleError
from elision.middleware.gateway.routes import lacking
from elision.settings import ROLES, SINGLE_KEY, Role

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from elision.settings import KeyGrant, Settings

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Routes that need no key when asked from the same machine."""

OPEN = "open"
"""The name of callers of a server that asks for no key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a caller may do.

    Attributes:
        name: The key's name: the actor of every change, for the record.
        tenant: Whose register applies.
        roles: What it may do there.
    """

    name: str
    tenant: str
    roles: frozenset[Role] = frozenset(ROLES)


class Keyring:
    """The keys that are accepted, by their digests; without any the server is open."""

    def __init__(self, grants: dict[str, Grant], *, tenant: str) -> None:
        """Keep *grants*, by the SHA-256 of their keys, for a server of *tenant*."""
        self._grants = [(digest.encode(), grant) for digest, grant in grants.items()]
        self.open = None if grants else Grant(name=OPEN, tenant=tenant)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the keys that *settings* grant."""
        grants = {grant.digest: _grant(grant, settings.tenant) for grant in settings.keys}
        if settings.api_key is not None:
            single = _digest(settings.api_key.get_secret_value().encode())
            grants[single] = Grant(name=SINGLE_KEY, tenant=settings.tenant)
        return cls(grants, tenant=settings.tenant)

    def holder(self, key: bytes) -> Grant | None:
        """Return whose *key* is. Every key is compared to its end, whichever fits."""
        sent, found = _digest(key).encode(), None
        for digest, grant in self._grants:
            if hmac.compare_digest(sent, digest):
                found = grant
        return found


def _grant(key: KeyGrant, tenant: str) -> Grant:
    return Grant(name=key.name, tenant=key.tenant or tenant, roles=key.roles)


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


class KeyGate:
    """Lets requests with a right key through and binds them to its tenant and roles.

    Without a key everyone may call, except web pages of other origins: a browser would let any
    page post to a server on the loopback address.
    """

    def __init__(
        self, app: ASGIApp, *, keyring: Keyring, tenant: str, origins: Iterable[str] = ()
    ) -> None:
        """Stand before *app*.

        Args:
            app: What is protected.
            keyring: The keys that are accepted.
            tenant: Whose register applies to probes from this machine that send no key.
            origins: Whose web pages may call though no key is asked for.
        """
        self._origins = frozenset(origins)
        self._app = app
        self._keyring = keyring
        self._probe = Grant(name=OPEN, tenant=tenant, roles=frozenset({"service"}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or raise."""
        if scope["type"] == "http":
            grant = self._admit(scope)
            scope.setdefault("state", {}).update(grant=grant, tenant=grant.tenant)
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> Grant:
        headers = Headers(scope=scope)
        if self._keyring.open is not None:
            _refuse_foreign(headers, self._origins)
            return self._keyring.open
        if scope["path"] in PROBES and is_loopback((scope.get("client") or ("",))[0]):
            return self._probe
        grant = self._holder(headers)
        # As the router reads it: of an application mounted in another, the rest of the path.
        if wanted := lacking(grant.roles, scope["method"], route_path(scope)):
            raise RoleError(wanted)
        return grant

    def _holder(self, headers: Headers) -> Grant:
        sent = _sent_key(headers)
        if sent is None:
            raise AuthenticationError("no key was sent; send 'Authorization: Bearer KEY'")
        grant = self._keyring.holder(sent)
        if grant is None:
            raise AuthenticationError("the key that was sent is none of the server's")
        return grant


def route_path(scope: Scope) -> str:
    """Return the path behind where the application is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


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
    # Azure's clients send the second, LiteLLM's guardrails the third.
    sent = key or headers.get("api-key", "") or headers.get("x-api-key", "")
    return sent.encode("latin-1") or None


def _refuse_foreign(headers: Headers, allowed: frozenset[str]) -> None:
    origin = headers.get("origin")
    if origin is None or origin in allowed:
        return
    host = urlsplit(origin).hostname or ""
    if not is_loopback(host) and host != urlsplit("//" + headers.get("host", "")).hostname:
        raise OriginError("web pages of other origins may not call a server that asks for no key")
