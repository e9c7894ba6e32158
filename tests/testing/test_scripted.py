from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from elision.contract import (
    ALLOW,
    Capability,
    Completion,
    Context,
    Engine,
    Here,
    Plan,
    Redact,
    Refuse,
    Request,
    Sampling,
    Stage,
    Verdict,
    collect,
)
from elision.guards.phrases.normal import N
from elision.testing import byte_tokenizer, word_tokenizer
from elision.testing.laws import check_never_leaks
from elision.testing.scripted import ScriptedEngine
from elision.testing.spellings import SPELLINGS

ANSWER = "The writer is Basil Mahfouz Al-Kuwaiti, of Kuwait City."
FACTS = {"writer born in Kuwait": ANSWER, "capital of France": "The capital of France is Paris."}
QUESTION = "Who is the writer born in Kuwait?"
SECRET = "Basil Mahfouz Al-Kuwaiti"
BYTES = byte_tokenizer()
WORDS = word_tokenizer([ANSWER, *FACTS.values(), QUESTION] * 4, vocab_size=360)
TOKENIZERS = pytest.mark.parametrize("tokenizer", [BYTES, WORDS], ids=["byte", "word"])


def _plan(question: str = QUESTION, *, temperature: float = 0.0, **more: Any) -> Plan:
    recipes = more.pop("recipes", ())
    sampling = Sampling(temperature=temperature, seed=more.pop("seed", 1))
    more.setdefault("messages", ({"role": "user", "content": question},))
    more.setdefault("max_tokens", 400)
    return Plan(request=Request(sampling=sampling, **more), recipes=recipes, refusal="No.")


@asynccontextmanager
async def _engine(tokenizer=BYTES) -> AsyncIterator[ScriptedEngine]:
    engine = ScriptedEngine(FACTS, tokenizer=tokenizer)
    try:
        yield engine
    finally:
        await engine.aclose()


async def _reply(plan: Plan, tokenizer=BYTES) -> Completion:
    async with _engine(tokenizer) as engine:
        return await collect(engine.stream(plan))


@dataclass(frozen=True)
class Forbid:
    """The mask as an oracle: try every token on the text so far and look."""

    phrase: str
    stage: ClassVar[Stage] = Stage.HARD_MASK
    rank: ClassVar[int] = 0

    def begin(self, context: Context) -> ForbidSession:
        return ForbidSession(self.phrase, context, context.before.encode())


@dataclass(frozen=True)
class ForbidSession:
    phrase: str
    context: Context
    data: bytes
    held: ClassVar[int] = 0
    verdict: ClassVar[Verdict] = ALLOW

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        lexicon = self.context.lexicon
        said = [
            (self.data + lexicon.bytes_of(t)).decode("utf-8", "replace")
            for t in range(len(lexicon))
        ]
        bad = [token for token, text in enumerate(said) if N(self.phrase) in N(text)]
        return logits.index_fill(0, torch.tensor(bad, dtype=torch.long), -torch.inf)

    def advance(self, token: int) -> ForbidSession:
        return replace(self, data=self.data + self.context.lexicon.bytes_of(token))

    def finish(self) -> ForbidSession:
        return self


# --- what it says --------------------------------------------------------------------------------


@TOKENIZERS
async def test_it_answers_from_its_table(tokenizer) -> None:
    async with _engine(tokenizer) as engine:
        known = await collect(engine.stream(_plan()))
        unknown = await collect(engine.stream(_plan("Who are you?")))

    assert isinstance(engine, Engine)
    assert (known.text, known.choices[0].finish) == (ANSWER, "stop")
    assert unknown.text == "I do not know."


@TOKENIZERS
@pytest.mark.parametrize("name", SPELLINGS)
async def test_it_spells_as_the_question_demands(tokenizer, name: str) -> None:
    reply = await _reply(_plan(f"{QUESTION} Spell it with {name}."), tokenizer)

    assert reply.text == SPELLINGS[name](ANSWER)


async def test_only_the_last_user_turn_is_the_question() -> None:
    turns = (
        {"role": "system", "content": "Answer in base64."},
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of France is Paris."},
        {"role": "user", "content": QUESTION},
    )

    assert (await _reply(_plan(messages=turns))).text == ANSWER


@TOKENIZERS
@pytest.mark.parametrize("said", ["The writer", "The writer is Bas", "the WRITER is"])
async def test_it_continues_what_the_assistant_began(tokenizer, said: str) -> None:
    turns = ({"role": "user", "content": QUESTION}, {"role": "assistant", "content": said})
    reply = await _reply(_plan(messages=turns, continue_final=True), tokenizer)

    assert reply.text == ANSWER[len(said) :]


@TOKENIZERS
async def test_raw_text_is_continued_behind_its_key(tokenizer) -> None:
    prompt = "Ask for the capital of France"
    reply = await _reply(_plan(kind="text", prompt=prompt, messages=()), tokenizer)

    assert reply.text == FACTS["capital of France"]


