"""Whose rows are whose: nothing crosses tenants, profiles or epochs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Erasable, Plan, Request
from elision.middleware.speculation.base import NOTHING
from elision.middleware.speculation.pools import Pools
from elision.middleware.speculation.recycling import Recycler

V = 32


def plan(tenant: str = "a", profile: str = "plain", epoch: int = 0) -> Plan:
    request = Request(model="m", messages=({"role": "user", "content": "x"},))
    return Plan(request=request, tenant=tenant, profile=profile, epoch=epoch)


def teach(drafter: Recycler, token: int, successor: int) -> None:
    logits = torch.zeros(1, V)
    logits[0, successor] = 20.0
    drafter.learn([token], NOTHING, logits, [0], {})


def known(drafter: Recycler, token: int) -> list[int]:
    return [*drafter.propose([token], n=1, depth=1).tokens]


def test_what_one_reply_showed_the_next_of_its_tenant_and_profile_drafts() -> None:
    pools = Pools(V)
    teach(pools.open(plan(), [1, 2]), 5, 6)
    assert known(pools.open(plan(), [3]), 5) == [6]


@pytest.mark.parametrize(
    "other",
    [plan(tenant="b"), plan(profile="guarded"), plan(epoch=1)],
    ids="tenant profile epoch".split(),
)
def test_another_tenant_profile_or_epoch_starts_from_nothing(other: Plan) -> None:
    pools = Pools(V)
    teach(pools.open(plan(), [1]), 5, 6)
    assert known(pools.open(other, [1]), 5) == []


def test_a_new_epoch_drops_every_profile_of_its_tenant_and_no_one_elses() -> None:
    pools = Pools(V)
    for kept in (plan(), plan(profile="fast"), plan(tenant="b")):
        teach(pools.open(kept, [1]), 5, 6)
    pools.open(plan(epoch=1), [1])
    assert known(pools.open(plan(profile="fast", epoch=1), [1]), 5) == []
    assert known(pools.open(plan(tenant="b"), [1]), 5) == [6]
    pools.open(plan(), [1])  # a straggler of the old epoch finds nothing either
    assert known(pools.open(plan(), [1]), 5) == []


def test_a_reply_that_is_being_written_when_its_pool_is_dropped_teaches_nobody() -> None:
    pools = Pools(V)
    late = pools.open(plan(), [1])
    pools.erase("a")
    teach(late, 5, 6)
    assert known(pools.open(plan(), [1]), 5) == []


def test_without_cross_request_only_rates_ledger_and_counts_are_shared() -> None:
    pools = Pools(V, cross_request=False)
    first = pools.open(plan(), [1])
    teach(first, 5, 6)
    second = pools.open(plan(), [1])
    assert known(second, 5) == []
    assert second.pool.ledger is first.pool.ledger
    assert second.pool.blend is first.pool.blend
    assert pools.stats()["draft_steps"] == 1


@given(opened=st.lists(st.integers(0, 6), max_size=20), limit=st.integers(1, 4))
def test_the_pools_opened_last_are_kept(opened: list[int], limit: int) -> None:
    pools, recent = Pools(V, limit=limit), list[int]()
    for tenant in opened:
        drafter = pools.open(plan(tenant=str(tenant)), [1])
        assert (known(drafter, 5) == [6]) == (tenant in recent)
        teach(drafter, 5, 6)
        recent = [*(t for t in recent if t != tenant), tenant][-limit:]
    assert len(pools) == len(recent)


def test_erasing_a_tenant_drops_its_pools_whatever_the_texts_and_counts_them() -> None:
    pools = Pools(V)
    for kept in (plan(), plan(profile="fast"), plan(tenant="b")):
        teach(pools.open(kept, [1]), 5, 6)
    assert isinstance(pools, Erasable)
    assert pools.erase("a", texts=["anything"]) == 2
    assert pools.erase("a") == 0
    assert known(pools.open(plan(), [1]), 5) == []
    assert known(pools.open(plan(tenant="b"), [1]), 5) == [6]


def test_gauges_count_pools_bytes_steps_and_hits_by_rank() -> None:
    pools = Pools(V)
    drafter = pools.open(plan(), [1])
    for n in range(2, 12):  # the text goes on 5 6 5 6: each row names what comes at its first rank
        tokens = [5 + i % 2 for i in range(n)]
        logits = torch.zeros(1, V)
        logits[0, 5 + n % 2] = 20.0
        drafter.learn(tokens, NOTHING, logits, [0], {})
    gauges = pools.stats()
    assert gauges["recycle_pools"] == 1
    assert gauges["recycle_bytes"] > V * 8 * 6
    assert gauges["draft_steps"] == gauges["draft_visited"] == 10
    assert gauges["draft_hits_rank_0"] == 1.0
    assert gauges["draft_hits_rank_7"] == 0.0


def test_nothing_is_shown_copied_or_persisted() -> None:
    pools = Pools(10_000)
    drafter = pools.open(plan(tenant="somebody"), [4711])
    logits = torch.zeros(1, 10_000)
    logits[0, 4712] = 9.0
    drafter.learn([4711], NOTHING, logits, [0], {})
    for thing in (pools, drafter, drafter.pool, drafter.pool.matrix, drafter.pool.blend):
        assert not any(secret in repr(thing) for secret in ("471", "somebody"))
    for thing in (pools, drafter, drafter.pool, drafter.spine):
        for copied in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="never"):
                copied(thing)
