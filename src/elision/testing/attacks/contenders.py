"""Contenders: what stands between an engine and an attacker."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import TypeAlias

from elision.contract import Capability, Delta, Engine, Plan, Probing, Request, collect, in_order
from elision.guards.baselines.guardrail import with_guardrail
from elision.guards.conversation.watch import AccumulatedWatch
from elision.guards.targets import ForgetTarget
from elision.middleware.enforcement import Enforcement
from elision.middleware.holding.replies import guarded_replies
from elision.middleware.planning import Defence
from elision.middleware.profiles import PROFILES

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


def guarded(engine: Engine, targets: Sequence[ForgetTarget], *, profile: str = "guarded") -> Ask:
    """Return the engine behind everything that is enforced on output for *targets*.

    With logits: mask, encodings, accumulator as recipes. Without: the same held back, and gone back
    on where the engine continues a beginning. The gate is left out: it needs an encoder.
    """
    rules = Enforcement(targets, tenant="default", epoch=0, encoder=None)
    defence = Defence(profile=PROFILES[profile], rules=rules)
    if engine.lexicon is None or Capability.LOGITS not in engine.capabilities:
        return lambda request: _guarded_text(engine, request, defence)

    def ask(request: Request) -> AsyncIterator[Delta]:
        assert engine.lexicon is not None
        turns = rules.accumulator.over(request)
        watch = AccumulatedWatch(accumulator=rules.accumulator, turns=turns)
        written = rules.guard.recipes(engine.lexicon), rules.encoded.recipes()
        recipes = in_order((*written[0], *written[1], watch))
        return engine.stream(Plan(request=request, recipes=recipes, refusal=REFUSAL))

    return ask


async def _guarded_text(
    engine: Engine, request: Request, defence: Defence
) -> AsyncGenerator[Delta, None]:
    if isinstance(engine, Probing):
        await engine.probe()
    replies = guarded_replies(engine, Plan(request=request), defence, refusal=REFUSAL)
    async with aclosing(replies) as source:
        async for delta in source:
            yield delta
