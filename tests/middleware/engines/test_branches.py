"""Branches in the running engine: what a recipe reads beside the row is what a recompute reads."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from elision.contract import Completion, Context, Plan, Recipe, Suffix, collect
from elision.errors import (
    CapabilityError,
    ConfigError,
    ContextLengthError,
    EngineError,
    RequestError,
)
from elision.middleware.engines import branches
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.job import CAPABILITIES
from elision.middleware.engines.local import LocalEngine
from elision.middleware.interventions.contrast import ContextAware, ContextualContrast
from elision.middleware.interventions.difference import ContrastiveDecoding, LogitDifference
from elision.middleware.interventions.guidance import Guidance
from elision.middleware.interventions.mti import MinimalIntervention
from elision.middleware.interventions.views import LastToken, Tokens
from elision.testing.laws import check_drafted_equals_plain
from elision.testing.models import Architecture, tiny_model
from elision.testing.tokenizers import byte_tokenizer

from .slow_branches import slow_adjusted
from .test_drafting import SAMPLED, causal, free, lengths
from .test_rewind import Every, back_to

OTHER = Tokens(tuple(range(40, 60)))
LONG = Tokens(tuple(40 + i % 50 for i in range(300)))
RECIPES: dict[str, tuple[Recipe, ...]] = {
    "mti": (MinimalIntervention(tau=2.0, negative=(7, 8, 9)),),
    "mti-always": (MinimalIntervention(gate="always", negative=(7, 8, 9)),),
    "mti-prompt": (MinimalIntervention(tau=2.0, negative=(7, 8, 9), branch="prompt"),),
    "cfg": (Guidance(scale=1.5),),
    "cfg-long": (Guidance(scale=1.5, other=LONG),),
    "cad": (ContextAware(other=OTHER),),
    "contrast": (ContextualContrast(towards=OTHER, away=LastToken()),),
    "cd": (ContrastiveDecoding(assistant="amateur"),),
    "uld": (LogitDifference(assistant="amateur"),),
    "three": (MinimalIntervention(tau=2.0, negative=(7, 8)), Guidance(), ContextAware(other=OTHER)),
}
ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen3", "gemma3")
N_STEPS = 12


def amateur(architecture: Architecture = "llama") -> CausalModel:
    tokenizer = byte_tokenizer()
    model = tiny_model(architecture, vocab_size=len(tokenizer), seed=5, n_layers=1)
    return CausalModel(model, tokenizer, name="amateur")


def engine_for(architecture: Architecture = "llama", **options: Any) -> LocalEngine:
    assistants = {"amateur": amateur(architecture)}
    return LocalEngine(causal(architecture), assistants=assistants, **options)


async def decode(engine: LocalEngine, plan: Plan, **changes: Any) -> Completion:
    return await collect(engine.stream(replace(plan, **changes)))


@cache
def slow_reply(architecture: Architecture, name: str) -> tuple[list[int], list[float]]:
    """Decode greedily, every score recomputed; return the tokens and their log-probabilities."""
    model, plan = causal(architecture), free(*RECIPES[name])
    prompt = model.render(plan.request).ids
    context = Context(
        lexicon=model.lexicon,
        vocab_size=model.vocab_size,
        prompt_ids=prompt,
        eos=model.eos,
        capabilities=CAPABILITIES,
        assistants=frozenset({"amateur"}),
    )
    tokens, logprobs = list[int](), list[float]()
    others = {"amateur": amateur(architecture).model}
    for _ in range(N_STEPS):
        scores = slow_adjusted(model.model, plan.recipes, context, tuple(tokens), others)
        tokens.append(int(scores.argmax()))
        logprobs.append(float(scores.log_softmax(-1)[tokens[-1]]))
    return tokens, logprobs


# --- the same as a recompute ---------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
async def test_a_reply_is_that_of_a_slow_recompute(architecture: Architecture, name: str) -> None:
    wanted = free(*RECIPES[name], max_tokens=N_STEPS, logprobs=0)
    tokens, logprobs = slow_reply(architecture, name)
    engine = engine_for(architecture)
    lexicon = causal(architecture).lexicon
    try:
        for speculation in ("off", "off", "force", "force"):
            done = await decode(engine, wanted, speculation=speculation, reuse=True)
            entries = done.choices[0].logprobs
            assert b"".join(e.data for e in entries) == b"".join(map(lexicon.bytes_of, tokens))
            assert [e.logprob for e in entries] == pytest.approx(logprobs, abs=1e-4)
    finally:
        await engine.aclose()


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
async def test_a_given_answer_is_scored_as_it_would_be_written(
    architecture: Architecture, name: str
) -> None:
    wanted = free(*RECIPES[name], max_tokens=N_STEPS)
    tokens, logprobs = slow_reply(architecture, name)
    engine = engine_for(architecture)
    scored = replace(wanted, request=replace(wanted.request, answer=tuple(tokens)))
    try:
        done = await decode(engine, scored)
    finally:
        await engine.aclose()
    assert [e.logprob for e in done.choices[0].logprobs] == pytest.approx(logprobs, abs=1e-4)


@pytest.mark.parametrize("name", ["mti-always", "cfg", "mti-prompt"])
async def test_a_window_that_has_moved_on_is_not_lost(name: str) -> None:
    wanted = free(*RECIPES[name], max_tokens=40, logprobs=0)
    model = {"context": 128}
    tokens = slow_windowed(wanted, model)
    engine = LocalEngine(causal("gemma3", **model))
    try:
        for reuse in (False, True):
            done = await decode(engine, wanted, reuse=reuse)
            assert done.text == tokens
    finally:
        await engine.aclose()


def slow_windowed(plan: Plan, options: dict[str, Any]) -> str:
    model = causal("gemma3", **options)
    context = Context(
        lexicon=model.lexicon,
        vocab_size=model.vocab_size,
        prompt_ids=model.render(plan.request).ids,
        capabilities=CAPABILITIES,
    )
    tokens: list[int] = []
    while len(tokens) < 40:
        scores = slow_adjusted(model.model, plan.recipes, context, tuple(tokens))
        tokens.append(int(scores.argmax()))
    return model.lexicon.text(tokens)


# --- with everything else ------------------------------------------------------------------------


@lengths
@pytest.mark.parametrize("name", RECIPES)
def test_a_drafted_reply_is_the_plain_reply_under_every_branch(name: str, length: int) -> None:
    check_drafted_equals_plain(
        engine_for,
        free(*RECIPES[name], max_tokens=length, logprobs=1),
        free(*RECIPES[name], max_tokens=length, sampling=SAMPLED, n=2),
    )


@pytest.mark.parametrize("name", ["mti", "cfg", "cd"])
def test_a_reply_that_goes_back_is_followed_back(name: str) -> None:
    again = Every(lambda t: len(t) in {9, 14} and t[4] % 2 == 0, back_to(4))
    start = Every(lambda t: len(t) == 3 and t[0] % 2 == 1, back_to(0))
    check_drafted_equals_plain(
        engine_for,
        free(*RECIPES[name], again, max_tokens=20),
        free(*RECIPES[name], start, again, max_tokens=20, sampling=SAMPLED),
    )


async def test_eight_guided_streams_share_their_forwards_and_stay_what_they_are_alone() -> None:
    prompts = [tuple(range(60 + i, 80 + 2 * i)) for i in range(8)]
    names = ["mti", "cfg", "cad", "cd"]
    plans = [
        replace(w := free(*RECIPES[names[i % 4]], max_tokens=16), reuse=True,
                request=replace(w.request, prompt=prompt))
        for i, prompt in enumerate(prompts)
    ]  # fmt: skip
    engine = engine_for()
    try:
        alone = [await decode(engine, plan, reuse=False) for plan in plans]
        n_before = engine.stats()["forwards"]
        together = await asyncio.gather(*(decode(engine, plan) for plan in plans))
        n_forwards = engine.stats()["forwards"] - n_before
    finally:
        await engine.aclose()
    assert [done.text for done in together] == [done.text for done in alone]
    assert n_forwards < 8 * 16 / 2


async def test_choices_of_a_request_read_another_prompt_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []
    read_prompt = branches.Aside.read_prompt

    def counting(self: branches.Aside) -> None:
        before = int(self.cache.get_seq_length())
        read_prompt(self)
        read.append(int(self.cache.get_seq_length()) - before)

    monkeypatch.setattr(branches.Aside, "read_prompt", counting)
    engine = engine_for()
    try:
        wanted = free(*RECIPES["cfg-long"], max_tokens=4, n=3, sampling=SAMPLED)
        done = await decode(engine, wanted)
    finally:
        await engine.aclose()
    assert len(done.choices) == 3
    assert sum(read) == 300


# --- what is refused -----------------------------------------------------------------------------


def test_an_assistant_with_another_vocabulary_is_refused() -> None:
    other = CausalModel(tiny_model(vocab_size=300), byte_tokenizer(), name="other")
    with pytest.raises(ConfigError, match="'other' cannot assist 'tiny': it has 300 tokens"):
        LocalEngine(causal(), assistants={"other": other})


async def test_an_assistant_that_is_not_there_is_refused() -> None:
    engine = LocalEngine(causal())
    try:
        with pytest.raises(RequestError, match=r"names an assistant that is not loaded; .*: none"):
            await decode(engine, free(*RECIPES["cd"]))
    finally:
        await engine.aclose()


async def test_a_suffix_ends_within_the_context() -> None:
    engine = LocalEngine(causal(context=64))
    model, wanted = causal(context=64), free(*RECIPES["mti-always"], max_tokens=None)
    room = 64 - len(model.render(wanted.request).ids)
    try:
        done = await decode(engine, wanted)
        with pytest.raises(ContextLengthError, match="shorten it"):
            await decode(engine, replace(
                wanted, request=replace(wanted.request, answer=tuple(range(40, 40 + room)))
            ))  # fmt: skip
    finally:
        await engine.aclose()
    assert done.usage.completion_tokens == room - len((7, 8, 9))


async def test_an_echoed_prompt_is_scored_beside_an_assistant() -> None:
    wanted = free(*RECIPES["cd"], max_tokens=2)
    request = replace(wanted.request, kind="text", echo=True, logprobs=0)
    engine = engine_for()
    try:
        done = await decode(engine, replace(wanted, request=request))
    finally:
        await engine.aclose()
    n_prompt = len(causal().render(request).ids)
    assert len(done.choices[0].logprobs) == n_prompt + 2


async def test_what_stands_against_a_request_comes_before_its_echo() -> None:
    engine = LocalEngine(causal(context=128))
    wanted = free(*RECIPES["cfg-long"], max_tokens=4)
    left: list[Any] = []

    async def read() -> None:
        async for delta in engine.stream(
            replace(wanted, request=replace(wanted.request, echo=True))
        ):
            left.append(delta)

    try:
        with pytest.raises(ContextLengthError):
            await read()
    finally:
        await engine.aclose()
    assert left == []


async def test_a_reply_that_must_be_alone_shares_no_branch_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    score = branches.score_trees

    def counting(model: Any, segments: Any) -> Any:
        sizes.append(len(segments))
        return score(model, segments)

    monkeypatch.setattr(branches, "score_trees", counting)
    engine = engine_for()
    wanted = free(*RECIPES["mti-always"], max_tokens=6)
    try:
        plans = (replace(wanted, reuse=False), replace(wanted, reuse=False))
        await asyncio.gather(*(decode(engine, plan) for plan in plans))
    finally:
        await engine.aclose()
    assert sizes
    assert max(sizes) == 1


async def test_another_prompt_that_fills_the_context_is_refused() -> None:
    engine = LocalEngine(causal(context=128))
    try:
        with pytest.raises(ContextLengthError, match="takes 128 in all; shorten it"):
            await decode(engine, free(*RECIPES["cfg-long"], max_tokens=4))
    finally:
        await engine.aclose()


async def test_a_branch_that_breaks_ends_its_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_for()
    broken = MinimalIntervention(gate="always", negative=(999_999,))
    monkeypatch.setattr(Tokens, "ids", lambda self, context: self.tokens)
    try:
        fine, bad = await asyncio.gather(
            decode(engine, free(*RECIPES["mti-always"], max_tokens=8), reuse=True),
            decode(engine, free(broken, max_tokens=8), reuse=True),
            return_exceptions=True,
        )
        assert isinstance(fine, Completion)
        assert len(fine.text) >= 1
        assert isinstance(bad, EngineError)
        again = await decode(engine, free(*RECIPES["mti-always"], max_tokens=8), reuse=True)
        assert again.text == fine.text
    finally:
        await engine.aclose()


def test_a_suffix_is_a_value_and_guidance_asks_for_the_capability() -> None:
    assert Suffix((1, 2)) == Suffix((1, 2))
    with pytest.raises(CapabilityError):
        Guidance().begin(Context(lexicon=causal().lexicon, vocab_size=259, prompt_ids=(1,)))
