"""Budgets: counted in memory, so that a request costs no write, and kept in the ledger."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from elision.errors import StoreError
from elision.middleware.gateway.limits.ledger import Entry, Ledger

Period: TypeAlias = Literal["day", "month", "total"]

SAVE_S: Final = 0.5
"""How long what was spent may wait for the disk; a process that is killed forgets as much."""

FRESH_S: Final = 5.0
"""How old the knowledge of what other processes have spent may be."""

_FORMATS: Final = {"day": "%Y-%m-%d", "month": "%Y-%m", "total": "total"}
_log = logging.getLogger("elision.gateway")


def period_name(period: Period, now: float) -> str:
    """Return what the ledger calls the period that holds *now*, seconds since 1970."""
    return datetime.fromtimestamp(now, UTC).strftime(_FORMATS[period])


class Account:
    """One key's budget. Belongs to one event loop, as all of this does.

    What is spent is what the ledger was last seen to hold, and what is on its way there; what is
    held is promised to requests that are being answered.

    Attributes:
        budget: Tokens a period.
        period: How long one is.
    """

    def __init__(self, books: Books, tenant: str, key: str, budget: int, period: Period) -> None:
        """Open the account of a *key*; `refresh` must follow before anything is taken."""
        self.budget = budget
        self.period: Period = period
        self._books = books
        self._whose = (tenant, key)
        self._held = 0
        self._known: tuple[Entry, int] | None = None
        self._read_at = 0.0

    @property
    def entry(self) -> Entry:
        """Where in the ledger it is counted now."""
        return (*self._whose, period_name(self.period, self._books.now()))

    @property
    def left(self) -> int:
        """What neither is spent nor promised; below 0 if more was used than promised."""
        entry, known = self._known or (self.entry, 0)
        return self.budget - known - self._books.on_the_way(entry) - self._held

    async def refresh(self) -> None:
        """Learn what was spent, unless that is known and fresh.

        Raises:
            StoreError: If the ledger cannot be read: who knows no balance gives no credit.
        """
        entry, now = self.entry, time.monotonic()
        if self._known is None or self._known[0] != entry or now - self._read_at > FRESH_S:
            self.learn(entry, await self._books.read(entry))

    def learn(self, entry: Entry, total: int) -> None:
        """Take note of what the ledger holds, if it is about the period that counts."""
        if entry == self.entry:
            self._known, self._read_at = (entry, total), time.monotonic()

    def hold(self, n: int) -> bool:
        """Promise *n* tokens to a request; return whether they were there."""
        if n > self.left:
            return False
        self._held += n
        return True

    def settle(self, held: int, used: int) -> None:
        """Take a promise back and count what was used instead."""
        self._held -= held
        if used:
            self._books.spend(self, used)


class Books:
    """All accounts of one process, and the task that brings them to the ledger.

    Args:
        ledger: Closed with this.
        clock: Seconds since 1970.
    """

    def __init__(self, ledger: Ledger, *, clock: Callable[[], float] = time.time) -> None:
        self.now = clock
        self._ledger = ledger
        self._accounts: dict[tuple[str, str], Account] = {}
        self._waiting: Counter[Entry] = Counter()
        self._saving: Counter[Entry] = Counter()
        self._turn = asyncio.Lock()  # a total read while one is being written might hold it twice
        self._saver: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def open(self, tenant: str, key: str, budget: int, period: Period) -> Account:
        """Return the account of a key."""
        account = Account(self, tenant, key, budget, period)
        self._accounts[tenant, key] = account
        return account

    def on_the_way(self, entry: Entry) -> int:
        """Return what was spent and is not known to be in the ledger."""
        return self._waiting[entry] + self._saving[entry]

    async def read(self, entry: Entry) -> int:
        """Return what the ledger holds."""
        async with self._turn:
            return await asyncio.to_thread(self._ledger.spent, entry)

    def spend(self, account: Account, n: int) -> None:
        """Count what was used, and see that it comes to the ledger."""
        self._waiting[account.entry] += n
        if self._saver is None or self._saver.done():
            self._saver = asyncio.get_running_loop().create_task(self._keep_saving())

    async def save(self) -> None:
        """Bring everything to the ledger now.

        Raises:
            StoreError: If it cannot be written; what was to be written waits on.
        """
        async with self._turn:
            self._saving, self._waiting = self._waiting, Counter()
            try:
                if self._saving:
                    totals = await asyncio.to_thread(self._ledger.add, dict(self._saving))
                    self._tell(totals)
            except BaseException:
                self._waiting.update(self._saving)
                raise
            finally:
                self._saving = Counter()

    async def aclose(self) -> None:
        """Save, and close the ledger. Idempotent."""
        self._closing.set()  # not cancelled: a write that is under way would be made twice
        if self._saver is not None:
            await self._saver
        try:
            await self.save()
        except StoreError:
            _log.error("budgets could not be saved: %d tokens", self._waiting.total())
        await asyncio.to_thread(self._ledger.close)

    def _tell(self, totals: dict[Entry, int]) -> None:
        for entry, total in totals.items():
            self._accounts[entry[:2]].learn(entry, total)

    async def _keep_saving(self) -> None:
        while self._waiting and not self._closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), SAVE_S)
            try:
                await self.save()
            except StoreError as exc:
                _log.warning("budgets could not be saved, to be tried again: %s", exc)
