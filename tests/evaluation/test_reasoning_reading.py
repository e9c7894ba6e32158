"""Given answers, read token by token: against a recompute that keeps no cache and shares no row."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor

from elision.contract import (
    Here,
    OtherModel,
    OtherPrompt,
    Plan,
    Recipe,
    Request,
    Sampling,
    Suffix,
    collect,
)
from elision.errors import CapabilityError, ContextLengthError
from elision.evaluation.reasoning.reading import Reading, rows_of
from elision.middleware.engines.causal import CausalModel, Prompt
from elision.middleware.engines.job import context_for
from elision.middleware.engines.local import LocalEngine
from elision.middleware.interventions.bias import LogitBias
from elision.middleware.interventions.entropy import EntropyMinimisation
from elision.middleware.interventions.guidance import Guidance
from elision.middleware.interventions.mti import MinimalIntervention
from elision.middleware.interventions.penalties import FrequencyPresence
from elision.middleware.interventions.temperature import Temperature
from elision.testing.models import Architecture, tiny_model
from elision.testing.tokenizers import byte_tokenizer

PROMPT = "In my palm is a clear stone, and inside it is a small ivory statuette. " * 3
ANSWER = " A guardian angel."


def load(architecture: Architecture) -> CausalModel:
    weights = tiny_model(architecture, context=256)  # Gemma's windows are 64 tokens: they bind
    return CausalModel(weights, byte_tokenizer(), name=architecture)


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def model(request: pytest.FixtureRequest) -> CausalModel:
    return load(cast("Architecture", request.param))


def slow(model: CausalModel, ids: tuple[int, ...]) -> Tensor:
    """The scores behind *ids*: one forward from nothing."""
    with torch.inference_mode():
        out = model.model(input_ids=torch.tensor([ids]), use_cache=False)
    return cast("Tensor", out.logits[0, -1].float())


def close(row: Tensor, other: Tensor) -> bool:
    return bool((row - other).abs().max() < 1e-4)


def test_every_row_is_that_of_a_forward_from_nothing(model: CausalModel) -> None:
    request = Request(kind="text", prompt=PROMPT)
    reading = Reading(model, request, ANSWER)
    prompt, answer = reading.prompt_ids, reading.answer_ids
    other = model.render(Request(kind="text", prompt="Nothing.")).ids
    rows = rows_of(model, prompt, answer)
    assert rows.shape == (len(answer), model.vocab_size)
    for position in range(len(answer)):
        before = answer[:position]
        assert close(rows[position], slow(model, prompt + before))
        behind = reading.row(OtherPrompt(other), position)
        assert close(behind, slow(model, other + before))
        told = reading.row(Suffix((7, 8, 9)), position)
        assert close(told, slow(model, (*prompt, *before, 7, 8, 9)))


def test_a_prompt_longer_than_a_chunk_is_read_in_several() -> None:
    weights = tiny_model("llama", context=1024)
    model = CausalModel(weights, byte_tokenizer(), name="long")
    for n in (255, 256, 257, 511, 512):
        prompt, answer = tuple(65 + k % 26 for k in range(n)), (66, 67, 68)
        rows = rows_of(model, prompt, answer)
        for position in range(3):
            assert close(rows[position], slow(model, prompt + answer[:position]))


def walked(
    model: CausalModel, reading: Reading, request: Request, recipes: list[Recipe]
) -> tuple[float, bool]:
    """What the recipes make of the answer, by forwards from nothing and sessions of its own."""
    told = Prompt(reading.prompt_ids, PROMPT)
    context = context_for(Plan(request=request), told, model, assistants=())
    sessions = [recipe.begin(context) for recipe in recipes]
    logp, greedy, before = 0.0, True, reading.prompt_ids
    given: tuple[int, ...] = ()
    for position, token in enumerate(reading.answer_ids):

        def other(key: object, given: tuple[int, ...] = given) -> Tensor:
            if isinstance(key, Suffix):
                return slow(model, (*before, *given, *key.ids))
            assert isinstance(key, OtherPrompt)
            return slow(model, (*key.ids, *given))

        here = Here(slow(model, before + given), position=position, branch=other)
        scores = here.raw
        for session in sessions:
            scores = session.adjust(scores, here)
        logp += float(scores.log_softmax(-1)[token])
        greedy &= int(scores.argmax()) == token
        sessions = [session.advance(token) for session in sessions]
        given = (*given, token)
    return logp, greedy


@pytest.mark.parametrize(
    "recipes",
    [
        [],
        [Guidance(scale=1.5)],
        [MinimalIntervention(tau=2.0)],
        [MinimalIntervention(share=0.5, gate="random"), Guidance(scale=1.25)],
        [FrequencyPresence(frequency=0.4, presence=0.6), EntropyMinimisation()],
        [Guidance(scale=1.25), Temperature(value=0.5)],
    ],
    ids=["plain", "cfg", "mti", "both", "penalties", "cool"],
)
def test_a_walk_is_the_chain_over_rows_computed_one_by_one(
    model: CausalModel, recipes: list[Recipe]
) -> None:
    request = Request(kind="text", prompt=PROMPT)
    reading = Reading(model, request, ANSWER)
    told = Prompt(reading.prompt_ids, PROMPT)
    context = context_for(Plan(request=request), told, model, assistants=())
    found = reading.walk(recipes, context)
    logp, greedy = walked(model, reading, request, recipes)
    assert found.logp == pytest.approx(logp, abs=1e-3)
    assert found.greedy == greedy
    assert found.n_tokens == len(reading.answer_ids)
    assert 0 < found.entropy_nats < 5.6  # ln 259


@pytest.mark.parametrize(
    "mixer",
    [
        Guidance(scale=1.5),
        MinimalIntervention(tau=3.0),
        MinimalIntervention(share=0.5, gate="random"),
        MinimalIntervention(tau=2.0, branch="last_token"),
    ],
    ids=["cfg", "mti", "random", "last token"],
)
async def test_what_the_engine_writes_greedily_is_what_a_reading_finds_greedy(
    mixer: Recipe,
) -> None:
    """The rows that a reading shares between methods are those that the engine's branches have."""
    model = load("llama")
    engine = LocalEngine(model)
    specials = LogitBias(bias=dict.fromkeys((256, 257, 258), -100.0))
    sampling = Sampling(temperature=0, seed=5)
    request = Request(
        kind="text", prompt=PROMPT, sampling=sampling, max_tokens=24, logprobs=0
    )  # fmt: skip
    plan = Plan(request=request, recipes=(mixer, specials))
    try:
        written = (await collect(engine.stream(plan))).choices[0].logprobs
    finally:
        await engine.aclose()
    reading = Reading(model, request, tuple(entry.data[0] for entry in written))
    context = context_for(plan, Prompt(reading.prompt_ids, PROMPT), model, assistants=())
    found = reading.walk(plan.recipes, context)
    assert found.greedy
    assert found.n_tokens == 24
    assert found.logp == pytest.approx(sum(entry.logprob for entry in written), abs=1e-3)
    assert any(name.endswith("_guided") for name in found.notes)
    assert not reading.walk([specials], context).greedy  # the mixer did change the text


