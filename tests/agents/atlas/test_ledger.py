"""What an episode costs is the sum over all roles, and budgets are asked before each call."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.agents.atlas.ledger import (
    Allowance,
    Ledger,
    Price,
    Spent,
    Totals,
    priced,
    spent_on,
)
from elision.agents.speaking import Said, estimate
from elision.contract import Usage

ROLES = ("student", "teacher", "judge", "arbiter", "distiller", "probe", "embedder", "guard")


@st.composite
def spent(draw: st.DrawFn) -> Spent:
    tokens_in = draw(st.integers(0, 5_000))
    return Spent(
        role=draw(st.sampled_from(ROLES)),
        model=draw(st.sampled_from(["small", "large", "unpriced"])),
        calls=draw(st.integers(0, 3)),
        tokens_in=tokens_in,
        tokens_cached=draw(st.integers(0, tokens_in)),
        tokens_out=draw(st.integers(0, 5_000)),
        wall_ms=draw(st.floats(0, 1e4)),
        estimated=draw(st.booleans()),
    )


ledgers = st.lists(spent(), max_size=12)
PRICES = {"small": Price(input=1, cached=0.1, output=4), "large": Price(input=10, output=30)}


@given(ledgers)
def test_the_total_is_the_sum_of_all_roles_and_no_role_is_left_out(rows: list[Spent]) -> None:
    ledger = Ledger(priced(rows, PRICES))
    by_role = list(ledger.roles.values())
    for name in ("calls", "tokens_in", "tokens_cached", "tokens_out", "tokens"):
        total = getattr(ledger.total, name)
        assert total == sum(getattr(one, name) for one in by_role)
        assert total == sum(getattr(ledger.of(role), name) for role in ROLES)
    assert ledger.total.cost == pytest.approx(sum(one.cost for one in by_role))
    assert ledger.student == ledger.of("student")


@given(ledgers)
def test_pricing_twice_is_pricing_once_and_changes_nothing_but_the_cost(rows: list[Spent]) -> None:
    once = priced(rows, PRICES)
    assert priced(once, PRICES) == once
    assert Totals.of(rows).tokens == Totals.of(once).tokens
    assert all(row.cost == 0 for row in once if row.model == "unpriced")


def test_a_cached_token_has_its_own_price() -> None:
    row = Spent(role="student", model="small", tokens_in=1000, tokens_cached=600, tokens_out=100)
    assert PRICES["small"].of(row) == pytest.approx((400 * 1 + 600 * 0.1 + 100 * 4) / 1e6)
    assert PRICES["large"].of(row) == pytest.approx((1000 * 10 + 100 * 30) / 1e6)


@given(ledgers, ledgers)
def test_an_allowance_after_all_rows_is_that_after_each(
    first: list[Spent], second: list[Spent]
) -> None:
    allowance = Allowance(tokens=20_000, cost=1.0, prices=PRICES)
    at_once, in_turn = allowance.after(first + second), allowance.after(first).after(second)
    assert at_once.tokens == in_turn.tokens
    assert at_once.cost == pytest.approx(in_turn.cost)


def test_an_allowance_closes_by_tokens_cost_or_time() -> None:
    row = Spent(role="student", model="large", tokens_in=1000, tokens_out=0)
    assert Allowance().after([row] * 100).open
    assert Allowance(tokens=1001).after([row]).open
    assert not Allowance(tokens=1000).after([row]).open
    assert not Allowance(cost=0.01, prices=PRICES).after([row]).open
    assert Allowance(cost=0.011, prices=PRICES).after([row]).open
    assert Allowance(until=time.monotonic() + 60).open
    assert not Allowance(until=time.monotonic()).open
    assert not Allowance(tokens=0).open


@given(st.integers(0, 10_000), st.integers(1, 9))
def test_shares_together_are_never_more_than_the_whole(tokens: int, n: int) -> None:
    share = Allowance(tokens=tokens, cost=1.0).shared(n)
    assert share.tokens is not None
    assert share.cost is not None
    assert share.tokens * n <= tokens
    assert share.cost * n <= 1.0 + 1e-9


def test_a_reply_is_cut_to_what_is_left() -> None:
    assert Allowance().reply(512) == 512
    assert Allowance(tokens=100).reply(512) == 100
    assert Allowance(tokens=-5).reply(512) == 1
    both = Allowance(tokens=100, cost=2.0).least(Allowance(tokens=50))
    assert (both.tokens, both.cost) == (50, 2.0)
    assert Allowance().least(Allowance()) == Allowance()


def test_a_row_is_made_of_what_was_said() -> None:
    said = Said("x", Usage(prompt_tokens=7, completion_tokens=3, cached_tokens=2), wall_ms=5.0)
    row = spent_on("judge", "small", said)
    assert (row.role, row.calls, row.tokens, row.tokens_cached) == ("judge", 1, 10, 2)
    assert not row.estimated
    assert estimate("") == 0
    assert estimate("12345") == 2
