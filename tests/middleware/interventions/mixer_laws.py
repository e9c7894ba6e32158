"""What every mixer owes: the laws, over rows some of whose branches are masked, in both formats."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from elision.contract import BranchKey, Context, Here, Recipe
from elision.middleware.interventions.base import Contrasts
from elision.testing.branches import made_up_branch
from elision.testing.laws import awkward_rows, check_adjust, check_sessions

REPLY = (5, 17, 5, 200, 5)
Contexts = Callable[[int], Context]


def check_promises(recipe: Recipe, context: Contexts, *, some_masked: bool) -> None:
    for vocab_size, reply in ((259, REPLY), (3001, REPLY[:1])):
        branch = made_up_branch(vocab_size, some_masked=some_masked)
        rows = awkward_rows(vocab_size)
        check_adjust(recipe, context(vocab_size), rows, tokens=reply, branch=branch)
        half = [row.bfloat16() for row in rows]
        check_adjust(recipe, context(vocab_size), half, tokens=REPLY[:1], branch=branch)


def check_values(recipe: Recipe, context: Contexts) -> None:
    branch = made_up_branch(259)
    check_sessions(recipe, context(259), awkward_rows(259)[:3], tokens=REPLY, branch=branch)


def check_reads_all_it_names(recipe: Recipe, context: Contexts) -> None:
    """Of a mixer that acts everywhere: `needs` reads nothing, and `adjust` reads all of it."""
    session = recipe.begin(context(259))
    assert isinstance(session, Contrasts)
    asked: list[BranchKey] = []
    answer = made_up_branch(259)
    row = awkward_rows(259)[0]

    def branch(key: BranchKey) -> Tensor:
        asked.append(key)
        return answer(key)

    here = Here(row, branch=branch)
    needed = session.needs(here)
    assert asked == []
    session.adjust(row, here)
    assert set(asked) == set(needed) == set(session.branches)
    assert session.always
