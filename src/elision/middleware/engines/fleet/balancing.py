"""Which replica takes a request: the one that knows the conversation, unless it has more to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Final, Protocol, TypeVar

from elision.contract import Request, text_of

_SPARE: Final = 4.0
"""Requests per unit of weight that a replica may be ahead of the idlest and still keep its
conversations: about what a prefix in its cache saves. Our own."""
_AHEAD: Final = 1.5
"""Factor, likewise."""
_CHARS: Final = 1024
"""Of a conversation's beginning that tell it from others."""
_IDS: Final = 256


class Weighted(Protocol):
    """A replica, as far as its share of the load goes."""

    @property
    def base_url(self) -> str:
        """Its address."""
        ...

    @property
    def weight(self) -> float:
        """Its share; 0 takes no new requests."""
        ...

    @property
    def n_open(self) -> int:
        """Requests that it is working on for us."""
        ...

    @property
    def is_healthy(self) -> bool:
        """Whether it answered when it was last asked."""
        ...


R = TypeVar("R", bound=Weighted)


def ranked(replicas: Iterable[R], conversation: bytes) -> tuple[R, ...]:
    """Return the replicas that may be asked, in the order in which to try them.

    First the one that *conversation* belongs to, unless it is much more loaded than the idlest;
    then by load. Those that did not answer lately come last. A weight of 0 drains: left out.
    """
    found = [replica for replica in replicas if replica.weight > 0]
    by_load = sorted(found, key=lambda one: (load(one), -affinity(one, conversation)))
    order = [one for one in by_load if one.is_healthy]
    if (home := _home(order, conversation)) is not None:
        order.remove(home)
        order.insert(0, home)
    return (*order, *(one for one in by_load if not one.is_healthy))


def tried_first(replicas: Iterable[R], is_tried: Callable[[R], bool]) -> tuple[R, ...]:
    """Return *replicas*, those that must be tried before they can take a request behind others.

    A trial takes seconds, or a minute where a server hangs; it is made in the background.
    """
    return tuple(sorted(replicas, key=lambda one: (not one.is_healthy, not is_tried(one))))


def load(replica: Weighted) -> float:
    """Return what *replica* would have to do per unit of weight, with one request more."""
    return (replica.n_open + 1) / replica.weight


def affinity(replica: Weighted, conversation: bytes) -> float:
    r"""Return how strongly a conversation belongs to *replica*: :math:`-w / \ln h`.

    With *h* a hash in (0, 1) of both. A replica that comes or goes moves only its own share.

    Source:
        Schindelhauer and Schomaker 2005, weighted rendezvous hashing (the logarithmic method).
    """
    data = blake2b(replica.base_url.encode(), key=conversation[:64], digest_size=8).digest()
    h = (int.from_bytes(data, "big") + 0.5) / 2**64
    return -replica.weight / math.log(h)


def conversation_of(request: Request, tenant: str, key: bytes) -> bytes:
    """Return what tells a conversation from others, under *key*: it says nothing of its words.

    It stays the same while turns are added: what counts is the tenant and the beginning, up to
    the first user's turn.
    """
    told = blake2b(key=key, digest_size=32)
    for part in (tenant, *_beginning(request)):
        data = part.encode("utf-8", "surrogatepass")
        told.update(len(data).to_bytes(8, "big") + data)
    return told.digest()


def _beginning(request: Request) -> Iterable[str]:
    if request.kind == "text":
        prompt = request.prompt
        ids = prompt if not isinstance(prompt, str) else ()
        yield prompt[:_CHARS] if isinstance(prompt, str) else ",".join(map(str, ids[:_IDS]))
        return
    for message in request.messages:
        yield text_of(message)[:_CHARS]
        if message.get("role") == "user":
            return


def _home(replicas: Sequence[R], conversation: bytes) -> R | None:
    if not replicas:
        return None
    home = max(replicas, key=lambda one: affinity(one, conversation))
    least = min(map(load, replicas))
    return home if load(home) <= least * _AHEAD + _SPARE / home.weight else None
