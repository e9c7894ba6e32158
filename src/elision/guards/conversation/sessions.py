"""Where a conversation stands between its requests: automaton states by session, never text."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from elision.contract import Epoch
    from elision.guards.conversation.accumulator import Accumulator, Turns

MOST_SESSIONS: Final = 10_000
"""Per store; the one that was saved longest ago goes first."""


class SessionStore:
    """What the earlier replies of each ``elision.session`` come to, for an hour.

    Kept in this process only. A session belongs to its tenant: the same name under another tenant
    is another session. What was compiled for an older epoch is dropped.

    Args:
        ttl_s: Seconds after its last reply at which a session is forgotten.
        limit: Most sessions kept.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        *,
        ttl_s: float = 3600.0,
        limit: int = MOST_SESSIONS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl_s = ttl_s
        self._limit = limit
        self._clock = clock
        self._kept: OrderedDict[tuple[str, bytes], tuple[float, Turns]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        """Return how many sessions are kept, those that are over left out."""
        with self._lock:
            self._forget()
            return len(self._kept)

    def load(self, tenant: str, session: str, epoch: Epoch) -> Turns | None:
        """Return what was saved for *session*; None if nothing was, it is over, or out of date."""
        key = _key(tenant, session)
        with self._lock:
            self._forget()
            _, turns = self._kept.get(key, (0.0, None))
            if turns is not None and turns.epoch != epoch:
                del self._kept[key]
                return None
            return turns

    def save(self, tenant: str, session: str, accumulator: Accumulator, text: str) -> None:
        """Add a reply to *session*: *text* is what of it really left.

        Two requests of one session that end beside each other are both added. A session of an
        older epoch begins anew; one of a newer epoch is left as it is.
        """
        key = _key(tenant, session)
        with self._lock:
            self._forget()
            _, before = self._kept.pop(key, (0.0, accumulator.nothing))
            if before.epoch < accumulator.epoch:
                before = accumulator.nothing
            if before.epoch == accumulator.epoch:
                before = accumulator.after(before, text)
            self._kept[key] = (self._clock() + self._ttl_s, before)
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)

    def erase(self, tenant: str) -> int:
        """Drop every session of *tenant*; return how many."""
        with self._lock:
            own = [key for key in self._kept if key[0] == tenant]
            for key in own:
                del self._kept[key]
            return len(own)

    def _forget(self) -> None:
        now = self._clock()
        while self._kept and next(iter(self._kept.values()))[0] <= now:
            self._kept.popitem(last=False)


def _key(tenant: str, session: str) -> tuple[str, bytes]:
    # A digest: a session's name may be the caller's e-mail address, and of any length.
    return tenant, sha256(session.encode("utf-8", "surrogatepass")).digest()
