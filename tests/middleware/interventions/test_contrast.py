from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import replace
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from elision.contract import BranchKey, Capability, Context, Here, OtherPrompt, Recipe, in_order
from elision.errors import CapabilityError, ConfigError, EngineError, RequestError
from elision.middleware.interventions.base import Chain
from elision.middleware.interventions.contrast import ContextAware, ContextualContrast
from elision.middleware.interventions.views import After, LastToken, System, Tokens, Without
from elision.testing import byte_lexicon
from elision.testing.branches import MadeUpReader, with_branches
from elision.testing.laws import awkward_rows, check_neutral

from .mixer_laws import REPLY, check_promises, check_reads_all_it_names, check_values

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "data" / "eminf_vectors.json").read_text()
)
INF = float("inf")
CONTEXT = ", its context in it"  # stands in the made-up reader's prompt
GOOD, BAD, NOW = Tokens((0,)), Tokens((1,)), Tokens((2,))
EVERY = [
    pytest.param(recipe, id=name)
    for name, recipe in {
        "cad": ContextAware(other=Without(CONTEXT)),
        "cad, plausible": ContextAware(scale=1.5, other=LastToken(), plausibility=0.1),
        "cad, turned around": ContextAware(scale=-0.5, other=System("another")),
        "r-cad": ContextAware(scale=3.0, other=After("a protected passage")),
        "contrast": ContextualContrast(towards=System("a novice"), away=System("an expert")),
        "contrast, unmasked": ContextualContrast(scale=5, towards=GOOD, away=BAD, plausibility=0.0),
    }.items()
]
NEUTRAL = [
    ContextAware(scale=0.0, other=Without(CONTEXT)),
    ContextAware(scale=0.0, other=LastToken(), plausibility=0.5),
    ContextualContrast(scale=0.0, towards=GOOD, away=BAD),
]
score = st.floats(-20, 20, width=32)
shared = st.floats(0, 0.9) | st.just(0.0)


def plain_context(vocab_size: int) -> Context:
    return Context(lexicon=byte_lexicon(), vocab_size=vocab_size, prompt_ids=(1, 2, 2, 7))


def context(vocab_size: int = 8) -> Context:
    return with_branches(plain_context(vocab_size))


def run(
    recipe: Recipe, own: Tensor, others: Mapping[BranchKey, Tensor], raw: Tensor | None = None
) -> Tensor:
    """Adjust one row, the other rows given."""
    here = Here(own if raw is None else raw, branch=others.__getitem__)
    return recipe.begin(context(len(own))).adjust(own, here)


def prompts(*rows: Tensor) -> dict[BranchKey, Tensor]:
    return {OtherPrompt((index,)): row for index, row in enumerate(rows)}


# --- Laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("some_masked", [False, True])
@pytest.mark.parametrize("recipe", EVERY)
def test_adjust_keeps_its_promises_on_rows_that_break_careless_arithmetic(
    recipe: Recipe, some_masked: bool
) -> None:
    check_promises(recipe, context, some_masked=some_masked)


@pytest.mark.parametrize("recipe", NEUTRAL, ids=repr)
@pytest.mark.parametrize("capable", [False, True])
def test_neutral_settings_return_the_very_same_object_and_ask_for_nothing(
    recipe: Recipe, capable: bool
) -> None:
    where = context(259) if capable else plain_context(259)
    check_neutral(recipe, where, awkward_rows(259), tokens=REPLY)
    assert Chain.begin([recipe], where).branches == {}


@pytest.mark.parametrize("recipe", EVERY)
def test_sessions_are_values(recipe: Recipe) -> None:
    check_values(recipe, context)


@pytest.mark.parametrize("recipe", EVERY)
def test_what_is_needed_is_said_beforehand_and_nothing_else_is_read(recipe: Recipe) -> None:
    check_reads_all_it_names(recipe, context)


@pytest.mark.parametrize("recipe", EVERY)
def test_recipes_can_be_compared_hashed_and_sent_to_another_process(recipe: Recipe) -> None:
    copy = pickle.loads(pickle.dumps(recipe))
    assert copy == recipe
    assert hash(copy) == hash(recipe)


@given(triples=st.lists(st.tuples(score, score, score), min_size=2, max_size=30), scale=score)
def test_the_result_has_the_normaliser_of_the_raw_row(
    triples: list[tuple[float, float, float]], scale: float
) -> None:
    raw, own, other = torch.tensor(triples).T.contiguous()
    out = run(ContextAware(scale=scale, other=GOOD), own, prompts(other), raw=raw)
    assume(out is not own)
    assert float(out.logsumexp(-1)) == pytest.approx(float(raw.logsumexp(-1)), abs=1e-3)


@given(pairs=st.lists(st.tuples(score, score), min_size=2, max_size=30), shift=score)
def test_a_row_plus_a_constant_is_the_same_row(
    pairs: list[tuple[float, float]], shift: float
) -> None:
    own, other = torch.tensor(pairs).T.contiguous()
    recipe = ContextAware(scale=1.5, other=GOOD)
    one, two = (run(recipe, own, prompts(row)) for row in (other, other + shift))
    assert torch.allclose(one, two, atol=1e-3)


