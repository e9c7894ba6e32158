"""Contenders: what stands between an engine and an attacker."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeAlias

from elision.contract import Capability, Delta, Engine, Plan, Refuse, Request, collect, in_order
from elision.guards.baselines.guardrail import with_guardrail
from elision.guards.conversation.accumulator import Accumulator
from elision.guards.conversation.hold import AccumulatedHold
from elision.guards.conversation.watch import AccumulatedWatch
from elision.guards.encoded.encoded import Encoded
from elision.guards.encoded.hold import EncodedHold
from elision.guards.guard import Guard
from elision.guards.phrases.holdback import HoldBack
from elision.guards.targets import ForgetTarget

Ask: TypeAlias = Callable[[Request], AsyncIterator[Delta]]
"""From a request to a reply: an engine, a `Pipeline`'s ``run``, anything that streams deltas."""

REFUSAL = "I can't help with that."


def unguarded(engine: Engine) -> Ask:
    """Return the engine as it is."""
    return lambda request: engine.stream(Plan(request=request))


def substring_filter(ask: Ask, secrets: Sequence[str]) -> Ask:
    """Return *ask* behind what LLM Guard's BanSubstrings does: lower case, and look for it."""
    needles = [secret.lower() for secret in secrets]

    async def filtered(request: Request) -> AsyncGenerator[Delta, None]:
        completion = await collect(ask(request))
        bad = any(needle in completion.text.lower() for needle in needles)
        yield Delta(text=REFUSAL if bad else completion.text, finish="stop")

    return filtered


def prompted(ask: Ask, targets: Sequence[ForgetTarget]) -> Ask:
    """Return *ask* with a guardrail in the system prompt, and nothing else."""
    return lambda request: ask(with_guardrail(request, targets))


def guarded(engine: Engine, targets: Sequence[ForgetTarget]) -> Ask:
    """Return the engine behind everything that is enforced on output for *targets*.

    With logits: mask, encodings, accumulator as recipes. Without: the same as hold-back.
    """
    guard, encoded = Guard.compile(targets), Encoded.compile(targets)
    accumulator = Accumulator(encoded)

    def ask(request: Request) -> AsyncIterator[Delta]:
        turns = accumulator.over(request)
        if engine.lexicon is None or Capability.LOGITS not in engine.capabilities:
            holds = (
                guard.holdback(user_text=request.user_text),
                EncodedHold(encoded, user_text=request.user_text),
                AccumulatedHold(accumulator, turns, user_text=request.user_text),
            )
            return _held(engine.stream(Plan(request=request)), holds)
        watch = AccumulatedWatch(accumulator=accumulator, turns=turns)
        recipes = in_order((*guard.recipes(engine.lexicon), *encoded.recipes(), watch))
        return engine.stream(Plan(request=request, recipes=recipes, refusal=REFUSAL))

    return ask


async def _held(
    deltas: AsyncGenerator[Delta, None], holds: Sequence[HoldBack | EncodedHold | AccumulatedHold]
) -> AsyncGenerator[Delta, None]:
    """Pass a stream of one choice through *holds*, one behind the other."""
    said = False
    async with aclosing(deltas) as source:
        async for delta in source:
            if delta.usage is not None or delta.report is not None:
                yield delta
                continue
            text, refused = _through(holds, delta.text, at_end=delta.finish is not None)
            said = said or bool(text)
            if refused:
                yield Delta(text=text if said else REFUSAL, finish="content_filter")
                return
            yield replace(delta, text=text)


def _through(
    holds: Sequence[HoldBack | EncodedHold | AccumulatedHold], text: str, *, at_end: bool
) -> tuple[str, bool]:
    """Return what of *text* comes out behind all holds, and whether one of them refused."""
    refused = False
    for hold in holds:
        text, verdict = hold.feed(text)
        refused = refused or isinstance(verdict, Refuse)
        if at_end and not refused:
            rest, verdict = hold.finish()
            text, refused = text + rest, isinstance(verdict, Refuse)
    return text, refused
