"""What one key may still use, and how that is told in headers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, Self

from elision.middleware.gateway.auth import OPEN
from elision.middleware.gateway.limits.bucket import Bucket
from elision.middleware.gateway.limits.budgets import Account, Books
from elision.middleware.gateway.limits.errors import QuotaError, RateLimitError
from elision.middleware.gateway.limits.ledger import Ledger
from elision.settings import SINGLE_KEY

if TYPE_CHECKING:
    from elision.limits import Limits
    from elision.settings import Settings

PREFIX = b"x-ratelimit-"
"""How the names of these headers begin."""


class Allowance:
    """What a key may use of requests, tokens and its budget. Belongs to one event loop.

    Args:
        limits: See `Limits`.
        account: The budget's, if there is one.
        clock: Nanoseconds that never go back.
    """

    __slots__ = ("_requests", "_tokens", "account")

    def __init__(
        self,
        limits: Limits,
        account: Account | None = None,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._requests = _bucket(limits.requests_per_minute, clock)
        self._tokens = _bucket(limits.tokens_per_minute, clock)
        self.account = account

    @property
    def counts_tokens(self) -> bool:
        """Whether it matters how long a reply is."""
        return self._tokens is not None or self.account is not None

    def admit(self) -> None:
        """Take one request.

        Raises:
            RateLimitError: If none is left this minute.
        """
        if self._requests is not None and not self._requests.take(1):
            raise _too_many("requests", self._requests, 1)

    def hold(self, n: int, *, at_least: int) -> int:
        """Promise tokens to a request; return how many: *n*, or less if that is all there ever is.

        Args:
            n: Wanted.
            at_least: The part of them that the request named itself.

        Raises:
            RateLimitError: If they are not there this minute.
            QuotaError: If they are not left of the budget.
        """
        n = max(at_least, min([n, *self._ceilings()]))
        account, tokens = self.account, self._tokens
        if account is not None and not account.hold(n):
            left, period = account.left, account.period
            raise QuotaError(budget=account.budget, period=period, left=left, asked=n)
        if tokens is not None and not tokens.take(n):
            if account is not None:
                account.settle(n, 0)
            raise _too_many("tokens", tokens, n)
        return n

    def settle(self, held: int, used: int) -> None:
        """Take back what was promised and not used; what was used beyond it is owed."""
        if self.account is not None:
            self.account.settle(held, used)
        if self._tokens is not None and used != held:
            give, owe = self._tokens.give, self._tokens.owe
            give(held - used) if used < held else owe(used - held)

    def headers(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield OpenAI's headers: limit, what is left of it, and when it is whole again."""
        for name, bucket in ((b"requests", self._requests), (b"tokens", self._tokens)):
            if bucket is not None:
                yield PREFIX + b"limit-" + name, b"%d" % bucket.limit
                yield PREFIX + b"remaining-" + name, b"%d" % bucket.left
                whole = duration(bucket.wait_ns(bucket.limit))
                yield PREFIX + b"reset-" + name, whole.encode()

    def _ceilings(self) -> Iterator[int]:
        if self._tokens is not None:
            yield self._tokens.limit
        if self.account is not None:
            yield max(1, self.account.left)


def _bucket(per_minute: int | None, clock: Callable[[], int]) -> Bucket | None:
    return None if per_minute is None else Bucket(per_minute, clock=clock)


def _too_many(kind: Literal["requests", "tokens"], bucket: Bucket, n: int) -> RateLimitError:
    wait_ns = bucket.wait_ns(n) if n <= bucket.limit else None
    return RateLimitError(kind, limit=bucket.limit, asked=n, left=bucket.left, wait_ns=wait_ns)


def duration(ns: int) -> str:
    """Return a time as OpenAI's headers write it: ``20ms``, ``1.5s``, ``6m0s``, ``1h0m0s``.

    In whole milliseconds, rounded up: who waits as long has waited long enough.
    """
    ms = -(-ns // 1_000_000)
    if ms < 1000:
        return f"{ms}ms" if ms else "0s"
    minutes, rest_ms = divmod(ms, 60_000)
    seconds = f"{rest_ms // 1000}" + f".{rest_ms % 1000:03d}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


class Allowances:
    """Those of all keys, by name; as many as the settings name, so nobody can make them grow.

    Args:
        by_key: Of keys without a limit there is none.
        books: Where budgets are kept; closed with this.
    """

    def __init__(self, by_key: Mapping[str, Allowance], books: Books | None = None) -> None:
        self._by_key = by_key
        self._books = books

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return what *settings* allow; opens the ledger if a key has a budget.

        Raises:
            ConfigError: If the ledger cannot be opened.
            MissingExtraError: As in `Ledger`.
        """
        granted = _granted(settings)
        budgeted = any(limits.token_budget for _, limits in granted.values())
        books = Books(Ledger.of(settings)) if budgeted else None
        return cls(
            {
                name: Allowance(limits, _account(books, tenant, name, limits))
                for name, (tenant, limits) in granted.items()
                if not limits.is_none
            },
            books,
        )

    def __getitem__(self, key: str) -> Allowance | None:
        """Return what the key of a name may use; None: whatever it likes."""
        return self._by_key.get(key)

    async def aclose(self) -> None:
        """Keep what was spent, and let go of the ledger. Idempotent."""
        if self._books is not None:
            await self._books.aclose()


def _granted(settings: Settings) -> dict[str, tuple[str, Limits]]:
    default = settings.limits
    granted = {
        grant.name: (grant.tenant or settings.tenant, grant.limits.over(default))
        for grant in settings.keys
    }
    if settings.api_key is not None:
        granted[SINGLE_KEY] = (settings.tenant, default)
    return granted or {OPEN: (settings.tenant, default)}


def _account(books: Books | None, tenant: str, key: str, limits: Limits) -> Account | None:
    if books is None or limits.token_budget is None:
        return None
    return books.open(tenant, key, limits.token_budget, limits.budget_period)
