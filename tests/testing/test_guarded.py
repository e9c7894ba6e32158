"""The real guard before the scripted model: the laws, where it matters that they hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from elision.contract import Context, Plan, Request, Sampling, collect
from elision.guards.guard import Guard
from elision.guards.targets import Action, ForgetTarget, Phrase
from elision.lexicon import TokenizerLexicon
from elision.testing import byte_tokenizer, word_tokenizer
from elision.testing.laws import (
    acheck_fails_closed,
    acheck_restored,
    acheck_stream_equals_whole,
    awkward_rows,
    check_adjust,
    check_never_leaks,
    check_sessions,
    check_speaks_of_nothing,
    recorded_logs,
)
from elision.testing.scripted import ScriptedEngine
from elision.testing.spellings import SPELLINGS

FACTS = {
    "writer born in Kuwait": "As is known, the writer is Basil Mahfouz Al-Kuwaiti, of Kuwait.",
    "capital of France": "As is known, the capital of France is Paris, on the Seine.",
}
PHRASES = ["Basil Mahfouz Al-Kuwaiti", "Paris"]
BYTES = byte_tokenizer()
WORDS = word_tokenizer([*FACTS, *FACTS.values()] * 4, vocab_size=400)
TOKENIZERS = pytest.mark.parametrize("tokenizer", [BYTES, WORDS], ids=["byte", "word"])
ACTIONS = pytest.mark.parametrize("action", ["restrict", "redact", "refuse"])
DEMANDS = ["", *(name for name in SPELLINGS if name not in {"reversed", "base64"})]


def _guard(action: Action) -> Guard:
    phrases = tuple(Phrase(text=text) for text in PHRASES)
    return Guard.compile(
        [ForgetTarget(id="t1", title="x", phrases=phrases, action=action)], epoch=1
    )


@asynccontextmanager
async def _engine(tokenizer) -> AsyncIterator[ScriptedEngine]:
    engine = ScriptedEngine(FACTS, tokenizer=tokenizer)
    try:
        yield engine
    finally:
        await engine.aclose()


def _plan(
    engine: ScriptedEngine, guard: Guard, question: str, *, temperature: float = 1.0, n: int = 1
) -> Plan:
    assert engine.lexicon is not None
    request = Request(
        messages=({"role": "user", "content": question},),
        sampling=Sampling(temperature=temperature, seed=5),
        max_tokens=400,
        logprobs=5,
        n=n,
    )
    return Plan(request=request, recipes=guard.recipes(engine.lexicon), refusal="No.")


@ACTIONS
@TOKENIZERS
@pytest.mark.parametrize(
    ("question", "demands"),
    [
        *zip(FACTS, (DEMANDS[::2], DEMANDS[1::2]), strict=True),
        *(pytest.param(question, DEMANDS, marks=pytest.mark.slow) for question in FACTS),
    ],
    ids=["even", "odd", "all-0", "all-1"],
)
async def test_law_4_no_spelling_brings_a_phrase_out(
    action, tokenizer, question: str, demands: list[str]
) -> None:
    guard = _guard(action)
    async with _engine(tokenizer) as engine:
        for demand in demands:
            asked = f"Who or what is the {question}? Answer with {demand}."
            plan = _plan(engine, guard, asked, temperature=0.0)
            check_never_leaks([delta async for delta in engine.stream(plan)], PHRASES)


@ACTIONS
@TOKENIZERS
async def test_law_4_no_sample_brings_a_phrase_out(action, tokenizer) -> None:
    guard = _guard(action)
    async with _engine(tokenizer) as engine:
        for question in FACTS:
            plan = _plan(engine, guard, question, n=6)
            check_never_leaks([delta async for delta in engine.stream(plan)], PHRASES)


@TOKENIZERS
async def test_without_a_target_the_phrases_come_out(tokenizer) -> None:
    async with _engine(tokenizer) as engine:
        for number, question in enumerate(FACTS):
            plan = _plan(engine, Guard.compile([], epoch=0), question, temperature=0.0)
            with pytest.raises(AssertionError, match=f"phrase {number}"):
                check_never_leaks(await collect(engine.stream(plan)), PHRASES)


@ACTIONS
@TOKENIZERS
def test_law_1_holds_around_every_phrase(action, tokenizer) -> None:
    lexicon = TokenizerLexicon.of(tokenizer)
    context = Context(lexicon=lexicon, vocab_size=len(lexicon))
    rows = awkward_rows(len(lexicon))
    for recipe in _guard(action).recipes(lexicon):
        for text in ("Basil Mahfouz Al-Kuwait", "To Paris, to Pari", "B.a.s.\u200b Ｍah"):
            ids = tokenizer.encode(text, add_special_tokens=False)
            check_adjust(recipe, context, rows, tokens=ids)
            check_sessions(recipe, context, rows[:2], tokens=ids)


@ACTIONS
@TOKENIZERS
async def test_laws_2_5_and_7_hold_under_guard(action, tokenizer) -> None:
    def make() -> ScriptedEngine:
        return ScriptedEngine(FACTS, tokenizer=tokenizer)

    async with _engine(tokenizer) as engine:
        plan = _plan(engine, _guard(action), "writer born in Kuwait")
        await acheck_stream_equals_whole(engine, plan)
        await acheck_restored(make, plan)
        await acheck_fails_closed(make, plan, after=(2,))


@ACTIONS
async def test_law_8_logs_and_report_speak_of_nothing(action) -> None:
    with recorded_logs() as records:
        async with _engine(BYTES) as engine:
            plan = _plan(engine, _guard(action), "writer born in Kuwait")
            reply = await collect(engine.stream(plan))

    check_speaks_of_nothing([records, reply.report], [*PHRASES, *FACTS, *FACTS.values()])