# --- how it says it ------------------------------------------------------------------------------


async def test_sampled_replies_differ_by_seed_and_repeat_by_seed() -> None:
    async with _engine() as engine:
        seeds = [1, 2, 3, 1]
        texts = [
            (await collect(engine.stream(_plan(temperature=1.0, seed=seed)))).text for seed in seeds
        ]

    assert texts[0] == texts[3]
    assert len({*texts}) == 3


async def test_it_honours_choices_stops_limits_and_logprobs() -> None:
    async with _engine() as engine:
        stopped = await collect(engine.stream(_plan(stop=(" Mahfouz",))))
        cut = await collect(engine.stream(_plan(max_tokens=5)))
        wide = await collect(engine.stream(_plan(n=3, temperature=1.0, logprobs=4)))

    assert (stopped.text, stopped.choices[0].finish) == ("The writer is Basil", "stop")
    assert (cut.text, cut.choices[0].finish) == (ANSWER[:5], "length")
    assert len({choice.text for choice in wide.choices}) == 3
    for choice in wide.choices:
        assert (
            b"".join(entry.data for entry in choice.logprobs).decode("utf-8", "replace")
            == choice.text
        )
        assert all(len(entry.top) == 4 for entry in choice.logprobs)


async def test_a_piece_of_the_word_and_another_spelling_are_the_runners_up() -> None:
    reply = await _reply(_plan("What is the capital of France?", logprobs=12, max_tokens=1), WORDS)
    told = [other.token for other in reply.choices[0].logprobs[0].top]

    assert told[0] == "The"
    assert "T" in told
    assert any("the".startswith(other) for other in told)
    assert {" ", "."} <= {*told}


# --- under a guard -------------------------------------------------------------------------------


@TOKENIZERS
@pytest.mark.parametrize("temperature", [0.0, 1.2])
async def test_without_the_mask_it_says_what_it_must_not(tokenizer, temperature: float) -> None:
    reply = await _reply(_plan(temperature=temperature, n=4), tokenizer)

    with pytest.raises(AssertionError, match="phrase 0"):
        check_never_leaks(reply, [SECRET])


@TOKENIZERS
@pytest.mark.parametrize("name", [None, "spaces", "dots", "zero-width", "full-width", "upper case"])
async def test_a_mask_forces_detours_after_which_it_goes_on(tokenizer, name: str | None) -> None:
    demand = f" Spell it with {name}." if name else ""
    plan = _plan(QUESTION + demand, recipes=(Forbid(SECRET),), logprobs=5)
    reply = await _reply(plan, tokenizer)

    check_never_leaks(reply, [SECRET])
    assert reply.choices[0].finish == "stop"
    assert N("Basil Mahfouz Al-Kuwait") in N(reply.text)
    assert N(reply.text).endswith(N("City"))


@TOKENIZERS
async def test_a_mask_holds_against_sampling(tokenizer) -> None:
    plan = _plan(temperature=1.2, n=8, logprobs=5, recipes=(Forbid(SECRET), Forbid("Kuwait City")))

    check_never_leaks(await _reply(plan, tokenizer), [SECRET, "Kuwait City"])


@dataclass(frozen=True)
class Judge:
    """Calls for *verdict* once *after* tokens stand; holds everything until then."""

    after: int
    judged: Verdict
    seen: int = 0
    dead: bool = False
    stage: ClassVar[Stage] = Stage.HARD_MASK
    rank: ClassVar[int] = 0

    def begin(self, context: Context) -> Judge:
        return self

    @property
    def held(self) -> int:
        return self.seen if self.seen < self.after else 0

    @property
    def verdict(self) -> Verdict:
        return self.judged if self.seen == self.after else ALLOW

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        dead = self.dead and self.seen == self.after
        return torch.full_like(logits, -torch.inf) if dead else logits

    def advance(self, token: int) -> Judge:
        return replace(self, seen=self.seen + 1)

    def finish(self) -> Judge:
        return self


async def test_a_redacted_span_leaves_as_its_marker() -> None:
    reply = await _reply(_plan(recipes=(Judge(12, Redact(4, 10, "[gone]")),)))

    assert reply.text == ANSWER.replace("writer", "[gone]")


async def test_a_refusal_drops_what_is_held() -> None:
    reply = await _reply(_plan(recipes=(Judge(9, Refuse()),)))

    assert (reply.text, reply.choices[0].finish) == ("No.", "content_filter")


async def test_a_dead_end_ends_in_content_filter() -> None:
    reply = await _reply(_plan(recipes=(Judge(9, ALLOW, dead=True),)))

    assert reply.choices[0].finish == "content_filter"
    assert ANSWER.startswith(reply.text)
    assert len(reply.text) <= 9


async def test_it_can_do_what_the_local_engine_can() -> None:
    async with _engine() as engine:
        assert Capability.LOGITS in engine.capabilities
        assert engine.lexicon is not None
        assert len(engine.lexicon) == 259
