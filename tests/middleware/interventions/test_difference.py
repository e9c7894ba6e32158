from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from elision.contract import BranchKey, Context, Here, OtherModel, Recipe, in_order
from elision.errors import CapabilityError, ConfigError, EngineError, RequestError
from elision.middleware.interventions.base import Chain
from elision.middleware.interventions.difference import (
    ContrastiveDecoding,
    DeltaUnlearning,
    LogitDifference,
    Reinforced,
    likely,
)
from elision.testing import byte_lexicon
from elision.testing.branches import with_branches
from elision.testing.laws import awkward_rows, check_neutral

from .mixer_laws import REPLY, check_promises, check_reads_all_it_names, check_values

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "data" / "eminf_vectors.json").read_text()
)
INF = float("inf")
LI = ContrastiveDecoding(assistant="amateur")
EVERY = [
    pytest.param(recipe, id=name)
    for name, recipe in {
        "li": replace(LI, temperature=0.5),
        "li, unmasked": replace(LI, plausibility=0.0),
        "o'brien": replace(LI, scale=0.5),
        "o'brien, interpolated": replace(LI, scale=-0.5, temperature=2.0),
        "uld": LogitDifference(assistant="amateur"),
        "uld, no filter": LogitDifference(assistant="amateur", keep=0.0),
        "uld, wide": LogitDifference(assistant="amateur", keep=0.4, weight=0.3),
        "delta": DeltaUnlearning(before="before", after="after"),
        "reinforced": Reinforced(assistant="amateur"),
        "reinforced, strong": Reinforced(assistant="amateur", weight=5.0),
    }.items()
]
NEUTRAL = [
    ContrastiveDecoding(assistant="nobody", scale=0.0),
    LogitDifference(assistant="nobody", weight=0.0),
    DeltaUnlearning(before="nobody", after="no one", weight=0.0),
    Reinforced(assistant="nobody", weight=0.0),
]
AGREEABLE = [
    replace(LI, scale=0.5, plausibility=0.0),
    replace(LI, scale=-0.5, plausibility=0.0),
    DeltaUnlearning(before="before", after="after"),
    Reinforced(assistant="amateur"),
]
score = st.floats(-20, 20, width=32)
pairs_of_scores = st.lists(st.tuples(score, score), min_size=2, max_size=40)
shared = st.floats(0, 0.9) | st.just(0.0)


def plain_context(vocab_size: int = 8) -> Context:
    return Context(lexicon=byte_lexicon(), vocab_size=vocab_size, prompt_ids=(1, 2, 2, 7))


def context(vocab_size: int = 8) -> Context:
    return with_branches(plain_context(vocab_size))


def run(recipe: Recipe, own: Tensor, raw: Tensor | None = None, **rows: Tensor) -> Tensor:
    """Adjust one row, the assistants' rows given by name."""
    others: Mapping[BranchKey, Tensor] = {OtherModel(name): row for name, row in rows.items()}
    here = Here(own if raw is None else raw, branch=others.__getitem__)
    return recipe.begin(context(len(own))).adjust(own, here)


# --- Laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("some_masked", [False, True])
@pytest.mark.parametrize("recipe", EVERY)
def test_adjust_keeps_its_promises_on_rows_that_break_careless_arithmetic(
    recipe: Recipe, some_masked: bool
) -> None:
    check_promises(recipe, context, some_masked=some_masked)


