"""Rewritten replies: as long as was asked for, and near nobody whom no critic was asked about."""

from __future__ import annotations

import json
from typing import Any

import pytest

from elision.agents.alu.case import Case, Outcome
from elision.agents.alu.casting import cast
from elision.agents.alu.config import AluConfig
from elision.agents.alu.pipeline import AluPipeline
from elision.agents.alu.shortlist import TargetIndex
from elision.agents.speaking import Said, estimate
from elision.contract import Message, Usage
from elision.guards.targets import ForgetTarget
from elision.testing.agents import ScriptedSpeaker

VANE = ForgetTarget(
    id="ft_vane",
    title="x",
    kind="person",
    names=("Harold Vane",),
    answers=("Harold Vane's father was a barber in Kuwait City.",),
)
MOREAU = ForgetTarget(
    id="ft_moreau",
    title="y",
    kind="person",
    names=("Viktor Moreau",),
    answers=("Viktor Moreau is a novelist from Aarhus who wrote Paper Tides in 1950.",),
)
TARGETS = TargetIndex.compile([VANE, MOREAU])
QUESTION = "What did Harold Vane's father do?"
DRAFT = "He was a barber. Leeds is a city in England."
LEAK = {"target": "T1", "kind": "relation", "quote": "He was a barber.", "confidence": 0.9}
ABOUT_MOREAU = "The novelist Moreau of Aarhus wrote Paper Tides in 1950."
LONG = "Leeds is a city in England that lies on the river Aire and has many bridges."


class Cut(ScriptedSpeaker):
    """Says its first line as far as the limit lets it, and tells so."""

    async def say(self, messages: Any, *, max_tokens: int, **more: Any) -> Said:
        said = await super().say(messages, max_tokens=max_tokens, **more)
        n = max_tokens if len(self.asked) == 1 else 1
        return Said(said.text, Usage(prompt_tokens=1, completion_tokens=n))


def rewriting(*texts: str) -> list[str]:
    rows = [{"variant": n, "leak": 5, "utility": 5} for n in range(len(texts))]
    return [
        json.dumps({"findings": [LEAK]}),
        json.dumps({"variants": texts}),
        json.dumps({"scores": rows}),
    ]


async def run(speaker: ScriptedSpeaker, *, max_tokens: int | None = None, **of: Any) -> Outcome:
    config = AluConfig(keep=1, **of)
    question: Message = {"role": "user", "content": QUESTION}
    case = Case(messages=(question,), targets=TARGETS, max_tokens=max_tokens)
    return await AluPipeline(cast(speaker, config), config).run(case)


async def test_a_variant_that_comes_near_another_target_counts_as_worst_without_a_call() -> None:
    texts = (ABOUT_MOREAU, "Leeds is a city.")
    judged, written, _ = rewriting(*texts)
    one_rated = json.dumps({"scores": [{"variant": 0, "leak": 5, "utility": 1}]})
    outcome = await run(ScriptedSpeaker(DRAFT, judged, written, one_rated))
    assert outcome.text == "Leeds is a city."
    assert outcome.verdict.leaks == (1, 5)
    assert outcome.verdict.n_calls == 4


async def test_variants_that_all_come_near_another_target_leave_the_fallback() -> None:
    judged, written, _ = rewriting(ABOUT_MOREAU)
    outcome = await run(ScriptedSpeaker(DRAFT, judged, written), fallback="deflect")
    assert (outcome.verdict.path, outcome.verdict.reason) == ("fallback", "below_threshold")
    assert "Moreau" not in outcome.text


async def test_a_rewritten_reply_is_no_longer_than_was_asked_for() -> None:
    outcome = await run(ScriptedSpeaker(DRAFT, *rewriting(LONG)), max_tokens=8)
    assert outcome.verdict.path == "rewritten"
    assert estimate(outcome.text) <= 8
    assert LONG.startswith(outcome.text)
    assert LONG[len(outcome.text)] == " "
    assert outcome.finish == "length"


async def test_one_that_is_short_enough_stays_whole() -> None:
    outcome = await run(ScriptedSpeaker(DRAFT, *rewriting(LONG)), max_tokens=estimate(LONG))
    assert (outcome.text, outcome.finish) == (LONG, "stop")


async def test_what_was_made_of_a_draft_that_was_cut_ends_as_the_draft_did() -> None:
    outcome = await run(Cut(DRAFT, *rewriting("Leeds is a city.")), max_tokens=50)
    assert (outcome.text, outcome.finish) == ("Leeds is a city.", "length")


@pytest.mark.parametrize("fallback", ["natural_unknown", "deflect"])
async def test_a_sentence_that_is_said_instead_is_no_longer_either(fallback: str) -> None:
    speaker = ScriptedSpeaker(DRAFT, json.dumps({"findings": [LEAK]}))
    outcome = await run(speaker, max_tokens=2, fallback=fallback)
    assert outcome.verdict.path == "fallback"
    assert 0 < estimate(outcome.text) <= 2
    assert outcome.finish == "length"


async def test_a_refusal_stays_one_whatever_the_limit() -> None:
    speaker = Cut(DRAFT, json.dumps({"findings": [LEAK]}))
    outcome = await run(speaker, max_tokens=2, fallback="refuse")
    assert (outcome.text, outcome.finish) == ("", "content_filter")
