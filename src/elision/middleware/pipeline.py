"""The only way from a request to a stream.

Gateway, SDK, command line and framework adapters all call `Pipeline.run`, so no way in is guarded
less than another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from elision.agents.alu.config import AluConfig
from elision.contract import Carrying, Delta, Engine, Epoch, Erasable, Probing, Request
from elision.errors import ElisionError, GuardError, NotFoundError
from elision.guards.baselines.guardrail import with_guardrail
from elision.middleware.alu.alu import Alu
from elision.middleware.asks import check_asks, check_speaks
from elision.middleware.conversations import Conversations
from elision.middleware.embedding import Embeddings, no_model
from elision.middleware.enforcement import Enforcement
from elision.middleware.guarding import Guards
from elision.middleware.guiding import guidance_for
from elision.middleware.planning import Defence
from elision.middleware.profiles import PROFILES, FailMode, Profile, profile_named
from elision.middleware.starting import Starts, able

if TYPE_CHECKING:
    from elision.encoders import Encoder
    from elision.guards.register.register import Register
    from elision.middleware.agentic.agentic import Agentic
    from elision.middleware.encoding import EncoderSource

_audit = logging.getLogger("elision.audit")

_EVEN = frozenset({"profile", "engine", "epoch", "n_targets", "alu"})
"""What a report tells where nothing may show what is registered: what any request is told."""


class Pipeline:
    """Engines, a register and the profiles, behind one method.

    Args:
        engines: By alias.
        register: The forget register.
        profile: Used by requests that name none.
        tenant: Whose register applies to calls that name none.
        timeout_s: Deadline of requests that name none, in seconds.
        encoder: Where the sentence encoder comes from at first need; closed with the pipeline.
        fail_mode: See `Profile.fail_mode`.
        agentic: Works on requests of the profile ``agentic``; None: it is switched off.
        alu: How replies of the profiles ``alu`` and ``discreet`` are audited; None: by default.
    """

    def __init__(
        self,
        *,
        engines: Mapping[str, Engine],
        register: Register,
        profile: str = "guarded",
        tenant: str = "default",
        timeout_s: float = 600.0,
        encoder: EncoderSource | Encoder | None = None,
        fail_mode: FailMode = "closed",
        agentic: Agentic | None = None,
        alu: AluConfig | None = None,
    ) -> None:
        self.register = register
        self.profile = profile_named(profile).name
        self.tenant = tenant
        self.agentic = agentic
        self.timeout_s = timeout_s
        self._engines = dict(engines)
        self._encoder = encoder
        self.embeddings = Embeddings(encoder, register)
        asked = encoder if callable(encoder) else _same(encoder)
        self._guards = Guards(register, asked)
        self.conversations = Conversations()
        agents = Alu(alu or AluConfig(), commitment=register.commitment, encoder=asked)
        self._starts = Starts(timeout_s=timeout_s, alu=agents)
        self._fail_mode: FailMode = fail_mode
        self._n_weakened = 0
        self._closed = False

    @property
    def ready(self) -> bool:
        """Whether requests can be served."""
        return bool(self._engines) and not self._closed

    @property
    def engines(self) -> Mapping[str, Engine]:
        """What decodes, by alias."""
        return self._engines

    async def meet(self) -> None:
        """Have engines whose guards act elsewhere prove it now, before the first request."""
        for engine in self._engines.values():
            if isinstance(engine, Carrying) and isinstance(engine, Probing):
                await engine.probe()

    def models(self) -> tuple[str, ...]:
        """Return every model id: each alias alone, and with each profile."""
        return tuple(
            model
            for alias in self._engines
            for model in (alias, *(f"{alias}@{profile}" for profile in PROFILES))
        )

    def stats(self) -> Mapping[str, float]:
        """Return the engines' gauges, summed."""
        total: dict[str, float] = {"weakened_requests": self._n_weakened}
        for engine in self._engines.values():
            for key, value in getattr(engine, "stats", dict)().items():
                total[key] = total.get(key, 0.0) + value
        return total

    def erase(self, tenant: str, *, texts: Sequence[str] | None = None) -> int:
        """Drop what memory holds for *tenant*; return how many things. See `Erasable`.

        Compiled targets, vectors and sessions all go, whatever *texts* say; what is still needed
        is made anew.
        """
        vectors = self._encoder.erase(tenant) if isinstance(self._encoder, Erasable) else 0
        compiled = self._guards.drop(tenant) + self._starts.drop(tenant)
        return compiled + self.conversations.erase(tenant) + vectors + self.flush(tenant)

    def flush(self, tenant: str) -> int:
        """Drop what engines keep of *tenant*'s earlier replies; return how many things.

        Called when targets change: what was decoded under other targets is not used again.
        """
        engines = self._engines.values()
        return sum(e.erase(tenant) for e in engines if isinstance(e, Erasable))

    def resolve(self, request: Request, profile: str | None = None) -> tuple[Engine, Profile]:
        """Return the engine and the profile that *request* names; see `run`.

        Raises:
            NotFoundError: If there is no such model or profile.
        """
        alias, _, named = request.model.rpartition("@")
        if request.model in self._engines or not alias:
            alias, named = request.model, ""
        if not alias and len(self._engines) == 1:
            alias = next(iter(self._engines))
        if alias not in self._engines:
            raise no_model(alias, self._engines, self.embeddings.name)
        wanted = named or profile or request.options.get("profile") or self.profile
        chosen = profile_named(str(wanted))
        if self._fail_mode != "closed":
            chosen = replace(chosen, fail_mode=self._fail_mode)
        return self._engines[alias], chosen

    async def rules(self, tenant: str, model: str, key: str) -> Enforcement:
        """Return what is enforced for *tenant* now.

        Raises:
            GuardError: If the register cannot be read.
        """
        try:
            return await self._guards.current(tenant, model=model, key=key)
        except ElisionError:
            raise
        except Exception as exc:  # whatever broke, nothing passes an unread register
            raise GuardError(f"the register could not be read ({type(exc).__name__})") from exc

    async def epoch(self, tenant: str) -> Epoch:
        """Return how often *tenant*'s targets have changed.

        Raises:
            GuardError: If the register cannot be read.
        """
        return await self._guards.epoch(tenant)

    async def run(
        self,
        request: Request,
        *,
        profile: str | None = None,
        tenant: str | None = None,
        key: str = "",
    ) -> AsyncGenerator[Delta, None]:
        """Yield the guarded reply to *request*.

        Args:
            request: What is asked; ``model`` is ``ALIAS`` or ``ALIAS@PROFILE``.
            profile: Profile if the model names none; then the request's ``elision`` object's,
                then the default.
            tenant: Whose register applies; None takes the pipeline's.
            key: Name of the caller's key, for targets that hold for some keys only.

        Raises:
            NotFoundError: If there is no such model or profile. This and every other error that
                concerns the whole request comes before the first delta.
            BusyError: If the engine's queue is full.
            RequestError: If the engine cannot serve the request.
            GuardError: If a guard breaks; the reply ends there.
        """
        tenant = self.tenant if tenant is None else tenant
        since = self.conversations.erasures(tenant)
        engine, chosen = self.resolve(request, profile)
        if isinstance(engine, Probing):
            await engine.probe()
        check_asks(request, engine)
        if chosen.agentic:
            check_speaks(request, chosen.name)
            work = self._worked_on(engine, request, tenant, key)
            kept = self.conversations.remembered(
                work, request, await self.rules(tenant, engine.name, key), since=since
            )
            async with aclosing(kept) as worked:
                async for delta in worked:
                    yield delta
            return
        if (other := await able(engine, chosen, request)) is not engine:
            check_asks(request, engine := other)
        guidance = guidance_for(request, chosen, engine)
        request = chosen.fill(request)
        request = replace(request, timeout_s=request.timeout_s or self.timeout_s)
        rules = await self.rules(tenant, engine.name, key)
        began = time.monotonic()
        outcome = "abandoned"
        try:
            request = _with_guardrail(request, chosen, rules)
            defence = await Defence.of(
                chosen, rules, request, engine.lexicon, on_failure=self._count_weakened
            )
            earlier = self.conversations.earlier(request, rules)
            defence = replace(defence, earlier=earlier, guidance=guidance)
            deltas = await self._starts.begin(engine, request, defence, tenant)
            remembered = self.conversations.remembered(deltas, request, rules, since=since)
            async with aclosing(remembered) as source:
                async for delta in source:
                    yield _reported(delta, defence)
            outcome = "finished"
        except ElisionError as exc:
            outcome = type(exc).__name__
            raise
        finally:
            _audit.info(
                "request tenant=%s profile=%s engine=%s epoch=%d targets=%d outcome=%s ms=%.0f",
                tenant, chosen.name, engine.name, rules.epoch, rules.guard.n_targets, outcome,
                (time.monotonic() - began) * 1e3,
            )  # fmt: skip

    def _worked_on(
        self, engine: Engine, request: Request, tenant: str, key: str
    ) -> AsyncGenerator[Delta, None]:
        """Have an agent work on *request*; its roles speak through `run`, under every guard."""
        if self.agentic is None:
            raise NotFoundError(
                "the profile agentic is switched off here; choose another", param="model"
            )
        alias = next(name for name, one in self._engines.items() if one is engine)
        request = replace(request, model=alias, timeout_s=request.timeout_s or self.timeout_s)
        guarded = partial(self.run, profile="guarded", tenant=tenant, key=key)
        return self.agentic.run(request, guarded, tenant=tenant)

    def _count_weakened(self) -> None:
        self._n_weakened += 1

    async def aclose(self) -> None:
        """Close every engine, the encoder and the register. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self.agentic is not None:
            await self.agentic.aclose()
        for engine in self._engines.values():
            await engine.aclose()
        if self._encoder is not None:
            await asyncio.to_thread(self._encoder.close)
        self.register.close()


def _same(encoder: Encoder | None) -> Callable[[], Encoder] | None:
    return None if encoder is None else lambda: encoder


def _with_guardrail(request: Request, profile: Profile, rules: Enforcement) -> Request:
    if profile.guardrail is None:
        return request
    return with_guardrail(request, rules.targets, family=profile.guardrail)


def _reported(delta: Delta, defence: Defence) -> Delta:
    if delta.report is None:
        return delta
    told = {**defence.report(), **delta.report}
    if defence.profile.alu == "even":
        told = {key: value for key, value in told.items() if key in _EVEN}
    return replace(delta, report=told)
