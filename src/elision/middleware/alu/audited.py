"""An engine whose replies agents audit, so that the guards can stand before it as before any."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from elision.contract import Capability, Delta, Engine, Lexicon, Plan

if TYPE_CHECKING:
    from elision.middleware.alu.alu import Alu
    from elision.middleware.enforcement import Enforcement
    from elision.middleware.profiles import Profile


class Audited:
    """Speaks text: what the agents made of an engine's draft. Lives for one request.

    Args:
        engine: Plays all roles; it stays the caller's.
        alu: See `Alu`.
        rules: What is enforced.
        profile: The request's.

    Attributes:
        name: The engine's and the profile's: what is lacking here the engine may have.
        capabilities: None: a reply that was audited is not continued.
        lexicon: None.
    """

    def __init__(self, engine: Engine, alu: Alu, rules: Enforcement, profile: Profile) -> None:
        self.name = f"{engine.name}@{profile.name}"
        self.capabilities = Capability.NONE
        self.lexicon: Lexicon | None = None
        self._engine = engine
        self._alu = alu
        self._rules = rules
        self._profile = profile

    def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        """See `Alu.run`."""
        return self._alu.run(self._engine, plan.request, self._rules, profile=self._profile)

    async def aclose(self) -> None:
        """Do nothing."""
