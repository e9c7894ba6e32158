"""Whom a record is about stays with all that was made of it, whatever goes in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, delete, select

from elision.memory import schema as t
from elision.memory.erasure.eraser import Eraser
from elision.memory.erasure.selector import Selector
from elision.memory.lineage import link
from elision.memory.records import Draft, Scope
from elision.memory.store import Store

HERE = Scope("tenant", ("desk",))
N = 7


def replace(store: Store, _: str) -> None:
    store.put(HERE, Draft(key="p", text="nothing of anybody"))


def remove(store: Store, id_: str) -> None:
    store.remove("tenant", [id_])


def expire(store: Store, _: str) -> None:
    store.sweep(store.clock() + 11)


@pytest.mark.parametrize("become", [replace, remove, expire])
def test_a_person_is_found_in_what_was_made_of_a_record_that_is_there_no_more(
    tmp_path: Path, become: Callable[[Store, str], None]
) -> None:
    with Store.open(tmp_path) as store:
        said = store.put(
            HERE, Draft(key="p", text="Ann lives here", subjects=frozenset({"ann"}), ttl_s=10)
        )
        drawn = store.put(HERE, Draft(text="a summary", parents=(said.id,)))
        store.put(HERE, Draft(text="a summary of that", parents=(drawn.id,)))
        kept = store.put(HERE, Draft(text="somebody else's", subjects=frozenset({"bob"})))
        become(store, said.id)
        Eraser(store).erase(Selector(tenant="tenant", subject="ann"), reason="r.1", actor="dpo")
        left = {record.text for record in store.list(HERE)}
        assert left - {"nothing of anybody"} == {"somebody else's"}
        assert store.find("tenant", [kept.id])


def test_who_is_named_later_is_named_in_all_that_was_made_before(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        said = store.put(HERE, Draft(text="said"))
        drawn = store.put(HERE, Draft(text="drawn", parents=(said.id,)))
        store.put(HERE, Draft(text="drawn again", parents=(drawn.id,)))
        store.put(HERE, Draft(text="said", subjects=frozenset({"ann"})))
        store.remove("tenant", [said.id])
        Eraser(store).erase(Selector(tenant="tenant", subject="ann"), reason="r.1", actor="dpo")
        assert store.list(HERE) == ()
        again = Draft(text="drawn", subjects=frozenset({"ann"}))
        assert (store.put(HERE, again).status, store.put(HERE, again).status) == ("created", "same")


STEPS = st.lists(
    st.tuples(
        st.integers(1, N),
        st.frozensets(st.integers(1, N), max_size=2),
        st.frozensets(st.sampled_from("ab"), max_size=1),
    ),
    max_size=9,
)


@pytest.fixture(scope="module")
def tables() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    t.metadata.create_all(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@settings(max_examples=40)
@given(steps=STEPS)
def test_each_record_is_about_whom_anything_it_was_made_of_is_about_in_circles_too(
    tables: Connection,
    steps: list[tuple[int, frozenset[int], frozenset[str]]],
) -> None:
    for table in (t.lineage, t.subjects):
        tables.execute(delete(table))
    about: dict[int, set[str]] = {rid: set() for rid in range(1, N + 1)}
    links: set[tuple[int, int]] = set()
    for rid, parents, subjects in steps:
        before = set(about[rid])
        new = {(rid, parent) for parent in parents} - links
        links |= new
        about[rid] |= subjects
        for _ in range(N):  # the slow way
            for child, parent in links:
                about[child] |= about[parent]
        assert link(tables, rid, parents, subjects) == bool(new or about[rid] != before)
    found = {tuple(row) for row in tables.execute(select(t.subjects.c.rid, t.subjects.c.subject))}
    assert found == {(rid, one) for rid, whom in about.items() for one in whom}