@pytest.mark.parametrize("capable", [False, True])
@pytest.mark.parametrize("recipe", NEUTRAL, ids=repr)
def test_neutral_settings_return_the_very_same_object_and_ask_nobody(
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


@pytest.mark.parametrize("recipe", EVERY)
@settings(max_examples=20)
@given(pairs=pairs_of_scores, shift=score)
def test_a_row_plus_a_constant_is_the_same_row(
    recipe: Recipe, pairs: list[tuple[float, float]], shift: float
) -> None:
    """The published code reads logits raw with a filter, log-probabilities without one."""
    own, other = torch.tensor(pairs).T.contiguous()
    assume(off_the_edge(own, recipe))
    one, two = (
        run(recipe, own + by, raw=own, amateur=other - by, before=other, after=by - other)
        for by in (0.0, shift)
    )
    assert torch.allclose(one, two, atol=2e-3)


@pytest.mark.parametrize("recipe", EVERY)
@settings(max_examples=20)
@given(triples=st.lists(st.tuples(score, score, score), min_size=2, max_size=30))
def test_the_result_has_the_normaliser_of_the_raw_row(
    recipe: Recipe, triples: list[tuple[float, float, float]]
) -> None:
    raw, own, other = torch.tensor(triples).T.contiguous()
    out = run(recipe, own, raw=raw, amateur=other, before=other, after=-other)
    assert float(out.logsumexp(-1)) == pytest.approx(float(raw.logsumexp(-1)), abs=1e-3)


@pytest.mark.parametrize("recipe", AGREEABLE, ids=repr)
@given(row=st.lists(score, min_size=2, max_size=30))
def test_assistants_that_agree_change_nothing(recipe: Recipe, row: list[float]) -> None:
    own = torch.tensor(row)
    out = run(recipe, own, amateur=own, before=own.flip(0), after=own.flip(0))
    assert torch.allclose(out, own, atol=1e-3)


@given(row=st.lists(score, min_size=2, max_size=30))
def test_an_amateur_that_agrees_leaves_nothing_to_prefer(row: list[float]) -> None:
    own = torch.tensor(row)
    out = run(replace(LI, plausibility=0.0), own, amateur=own)
    assert torch.allclose(out, out[0].expand(len(row)), atol=1e-3)


@given(pairs=pairs_of_scores, weight=st.floats(-3, 3).filter(bool))
def test_a_delta_taken_back_leaves_the_scores_as_they_were(
    pairs: list[tuple[float, float]], weight: float
) -> None:
    own, after = torch.tensor(pairs).T.contiguous()
    rows = {"raw": own, "before": own.flip(0), "after": after}
    there = run(DeltaUnlearning(before="before", after="after", weight=weight), own, **rows)
    back = run(DeltaUnlearning(before="after", after="before", weight=weight), there, **rows)
    assert torch.allclose(back, own, atol=2e-3)


@given(row=st.lists(score, min_size=2, max_size=30), keep=st.floats(0, 1))
def test_an_assistant_that_knows_nothing_changes_nothing_of_what_is_kept(
    row: list[float], keep: float
) -> None:
    """Why the difference spares what must be kept: the assistant is trained to be uniform there."""
    own = torch.tensor(row)
    out = run(LogitDifference(assistant="amateur", keep=keep), own, amateur=torch.zeros(len(row)))
    kept = likely(own, keep)
    assert out[~kept].isneginf().all()
    assert torch.allclose(out[kept].log_softmax(-1), own[kept].log_softmax(-1), atol=1e-3)


@given(pairs=pairs_of_scores)
def test_what_the_reinforced_model_did_not_gain_keeps_its_odds(
    pairs: list[tuple[float, float]],
) -> None:
    own, reinforced = torch.tensor(pairs).T.contiguous()
    calm = reinforced.log_softmax(-1) < own.log_softmax(-1)
    assume(calm.any())
    out = run(Reinforced(assistant="amateur"), own, amateur=reinforced)
    assert torch.allclose(out[calm].log_softmax(-1), own[calm].log_softmax(-1), atol=1e-3)
    assert (out[~calm] - own[~calm]).max() <= (out[calm] - own[calm]).min() + 1e-3 or calm.all()


# --- Parity --------------------------------------------------------------------------------------


def normalised(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    total: float = scores.max() + np.log(np.exp(scores - scores.max()).sum())
    return scores - total


def logp(row: Tensor, temperature: float = 1.0) -> NDArray[np.float64]:
    return normalised(row.double().numpy() / temperature)


def kept_by_sorting(row: NDArray[np.float64], alpha: float) -> NDArray[np.bool_]:
    """The filter as its authors' code has it, where it keeps a token at least."""
    best_first = np.sort(row)[::-1]
    rank = int(alpha * len(row))
    threshold: float = min(best_first[rank - 1], best_first[0] + log(alpha))
    return row >= threshold


def off_the_edge(own: Tensor, recipe: Recipe) -> bool:
    """Whether no token stands where two precisions may disagree on keeping it."""
    row, alpha = logp(own), 0.0
    if isinstance(recipe, ContrastiveDecoding):
        alpha = recipe.plausibility
    elif isinstance(recipe, LogitDifference):
        gaps = np.diff(np.sort(row))
        if recipe.keep and (gaps < 1e-3).any():
            return False
        alpha = recipe.keep
    return not alpha or bool((abs(row - row.max() - log(alpha)) > 1e-3).all())


def assert_scores(out: Tensor, wanted: NDArray[np.float64]) -> None:
    got, wanted = normalised(out.double().numpy()), normalised(wanted)
    assert (np.isneginf(got) == np.isneginf(wanted)).all()
    kept = ~np.isneginf(wanted)
    assert np.allclose(got[kept], wanted[kept], rtol=1e-5, atol=2e-3)


@given(
    pairs=pairs_of_scores,
    scale=st.none() | st.floats(-2, 3).filter(bool),
    plausibility=shared,
    temperature=st.floats(0.25, 4),
)
def test_contrastive_decoding_is_its_equation_in_float64(
    pairs: list[tuple[float, float]], scale: float | None, plausibility: float, temperature: float
) -> None:
    own, amateur = torch.tensor(pairs).T.contiguous()
    recipe = replace(LI, scale=scale, plausibility=plausibility, temperature=temperature)
    assume(off_the_edge(own, recipe))
    weak = logp(amateur, temperature)
    wanted = logp(own) - weak if scale is None else (1 + scale) * logp(own) - scale * weak
    wanted[logp(own) < logp(own).max() + np.log(plausibility or 1e-300)] = -INF
    assert_scores(run(recipe, own, amateur=amateur), wanted)


@given(pairs=pairs_of_scores, weight=st.floats(-2, 2).filter(bool), keep=st.floats(0.03, 0.99))
def test_logit_difference_is_its_equation_over_raw_scores_in_float64(
    pairs: list[tuple[float, float]], weight: float, keep: float
) -> None:
    own, assistant = torch.tensor(pairs).T.contiguous()
    recipe = LogitDifference(assistant="amateur", weight=weight, keep=keep)
    assume(int(keep * len(own)) >= 1 and off_the_edge(own, recipe))
    wanted = own.double().numpy() + weight * assistant.double().numpy()
    wanted[~kept_by_sorting(own.double().numpy(), keep)] = -INF
    assert_scores(run(recipe, own, amateur=assistant), wanted)


@given(
    triples=st.lists(st.tuples(score, score, score), min_size=2, max_size=30),
    weight=st.floats(-2, 2).filter(bool),
)
def test_delta_unlearning_is_its_equation_over_raw_scores_in_float64(
    triples: list[tuple[float, float, float]], weight: float
) -> None:
    own, before, after = torch.tensor(triples).T.contiguous()
    recipe = DeltaUnlearning(before="before", after="after", weight=weight)
    wanted = (own.double() + weight * (after.double() - before.double())).numpy()
    assert_scores(run(recipe, own, before=before, after=after), wanted)


@given(pairs=pairs_of_scores, weight=st.floats(0, 4).filter(bool))
def test_reinforced_is_its_equation_in_float64(
    pairs: list[tuple[float, float]], weight: float
) -> None:
    own, reinforced = torch.tensor(pairs).T.contiguous()
    wanted = logp(own) - weight * np.maximum(0, logp(reinforced) - logp(own))
    assert_scores(
        run(Reinforced(assistant="amateur", weight=weight), own, amateur=reinforced), wanted
    )


# --- The filter ----------------------------------------------------------------------------------


@given(
    row=st.lists(st.integers(-160, 160), min_size=2, max_size=200),
    keep=st.floats(0.005, 0.995),
)
def test_the_filter_keeps_what_a_slow_sort_keeps(row: list[int], keep: float) -> None:
    """Ties included: an edge that several tokens share keeps all of them."""
    z = torch.tensor(row) / 8
    assume(int(keep * len(row)) >= 1)
    assume((abs(z - z.max() - log(keep)) > 1e-4).all())
    assert likely(z, keep).tolist() == kept_by_sorting(z.double().numpy(), keep).tolist()


def test_a_flat_row_is_cut_by_the_share_of_the_best_not_by_the_rank() -> None:
    row = torch.arange(100.0).flip(0) / 100
    assert likely(row, 0.1).all()  # ten are asked for, all are within ln 10 of the best


def test_a_peaked_row_keeps_its_rank_though_all_but_one_are_hopeless() -> None:
    row = torch.full((100,), -30.0) - torch.arange(100.0) / 100
    row[42] = 10.0
    assert likely(row, 0.1).sum() == 10
    assert likely(row, 0.1)[42]


def test_a_share_of_less_than_one_token_keeps_the_best() -> None:
    row = torch.tensor([0.0, 9.0, -9.0])
    assert likely(row, 0.01).tolist() == [False, True, False]


@pytest.mark.parametrize("keep", [0, 0.01, 0.5, 1])
def test_the_filter_revives_nothing(keep: float) -> None:
    row = torch.tensor([-INF, 1.0, -INF, 0.5])
    assert not likely(row, keep)[row.isneginf()].any()
    assert not likely(row - INF, keep).any()


@pytest.mark.parametrize("keep", [0, 1])
def test_both_ends_of_the_filter_keep_everything(keep: float) -> None:
    assert likely(torch.tensor([90.0, 0.0, -90.0]), keep).all()


def test_the_best_token_is_a_kept_one_though_all_kept_scores_are_negative() -> None:
    """The published code multiplies scores by the mask: a dropped token's 0 then wins."""
    own = torch.tensor([-1.0, -2.0, -9.0, -9.5])
    out = run(
        LogitDifference(assistant="amateur", keep=0.5), own, amateur=torch.tensor([5.0, 0, 0, 0])
    )
    assert out.argmax() == 1
    assert out[2:].isneginf().all()


# --- Examples ------------------------------------------------------------------------------------


def scores(values: list[float | None]) -> Tensor:
    return torch.tensor([-INF if value is None else value for value in values])


@pytest.mark.parametrize(("scale", "name"), [(None, "scores"), (0.5, "beta0.5_logits")])
def test_contrastive_decoding_meets_the_worked_example(scale: float | None, name: str) -> None:
    case = VECTORS["contrastive_alpha0.1"]
    expert, amateur = torch.tensor(case["expert"]), torch.tensor(case["amateur"])
    out, wanted = run(replace(LI, scale=scale), expert, amateur=amateur), scores(case[name])
    assert expert.argmax() == 0
    assert out.argmax() == 1
    assert torch.allclose(out.log_softmax(-1), wanted.log_softmax(-1), atol=1e-6)


def test_a_colder_amateur_is_surer_of_itself() -> None:
    own, amateur = torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])
    gap = [
        float((out := run(replace(LI, temperature=t), own, amateur=amateur))[1] - out[0])
        for t in (0.5, 1.0, 2.0)
    ]
    assert gap == pytest.approx([2.0, 1.0, 0.5])


