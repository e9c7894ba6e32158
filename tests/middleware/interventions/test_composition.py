"""Chains of any recipes: one order, no promise of a member broken, nothing read unasked."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import LogitsProcessorList

from elision.contract import BranchKey, Context, Here, Recipe, Stage, Stateless, in_order
from elision.middleware.engines.processor import as_logits_processor
from elision.middleware.interventions import INTERVENTIONS, Chain, Guidance, TopK
from elision.middleware.interventions.base import Contrasts
from elision.middleware.interventions.views import Tokens
from elision.testing import byte_lexicon, tiny_model
from elision.testing.branches import made_up_branch
from elision.testing.laws import (
    awkward_rows,
    check_commute,
    check_composition,
    check_drafted_equals_plain,
)

from ..engines.test_drafting import SAMPLED, assisted, free  # noqa: TID252
from .test_laws import NEUTRAL, REPLY, context, rows

NAMES = sorted(INTERVENTIONS)
MIXERS = [n for n in NAMES if isinstance(INTERVENTIONS[n]().begin(context(24)), Contrasts)]


@dataclass(frozen=True, kw_only=True)
class Bans(Stateless):
    """Takes tokens out, as a guard does."""

    tokens: frozenset[int]
    stage: Stage = Stage.HARD_MASK

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits.index_fill(0, torch.tensor(sorted(self.tokens)), -torch.inf)


def place(recipe: Recipe) -> tuple[Stage, int]:
    return recipe.stage, recipe.rank


def recipes_of(names: list[str]) -> list[Recipe]:
    return [INTERVENTIONS[name]() for name in names]


some = st.lists(st.sampled_from(NAMES), max_size=7, unique=True).map(recipes_of)
of_each_kind_one = st.lists(
    st.sampled_from(NAMES), min_size=8, max_size=16, unique_by=lambda n: type(INTERVENTIONS[n]())
).map(recipes_of)
shuffles = st.randoms(use_true_random=False)


# --- what a chain promises -----------------------------------------------------------------------


@given(recipes=some, row=rows, reply=st.lists(st.integers(0, 7), max_size=2), masked=st.booleans())
def test_a_chain_keeps_the_promises_of_its_members_on_any_row(
    recipes: list[Recipe], row: list[float], reply: list[int], masked: bool
) -> None:
    branch = made_up_branch(len(row), some_masked=masked)
    check_composition(recipes, context(len(row)), [torch.tensor(row)], tokens=reply, branch=branch)


@given(recipes=some)
def test_a_chain_keeps_them_on_rows_that_break_careless_arithmetic(recipes: list[Recipe]) -> None:
    branch = made_up_branch(259, some_masked=True)
    check_composition(recipes, context(259), awkward_rows(259), branch=branch)


def test_a_chain_of_all_there_is_keeps_them() -> None:
    branch = made_up_branch(259)
    check_composition(
        recipes_of(NAMES), context(259), awkward_rows(259), tokens=REPLY, branch=branch
    )


@given(recipes=some, row=rows, banned=st.frozensets(st.integers(0, 7), min_size=1))
def test_what_a_mask_forbids_stays_forbidden_whatever_else_acts(
    recipes: list[Recipe], row: list[float], banned: frozenset[int]
) -> None:
    chain = Chain.begin([*recipes, Bans(tokens=banned)], context(len(row)))
    z = torch.tensor(row)
    out = chain.adjust(z, Here(z, branch=made_up_branch(len(row))))
    assert out[sorted(banned)].isneginf().all()
    assert not out.isnan().any()


@given(names=st.lists(st.sampled_from(MIXERS), min_size=1, unique=True), seed=st.integers(0, 99))
def test_behind_any_mixers_the_row_has_the_normaliser_that_it_came_with(
    names: list[str], seed: int
) -> None:
    z = torch.randn(40, generator=torch.Generator().manual_seed(seed)) * 4 + seed
    here = Here(z, branch=made_up_branch(40))
    out = Chain.begin(recipes_of(names), context(40)).adjust(z, here)
    assert float(out.logsumexp(-1)) == pytest.approx(here.logsumexp, abs=1e-3)


@given(order=shuffles, some_of=st.sets(st.sampled_from(range(len(NEUTRAL)))))
def test_a_chain_of_neutral_recipes_returns_the_very_same_object_and_reads_nothing(
    order: Random, some_of: set[int]
) -> None:
    chosen = [NEUTRAL[n] for n in some_of]
    order.shuffle(chosen)
    chain = Chain.begin(chosen, context(259))
    assert not chain.branches
    for row in awkward_rows(259):
        here = Here(row)
        assert chain.needs(here) == ()
        assert chain.adjust(row, here) is row
        assert not here.read


# --- one order -----------------------------------------------------------------------------------


@given(recipes=of_each_kind_one, row=rows, order=shuffles)
def test_the_order_in_which_recipes_are_given_changes_nothing(
    recipes: list[Recipe], row: list[float], order: Random
) -> None:
    shuffled = list(recipes)
    order.shuffle(shuffled)
    z = torch.tensor(row)
    told = []
    for given_as in (recipes, shuffled):
        here = Here(z, branch=made_up_branch(len(row)))
        chain = Chain.begin(given_as, context(len(row)))
        told.append((chain.needs(here), chain.adjust(z, here), here.read, here.notes))
    (needs, out, read, notes), (needs_again, again, read_again, notes_again) = told
    assert in_order(shuffled) == in_order(recipes)
    assert torch.equal(out, again)
    assert (needs, read, notes) == (needs_again, read_again, notes_again)


def test_recipes_act_in_the_order_of_the_composition() -> None:
    given_as = [make() for make in INTERVENTIONS.values()]
    Random(7).shuffle(given_as)
    names = {type(recipe).__name__: None for recipe in in_order(given_as)}
    assert list(names) == [
        "MinimalIntervention",
        "Guidance",
        "ContextAware",
        "ContextualContrast",
        "ContrastiveDecoding",
        "LogitDifference",
        "DeltaUnlearning",
        "Reinforced",
        "EntropyMinimisation",  # where it comes first, and again at its own stage
        "LogitBias",
        "Repetition",
        "FrequencyPresence",
        "Grammar",
        "AdaptiveTemperature",
        "SteppedTemperature",
        "TargetEntropy",
        "Temperature",
        "TopNSigma",
        "TopK",
        "TopP",
        "MinP",
    ]


def test_registered_recipes_that_share_a_place_are_of_one_kind_or_commute() -> None:
    for one, other in combinations(recipes_of(NAMES), 2):
        if place(one) == place(other) and type(one) is not type(other):
            branch = made_up_branch(259)
            check_commute(one, other, context(259), awkward_rows(259), tokens=REPLY, branch=branch)


def test_mixers_do_not_commute_so_their_ranks_differ() -> None:
    branch = made_up_branch(259)
    for one, other in combinations(recipes_of(["cfg", "cad", "cd", "uld", "delta"]), 2):
        assert place(one) != place(other)
        with pytest.raises(AssertionError, match="do not commute"):
            check_commute(one, other, context(259), awkward_rows(259), branch=branch)


def test_one_recipe_given_twice_acts_twice_in_the_order_given() -> None:
    away, further = Guidance(other=Tokens((4,))), Guidance(scale=3, other=Tokens((5,)))
    assert in_order([TopK(k=3), further, away]) == (further, away, TopK(k=3))
    z = torch.randn(24, generator=torch.Generator().manual_seed(0))
    here = Here(z, branch=made_up_branch(24))
    step = away.begin(context(24)).adjust(z, here)
    wanted = further.begin(context(24)).adjust(step, here)
    assert torch.equal(Chain.begin([away, further], context(24)).adjust(z, here), wanted)


# --- elsewhere -----------------------------------------------------------------------------------


def test_generate_runs_processors_behind_its_penalties_and_before_its_temperature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, found = tiny_model(eos=257), list[str]()
    listed = type(model)._get_logits_processor

    def watched(*args: Any, **kwargs: Any) -> LogitsProcessorList:
        processors = listed(*args, **kwargs)
        found.extend(type(processor).__name__ for processor in processors)
        return processors

    monkeypatch.setattr(type(model), "_get_logits_processor", watched)
    model.generate(
        torch.tensor([[1, 2, 3]]),
        attention_mask=torch.ones(1, 3),
        pad_token_id=258,
        max_new_tokens=1,
        logits_processor=LogitsProcessorList([as_logits_processor(TopK(k=3))]),
        do_sample=True,
        guidance_scale=1.5,
        sequence_bias={(3,): 1.0},
        repetition_penalty=1.2,
        bad_words_ids=[[7]],
        suppress_tokens=[8],
        temperature=0.7,
        top_k=5,
        top_p=0.9,
        min_p=0.1,
    )
    assert found == [
        "UnbatchedClassifierFreeGuidanceLogitsProcessor",
        "SequenceBiasLogitsProcessor",
        "RepetitionPenaltyLogitsProcessor",
        "NoBadWordsLogitsProcessor",
        "SuppressTokensLogitsProcessor",
        "RecipeProcessor",
        "TemperatureLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
        "MinPLogitsWarper",
    ]


# --- what a chain costs --------------------------------------------------------------------------


@given(recipes=some)
def test_a_branch_that_several_recipes_read_is_asked_for_once(recipes: list[Recipe]) -> None:
    chain = Chain.begin(recipes, context(24))
    here = Here(torch.zeros(24))
    needs: tuple[BranchKey, ...] = chain.needs(here)
    assert len(needs) == len(set(needs))
    assert set(needs) == {k for s in chain.early if isinstance(s, Contrasts) for k in s.needs(here)}


def test_of_a_chain_without_mixers_nothing_is_asked() -> None:
    plain = Context(lexicon=byte_lexicon(), vocab_size=24, prompt_ids=(1,))
    chain = Chain.begin(recipes_of([n for n in NAMES if n not in MIXERS]), plain)
    assert not chain.branches
    assert chain.needs(Here(torch.zeros(24))) == ()


@pytest.mark.parametrize("seed", range(4))
def test_a_drafted_reply_is_the_plain_reply_under_any_chain(seed: int) -> None:
    draw = Random(seed)
    names = [*draw.sample(MIXERS, 2), *draw.sample([n for n in NAMES if n not in MIXERS], 3)]
    check_drafted_equals_plain(
        assisted,
        free(*recipes_of(names), max_tokens=16, logprobs=1),
        free(*recipes_of(names), max_tokens=16, sampling=SAMPLED),
    )
