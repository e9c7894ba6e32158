"""The guards for engines that only speak text: what they write is held until it may leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from elision.contract import Delta, Refuse, Request, Verdict
from elision.errors import GuardError
from elision.middleware.holding.holds import Hold


async def held_back(
    deltas: AsyncGenerator[Delta, None],
    request: Request,
    make: Callable[[], Awaitable[Hold]],
    *,
    refusal: str,
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
                side = sides[delta.choice] = _Side(await make(), refusal)
            # In a thread: a sentence is embedded before it may leave.
            if (out := await asyncio.to_thread(side.pass_on, delta)) is not None:
                yield out
            if len(sides) == request.n and all(s.refused for s in sides.values()):
                yield _with_actions(Delta(report={}), sides)
                return


def _with_actions(delta: Delta, sides: dict[int, _Side]) -> Delta:
    report: dict[str, Any] = dict(delta.report or {})
    report["guard_form"] = "text"
    report["n_refused"] = sum(side.refused for side in sides.values())
    return replace(delta, report=report)


class _Side:
    """One choice on its way through the hold-back."""

    def __init__(self, hold: Hold, refusal: str) -> None:
        self._hold = hold
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
            text, verdict = self._hold.feed(delta.text)
            if delta.finish is not None and not isinstance(verdict, Refuse):
                rest, verdict = self._hold.finish()
                text += rest
        except GuardError:
            raise
        except Exception as exc:  # whatever broke, nothing passes a broken guard
            raise GuardError(f"the hold-back broke ({type(exc).__name__})") from exc
        return text, verdict

    def _refuse(self, delta: Delta, text: str) -> Delta:
        self.refused = True
        said = text if text or self._said else self._refusal
        return Delta(choice=delta.choice, text=said, finish="content_filter")
