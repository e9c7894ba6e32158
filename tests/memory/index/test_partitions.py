"""Partitions: whatever a store has been through, they say what a dictionary of it says."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from elision.errors import StoreError
from elision.memory.filters import parse
from elision.memory.index import Partitions, unit
from elision.memory.index.nearest import cosines
from elision.memory.index.partition import Row

DIM = 5
POOL = unit(np.random.default_rng(2).choice([-1.0, 0.5, 1.0], size=(40, DIM)))
TENANTS = st.sampled_from(["a", "b"])
RIDS = st.integers(1, 30)
FIELDS = st.fixed_dictionaries(
    {}, optional={"n": st.integers(0, 3), "c": st.sampled_from(["red", "blue", None])}
)
WHERES = st.sampled_from(
    [None, {}, {"n": 1}, {"n": {"$gte": 2}}, {"c": None}, {"c": {"$exists": True}, "n": {"$ne": 0}}]
)
ROWS = st.tuples(
    st.integers(1, 3),
    st.sampled_from(["note", "item"]),
    st.sampled_from(["", "active"]),
    st.integers(0, 4),
    st.sampled_from([None, 10.0, 20.0]),
    st.none() | st.integers(0, len(POOL) - 1),
)


class Journal:
    """A store in memory: rows, their JSON, and what changed; two tenants share the rids."""

    def __init__(self):
        self.held = {"a": {}, "b": {}}
        self.changes = []
        self.first_kept = 0
        self.n_read = 0

    def put(self, tenant, rid, made, value):
        space, kind, state, trust, expires_at, vector = made
        rid = 2 * rid + (tenant == "b")
        vector = None if vector is None else POOL[vector]
        self.held[tenant][rid] = (Row(rid, space, kind, state, trust, expires_at, vector), value)
        self.changes.append((tenant, rid))

    def drop(self, tenant, rid):
        rid = 2 * rid + (tenant == "b")
        if self.held[tenant].pop(rid, None) is not None:
            self.changes.append((tenant, rid))

    def generation(self, tenant):
        return max((n + 1 for n, one in enumerate(self.changes) if one[0] == tenant), default=0)

    def stamp(self, tenant, generation):
        return 0

    def rows(self, tenant):
        self.n_read += 1
        yield from [row for row, _ in self.held[tenant].values()]

    def since(self, tenant, generation):
        if generation < self.first_kept:
            return None
        rids = {rid for owner, rid in self.changes[generation:] if owner == tenant}
        put = [self.held[tenant][rid][0] for rid in rids if rid in self.held[tenant]]
        return put, sorted(rids - {row.rid for row in put}), self.generation(tenant)

    def values(self, tenant, rids):
        for rid, (_, value) in list(self.held[tenant].items()):
            if rids is None or rid in rids:
                yield rid, json.loads(json.dumps(value))


def chosen(journal, tenant, *, spaces, kinds, states, least_trust, now, where):
    """Select with a loop over a dictionary."""
    return sorted(
        rid
        for rid, (row, value) in journal.held[tenant].items()
        if (row.expires_at is None or row.expires_at > now)
        and (spaces is None or row.space in spaces)
        and (not kinds or row.kind in kinds)
        and (not states or row.state in states)
        and row.trust >= least_trust
        and (where is None or parse(where).holds(value))
    )


def nearest(journal, tenant, query, k, rids):
    """Search with a loop over a dictionary."""
    rows = {rid: journal.held[tenant][rid][0].vector for rid in rids}
    scored = [(r, float(cosines(v[None], query)[0])) for r, v in rows.items() if v is not None]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:k]


class FollowsTheStore(RuleBasedStateMachine):
    """Any history of puts, drops, searches, restarts and lost journals, of two tenants."""

    def __init__(self):
        super().__init__()
        self.journal = Journal()
        self.partitions = Partitions(self.journal, most=1)  # so that each pushes out the other

    @rule(tenant=TENANTS, rid=RIDS, made=ROWS, value=FIELDS)
    def put(self, tenant, rid, made, value):
        self.journal.put(tenant, rid, made, value)

    @rule(tenant=TENANTS, rids=st.lists(RIDS, max_size=6))
    def drop(self, tenant, rids):
        for rid in rids:
            self.journal.drop(tenant, rid)

    @rule(tenant=TENANTS)
    def fill(self, tenant):
        for rid in range(1, 25):
            row = (1 + rid % 3, "note", "", rid % 5, None, rid)
            self.journal.put(tenant, rid, row, {"n": rid % 4})

    @rule()
    def the_journal_is_cut(self):
        self.journal.first_kept = len(self.journal.changes)

    @rule(tenant=TENANTS)
    def forget(self, tenant):
        assert self.partitions.forget(tenant) == 0

    @rule(
        tenant=TENANTS,
        query=st.integers(0, len(POOL) - 1).map(POOL.__getitem__),
        k=st.integers(1, 12),
        spaces=st.none() | st.sets(st.integers(1, 4), max_size=3),
        kinds=st.sets(st.sampled_from(["note", "item", "other"]), max_size=2),
        states=st.sets(st.sampled_from(["", "active"]), max_size=1),
        least_trust=st.integers(0, 4),
        now=st.sampled_from([0.0, 10.0, 15.0, 30.0]),
        where=WHERES,
    )
    def search(self, tenant, query, k, where, **asked):
        partition = self.partitions.at(tenant)
        want = chosen(self.journal, tenant, where=where, **asked)
        for _ in range(2):  # the second comes from memory
            ids = partition.select(where=None if where is None else parse(where), **asked)
            everything = sorted(self.journal.held[tenant])
            assert (everything if ids is None else sorted(ids.tolist())) == want
            found = partition.search(query, k, ids)
            assert found == nearest(self.journal, tenant, query, k, want)

    @invariant()
    def catching_up_equals_making_it_anew(self):
        for tenant in ("a", "b"):
            followed, anew = self.partitions.at(tenant), Partitions(self.journal).at(tenant)
            assert followed.generation == anew.generation == self.journal.generation(tenant)
            assert len(followed) == len(anew) == len(self.journal.held[tenant])
            assert content(followed) == content(anew)


def content(partition):
    """Return {rid: everything that is known of it}."""
    arrays, names = partition.arrays()
    vectors = dict(
        zip(
            arrays.get("ids", np.empty(0)).tolist(), map(bytes, arrays.get("vectors", [])), strict=1
        )
    )
    return {
        rid: (space, names[kind], names[state], trust, expires_at, vectors.get(rid))
        for rid, space, kind, state, trust, expires_at in zip(
            *(arrays[name].tolist() for name in ("rid", "space", "kind", "state", "trust")),
            arrays["expires_at"].tolist(),
            strict=True,
        )
    }


FollowsTheStore.TestCase.settings = settings(max_examples=25, stateful_step_count=12)
TestFollowsTheStore = FollowsTheStore.TestCase


def filled(n=20):
    journal = Journal()
    for rid in range(n):
        journal.put("a", rid, (1, "note", "", 0, None, rid % len(POOL)), {"n": rid})
    return journal


def test_what_has_not_changed_is_not_read_again():
    journal = filled()
    partitions = Partitions(journal)
    first = partitions.at("a")
    journal.put("b", 1, (1, "note", "", 0, None, 3), {})
    assert partitions.at("a") is first
    journal.drop("a", 3)
    assert partitions.at("a") is first
    assert journal.n_read == 1
    assert first.select(now=0) is None


def test_a_tenant_pushed_out_is_read_again():
    journal = filled()
    partitions = Partitions(journal, most=1)
    partitions.at("a"), partitions.at("b"), partitions.at("a")
    assert journal.n_read == 3


@pytest.mark.parametrize(
    "vector", [POOL[0] * 2, POOL[0][:3], np.full(DIM, np.nan, dtype=np.float32), POOL[:1]]
)
def test_a_damaged_vector_is_a_store_error_and_nothing_half_done_is_used(vector):
    journal = filled()
    partitions = Partitions(journal)
    partitions.at("a")
    sound = journal.held["a"][4]
    journal.drop("a", 7)
    journal.put("a", 2, (1, "note", "", 0, None, 1), {})
    journal.held["a"][4] = (replace(sound[0], vector=vector), {})
    for _ in range(2):
        with pytest.raises(StoreError, match="stored vector"):
            partitions.at("a")
    journal.held["a"][4] = sound
    assert content(partitions.at("a")) == content(Partitions(journal).at("a"))


def test_one_thread_makes_a_partition_while_others_wait_for_it(monkeypatch):
    journal, begun, go = filled(), Event(), Event()
    rows = journal.rows

    def slow(tenant):
        begun.set()
        assert go.wait(20)
        return rows(tenant)

    monkeypatch.setattr(journal, "rows", slow)
    partitions = Partitions(journal)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(partitions.at, "a") for _ in range(4)]
        assert begun.wait(20)
        go.set()
        assert len({id(job.result(20)) for job in jobs}) == 1
    assert journal.n_read == 1


def test_a_selection_cannot_be_changed_and_does_not_outlive_an_expiry():
    journal = filled(4)
    journal.put("a", 1, (1, "note", "", 0, 10.0, 1), {})
    journal.put("a", 2, (2, "note", "", 0, None, 1), {})
    partition = Partitions(journal).at("a")
    selected = partition.select(spaces=[1], now=9.0)
    with pytest.raises(ValueError, match="read-only"):
        selected[0] = 7
    assert partition.select(spaces=[1], now=9.5) is selected
    assert sorted(partition.select(spaces=[1], now=10.0).tolist()) == [0, 6]
    assert sorted(partition.select(spaces=[1], now=9.0).tolist()) == [0, 2, 6]


def test_fields_are_read_once_and_again_only_for_what_changed(monkeypatch):
    journal, asked = filled(), []
    values = journal.values

    def counted(tenant, rids):
        asked.append(rids)
        return values(tenant, rids)

    monkeypatch.setattr(journal, "values", counted)
    partitions = Partitions(journal)
    small = parse({"n": {"$lt": 3}})
    for _ in range(3):
        assert partitions.at("a").select(now=0, where=small).tolist() == [0, 2, 4]
    journal.put("a", 1, (1, "note", "", 0, None, None), {"n": 50})
    journal.drop("a", 2)
    assert partitions.at("a").select(now=0, where=small).tolist() == [0]
    assert asked == [None, [2, 4]]
