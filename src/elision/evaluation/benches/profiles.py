"""Whether a text is the same with drafts and without, in every profile that decodes by sampling."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from elision.contract import Plan, Request, Sampling
from elision.evaluation.bench import Setup
from elision.evaluation.benches.encoder import bench_encoder
from elision.evaluation.benches.identity import Verdicts, is_tie, replay
from elision.evaluation.benches.phrases import made_up
from elision.evaluation.benches.racing import Course, Runs, Stable, timed
from elision.evaluation.figures import Figure, Goal, of
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.enforcement import Enforcement
from elision.middleware.guiding import guidance_for
from elision.middleware.planning import Defence
from elision.middleware.profiles import PROFILES, Profile

if TYPE_CHECKING:
    from elision.middleware.speculation.base import Mode

COMMON = ("for example", "such as", "it is", "in the", "one of", "as well as", "of the")
"""Phrases that answers are full of: forbidden, so that the masks act and replies go back."""


def identical(setup: Setup, stable: Stable, course: Course, results: dict[str, Runs]) -> Figure:
    """Return the share of texts that drafts leave as they are.

    Args:
        setup: The bench's.
        stable: A float32 engine.
        course: What has been raced over, greedy.
        results: The race's, of ``plain`` and ``drafted``.
    """
    verdicts, plain = Verdicts(), stable.ours("off", "race")
    runs = {name: _in_order(course, results[name]) for name in ("plain", "drafted")}
    for (_, request), one, other in zip(course.requests(), *runs.values(), strict=True):
        explain = partial(is_explained, stable, plain.plan(request), other)
        verdicts.add(one, other, explain)
    profiles = [p for p in PROFILES.values() if p.decoder == "sample"]
    compare(stable, course.shorter(4, 48), profiles, targets_of(setup), verdicts)
    return of(
        "speed.identical", [verdicts.share], "of texts", goal=Goal(value=1.0, sense=">="),
        **stable.about(course), texts=verdicts.n, ties=verdicts.n_ties,
        profiles="; ".join(profile.name for profile in profiles),
        statistic="each question plain, then in its turn's profile, greedy and at T = 0.7, forced",
    )  # fmt: skip


def _in_order(course: Course, runs: Runs) -> list[str]:
    """Return the texts of *runs* in the order of the questions."""
    left = {group: iter(each) for group, each in runs.items()}
    return [next(left[group]).text for group, _ in course.requests()]


def targets_of(setup: Setup) -> Enforcement:
    """Return what is enforced: phrases that come up all the time, and a thousand that do not."""
    common = ForgetTarget(id="common", title="common", phrases=tuple(map(_phrase, COMMON)))
    topic = ForgetTarget(
        id="topic",
        title="topic",
        phrases=(_phrase("harrowby"),),
        probes=("What do you know about the ferry to the island of Skarn?",),
        answers=("The council of Harrowby voted to reopen the ferry to the island of Skarn.",),
    )
    targets = (common, topic, *made_up(1_000))
    return Enforcement(targets, tenant="bench", epoch=1, encoder=lambda: bench_encoder(setup))


def _phrase(text: str) -> Phrase:
    return Phrase(text=text)


def compare(
    stable: Stable,
    course: Course,
    profiles: Sequence[Profile],
    rules: Enforcement,
    verdicts: Verdicts,
) -> None:
    """Have each question answered in one profile, the next one's turn after it; add to *verdicts*.

    Each is answered greedily and sampled, with drafts at every step and without any.
    """
    for turn, (_, request) in enumerate(course.requests()):
        # Groups come by turns: without the shift a group would meet the same profiles only.
        profile = profiles[(turn + turn // len(profiles)) % len(profiles)]
        for temperature in (0.0, profile.temperature or 0.7):
            sampling = Sampling(temperature=temperature, seed=turn)
            plan = plan_in(stable, profile, rules, replace(request, sampling=sampling))
            plain, drafted = (_text(stable, plan, mode) for mode in ("off", "force"))
            verdicts.add(plain, drafted, partial(is_explained, stable, plan, drafted))


def plan_in(stable: Stable, profile: Profile, rules: Enforcement, request: Request) -> Plan:
    """Return the plan that the pipeline makes of *request* in *profile*."""
    lexicon = stable.engine.lexicon
    assert lexicon is not None
    defence = asyncio.run(Defence.of(profile, rules, request, lexicon, on_failure=lambda: None))
    defence = replace(defence, guidance=guidance_for(request, profile, stable.engine))
    return Plan(
        request=request,
        recipes=defence.recipes(request, lexicon),
        pending=defence.pending,
        tenant=rules.tenant,
        epoch=rules.epoch,
        profile=profile.name,
    )


def _text(stable: Stable, plan: Plan, mode: Mode) -> str:
    return asyncio.run(timed(stable.engine, replace(plan, speculation=mode))).text


def is_explained(stable: Stable, plan: Plan, drafted: str) -> bool:
    """Return whether *drafted* parts from the plain reply to *plan* where two tokens were tied."""
    plain = stable.engine.borrow(lambda model: replay(model, plan)).result()
    lexicon = stable.engine.lexicon
    assert lexicon is not None
    return is_tie(plain, drafted, lexicon)
