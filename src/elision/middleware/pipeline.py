"""The only way from a request to a stream.

Gateway, SDK, command line and framework adapters all call `Pipeline.run`, so no way in is guarded
less than another.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from elision.contract import Capability, Delta, Engine, Plan, Request, in_order
from elision.errors import CapabilityError, ElisionError, GuardError, NotFoundError
from elision.guards.guard import Guard
from elision.middleware.guarding import Guards, guard_recipes, held_back
from elision.middleware.profiles import PROFILES, Profile, profile_named, sampling_recipes

if TYPE_CHECKING:
    from elision.guards.register import Register

_audit = logging.getLogger("elision.audit")

REFUSAL = "I can't help with that."
"""What a refused choice says if nothing of it has left yet."""


class Pipeline:
    """Engines, a register and the profiles, behind one method.

    Args:
        engines: By alias.
        register: The forget register.
        profile: Used by requests that name none.
        tenant: Whose register applies to calls that name none.
        timeout_s: Deadline of requests that name none, in seconds.
    """

    def __init__(
        self,
        *,
        engines: Mapping[str, Engine],
        register: Register,
        profile: str = "guarded",
        tenant: str = "default",
        timeout_s: float = 600.0,
    ) -> None:
        self.register = register
        self.profile = profile_named(profile).name
        self.tenant = tenant
        self._timeout_s = timeout_s
        self._engines = dict(engines)
        self._guards = Guards(register)
        self._closed = False

    @property
    def ready(self) -> bool:
        """Whether requests can be served."""
        return bool(self._engines) and not self._closed

    def models(self) -> tuple[str, ...]:
        """Return every model id: each alias alone, and with each profile."""
        return tuple(
            model
            for alias in self._engines
            for model in (alias, *(f"{alias}@{profile}" for profile in PROFILES))
        )

    def stats(self) -> Mapping[str, float]:
        """Return the engines' gauges, summed."""
        total: dict[str, float] = {}
        for engine in self._engines.values():
            for key, value in getattr(engine, "stats", dict)().items():
                total[key] = total.get(key, 0.0) + value
        return total

    async def run(
        self, request: Request, *, profile: str | None = None, tenant: str | None = None
    ) -> AsyncGenerator[Delta, None]:
        """Yield the guarded reply to *request*.

        Args:
            request: What is asked; ``model`` is ``ALIAS`` or ``ALIAS@PROFILE``.
            profile: Profile if the model names none; then the request's ``elision`` object's,
                then the default.
            tenant: Whose register applies; None takes the pipeline's.

        Raises:
            NotFoundError: If there is no such model or profile. This and every other error that
                concerns the whole request comes before the first delta.
            BusyError: If the engine's queue is full.
            RequestError: If the engine cannot serve the request.
            GuardError: If a guard breaks; the reply ends there.
        """
        tenant = self.tenant if tenant is None else tenant
        engine, chosen = self._resolve(request, profile)
        request = chosen.fill(request)
        request = replace(request, timeout_s=request.timeout_s or self._timeout_s)
        guard = await self._guard(tenant)
        began = time.monotonic()
        deltas = await self._start(engine, chosen, request, guard, tenant)
        outcome = "abandoned"
        try:
            async with aclosing(deltas) as source:
                async for delta in source:
                    yield _reported(delta, chosen, guard)
            outcome = "finished"
        except ElisionError as exc:
            outcome = type(exc).__name__
            raise
        finally:
            _audit.info(
                "request tenant=%s profile=%s engine=%s epoch=%d targets=%d outcome=%s ms=%.0f",
                tenant, chosen.name, engine.name, guard.epoch, guard.n_targets, outcome,
                (time.monotonic() - began) * 1e3,
            )  # fmt: skip

    def _resolve(self, request: Request, profile: str | None) -> tuple[Engine, Profile]:
        alias, _, named = request.model.rpartition("@")
        if request.model in self._engines or not alias:
            alias, named = request.model, ""
        if not alias and len(self._engines) == 1:
            alias = next(iter(self._engines))
        if alias not in self._engines:
            known = ", ".join(self._engines)
            raise NotFoundError(
                f"there is no model {alias[:128]!r}; there are: {known}",
                code="model_not_found",
                param="model",
            )
        wanted = named or profile or request.options.get("profile") or self.profile
        return self._engines[alias], profile_named(str(wanted))

    async def _guard(self, tenant: str) -> Guard:
        try:
            return await self._guards.current(tenant)
        except ElisionError:
            raise
        except Exception as exc:  # whatever broke, nothing passes an unread register
            raise GuardError(f"the register could not be read ({type(exc).__name__})") from exc

    async def _start(
        self, engine: Engine, profile: Profile, request: Request, guard: Guard, tenant: str
    ) -> AsyncGenerator[Delta, None]:
        plan = Plan(request=request, tenant=tenant, epoch=guard.epoch, refusal=REFUSAL)
        if engine.lexicon is not None and Capability.LOGITS in engine.capabilities:
            own = (*profile.recipes(), *sampling_recipes(request.sampling))
            recipes = in_order((*own, *await guard_recipes(guard, engine.lexicon)))
            return engine.stream(replace(plan, recipes=recipes))
        if profile.recipes():
            raise CapabilityError(
                f"profile {profile.name}", engine=engine.name, missing="LOGITS", param="model"
            )
        return held_back(engine.stream(plan), guard, request, refusal=REFUSAL)

    async def aclose(self) -> None:
        """Close every engine and the register. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for engine in self._engines.values():
            await engine.aclose()
        self.register.close()


def _reported(delta: Delta, profile: Profile, guard: Guard) -> Delta:
    if delta.report is None:
        return delta
    report: dict[str, Any] = {
        "profile": profile.name,
        "epoch": guard.epoch,
        "n_targets": guard.n_targets,
        **delta.report,
    }
    return replace(delta, report=report)
