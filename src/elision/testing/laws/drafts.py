"""Law 3: what is drafted changes the pace of a reply, never the reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from elision.contract import Completion, Engine, Plan, collect

LOGPROB_TOLERANCE: Final = 2e-3
"""Rows of a wider forward differ in the last bits, in float32 by less than this many nats."""


def check_drafted_equals_plain(make_engine: Callable[[], Engine], *plans: Plan) -> None:
    """Twin of `acheck_drafted_equals_plain`."""
    asyncio.run(acheck_drafted_equals_plain(make_engine, *plans))


async def acheck_drafted_equals_plain(make_engine: Callable[[], Engine], *plans: Plan) -> None:
    """Check law 3 on an engine whose model computes in float32.

    Each plan is decoded without drafts, then twice with a draft at every step (the second time on
    what the first has left), then as pays. Then all are decoded at once, drafting and sharing
    their forwards. Every reply must be the plain one: text, finish, count, log-probabilities.

    Args:
        make_engine: Builds an engine; closed here.
        plans: The requests to compare by; a seed is filled in where one samples without.

    Raises:
        AssertionError: With what differs, or if nothing was drafted at all.
    """
    engine = make_engine()
    plans = tuple(_seeded(plan) for plan in plans)
    try:
        wanted = [await _decode(engine, plan, "off", reuse=False) for plan in plans]
        n_proposed = 0
        for mode in ("force", "force", "auto"):
            for plan, plain in zip(plans, wanted, strict=True):
                done = await _decode(engine, plan, mode, reuse=False)
                n_proposed += done.report.get("speculation", {}).get("proposed", 0)
                _assert_same(done, plain, f"with speculation {mode!r}")
        assert n_proposed, "nothing was drafted: this shows nothing"
        together = (_decode(engine, plan, "force", reuse=True) for plan in plans)
        for done, plain in zip(await asyncio.gather(*together), wanted, strict=True):
            _assert_same(done, plain, "beside others, with speculation")
    finally:
        await engine.aclose()


async def _decode(engine: Engine, plan: Plan, mode: str, *, reuse: bool) -> Completion:
    changed = replace(plan, speculation=mode, reuse=reuse)  # type: ignore[arg-type] # of a loop
    return await collect(engine.stream(changed))


def _seeded(plan: Plan) -> Plan:
    sampling = plan.request.sampling
    if sampling.seed is not None:
        return plan
    return replace(plan, request=replace(plan.request, sampling=replace(sampling, seed=11)))


def _assert_same(got: Completion, want: Completion, when: str) -> None:
    assert len(got.choices) == len(want.choices), f"{when}: another number of choices"
    for n, (mine, plain) in enumerate(zip(got.choices, want.choices, strict=True)):
        assert mine.text == plain.text, f"{when}: choice {n} has another text"
        assert mine.finish == plain.finish, f"{when}: choice {n} ended as {mine.finish}"
        assert len(mine.logprobs) == len(plain.logprobs), f"{when}: other log-probabilities"
        for entry, other in zip(mine.logprobs, plain.logprobs, strict=True):
            near = abs(entry.logprob - other.logprob) <= LOGPROB_TOLERANCE
            assert entry.data == other.data, f"{when}: another token"
            assert near, f"{when}: another log-probability"
    assert got.usage.completion_tokens == want.usage.completion_tokens, f"{when}: other counts"
