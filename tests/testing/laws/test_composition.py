from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from elision.contract import BranchKey, Context, Here, Stage, Stateless, Suffix
from elision.middleware.interventions import LogitBias, Repetition, Temperature
from elision.testing.branches import made_up_branch, with_branches
from elision.testing.laws import awkward_rows, check_commute, check_composition, check_neutral
from elision.testing.tokenizers import byte_lexicon

CONTEXT = with_branches(Context(lexicon=byte_lexicon(), vocab_size=259))
ROWS = awkward_rows(259)
REPLY = (72, 105, 33)
KEY, OTHER = Suffix((1, 2)), Suffix((3,))
BRANCH = made_up_branch(259)


@dataclass(frozen=True, kw_only=True)
class Reading(Stateless):
    """Reads some branches and says what it likes about them."""

    reads: tuple[BranchKey, ...] = (KEY,)
    says: tuple[BranchKey, ...] = (KEY,)
    branches: tuple[BranchKey, ...] = (KEY,)
    always: bool = True
    stage: Stage = Stage.MIXER

    def needs(self, here: Here) -> tuple[BranchKey, ...]:
        return self.says

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        for key in self.reads:
            logits = logits + here.branch(key).clamp(-1, 1)
        return logits


class Peeking(Reading):
    def needs(self, here: Here) -> tuple[BranchKey, ...]:
        here.branch(KEY)
        return (KEY,)


class Nan(Stateless):
    stage = Stage.MIXER

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits - logits.max()


def test_a_chain_that_reads_what_it_asked_for_is_lawful() -> None:
    recipes = (Temperature(value=0.5), Reading(), LogitBias(bias={7: 1.0}))
    check_composition(recipes, CONTEXT, ROWS, tokens=REPLY, branch=BRANCH)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Reading(says=(), always=False), "that nobody asked for"),
        (Reading(reads=(), always=False), "in vain"),
        (Reading(reads=(KEY, OTHER), says=(KEY, OTHER)), "not named at the beginning"),
        (Reading(reads=(), says=()), "read always is not read here"),
        (Peeking(), "asking what is needed read it"),
        (Nan(), "NaN"),
    ],
    ids=["unasked", "in vain", "unnamed", "not always", "peeking", "nan"],
)
def test_a_chain_with_a_recipe_that_breaks_its_word_is_caught(broken, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_composition((LogitBias(bias={}), broken), CONTEXT, ROWS, branch=BRANCH)


def test_recipes_that_do_not_commute_are_caught() -> None:
    bias, penalty = LogitBias(bias={7: 3.0}), Repetition(penalty=1.5)
    check_commute(bias, LogitBias(bias={7: -1.0, 8: 2.0}), CONTEXT, ROWS, tokens=REPLY)
    with pytest.raises(AssertionError, match=r"LogitBias and Repetition.*do not commute"):
        check_commute(bias, penalty, CONTEXT, [torch.zeros(259)], tokens=(7,))


def test_neutral_settings_that_ask_for_a_branch_are_caught() -> None:
    check_neutral(Reading(reads=(), says=(), always=False), CONTEXT, ROWS)
    with pytest.raises(AssertionError, match="ask for a branch"):
        check_neutral(Reading(reads=(), always=False), CONTEXT, ROWS)


def test_a_made_up_row_depends_on_the_tokens_that_its_repr_keeps_to_itself() -> None:
    assert "31337" not in repr(Suffix((31337,)))
    assert not torch.equal(BRANCH(KEY), BRANCH(OTHER))
    assert torch.equal(BRANCH(KEY), made_up_branch(259)(Suffix((1, 2))))
