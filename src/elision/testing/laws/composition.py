"""What recipes owe to each other: one order, and no score read that was not asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import permutations
from typing import TYPE_CHECKING

from elision.contract import Context, Here, Recipe
from elision.testing.laws.recipes import check_row

if TYPE_CHECKING:
    from torch import Tensor

    from elision.middleware.interventions.base import Chain
    from elision.testing.laws.recipes import Branch

_TOLERANCE_NATS = 1e-4


def check_composition(
    recipes: Iterable[Recipe],
    context: Context,
    rows: Iterable[Tensor],
    *,
    tokens: Sequence[int] = (),
    branch: Branch | None = None,
) -> None:
    """Check that a chain keeps the promises of its members, at every position along *tokens*.

    The chain as a whole does what `check_adjust` asks of one recipe. What it reads beside the row
    is exactly what it said that it needs, before it was asked to act and without reading any; all
    of that was named when it was opened, and what it reads always is among it.

    Args:
        recipes: In any order.
        context: What their sessions are opened with.
        rows: Scores of shape ``(vocab,)``, tried before each token and at the end.
        tokens: A reply to walk along.
        branch: Answers `Here.branch`; without it, a recipe that asks is refused.

    Raises:
        AssertionError: With the recipes' types, the position, the row and what was broken.
    """
    from elision.middleware.interventions.base import Chain

    recipes, rows = tuple(recipes), tuple(rows)
    first = Chain.begin(recipes, context)
    named = first.branches
    for position, chain in enumerate(_along(first, tokens)):
        for index, row in enumerate(rows):
            where = f"{_names(recipes)}, position {position}, row {index}"
            here = Here(row, position=position, branch=branch)
            needs = chain.needs(here)
            assert not here.read, f"{where}: asking what is needed read it"
            check_row(chain.adjust, row, here, where)
            assert set(here.read) <= set(needs), f"{where}: a branch is read that nobody asked for"
            assert set(needs) <= set(here.read), f"{where}: a branch is asked for in vain"
            assert set(needs) <= set(named), f"{where}: a branch was not named at the beginning"
            always = {key for key, everywhere in named.items() if everywhere}
            assert always <= set(needs), f"{where}: what is read always is not read here"


def check_commute(
    one: Recipe,
    other: Recipe,
    context: Context,
    rows: Iterable[Tensor],
    *,
    tokens: Sequence[int] = (),
    branch: Branch | None = None,
) -> None:
    """Check that two recipes give the same scores whichever of them acts first.

    What recipes of equal stage and rank owe to each other. The same to 1e-4 nats: sums in another
    order; the same tokens at ``-inf``.

    Args:
        one: A recipe; its place and that of *other* do not matter here.
        other: Another.
        context: What their sessions are opened with.
        rows: Scores of shape ``(vocab,)``, tried before each token and at the end.
        tokens: A reply to walk along.
        branch: Answers `Here.branch`.

    Raises:
        AssertionError: With the recipes' types, the position and the row.
    """
    import torch

    from elision.middleware.interventions.base import Chain

    rows = tuple(rows)
    sessions = Chain((one.begin(context), other.begin(context)))
    for position, chain in enumerate(_along(sessions, tokens)):
        orders = [Chain(order) for order in permutations(chain.early)]
        for index, row in enumerate(rows):
            first, second = (
                order.adjust(row, Here(row, position=position, branch=branch)).float()
                for order in orders
            )
            assert torch.allclose(first, second, rtol=1e-6, atol=_TOLERANCE_NATS), (
                f"{_names((one, other))}, position {position}, row {index}: they do not commute"
            )


def _along(chain: Chain, tokens: Sequence[int]) -> Iterator[Chain]:
    """Yield *chain* as it is before each of *tokens* and behind the last."""
    yield chain
    for token in tokens:
        chain = chain.advance(token)
        yield chain


def _names(recipes: Iterable[Recipe]) -> str:
    return " and ".join(type(recipe).__name__ for recipe in recipes)
