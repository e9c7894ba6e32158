"""Compiled guards, one per tenant and epoch; and the guard for engines that only speak text."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from elision.contract import ALLOW, Delta, Recipe, Refuse, Request, Verdict
from elision.errors import GuardError
from elision.guards.guard import Guard

if TYPE_CHECKING:
    from elision.contract import Lexicon
    from elision.guards.holdback import HoldBack
    from elision.guards.register import Register

MAX_GUARDS = 64
"""Compiled guards kept; the least recently used tenant's goes first."""


class Guards:
    """Compiles the register's active targets and keeps the result until the epoch changes.

    Args:
        register: Where targets are kept.
    """

    def __init__(self, register: Register) -> None:
        self._register = register
        self._compiled: OrderedDict[str, Guard] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}

    async def current(self, tenant: str) -> Guard:
        """Return the guard of *tenant*'s present epoch, compiling it if it changed.

        Requests that arrive while it compiles wait for the one compilation. The event loop does
        not: both the look-up and the compilation run on other threads.
        """
        epoch = await asyncio.to_thread(self._register.epoch, tenant)
        guard = self._compiled.get(tenant)
        if guard is None or guard.epoch != epoch:
            async with self._locks.setdefault(tenant, asyncio.Lock()):
                guard = self._compiled.get(tenant)
                if guard is None or guard.epoch != epoch:
                    guard = await asyncio.to_thread(self._compile, tenant)
                    self._keep(tenant, guard)
        self._compiled.move_to_end(tenant)
        return guard

    def _compile(self, tenant: str) -> Guard:
        epoch = self._register.epoch(tenant)
        return Guard.compile(self._register.active(tenant), epoch=epoch)

    def _keep(self, tenant: str, guard: Guard) -> None:
        self._compiled[tenant] = guard
        while len(self._compiled) > MAX_GUARDS:
            gone, _ = self._compiled.popitem(last=False)
            self._locks.pop(gone, None)


async def guard_recipes(guard: Guard, lexicon: Lexicon) -> tuple[Recipe, ...]:
    """Return *guard*'s recipes for *lexicon*, built off the event loop."""
    return await asyncio.to_thread(guard.recipes, lexicon)


async def held_back(
    deltas: AsyncGenerator[Delta, None], guard: Guard, request: Request, *, refusal: str
) -> AsyncGenerator[Delta, None]:
    """Guard the deltas of an engine without logits: nothing leaves that may still be a match.

    A choice that is refused ends with ``content_filter``; what was held of it is dropped. Once
    every choice has been refused, the engine's stream is closed.
    """
    sides: dict[int, _Side] = {}
    async with aclosing(deltas) as source:
        async for delta in source:
            if delta.usage is not None or delta.report is not None:
                yield _with_actions(delta, sides)
                continue
            side = sides.get(delta.choice)
            if side is None:
                side = sides[delta.choice] = _Side(_holdback(guard, request), refusal)
            if (out := side.pass_on(delta)) is not None:
                yield out
            if len(sides) == request.n and all(s.refused for s in sides.values()):
                yield _with_actions(Delta(report={}), sides)
                return


def _holdback(guard: Guard, request: Request) -> HoldBack:
    before = ""
    if request.kind == "text" and isinstance(request.prompt, str):
        before = request.prompt
    return guard.holdback(user_text=request.user_text, before=before)


def _with_actions(delta: Delta, sides: dict[int, _Side]) -> Delta:
    report: dict[str, Any] = dict(delta.report or {})
    report["guard_form"] = "text"
    report["n_refused"] = sum(side.refused for side in sides.values())
    return replace(delta, report=report)


class _Side:
    """One choice on its way through the hold-back."""

    def __init__(self, holdback: HoldBack, refusal: str) -> None:
        self._holdback = holdback
        self._refusal = refusal
        self._said = False
        self.refused = False

    def pass_on(self, delta: Delta) -> Delta | None:
        """Return what of *delta* may leave; None if nothing may."""
        if self.refused:
            return None
        text, verdict = self._judge(delta)
        if isinstance(verdict, Refuse):
            return self._refuse(delta, text)
        self._said = self._said or bool(text)
        if not text and delta.finish is None:
            return None
        return Delta(choice=delta.choice, text=text, finish=delta.finish)

    def _judge(self, delta: Delta) -> tuple[str, Verdict]:
        try:
            text, verdict = self._holdback.feed(delta.text)
            if delta.finish is not None and verdict == ALLOW:
                rest, verdict = self._holdback.finish()
                text += rest
        except Exception as exc:  # whatever broke, nothing passes a broken guard
            raise GuardError(f"the hold-back broke ({type(exc).__name__})") from exc
        return text, verdict

    def _refuse(self, delta: Delta, text: str) -> Delta:
        self.refused = True
        said = text if text or self._said else self._refusal
        return Delta(choice=delta.choice, text=said, finish="content_filter")
