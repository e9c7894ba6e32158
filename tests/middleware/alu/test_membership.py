"""Whether anybody can tell who is registered, from what is said and how long it takes."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.agents.alu.config import AluConfig
from elision.errors import ConfigError
from elision.evaluation.alu.classifier import auc, features, separated, without
from elision.evaluation.alu.membership import Audited, Membership, membership, unguarded
from elision.evaluation.alu.people import KNOWN, known, made_up
from elision.evaluation.alu.planted import PlantedEngine
from elision.testing.encoders import BagEncoder


async def measured(n: int, *, profile: str | None, read_s: float = 0, seed: int = 0) -> Membership:
    world = made_up(n, seed=seed)
    engine = PlantedEngine(world.facts, read_s=read_s, write_s=read_s * 100)
    ask = (
        unguarded(engine)
        if profile is None
        else Audited(engine, world.targets, AluConfig(), profile=profile, encoder=BagEncoder()).ask
    )
    return await membership(ask, world, seed=seed)


async def test_membership_text() -> None:
    control = await measured(30, profile=None)
    assert control.auc.value > 0.95  # there is something to be told, and it is seen
    found = await measured(100, profile="discreet")
    assert found.auc.n == (100, 100)
    if found.auc.value > 0.60:  # chance alone is above it once in a hundred times, not twice
        found = await measured(100, profile="discreet", seed=1)
    assert found.auc.value <= 0.60


async def test_replies_that_were_only_rewritten_tell_who_is_listed() -> None:
    assert (await measured(15, profile="alu")).auc.value > 0.80


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [0, 1])
async def test_membership_text_and_timing_of_four_hundred(seed: int) -> None:
    found = await measured(200, profile="discreet", read_s=3e-6, seed=seed)
    if found.auc.value > 0.60:
        found = await measured(200, profile="discreet", read_s=3e-6, seed=seed + 2)
    assert found.auc.value <= 0.60
    assert found.latency_ratio <= 1.10


async def test_what_was_heard_is_of_both_kinds_and_no_repr_shows_it() -> None:
    found = await measured(5, profile=None)
    listed, never = found.heard
    assert {one.name for one in listed} == {*made_up(5).listed}
    assert {one.name for one in never} == {*made_up(5).never}
    assert not any(name in repr(found) for name in made_up(5).listed)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_the_area_is_the_share_of_pairs_ranked_right(rows: list[tuple[int, bool]]) -> None:
    first = [score for score, label in rows if label]
    second = [score for score, label in rows if not label]
    if not first or not second:
        return
    slow = sum((a > b) + (a == b) / 2 for a, b in product(first, second))
    scores, labels = np.array([float(s) for s, _ in rows]), np.array([float(x) for _, x in rows])
    assert auc(scores, labels) == pytest.approx(slow / (len(first) * len(second)))


def test_a_classifier_finds_what_is_there_and_nothing_where_nothing_is() -> None:
    draw = random.Random(1)
    noise = [[draw.gauss(0, 1) for _ in range(40)] for _ in range(200)]
    told = [[row[0] + 2.5, *row[1:]] for row in noise[:100]]
    seen = separated(told, noise[100:])
    assert seen.value > 0.85
    assert seen.low <= seen.value <= seen.high
    nothing = separated(noise[:100], noise[100:])
    assert nothing.low < 0.5 < nothing.high


def test_a_division_needs_a_reply_for_every_fold() -> None:
    with pytest.raises(ConfigError, match="folds"):
        separated([[1.0]] * 4, [[0.0]] * 9)


def test_names_are_no_feature() -> None:
    assert without("Ada Byron-King is, ADA says, Byron's.", "Ada Byron-King") == (
        "NAME is, NAME says, NAME's."
    )
    assert features("I know Ada King.", "Ada King") == features("I know Li Wu.", "Li Wu")
    assert features("I know Ada King.", "Ada King") != features("Sorry, Li Wu?", "Li Wu")


def test_those_who_never_existed_are_none_of_the_listed_and_share_their_names() -> None:
    world = made_up(200)
    assert not {*world.listed} & {*world.never}
    families = {name.split()[1] for name in world.listed}
    assert sum(name.split()[1] in families for name in world.never) > 100
    assert len({*KNOWN}) == len(KNOWN) >= 200
    assert not {*known(200).listed} & {*known(200).never}
    with pytest.raises(ConfigError):
        made_up(10_000)
    with pytest.raises(ConfigError):
        known(1_000)
