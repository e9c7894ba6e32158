from __future__ import annotations

import pickle
import subprocess
import sys
from random import Random

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from elision.contract import Context, Here, Recipe, Stage, in_order
from elision.middleware.interventions import (
    INTERVENTIONS,
    EntropyMinimisation,
    FrequencyPresence,
    LogitBias,
    MinP,
    Repetition,
    TargetEntropy,
    Temperature,
    TopK,
    TopNSigma,
    TopP,
)
from elision.middleware.interventions.entropy import entropy
from elision.testing import byte_lexicon
from elision.testing.laws import awkward_rows, check_adjust, check_neutral, check_sessions

EVERY = [pytest.param(make(), id=name) for name, make in INTERVENTIONS.items()]
SHARPENS = [
    pytest.param(make(), id=name)
    for name, make in INTERVENTIONS.items()
    if make().stage in {Stage.ENTROPY, Stage.TEMPERATURE, Stage.TRUNCATION}
]
NEUTRAL: list[Recipe] = [
    LogitBias(bias={}),
    LogitBias(bias={3: 0.0}),
    Repetition(penalty=1.0),
    FrequencyPresence(),
    EntropyMinimisation(steps=0),
    EntropyMinimisation(lr=0),
    EntropyMinimisation(threshold=100),
    TargetEntropy(nats=100),
    TargetEntropy(ratio=1),
    TargetEntropy(ratio=0.5, floor=100),
    Temperature(value=1),
    TopNSigma(n=0),
    TopK(k=0),
    TopK(k=10_000),
    TopP(p=1),
    MinP(p=0),
]
REPLY = (5, 17, 5, 200, 5)


def context(vocab_size: int) -> Context:
    return Context(lexicon=byte_lexicon(), vocab_size=vocab_size, prompt_ids=(1, 2, 2, 7))


scores = st.one_of(st.just(-float("inf")), st.floats(-40, 40, width=32))
rows = st.lists(scores, min_size=8, max_size=48).filter(lambda r: max(r) > -float("inf"))


@pytest.mark.parametrize("vocab_size", [259, 3001])
@pytest.mark.parametrize("recipe", EVERY)
def test_adjust_keeps_its_promises_on_rows_that_break_careless_arithmetic(
    recipe: Recipe, vocab_size: int
) -> None:
    check_adjust(recipe, context(vocab_size), awkward_rows(vocab_size), tokens=REPLY)


@pytest.mark.parametrize("recipe", EVERY)
@given(row=rows, reply=st.lists(st.integers(0, 7), max_size=4))
def test_adjust_keeps_its_promises_on_any_row(
    recipe: Recipe, row: list[float], reply: list[int]
) -> None:
    check_adjust(recipe, context(len(row)), [torch.tensor(row)], tokens=tuple(reply))


@pytest.mark.parametrize("recipe", NEUTRAL, ids=repr)
def test_neutral_settings_return_the_very_same_object(recipe: Recipe) -> None:
    check_neutral(recipe, context(259), awkward_rows(259), tokens=REPLY)


@pytest.mark.parametrize("recipe", EVERY)
def test_sessions_are_values(recipe: Recipe) -> None:
    check_sessions(recipe, context(259), awkward_rows(259)[:3], tokens=REPLY)


@pytest.mark.parametrize("recipe", SHARPENS)
@given(row=rows)
def test_the_best_token_stays_the_best(recipe: Recipe, row: list[float]) -> None:
    z = torch.tensor(row)
    out = recipe.begin(context(len(row))).adjust(z, Here(z))
    best = z == z.max()
    assert (out[best] == out.max()).any()
    if not isinstance(recipe, TopP):  # of a tie at its edge, top-p keeps only some
        assert torch.isclose(out[best], out.max(), atol=1e-5).all()


@pytest.mark.parametrize("recipe", SHARPENS)
@given(row=rows)
def test_entropy_never_rises(recipe: Recipe, row: list[float]) -> None:
    z = torch.tensor(row)
    out = recipe.begin(context(len(row))).adjust(z, Here(z))
    assert entropy(out) <= entropy(z) + 1e-5


@pytest.mark.parametrize("recipe", SHARPENS)
@given(
    row=st.lists(st.integers(-80, 80), min_size=8, max_size=48, unique=True),
    order=st.randoms(use_true_random=False),
)
def test_naming_the_tokens_otherwise_changes_nothing(
    recipe: Recipe, row: list[int], order: Random
) -> None:
    session, z = recipe.begin(context(len(row))), torch.tensor(row) / 8
    # Sums in another order: only what stands on the very edge may fall to the other side.
    mean = (z.double() * z.double().softmax(-1)).sum()
    assume(recipe.stage != Stage.ENTROPY or ((z - mean).abs() > 1e-3).all())
    places = list(range(len(row)))
    order.shuffle(places)
    shuffled = z[places]
    out, again = session.adjust(z, Here(z))[places], session.adjust(shuffled, Here(shuffled))
    agree = torch.isclose(out, again, atol=1e-4) | (out == again)
    assert agree.sum() >= len(row) - (recipe.stage == Stage.TRUNCATION)


@pytest.mark.parametrize("recipe", EVERY)
def test_recipes_can_be_compared_hashed_and_sent_to_another_process(recipe: Recipe) -> None:
    copy = pickle.loads(pickle.dumps(recipe))
    assert copy == recipe
    assert hash(copy) == hash(recipe)


@pytest.mark.parametrize("recipe", EVERY)
def test_half_precision_rows_are_served_too(recipe: Recipe) -> None:
    check_adjust(recipe, context(259), [row.bfloat16() for row in awkward_rows(259)], tokens=REPLY)


def test_recipes_act_in_the_order_of_the_composition() -> None:
    recipes = in_order(make() for make in reversed(INTERVENTIONS.values()))
    assert [type(recipe) for recipe in recipes] == [
        LogitBias,
        Repetition,
        FrequencyPresence,
        EntropyMinimisation,
        TargetEntropy,
        TargetEntropy,
        Temperature,
        TopNSigma,
        TopK,
        TopP,
        MinP,
    ]


def test_listing_the_recipes_loads_no_torch() -> None:
    code = "import sys, elision.middleware.interventions; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
