"""Where an upstream may be: its base URL, and the addresses that its host's name may lead to.

A name is judged by what it resolves to, in the act of connecting: the address that was judged is
the one that is connected to, so a name that answers otherwise the next time gains nothing.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urljoin, urlsplit

from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver
from pydantic import SecretStr

from elision.errors import ConfigError, UpstreamError

Address: TypeAlias = IPv4Address | IPv6Address

_METADATA: Final = frozenset(
    map(ip_address, ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"))
)
"""Where clouds tell a machine its secrets, beside 169.254/16: Azure, Alibaba, Oracle, AWS."""
_NAT64: Final = IPv6Network("64:ff9b::/96")
_PORTS: Final = {"http": 80, "https": 443}


class RefusedAddressError(OSError):
    """The upstream's name leads to no address that it may lead to."""


class PublicResolver(ThreadedResolver):
    """Resolves names to public addresses; ``localhost``, which says what it is, to its own."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of *host* that may be connected to.

        Raises:
            RefusedAddressError: If it has addresses, but none of these.
        """
        found = await super().resolve(host, port, family)
        allowed = [one for one in found if _may_lead(host, ip_address(one["host"]))]
        if found and not allowed:
            raise RefusedAddressError("the upstream's host name leads to a private address")
        return allowed


def is_public(address: Address) -> bool:
    """Return whether *address* is a machine on the public net, no matter how it is wrapped."""
    inner = _unwrapped(address)
    if inner.is_multicast or inner in _METADATA:
        return False
    return inner.is_global and not (isinstance(inner, IPv6Address) and inner.is_site_local)


def checked_url(url: str, *, private: bool = False) -> str:
    """Return the base URL *url*, without a slash at its end.

    Args:
        url: As the operator wrote it.
        private: Whether it may be a link-local or metadata address.

    Raises:
        ConfigError: If it cannot be used; it is not quoted, it may hold a secret.
    """
    parts = _split(url)
    if parts.username is not None or parts.password is not None:
        raise ConfigError("base_url holds a user name or password; pass the key as key=")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("base_url must begin with http:// or https:// and name a host")
    if parts.query or parts.fragment:
        raise ConfigError("base_url holds a query or a fragment; leave it out")
    if parts.hostname.replace(".", "").isdigit() and _address(parts.hostname) is None:
        raise ConfigError("base_url's host is neither a name nor an address of four numbers")
    if not private and _is_link_local(parts.hostname):
        raise ConfigError(
            "base_url is a link-local or metadata address; set upstream_private (private=True) "
            "if it is meant"
        )
    return url.rstrip("/")


def checked_key(key: str | SecretStr | None) -> SecretStr | None:
    """Return *key*, None if it is empty.

    Raises:
        ConfigError: If it cannot be a header; it is not quoted.
    """
    secret = key if isinstance(key, SecretStr) else SecretStr(key or "")
    text = secret.get_secret_value()
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ConfigError("the upstream's key holds spaces or characters beyond printable ASCII")
    return secret if text else None


def redirected(url: str, location: str) -> str:
    """Return where a redirect from *url* leads, if the key may go there: to the same host.

    The same port too, unless it leads from ``http`` to ``https`` with the ports of both.

    Raises:
        UpstreamError: If it leads elsewhere.
    """
    old, new = _split(url), _split(_joined(url, location))
    same = (old.scheme, old.hostname, _port(old)) == (new.scheme, new.hostname, _port(new))
    secured = (old.scheme, _port(old), new.scheme, _port(new)) == ("http", 80, "https", 443)
    if not same and not (secured and old.hostname == new.hostname):
        raise UpstreamError(
            "the upstream redirects to another host; nothing was sent there; set the base URL to "
            "its final address"
        )
    return new.geturl()


def _may_lead(host: str, address: Address) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return _unwrapped(address).is_loopback
    return is_public(address)


def _unwrapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address


def _is_link_local(host: str) -> bool:
    address = _address(host)
    return address is not None and (address.is_link_local or address in _METADATA)


def _address(host: str) -> Address | None:
    try:
        return _unwrapped(ip_address(host))
    except ValueError:
        return None


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


def _port(parts: SplitResult) -> int | None:
    return parts.port or _PORTS.get(parts.scheme)


def _split(url: str) -> SplitResult:
    """Return the parts of *url*; empty ones if its host or port is malformed."""
    try:
        parts = urlsplit(url)
        return parts if parts.port != 0 else urlsplit("")
    except ValueError:
        return urlsplit("")
