"""What goes with what, over plain tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, delete, insert

from elision.memory import schema as t
from elision.memory.erasure.closure import batches, closure, counts, emptied
from elision.memory.erasure.plan import planned
from elision.memory.erasure.selector import Criteria

N = 12
LINKS = st.lists(st.tuples(st.integers(1, N), st.integers(1, N)), max_size=20, unique=True)


@pytest.fixture(scope="module")
def tables() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    t.metadata.create_all(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def fill(connection: Connection, links: list[tuple[int, int]], spaces: dict[int, int]) -> None:
    """Write records 1 to N into three namespaces of ``me`` and one of another tenant."""
    for table in reversed(t.metadata.sorted_tables):
        connection.execute(delete(table))
    rooms = [
        {"id": n, "tenant": "me" if n < 4 else "other", "digest": str(n), "body": b"[]"}
        for n in range(1, 5)
    ]
    connection.execute(insert(t.spaces), rooms)
    figures = {"trust": 3, "version": 1, "created_at": 1.0, "updated_at": 1.0, "body": b"{}"}
    rows = [
        {"rid": rid, "id": f"r{rid}", "space": spaces.get(rid, 1), "key": f"k{rid}",
         "content": f"c{rid}", "kind": "note" if rid % 2 else "advice", "state": "", **figures}
        for rid in range(1, N + 1)
    ]  # fmt: skip
    connection.execute(insert(t.records), rows)
    if links:
        connection.execute(insert(t.lineage), [{"child": c, "parent": p} for c, p in links])


def reached(links: list[tuple[int, int]], start: set[int], mine: set[int]) -> set[int]:
    """Follow *links* until nothing is new, the slow way."""
    found = set(start)
    for _ in range(N):
        found |= {child for child, parent in links if parent in found and child in mine}
    return found


@given(
    links=LINKS,
    chosen=st.frozensets(st.integers(1, N), max_size=3),
    spaces=st.dictionaries(st.integers(1, N), st.integers(1, 4)),
)
def test_whatever_has_an_erased_parent_goes_in_circles_too_and_nothing_else(
    tables: Connection,
    links: list[tuple[int, int]],
    chosen: frozenset[int],
    spaces: dict[int, int],
) -> None:
    fill(tables, links, spaces)
    mine = {rid for rid in range(1, N + 1) if spaces.get(rid, 1) < 4}
    meant = Criteria(tenant="me", ids=tuple(f"r{rid}" for rid in chosen))
    plan = planned(tables, meant)
    assert plan.rids == reached(links, set(chosen) & mine, mine)
    left = {spaces.get(rid, 1) for rid in mine - plan.rids}
    had = {spaces.get(rid, 1) for rid in mine & plan.rids}
    assert set(plan.spaces) == had - left
    assert plan.counts["records"] == len(plan.rids)
    assert plan.counts["lineage"] == sum(child in plan.rids for child, _ in links)


def test_all_of_a_tenant_takes_the_names_of_empty_namespaces_but_not_nameless_ones(
    tables: Connection,
) -> None:
    fill(tables, [], {1: 2})
    tables.execute(insert(t.spaces).values(id=9, tenant="me", digest="9", body=b""))
    whole = Criteria(tenant="me", scope=True)
    assert emptied(tables, whole, closure(tables, whole)) == (1, 2, 3)
    part = Criteria(tenant="me", kinds=("note",))
    assert emptied(tables, part, closure(tables, part)) == (2,)


def test_long_lists_of_ids_and_namespaces_mean_what_short_ones_do(tables: Connection) -> None:
    fill(tables, [], {2: 2, 3: 3})
    ids = (*tuple(f"x{n}" for n in range(1200)), "r2", "r5")
    spaces = (*range(100, 1300), 2)
    assert closure(tables, Criteria(tenant="me", ids=ids)) == {2, 5}
    assert closure(tables, Criteria(tenant="me", ids=ids, spaces=spaces)) == {2}
    assert closure(tables, Criteria(tenant="me", rids=())) == frozenset()
    assert closure(tables, Criteria(tenant="me", spaces=())) == frozenset()


def test_batches_hold_each_value_once_in_order() -> None:
    assert [len(some) for some in batches(frozenset(range(1001)))] == [500, 500, 1]


def test_nothing_is_counted_of_nothing(tables: Connection) -> None:
    assert set(counts(tables, frozenset(), 0).values()) == {0}