@given(pairs=st.lists(st.tuples(score, score), min_size=2, max_size=30))
def test_context_awareness_is_a_contrast_towards_the_prompt_itself(
    pairs: list[tuple[float, float]],
) -> None:
    own, without = torch.tensor(pairs).T.contiguous()
    cad = run(ContextAware(scale=0.7, other=BAD), own, prompts(own, without))
    towards = ContextualContrast(scale=0.7, towards=GOOD, away=BAD, plausibility=0)
    assert torch.allclose(cad, run(towards, own, prompts(own, without)), atol=1e-3)


@given(triples=st.lists(st.tuples(score, score, score), min_size=2, max_size=30))
def test_a_contrast_turned_around_is_one_with_its_ends_exchanged(
    triples: list[tuple[float, float, float]],
) -> None:
    own, one, two = torch.tensor(triples).T.contiguous()
    turned = ContextualContrast(scale=-1, towards=GOOD, away=BAD)
    exchanged = ContextualContrast(scale=1, towards=BAD, away=GOOD)
    out = run(turned, own, prompts(one, two))
    assert torch.allclose(out, run(exchanged, own, prompts(one, two)), atol=1e-3)


# --- Parity --------------------------------------------------------------------------------------


def logp(row: Tensor) -> NDArray[np.float64]:
    return normalised(row.double().numpy())


def normalised(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    total: float = scores.max() + np.log(np.exp(scores - scores.max()).sum())
    return scores - total


def off_the_edge(own: Tensor, plausibility: float) -> bool:
    """Whether no token stands where float32 and float64 may disagree on keeping it."""
    lead = logp(own) - logp(own).max()
    return not plausibility or bool((abs(lead - log(plausibility)) > 1e-4).all())


def assert_scores(out: Tensor, wanted: NDArray[np.float64]) -> None:
    got = normalised(out.double().numpy())
    assert (np.isneginf(got) == np.isneginf(wanted)).all()
    kept = ~np.isneginf(wanted)
    assert np.allclose(got[kept], wanted[kept], rtol=1e-5, atol=1e-3)


@given(
    pairs=st.lists(st.tuples(score, score), min_size=2, max_size=40),
    scale=st.floats(-2, 3).filter(bool),
    plausibility=shared,
)
def test_context_awareness_is_its_equation_in_float64(
    pairs: list[tuple[float, float]], scale: float, plausibility: float
) -> None:
    own, without = torch.tensor(pairs).T.contiguous()
    assume(off_the_edge(own, plausibility))
    recipe = ContextAware(scale=scale, other=GOOD, plausibility=plausibility)
    wanted = (1 + scale) * logp(own) - scale * logp(without)
    wanted[logp(own) < logp(own).max() + np.log(plausibility or 1e-300)] = -INF
    assert_scores(run(recipe, own, prompts(without)), normalised(wanted))


@given(
    triples=st.lists(st.tuples(score, score, score), min_size=2, max_size=40),
    scale=st.floats(-5, 5).filter(bool),
    plausibility=shared,
)
def test_contextual_contrast_is_its_equation_in_float64(
    triples: list[tuple[float, float, float]], scale: float, plausibility: float
) -> None:
    own, one, two = torch.tensor(triples).T.contiguous()
    assume(off_the_edge(own, plausibility))
    recipe = ContextualContrast(scale=scale, towards=GOOD, away=BAD, plausibility=plausibility)
    wanted = logp(own) + scale * (logp(one) - logp(two))
    wanted[logp(own) < logp(own).max() + np.log(plausibility or 1e-300)] = -INF
    assert_scores(run(recipe, own, prompts(one, two)), normalised(wanted))


# --- Examples ------------------------------------------------------------------------------------


def test_context_awareness_meets_the_worked_example() -> None:
    case = VECTORS["cad_alpha0.5"]
    own, without = torch.tensor(case["with"]), torch.tensor(case["without"])
    out = run(ContextAware(scale=0.5, other=GOOD), own, prompts(without))
    assert torch.allclose(out - out[0], torch.tensor(case["logits"]), atol=1e-6)
    assert out.softmax(-1).tolist() == pytest.approx(case["p"])


def test_a_contrast_takes_from_the_experts_word_and_gives_to_the_novices() -> None:
    own = torch.tensor([2.0, 2.0, 1.0, -9.0])
    novice, expert = torch.tensor([0.0, 2.0, 1.0, 9.0]), torch.tensor([2.0, 0.0, 1.0, -9.0])
    out = run(ContextualContrast(towards=GOOD, away=BAD), own, prompts(novice, expert))
    assert out.argmax() == 1
    assert out[1] - out[0] == pytest.approx(4.0)
    assert out[3] == -INF  # the model itself finds it implausible, whatever the contrast says


def test_a_protected_passage_is_put_in_front_of_the_subtracted_prompt() -> None:
    reader = MadeUpReader(259)
    session = ContextAware(scale=2, other=After("secret ")).begin(context(259))
    assert session.branches == (OtherPrompt(reader.encode("secret the prompt" + CONTEXT)),)
    own, leaked = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([6.0, 1.0, 0.0])
    out = run(ContextAware(scale=2, other=GOOD), own, prompts(leaked))
    assert out[0] - out[1] == pytest.approx((1 + 2) * (2 - 1) - 2 * (6 - 1))


def test_the_prompt_without_its_context_is_what_is_subtracted() -> None:
    session = ContextAware(other=Without(CONTEXT)).begin(context(259))
    assert session.branches == (OtherPrompt(MadeUpReader(259).encode("the prompt")),)


def test_a_token_that_only_the_other_prompt_forbids_does_not_become_certain() -> None:
    own, other = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, -INF])
    out = run(ContextAware(scale=1, other=GOOD), own, prompts(other))
    stand_in = torch.tensor([0.0, 1.0, 0.0])
    assert out.isfinite().all()
    assert out[2] - out[0] == pytest.approx(
        float((2 * own - stand_in)[2] - (2 * own - stand_in)[0])
    )