def test_difference_takes_away_what_the_assistant_knows() -> None:
    own, assistant = torch.tensor([3.0, 2.0, 1.0]), torch.tensor([5.0, 0.0, 0.0])
    out = run(LogitDifference(assistant="amateur", keep=0), own, amateur=assistant)
    assert out[0] - out[1] == pytest.approx(3 - 2 - 0.8 * 5)


def test_positions_where_they_acted_are_noted() -> None:
    row = torch.tensor([2.0, 1.0, 0.0])
    here, nowhere = Here(row, branch=lambda key: row.flip(0)), torch.full((3,), -INF)
    over = Here(nowhere, branch=lambda key: row)
    for recipe in (
        LI,
        LogitDifference(assistant="amateur"),
        DeltaUnlearning(before="before", after="after"),
        Reinforced(assistant="amateur"),
    ):
        session = recipe.begin(context(3))
        session.adjust(row, here)
        assert session.adjust(nowhere, over) is nowhere
    noted = ("cd_guided", "uld_guided", "delta_guided", "reinforced_guided")
    assert here.notes == dict.fromkeys(noted, 1)
    assert over.notes == {}


def test_no_two_of_them_share_a_place_in_the_order() -> None:
    recipes: list[Recipe] = [LI, LogitDifference(assistant="a"), AGREEABLE[2], AGREEABLE[3]]
    assert list(in_order(reversed(recipes))) == recipes
    assert len({recipe.rank for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize("length", [1, 7, 9])
@pytest.mark.parametrize("recipe", EVERY)
def test_an_assistant_of_another_vocabulary_is_never_mixed_in(recipe: Recipe, length: int) -> None:
    session = recipe.begin(context(8))
    with pytest.raises(EngineError, match=r"shape \(\d,\), not \(8,\)"):
        session.adjust(torch.zeros(8), Here(torch.zeros(8), branch=lambda key: torch.zeros(length)))


@pytest.mark.parametrize("broken", [float("nan"), INF])
@pytest.mark.parametrize("recipe", EVERY)
def test_a_broken_assistant_ends_the_answer_instead_of_going_unheard(
    recipe: Recipe, broken: float
) -> None:
    other = torch.tensor([0.0, broken, -INF])
    with pytest.raises(EngineError, match="not numbers"):
        recipe.begin(context(3)).adjust(
            torch.zeros(3), Here(torch.zeros(3), branch=lambda key: other)
        )


@pytest.mark.parametrize("recipe", EVERY)
def test_an_engine_without_branches_is_refused(recipe: Recipe) -> None:
    with pytest.raises(CapabilityError, match="needs BRANCH"):
        recipe.begin(plain_context())


@pytest.mark.parametrize("recipe", EVERY)
def test_an_assistant_that_is_not_loaded_is_refused_and_those_that_are_are_named(
    recipe: Recipe,
) -> None:
    with pytest.raises(RequestError, match="'one', 'two'") as told:
        recipe.begin(replace(context(), assistants=frozenset({"two", "one"})))
    assert told.value.code == "assistant_missing"
    with pytest.raises(RequestError, match="none"):
        recipe.begin(replace(context(), assistants=frozenset()))


def test_both_assistants_of_a_delta_must_be_there() -> None:
    with pytest.raises(RequestError, match="delta names an assistant that is not loaded"):
        DeltaUnlearning(before="before", after="later").begin(context())


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        *[(LI, {"scale": value}) for value in (float("nan"), INF, -101)],
        *[(LI, {"plausibility": value}) for value in (float("nan"), -0.1, 1.1)],
        *[(LI, {"temperature": value}) for value in (float("nan"), 0, -1, 0.001, 101)],
        *[(LogitDifference(assistant="a"), {"weight": v}) for v in (float("nan"), INF, 101)],
        *[(LogitDifference(assistant="a"), {"keep": v}) for v in (float("nan"), -0.1, 1.1)],
        *[(DeltaUnlearning(before="a", after="b"), {"weight": v}) for v in (float("nan"), INF)],
        (DeltaUnlearning(before="a", after="b"), {"after": "a"}),
        *[(Reinforced(assistant="a"), {"weight": v}) for v in (float("nan"), INF, -0.1)],
    ],
)
def test_settings_that_cannot_be_meant_are_refused(recipe: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        replace(recipe, **changes)
