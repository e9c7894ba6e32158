"""The guard-paper profile: its gate is fitted on the served model, between other requests."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from elision.contract import Capability, Engine, Request
from elision.errors import CapabilityError
from elision.guards.baselines.paper import PaperGuard

if TYPE_CHECKING:
    from elision.middleware.enforcement import Enforcement
    from elision.middleware.engines.local import LocalEngine

MAX_FITTED = 8
"""Fitted guards kept; the least recently used goes first."""


class Borrowed:
    """A model seen from another thread: every call is a turn on the engine's own.

    Args:
        engine: The engine that owns it.
    """

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self.name = engine.name
        self.device = engine.borrow(lambda model: model.device).result()
        self.model: Any = self
        self.tokenizer: Any = _BorrowedTokenizer(engine)

    def __call__(self, **given: Any) -> Any:
        """Run the model."""
        return self._engine.borrow(lambda model: model.model(**given)).result()

    def render(self, request: Request) -> Any:
        """Return *request*'s prompt as tokens."""
        return self._engine.borrow(lambda model: model.render(request)).result()


class _BorrowedTokenizer:
    """Likewise its tokenizer, which does not bear two threads at once."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self.chat_template = engine.borrow(lambda model: model.tokenizer.chat_template).result()

    def __call__(self, *given: Any, **options: Any) -> Any:
        return self._engine.borrow(lambda model: model.tokenizer(*given, **options)).result()


class PaperGuards:
    """Fits GUARD as published when a request first asks for it, and anew when targets changed."""

    def __init__(self) -> None:
        self._fitted: OrderedDict[tuple[str, Enforcement], PaperGuard | None] = OrderedDict()
        self._lock = asyncio.Lock()

    def drop(self, tenant: str) -> int:
        """Forget what was fitted for *tenant*; return how many guards that were."""
        gone = [place for place in (*self._fitted,) if place[1].tenant == tenant]
        for place in gone:
            self._fitted.pop(place, None)
        return len(gone)

    async def current(self, engine: Engine, rules: Enforcement) -> PaperGuard | None:
        """Return the guard for *engine*; None if no target has both probes and answers.

        The first time takes a forward per probe and per general question; other requests have
        their turns between them.

        Raises:
            CapabilityError: If the engine is not a local one.
            GuardError: If there is no encoder.
        """
        if Capability.HIDDEN not in engine.capabilities:
            raise CapabilityError(
                "profile guard-paper", engine=engine.name, missing="HIDDEN", param="model"
            )
        place = engine.name, rules
        async with self._lock:
            fitted = self._fitted.pop(place, None)
            if fitted is None:
                fitted = await asyncio.to_thread(_fit, engine, rules)
            self._fitted[place] = fitted
            while len(self._fitted) > MAX_FITTED:
                self._fitted.popitem(last=False)
            return fitted


def _fit(engine: Any, rules: Enforcement) -> PaperGuard | None:
    whole = [t for t in rules.targets if t.probes and t.answers]
    if not whole:
        return None
    return PaperGuard.fit(Borrowed(engine), whole, encoder=rules.encoder(), tenant=rules.tenant)