def test_a_row_in_which_nothing_is_left_comes_back_as_it_is_and_is_not_noted() -> None:
    nothing, other = torch.full((3,), -INF), torch.zeros(3)
    here = Here(nothing, branch=lambda key: other)
    session = ContextAware(other=GOOD).begin(context(3))
    assert session.adjust(nothing, here) is nothing
    assert here.notes == {}


def test_positions_where_it_acted_are_noted() -> None:
    row = torch.tensor([2.0, 1.0, 0.0])
    here = Here(row, branch=lambda key: row.flip(0))
    ContextAware(other=GOOD).begin(context(3)).adjust(row, here)
    ContextualContrast(towards=GOOD, away=BAD).begin(context(3)).adjust(row, here)
    assert here.notes == {"cad_guided": 1, "contrast_guided": 1}


def test_one_branch_serves_everybody_who_names_it() -> None:
    recipes: list[Recipe] = [
        ContextAware(other=BAD),
        ContextualContrast(towards=GOOD, away=BAD),
        ContextualContrast(towards=NOW, away=GOOD),
    ]
    keys = {OtherPrompt((token,)): True for token in (0, 1, 2)}
    chain = Chain.begin(recipes, context())
    assert chain.branches == keys
    needs = chain.needs(Here(torch.zeros(8)))
    assert len(needs) == len(keys)
    assert set(needs) == set(keys)


def test_context_awareness_acts_before_contextual_contrast() -> None:
    contrast = ContextualContrast(towards=GOOD, away=BAD)
    aware = ContextAware(other=BAD)
    assert in_order([contrast, aware]) == (aware, contrast)
    assert aware.rank != contrast.rank


@pytest.mark.parametrize("length", [1, 7, 9])
@pytest.mark.parametrize("recipe", EVERY)
def test_a_row_of_another_length_is_never_mixed_in(recipe: Recipe, length: int) -> None:
    session = recipe.begin(context(8))
    with pytest.raises(EngineError, match=r"shape \(\d,\), not \(8,\)"):
        session.adjust(torch.zeros(8), Here(torch.zeros(8), branch=lambda key: torch.zeros(length)))


@pytest.mark.parametrize("broken", [float("nan"), INF])
def test_a_broken_row_ends_the_answer_instead_of_switching_the_contrast_off(broken: float) -> None:
    session = ContextAware(other=GOOD).begin(context(3))
    other = torch.tensor([0.0, broken, -INF])
    with pytest.raises(EngineError, match="not numbers"):
        session.adjust(torch.zeros(3), Here(torch.zeros(3), branch=lambda key: other))


@pytest.mark.parametrize("recipe", EVERY)
def test_an_engine_without_branches_is_refused(recipe: Recipe) -> None:
    assert Capability.BRANCH not in plain_context(259).capabilities
    with pytest.raises(CapabilityError, match="needs BRANCH"):
        recipe.begin(plain_context(259))


def test_a_context_that_is_not_there_is_refused_without_being_told() -> None:
    with pytest.raises(RequestError) as told:
        ContextAware(other=Without("mothballs")).begin(context(259))
    assert "mothballs" not in str(told.value)


@pytest.mark.parametrize("name", ["scale", "plausibility"])
@pytest.mark.parametrize("value", [float("nan"), INF, -101, 101])
def test_settings_that_cannot_be_meant_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        replace(ContextAware(other=GOOD), **{name: value})
    with pytest.raises(ConfigError, match=name):
        replace(ContextualContrast(towards=GOOD, away=BAD), **{name: value})


def test_a_contrast_of_a_prompt_with_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="one view"):
        ContextualContrast(towards=System("calm"), away=System("calm"))


def test_the_odds_of_two_tokens_move_as_the_mathematics_says() -> None:
    own, without = torch.tensor([0.0, 0.0]), torch.tensor([log(4.0), 0.0])
    out = run(ContextAware(scale=0.5, other=GOOD), own, prompts(without))
    assert exp(float(out[1] - out[0])) == pytest.approx(2.0)
