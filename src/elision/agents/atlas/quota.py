"""How many tokens of a day a scope may spend on learning."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Final

from elision.errors import ConfigError
from elision.memory.records import Scope

DAILY_TOKENS: Final = 50_000
_DAY_S: Final = 86_400
_MOST_SCOPES: Final = 10_000


class DailyQuota:
    """Counts what each scope spends from midnight to midnight, UTC; lives with its process.

    Thread-safe. A restart starts the day again: `spend` what the ledger says was spent to prevent
    it.

    Args:
        tokens: Most of one scope and day; a call that was begun is finished, so the last one may
            exceed it.
        clock: Seconds since 1970.

    Attributes:
        n_skipped: How often a scope was told to wait.
    """

    def __init__(
        self, tokens: int = DAILY_TOKENS, *, clock: Callable[[], float] = time.time
    ) -> None:
        if tokens < 0:
            raise ConfigError(f"a quota of {tokens} tokens is none")
        self.tokens = tokens
        self.n_skipped = 0
        self._clock = clock
        self._day = 0
        self._spent: MutableMapping[Scope, int] = {}
        self._lock = threading.Lock()

    def left(self, scope: Scope) -> int:
        """Return how many tokens *scope* may still spend today; never negative."""
        with self._lock:
            self._turn()
            return max(0, self.tokens - self._spent.get(scope, 0))

    def allows(self, scope: Scope) -> bool:
        """Return whether *scope* may spend anything; a refusal is counted."""
        allowed = self.left(scope) > 0
        if not allowed:
            with self._lock:
                self.n_skipped += 1
        return allowed

    def spend(self, scope: Scope, tokens: int) -> None:
        """Note that *scope* spent *tokens*."""
        with self._lock:
            self._turn()
            self._spent[scope] = self._spent.get(scope, 0) + tokens

    def _turn(self) -> None:
        """Begin a new day; or forget the day where so many scopes would fill the memory."""
        day = int(self._clock() // _DAY_S)
        if day != self._day or len(self._spent) >= _MOST_SCOPES:
            self._day = day
            self._spent.clear()