def test_a_greedy_reply_is_recognised_as_one(model: CausalModel) -> None:
    request = Request(kind="text", prompt=PROMPT)
    ids = model.render(request).ids
    written: tuple[int, ...] = ()
    for _ in range(6):
        written = (*written, int(slow(model, ids + written)[:128].argmax()))
    text = bytes(written).decode()
    reading = Reading(model, request, text)
    context = context_for(Plan(request=request), Prompt(ids, PROMPT), model, assistants=())
    best = all(
        int(slow(model, ids + written[:n]).argmax()) == token for n, token in enumerate(written)
    )
    assert reading.walk([], context).greedy is best
    assert not Reading(model, request, f"{text[:-1]}~").walk([], context).greedy


def test_rows_are_computed_once_whatever_number_of_methods_reads_them(
    model: CausalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(kind="text", prompt=PROMPT)
    reading = Reading(model, request, ANSWER)
    told = Prompt(reading.prompt_ids, PROMPT)
    context = context_for(Plan(request=request), told, model, assistants=())
    first = reading.walk([Guidance(scale=1.1)], context)
    monkeypatch.setattr(model, "model", None)  # whoever asks it again breaks
    assert reading.walk([Guidance(scale=1.1)], context) == first
    assert reading.walk([Guidance(scale=1.5)], context) != first


def test_there_is_no_other_model_to_ask_and_no_room_for_more_than_the_context() -> None:
    model = load("llama")
    reading = Reading(model, Request(kind="text", prompt=PROMPT), ANSWER)
    with pytest.raises(CapabilityError, match="second model"):
        reading.row(OtherModel("amateur"), 0)
    with pytest.raises(ContextLengthError, match="257 tokens"):
        rows_of(model, (1,) * 250, (2,) * 8)
