"""Responses that have left, kept in this process for a while so that others may go on from them."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import orjson

from elision.errors import NotFoundError

if TYPE_CHECKING:
    from elision.middleware.gateway.responses.items import Item

LIMIT_BYTES: Final = 64 << 20
"""Most bytes that are kept for a tenant; our own bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One response as it is kept.

    Attributes:
        id: Its id.
        tenant: Whose it is.
        key: Name of the key it was made with.
        epoch: The tenant's epoch that its output was guarded under.
        engine: Who wrote it.
        previous: The response that it went on from; None: none.
        given: What the caller put in, as JSON: a list of items.
        body: The response itself, as JSON.
        given_ids: The ids of the items put in, in order.
        said_ids: The ids of the items put out, in order.
    """

    id: str
    tenant: str
    key: str
    epoch: int
    engine: str
    previous: str | None = None
    given: bytes = field(repr=False)
    body: bytes = field(repr=False)
    given_ids: tuple[str, ...] = field(default=(), repr=False)
    said_ids: tuple[str, ...] = field(default=(), repr=False)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all its items; the place of one here is the item's own."""
        return self.given_ids + self.said_ids

    @property
    def n_bytes(self) -> int:
        """What it holds."""
        return len(self.given) + len(self.body)

    def inputs(self) -> list[Item]:
        """Return what the caller put in."""
        found: list[Item] = orjson.loads(self.given)
        return found

    def response(self) -> dict[str, Any]:
        """Return the response."""
        found: dict[str, Any] = orjson.loads(self.body)
        return found

    def items(self, places: Sequence[int]) -> list[Item]:
        """Return the items at *places* of `ids`; what is not asked for is not read."""
        n_given = len(self.given_ids)
        given = self.inputs() if any(n < n_given for n in places) else []
        said = self.response()["output"] if any(n >= n_given for n in places) else []
        return [given[n] if n < n_given else said[n - n_given] for n in places]


class _Shelf:
    """What is kept for one tenant, that which was asked for last at the end."""

    def __init__(self) -> None:
        self.entries: OrderedDict[str, tuple[float, Entry]] = OrderedDict()
        self.owners: dict[str, dict[str, None]] = {}  # the first that had an item comes first
        self.n_bytes = 0

    def put(self, entry: Entry, until: float) -> None:
        self.drop(entry.id)
        self.entries[entry.id] = until, entry
        self.n_bytes += entry.n_bytes
        for item_id in entry.ids:
            self.owners.setdefault(item_id, {})[entry.id] = None

    def drop(self, response_id: str) -> bool:
        _, entry = self.entries.pop(response_id, (0.0, None))
        if entry is None:
            return False
        self.n_bytes -= entry.n_bytes
        for item_id in {*entry.ids}:
            del self.owners[item_id][response_id]
            if not self.owners[item_id]:
                del self.owners[item_id]
        return True


class Kept:
    """The responses of every tenant: each has a shelf of its own, bounded in number, size and time.

    Another tenant's response is not there. What is full lets that go which nobody has asked for
    longest. Nothing is written anywhere: a process keeps its own, and they end with it.

    Args:
        limit: Most responses of a tenant; 0 keeps none.
        ttl_s: Seconds after it was last asked for at which a response is forgotten.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        *,
        limit: int,
        ttl_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._ttl_s = ttl_s
        self._clock = clock
        self._shelves: dict[str, _Shelf] = {}
        self._erasures: Counter[str] = Counter()
        self._lock = Lock()

    @property
    def keeps(self) -> bool:
        """Whether anything is kept at all."""
        return self._limit > 0

    def __len__(self) -> int:
        """Return how many responses are kept, those whose time is over left out."""
        with self._lock:
            return sum(len(self._shelf(tenant).entries) for tenant in tuple(self._shelves))

    def erasures(self, tenant: str) -> int:
        """Return how often *tenant* has been erased: asked for when a request begins."""
        with self._lock:
            return self._erasures[tenant]

    def keep(self, entry: Entry, *, since: int) -> None:
        """Keep *entry*; of one that is larger than its whole shelf, nothing.

        Args:
            entry: What has left.
            since: What `erasures` said when its request began. What was begun before the last
                erasure is not kept: it would outlive it.
        """
        if not self.keeps or entry.n_bytes > LIMIT_BYTES:
            return
        with self._lock:
            if since != self._erasures[entry.tenant]:
                return
            shelf = self._shelf(entry.tenant)
            shelf.put(entry, self._clock() + self._ttl_s)
            while len(shelf.entries) > self._limit or shelf.n_bytes > LIMIT_BYTES:
                shelf.drop(next(iter(shelf.entries)))

    def find(self, tenant: str, response_id: str) -> Entry:
        """Return a response of *tenant*'s.

        Raises:
            NotFoundError: If there is none of that id, or it is forgotten.
        """
        with self._lock:
            if (entry := self._touched(tenant, response_id)) is None:
                raise NotFoundError(
                    "there is no response of that id, or it is no longer kept",
                    code="response_not_found",
                )
            return entry

    def chain(self, tenant: str, response_id: str) -> tuple[Entry, ...]:
        """Return a response and those that it goes on from, the first one first.

        Raises:
            NotFoundError: If one of them is not there any more.
        """
        found: list[Entry] = []
        wanted: str | None = response_id
        with self._lock:
            while wanted is not None:
                if (entry := self._touched(tenant, wanted)) is None:
                    raise NotFoundError(
                        "there is no previous response of that id, or it, or one before it, is no "
                        "longer kept; send the whole conversation as 'input'",
                        code="previous_response_not_found",
                        param="previous_response_id",
                    )
                found.append(entry)
                wanted = entry.previous
        return tuple(reversed(found))

    def owner(self, tenant: str, item_id: str) -> Entry | None:
        """Return the response that first had an item of that id; None if there is none."""
        with self._lock:
            owners = self._shelf(tenant).owners.get(item_id)
            return self._touched(tenant, next(iter(owners))) if owners else None

    def drop(self, tenant: str, response_id: str) -> None:
        """Forget a response.

        Raises:
            NotFoundError: If there is none of that id.
        """
        self.find(tenant, response_id)
        with self._lock:
            self._shelf(tenant).drop(response_id)

    def erase(self, tenant: str, *, texts: Sequence[str] | None = None) -> int:
        """Drop every response of *tenant*, whatever *texts* say; return how many there were.

        Those that are still being written will not be kept.
        """
        with self._lock:
            self._erasures[tenant] += 1
            n_kept = len(self._shelf(tenant).entries)
            self._shelves.pop(tenant, None)
            return n_kept

    def _touched(self, tenant: str, response_id: str) -> Entry | None:
        entries = self._shelf(tenant).entries
        _, entry = entries.pop(response_id, (0.0, None))
        if entry is not None:
            entries[response_id] = self._clock() + self._ttl_s, entry
        return entry

    def _shelf(self, tenant: str) -> _Shelf:
        """Return a tenant's shelf, without what is over."""
        shelf, now = self._shelves.setdefault(tenant, _Shelf()), self._clock()
        while shelf.entries:
            first, (until, _) = next(iter(shelf.entries.items()))
            if until > now:
                break
            shelf.drop(first)
        return shelf
