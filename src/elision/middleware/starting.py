"""How a reply begins: which way an engine takes, by what it can do and what the profile wants."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from elision.agents.alu.redaction import UNKNOWN, sentence
from elision.contract import (
    Capability,
    Delta,
    Engine,
    Finish,
    Plan,
    Request,
    in_order,
    text_of,
)
from elision.errors import RequestError
from elision.guards.baselines.refusals import refusal_for
from elision.middleware.alu.audited import Audited
from elision.middleware.asks import check_text
from elision.middleware.buffering import hold_all, judge_of
from elision.middleware.carrying import carried, carrier
from elision.middleware.forms.compiling import Compiling
from elision.middleware.forms.form import FREE
from elision.middleware.forms.formed import Formation, Formed, aloud, check_forms
from elision.middleware.holding.replies import guarded_replies
from elision.middleware.paper import PaperGuards
from elision.middleware.planning import Defence, check_speaks_only

if TYPE_CHECKING:
    from elision.middleware.alu.alu import Alu
    from elision.middleware.profiles import Profile

REFUSAL: Final = "I can't help with that."
"""What a refused choice says if nothing of it has left yet."""


@runtime_checkable
class Looping(Protocol):
    """An engine that only speaks text, and may have another way that shows scores."""

    async def loop(self) -> Engine | None:
        """Return an engine over the same model that shows scores; None if there is none."""
        ...


class Starts:
    """Opens replies, each under its defence. Lives as long as its pipeline.

    Args:
        timeout_s: Deadline of requests that name none, in seconds.
        alu: Audits replies of the profiles that say so.
    """

    def __init__(self, *, timeout_s: float, alu: Alu) -> None:
        self._timeout_s = timeout_s
        self._alu = alu
        self._papers = PaperGuards()
        self._compiling = Compiling()

    async def begin(
        self, engine: Engine, request: Request, defence: Defence, tenant: str
    ) -> AsyncGenerator[Delta, None]:
        """Return the guarded reply to *request*; nothing of it has left yet.

        Raises:
            CapabilityError: If the profile or the request needs what *engine* lacks.
        """
        plan = _plan(request, defence, tenant)
        deltas = await self._way(engine, plan, defence)
        if not defence.profile.buffered:
            return deltas
        judge = judge_of(defence.rules)
        deadline: float | None = time.monotonic() + (request.timeout_s or self._timeout_s)
        if defence.profile.alu != "off":
            # Agents end before the request does and leave the check its time. Were it refused for
            # being late, every reply at a deadline would be, and so tell that it was audited.
            deadline = None
        held = hold_all(deltas, judge, refusal=plan.refusal, deadline=deadline)
        return _unremarked(held) if defence.profile.alu == "even" else held

    async def _way(
        self, engine: Engine, plan: Plan, defence: Defence
    ) -> AsyncGenerator[Delta, None]:
        profile = defence.profile
        if profile.alu != "off":
            _check_trust(engine, profile)
            check_text(plan.request, profile.name)
            engine = Audited(aloud(engine), self._alu, defence.rules, profile)
        elif has_scores(engine):
            return await self._written(engine, plan, defence)
        check_speaks_only(engine, profile, plan.request)
        if carrier(engine) is not None:
            plan = await asyncio.to_thread(carried, engine, plan, defence)
        return guarded_replies(engine, plan, defence, refusal=plan.refusal)

    async def _written(
        self, engine: Engine, plan: Plan, defence: Defence
    ) -> AsyncGenerator[Delta, None]:
        """Return the reply of an engine that decodes here; where it has a form, as messages."""
        formation = Formation.of(plan.request, engine)
        is_searched = defence.profile.decoder == "beam"
        if formation is None or (is_searched and formation.form == FREE):
            return engine.stream(await self._decoded(engine, plan, defence))
        assert engine.lexicon is not None
        check_forms(engine, plan, defence.profile)
        hides = defence.rules.guard.hides
        formation = await self._compiling.held(formation, engine.lexicon, hides)
        plan = await self._decoded(engine, plan, defence)
        is_json = formation.form.schema is not None
        formed = Formed(engine, formation)
        return guarded_replies(formed, plan, defence, refusal=plan.refusal, is_json=is_json)

    async def _decoded(self, engine: Engine, plan: Plan, defence: Defence) -> Plan:
        """Return *plan* with everything that acts on scores."""
        assert engine.lexicon is not None
        recipes = await asyncio.to_thread(defence.recipes, plan.request, engine.lexicon)
        decoder = defence.profile.decoder
        if decoder == "beam":
            paper = await self._papers.current(engine, defence.rules)
            recipes = recipes if paper is None else in_order((*recipes, paper))
        return replace(plan, recipes=recipes, pending=defence.pending, decoder=decoder)

    def drop(self, tenant: str) -> int:
        """Forget what is kept for *tenant*; return how many things that were."""
        return self._papers.drop(tenant) + self._alu.erase(tenant)


async def able(engine: Engine, profile: Profile, request: Request) -> Engine:
    """Return *engine*, or its token loop where *request* needs scores and only that has any.

    An engine that carries recipes has them act where it writes.
    """
    if has_scores(engine) or not isinstance(engine, Looping) or carrier(engine) is not None:
        return engine
    if not _needs(profile, request):
        return engine
    return await engine.loop() or engine


def _needs(profile: Profile, request: Request) -> bool:
    """Return whether *request* cannot be served by text alone."""
    sampling, options = request.sampling, request.options
    return bool(
        profile.recipes()
        or profile.guidance
        or options.get("guidance")
        or options.get("trace")
        or sampling.top_n_sigma
        or sampling.rng == "torch"
    )


def has_scores(engine: Engine) -> bool:
    """Return whether *engine* decodes here, so that recipes can act."""
    return engine.lexicon is not None and Capability.LOGITS in engine.capabilities


def _check_trust(engine: Engine, profile: Profile) -> None:
    """Raise unless *engine* may be told what is registered: its roles' prompts describe targets."""
    if getattr(engine, "trusted", True):
        return
    raise RequestError(
        f"the profile {profile.name} describes targets to the model, and the upstream is not "
        "trusted with them; set upstream_trusted, or choose another profile",
        param="model",
        code="upstream_not_trusted",
    )


async def _unremarked(deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
    """Yield *deltas* so that a refusal is a reply like any other: its sentence is a plain one."""
    async with aclosing(deltas) as source:
        async for delta in source:
            finish: Finish | None = "stop" if delta.finish == "content_filter" else delta.finish
            yield replace(delta, finish=finish)


def _plan(request: Request, defence: Defence, tenant: str) -> Plan:
    refusal = REFUSAL
    if defence.profile.alu == "even":
        refusal = sentence(UNKNOWN, text_of(request.messages[-1]) if request.messages else "")
    elif defence.profile.refuse_above is not None:
        seed = request.sampling.seed
        refusal = refusal_for(secrets.token_hex(8) if seed is None else seed)
    return Plan(
        request=request,
        tenant=tenant,
        epoch=defence.rules.epoch,
        refusal=refusal,
        **defence.profile.decoding(request.options),
    )
