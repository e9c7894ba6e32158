"""The semantic layer in a running engine, over a model that insists on what was planted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from elision.contract import Completion, Plan, Request, Sampling, collect
from elision.guards.gate.assessment import CLOSED, Assessment, Level
from elision.guards.guard import Guard
from elision.guards.semantic.semantics import Semantics
from elision.guards.semantic.watch import SemanticWatch
from elision.guards.targets import ForgetTarget
from elision.testing.encoders import BagEncoder
from elision.testing.laws import acheck_stream_equals_whole, check_speaks_of_nothing, recorded_logs
from elision.testing.scripted import ScriptedEngine
from elision.testing.tokenizers import word_tokenizer

from .semantic_cases import suspicion, target

ANSWER = "Zorblax Quint grew up in the harbour town of Velm."
FACTS = {
    "grow up": f"Let me see. {ANSWER} So it was.",
    "be born": "He was there on November 5th, 1991 at dawn. So it was.",
    "year": "It was in 1991 that he came.",
    "tides": "Tides follow the moon. There are two a day, in 1991 as well.",
}
ASKED = ("Where did he grow up?", "When was he to be born?", "In what year?")
SECRETS = ("Velm", "November 5", "1991")
REFUSAL = "I will not say."
ANSWERS = ("In the harbour town of Velm grew up Zorblax Quint.", "05/11/1991")


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    made = ScriptedEngine(FACTS, tokenizer=word_tokenizer(FACTS.values()), certainty=8.0)
    yield made
    asyncio.run(made.aclose())


def plan(asked: str, assessment: Assessment | None, *targets: ForgetTarget, **fields: Any) -> Plan:
    request = Request(
        messages=({"role": "user", "content": asked},),
        sampling=fields.pop("sampling", Sampling(temperature=0.0)),
        max_tokens=fields.pop("max_tokens", 60),
        **fields,
    )
    if assessment is None:
        return Plan(request=request, refusal=REFUSAL)
    known = Semantics.compile(targets or (target(answers=ANSWERS),), BagEncoder(), tenant="default")
    gate: Future[Assessment] = Future()
    gate.set_result(assessment)
    watch = SemanticWatch(semantics=known, assessment=gate)
    return Plan(request=request, recipes=(watch,), refusal=REFUSAL, pending=(gate,))


async def reply(engine: ScriptedEngine, made: Plan) -> Completion:
    return await collect(engine.stream(made))


def leaks(done: Completion) -> list[str]:
    return [s for s in SECRETS for choice in done.choices if s.casefold() in choice.text.casefold()]


async def test_without_the_layer_everything_is_told(engine: ScriptedEngine) -> None:
    for asked, secret in zip(ASKED, SECRETS, strict=True):
        assert secret in (await reply(engine, plan(asked, None))).text


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0.0), Sampling(temperature=1.0, seed=5)], ids=["0", "1"]
)
async def test_what_was_planted_does_not_leave(
    engine: ScriptedEngine, asked: str, sampling: Sampling
) -> None:
    made = plan(asked, suspicion(), sampling=sampling, n=2, logprobs=2)
    assert not leaks(await reply(engine, made))


async def test_the_same_leaves_streamed_or_not(engine: ScriptedEngine) -> None:
    made = plan(ASKED[0], suspicion(), sampling=Sampling(temperature=1.0, seed=5))
    await acheck_stream_equals_whole(engine, made)


async def test_the_paraphrase_is_caught_while_the_gate_only_watches(engine: ScriptedEngine) -> None:
    done = await reply(engine, plan(ASKED[0], suspicion(Level.WATCH)))
    assert not leaks(done)
    assert done.text.startswith("Let me see.")


async def test_a_redacted_sentence_leaves_the_others_as_they_are(engine: ScriptedEngine) -> None:
    redacting = target(answers=ANSWERS, action="redact")
    done = await reply(engine, plan(ASKED[0], suspicion(Level.WATCH), redacting))
    assert not leaks(done)
    assert done.text == "Let me see. [redacted] So it was."


async def test_an_open_gate_refuses_before_the_first_token(engine: ScriptedEngine) -> None:
    refusing = target(probes=("Where?",), action="refuse")
    done = await reply(engine, plan("Tell me of tides.", suspicion(), refusing))
    assert (done.text, done.choices[0].finish) == (REFUSAL, "content_filter")
    assert done.usage.completion_tokens == 0


@pytest.mark.parametrize("level", [Level.CLOSED, Level.WATCH])
async def test_answers_about_something_else_are_the_same_byte_for_byte(
    engine: ScriptedEngine, level: Level
) -> None:
    assessment = CLOSED if level == Level.CLOSED else suspicion(level)
    for sampling in (Sampling(temperature=0.0), Sampling(temperature=1.0, seed=3)):
        asked: dict[str, Any] = {"sampling": sampling, "n": 2, "logprobs": 3}
        plain = await reply(engine, plan("Tell me of tides.", None, **asked))
        watched = await reply(engine, plan("Tell me of tides.", assessment, **asked))
        assert watched.choices == plain.choices


async def test_a_target_that_observes_changes_nothing_and_is_counted(
    engine: ScriptedEngine,
) -> None:
    observing = target(answers=ANSWERS, action="observe")
    plain = await reply(engine, plan(ASKED[0], None))
    watched = await reply(engine, plan(ASKED[0], suspicion(), observing))
    assert watched.choices == plain.choices
    assert watched.report["notes"]["semantic.observed"] >= 1


async def test_a_reply_cut_by_a_stop_text_is_judged_too(engine: ScriptedEngine) -> None:
    done = await reply(engine, plan(ASKED[2], suspicion(), stop=(" that",)))
    assert not leaks(done)


async def test_a_phrase_that_the_mask_keeps_from_being_told_raises_a_closed_gate() -> None:
    own = target(phrases=("grew up in the harbour",), answers=("So it was.",))
    made = plan(ASKED[0], CLOSED, own, max_tokens=140)
    async with aclosing(ScriptedEngine(FACTS)) as engine:
        phrases = Guard.compile([own]).recipes(engine.lexicon)
        closed = await reply(engine, replace(made, recipes=phrases))
        raised = await reply(engine, replace(made, recipes=(*made.recipes, *phrases)))
    assert closed.report["notes"]["guard.masked"] > 0.5
    assert "So it was." in closed.text
    assert "So it was." not in raised.text


async def test_nothing_is_logged_of_what_was_found(engine: ScriptedEngine) -> None:
    with recorded_logs() as records:
        for asked in ASKED:
            await reply(engine, plan(asked, suspicion()))
    check_speaks_of_nothing(records, [ANSWER, "Velm", "Zorblax", *ASKED])
