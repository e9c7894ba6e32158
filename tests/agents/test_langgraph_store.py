from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore
from sqlalchemy import func, select

from elision.agents.langchain_embeddings import LocalEmbeddings
from elision.agents.langgraph_store import MemoryStore
from elision.encoders import HashingEncoder
from elision.errors import ConfigError, RequestError
from elision.memory.erasure.eraser import Eraser
from elision.memory.records import Draft, Scope
from elision.memory.schema import records
from elision.memory.store import Store

LABELS = st.sampled_from(["a", "acme", "acme-corp", "a_me", "b%", "*x", "ä"])
NAMESPACES = st.lists(LABELS, min_size=1, max_size=3).map(tuple)
KEYS = st.sampled_from(["k", "K", "k1", "käse", "k.1", "_", "%"])
WORDS = st.sampled_from(["apple pie", "banana bread", "cherry cake", "date loaf", "elder wine"])
SCALARS = st.none() | st.integers(-3, 3) | WORDS
VALUES = st.fixed_dictionaries(
    {"n": st.integers(-3, 3)},
    optional={
        "text": WORDS,
        "flag": st.booleans(),
        "nested": st.fixed_dictionaries({"m": SCALARS}),
        "tags": st.lists(WORDS, max_size=3),
    },
)
FILTERS = st.none() | st.one_of(
    st.fixed_dictionaries({"text": WORDS}),
    st.fixed_dictionaries({"missing": st.none()}),
    st.fixed_dictionaries({"nested": st.fixed_dictionaries({"m": SCALARS})}),
    st.fixed_dictionaries({"tags": st.lists(WORDS, max_size=2)}),
    st.fixed_dictionaries(
        {
            "n": st.dictionaries(
                st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]),
                st.integers(-3, 3),
                min_size=1,
                max_size=2,
            )
        }
    ),
)
INDEXES = st.sampled_from([None, False, ["text"], ["text", "tags[*]"], ["tags[*]"], ["absent"]])
PATHS = st.lists(LABELS | st.just("*"), min_size=1, max_size=3).map(tuple)
CONDITIONS = st.builds(MatchCondition, st.sampled_from(["prefix", "suffix"]), PATHS)
PREFIXES = st.lists(LABELS, max_size=2).map(tuple)
OPS = st.one_of(
    st.builds(GetOp, NAMESPACES, KEYS, st.booleans()),
    st.builds(PutOp, NAMESPACES, KEYS, VALUES, INDEXES, st.none()),
    st.builds(PutOp, NAMESPACES, KEYS, VALUES, INDEXES, st.none()),
    st.builds(PutOp, NAMESPACES, KEYS, st.none(), st.none(), st.none()),
    st.builds(
        SearchOp,
        PREFIXES,
        FILTERS,
        st.integers(0, 5),
        st.integers(0, 3),
        st.none() | WORDS,
        st.booleans(),
    ),
    st.builds(
        ListNamespacesOp,
        st.none() | st.lists(CONDITIONS, max_size=2).map(tuple),
        st.none() | st.integers(1, 3),
        st.integers(0, 5),
        st.integers(0, 2),
    ),
)
BATCHES = st.lists(st.lists(OPS, max_size=5), max_size=8)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def minutes(self, n: float) -> None:
        self.now += 60 * n


class Forbidding:
    """A screen that forbids one word."""

    def __init__(self, word: str = "") -> None:
        self.word = word

    def may_write(self, tenant: str, text: str) -> bool:
        return not self.word or self.word not in text

    may_read = may_write


class Oracle(InMemoryStore):
    """LangGraph's own store in memory, without what is plainly wrong with it.

    It lists namespaces that are empty or were only asked for, keeps the vectors of what was
    replaced, and fails where two items share a text.
    """

    def _handle_list_namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        for namespace in [one for one, items in self._data.items() if not items]:
            del self._data[namespace]
        return super()._handle_list_namespaces(op)

    def _extract_texts(self, put_ops: Any) -> Any:
        for namespace, key in put_ops:
            self._vectors[namespace].pop(key, None)
        return super()._extract_texts(put_ops)

    def _insertinmem_store(self, to_embed: Any, embeddings: list[list[float]]) -> None:
        for places, embedding in zip(to_embed.values(), embeddings, strict=True):
            for namespace, key, path in places:
                self._vectors[namespace][key][path] = embedding


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("langgraph")
    with Store(folder / "memory.db", encoder=HashingEncoder(64), clock=Clock()) as store:
        yield store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    screen = Forbidding()
    options: dict[str, Any] = {"encoder": HashingEncoder(64), "clock": clock, "screen": screen}
    with Store(tmp_path / "memory.db", **options) as store:
        yield store


def told(item: Item) -> tuple[Any, ...]:
    return item.namespace, item.key, item.value


def check_same(op: Op, ours: Result, theirs: Result, oracle: Oracle) -> None:
    match op:
        case GetOp():
            assert (ours and told(ours)) == (theirs and told(theirs))
        case SearchOp():
            check_same_search(op, ours, oracle)
        case ListNamespacesOp():
            assert ours == theirs
        case _:
            assert ours is None


def check_same_search(op: SearchOp, ours: Any, oracle: Oracle) -> None:
    """Whatever the order of equals, the same items with the same scores, a page as long."""
    every: Any = oracle.batch([op._replace(limit=10_000, offset=0)])[0]
    page = every[op.offset : op.offset + op.limit]
    known = {(item.namespace, item.key): item for item in every}
    assert len(ours) == len(page) == len({(item.namespace, item.key) for item in ours})
    for item, at_its_place in zip(ours, page, strict=True):
        twin = known[item.namespace, item.key]
        assert item.value == twin.value
        assert item.score == pytest.approx(twin.score, abs=1e-5)
        assert item.score == pytest.approx(at_its_place.score, abs=1e-5)


TENANTS = itertools.count()


@settings(max_examples=12)
@given(batches=BATCHES, fields=st.sampled_from([["$"], ["text"], ["text", "tags[*]"]]))
def test_it_answers_as_langgraphs_own_store_does(
    shared: Store, batches: list[list[Op]], fields: list[str]
) -> None:
    compare(shared, batches, fields)


@pytest.mark.slow
@settings(max_examples=400)
@given(batches=BATCHES, fields=st.sampled_from([["$"], ["text"], ["text", "tags[*]"]]))
def test_it_answers_as_langgraphs_own_store_does_at_length(
    shared: Store, batches: list[list[Op]], fields: list[str]
) -> None:
    compare(shared, batches, fields)


def compare(shared: Store, batches: list[list[Op]], fields: list[str]) -> None:
    embeddings = LocalEmbeddings(HashingEncoder(64))
    oracle = Oracle(index={"dims": 64, "embed": embeddings, "fields": fields})
    ours = MemoryStore(shared, tenant=f"t{next(TENANTS)}", fields=fields)
    for batch in batches:
        for op, found in zip(batch, ours.batch(batch), strict=True):
            if not isinstance(op, PutOp):
                check_same(op, found, oracle.batch([op])[0], oracle)
        oracle.batch([op for op in batch if isinstance(op, PutOp)])


# --- namespaces ----------------------------------------------------------------------------------

BROKEN: list[Op] = [
    PutOp((), "k", {}),
    PutOp(("langgraph",), "k", {}),
    PutOp(("a.b",), "k", {}),
    PutOp(("",), "k", {}),
    GetOp(("a\x00",), "k"),
    GetOp((1,), "k"),  # type: ignore[arg-type]
    SearchOp(("a.b",)),
    ListNamespacesOp((MatchCondition("prefix", ("a.b",)),)),
]


@pytest.mark.parametrize("op", BROKEN)
def test_a_batch_with_a_broken_namespace_does_nothing(store: Store, op: Op) -> None:
    ours = MemoryStore(store)
    with pytest.raises(InvalidNamespaceError):
        ours.batch([PutOp(("a",), "k", {"n": 1}), op])
    assert ours.list_namespaces() == []


def test_what_is_no_operation_or_has_negative_bounds_is_refused(store: Store) -> None:
    for op in ("get", SearchOp(("a",), limit=-1), ListNamespacesOp(offset=-1)):
        with pytest.raises(RequestError):
            MemoryStore(store).batch([op])  # type: ignore[list-item]


def test_namespaces_are_told_apart_label_by_label(store: Store) -> None:
    ours = MemoryStore(store)
    for namespace in (("acme",), ("acme-corp",), ("a_me",), ("acme", "x"), ("ac",)):
        ours.put(namespace, "k", {"of": list(namespace)})
    assert {item.namespace for item in ours.search(("acme",))} == {("acme",), ("acme", "x")}
    assert [item.namespace for item in ours.search(("a_me",))] == [("a_me",)]
    assert MemoryStore(store, tenant="globex").search(()) == []


def test_other_records_are_none_of_its_business(store: Store) -> None:
    store.put(Scope("default", ("notes",)), Draft(text="a note", key="k"))
    store.put(Scope("default", ("langgraph", "a")), Draft(text="a note within", key="k"))
    ours = MemoryStore(store)
    assert ours.get(("a",), "k") is None
    assert ours.search(()) == ours.search((), query="note") == []
    ours.delete(("a",), "k")
    assert store.get(Scope("default", ("langgraph", "a")), "k") is not None


# --- writing -------------------------------------------------------------------------------------


def test_the_last_of_several_puts_wins_and_reads_come_first(store: Store) -> None:
    ours = MemoryStore(store)
    puts: list[Op] = [PutOp(("a",), "k", {"n": n}) for n in range(3)]
    found = ours.batch([*puts, GetOp(("a",), "k")])
    assert found == [None] * 4
    item = ours.get(("a",), "k")
    assert item is not None
    assert item.value == {"n": 2}


def test_a_batch_is_written_whole_or_not_at_all(store: Store) -> None:
    ours = MemoryStore(store)
    with pytest.raises(RequestError):
        ours.batch([PutOp(("a",), "k", {"n": 1}), PutOp(("a",), "l", {"n": object()})])
    assert ours.search(()) == []


def test_an_item_keeps_when_it_was_made(store: Store, clock: Clock) -> None:
    ours = MemoryStore(store)
    ours.put(("a",), "k", {"n": 1})
    clock.minutes(5)
    ours.put(("a",), "k", {"n": 2})
    item = ours.get(("a",), "k")
    assert item is not None
    assert (item.updated_at - item.created_at).total_seconds() == 300


def test_without_a_query_what_changed_last_comes_first(store: Store, clock: Clock) -> None:
    ours = MemoryStore(store)
    for key in ("k", "l", "m", "k"):
        clock.minutes(1)
        ours.put(("a",), key, {"at": clock.now})
    assert [item.key for item in ours.search(("a",))] == ["k", "m", "l"]
    assert [item.key for item in ours.search(("a",), limit=1, offset=1)] == ["m"]


def test_an_item_is_found_by_each_of_its_texts_and_by_no_former_one(store: Store) -> None:
    ours = MemoryStore(store, fields=["title", "tags[*]"])
    ours.put(("a",), "k", {"title": "apple pie", "tags": ["dessert", "cherry"]})
    ours.put(("a",), "l", {"title": "bread"})
    for query, score in (("apple pie", 1.0), ("cherry", 1.0)):
        best = ours.search(("a",), query=query)[0]
        assert (best.key, best.score) == ("k", pytest.approx(score))
    ours.put(("a",), "k", {"title": "plum tart", "tags": []})
    assert (ours.search(("a",), query="cherry")[0].score or 0) < 0.9
    ours.delete(("a",), "k")
    assert store.stats("default")["records"] == 1


def test_an_item_that_is_not_indexed_comes_behind_those_that_are(store: Store) -> None:
    ours = MemoryStore(store)
    ours.put(("a",), "k", {"text": "apple"}, index=False)
    ours.put(("a",), "l", {"text": "zebra"})
    found = ours.search(("a",), query="apple")
    assert [(item.key, item.score is None) for item in found] == [("l", False), ("k", True)]


def test_a_store_without_an_encoder_lists_where_it_cannot_compare(tmp_path: Path) -> None:
    with Store(tmp_path / "memory.db") as store:
        ours = MemoryStore(store)
        ours.put(("a",), "k", {"text": "apple"})
        assert [item.score for item in ours.search(("a",), query="apple")] == [None]


# --- time ----------------------------------------------------------------------------------------


def test_what_has_expired_is_never_returned(store: Store, clock: Clock) -> None:
    ours = MemoryStore(store, fields=["a", "b"])
    ours.put(("x",), "k", {"a": "apple", "b": "banana"}, ttl=10)
    clock.minutes(9)
    assert ours.search(("x",), query="banana", refresh_ttl=False)
    clock.minutes(2)
    assert ours.get(("x",), "k") is None
    assert ours.search(("x",)) == ours.search(("x",), query="banana") == []
    assert ours.list_namespaces() == []


@pytest.mark.parametrize("by", ["get", "search", "query"])
def test_reading_starts_the_time_anew_for_an_item_and_its_parts(
    store: Store, clock: Clock, by: str
) -> None:
    ours = MemoryStore(store, fields=["a", "b"])
    ours.put(("x",), "k", {"a": "apple", "b": "banana"}, ttl=10)
    for _ in range(3):
        clock.minutes(9)
        if by == "get":
            assert ours.get(("x",), "k")
        else:
            query = "banana" if by == "query" else None
            assert ours.search(("x",), query=query)
    assert ours.search(("x",), query="banana", refresh_ttl=False)[0].score == pytest.approx(1)


def test_reading_starts_nothing_anew_where_that_is_not_wanted(store: Store, clock: Clock) -> None:
    ours = MemoryStore(store, ttl={"default_ttl": 10, "refresh_on_read": False})
    ours.put(("x",), "k", {"n": 1})
    ours.put(("x",), "forever", {"n": 1}, ttl=None)
    clock.minutes(9)
    assert ours.get(("x",), "k")
    assert len(ours.search(("x",))) == 2
    clock.minutes(2)
    assert [item.key for item in ours.search(("x",))] == ["forever"]


def test_a_put_without_a_time_takes_it_away(store: Store, clock: Clock) -> None:
    ours = MemoryStore(store)
    ours.put(("x",), "k", {"n": 1}, ttl=10)
    ours.put(("x",), "k", {"n": 1})
    clock.minutes(60)
    assert ours.get(("x",), "k")


def test_what_has_expired_is_swept_away_with_its_parts(store: Store, clock: Clock) -> None:
    ours = MemoryStore(store, fields=["a", "b"], ttl={"sweep_interval_minutes": 30})
    ours.put(("x",), "k", {"a": "apple", "b": "banana"}, ttl=10)
    clock.minutes(20)
    ours.get(("x",), "k")
    clock.minutes(11)
    ours.get(("x",), "k")
    with store.reading() as connection:
        assert connection.scalar(select(func.count()).select_from(records)) == 0
    assert ours.sweep_ttl() == 0


# --- forgetting ----------------------------------------------------------------------------------


def test_what_a_forget_target_forbids_is_neither_kept_nor_shown(store: Store) -> None:
    screen: Any = store.screen
    ours = MemoryStore(store)
    ours.put(("a",), "k", {"deep": [{"down": "Annabel"}]})
    ours.put(("a",), "l", {"n": 1})
    screen.word = "Annabel"
    with pytest.raises(RequestError) as refused:
        ours.put(("a",), "m", {"Annabel": 1})
    assert refused.value.code == "screened"
    assert "Annabel" not in str(refused.value)
    assert ours.get(("a",), "k") is None
    assert [item.key for item in ours.search((), query="Annabel")] == ["l"]
    ours.delete(("a",), "k")
    screen.word = ""
    assert ours.get(("a",), "k") is None, "what is hidden can still be deleted"


def test_erasing_a_namespace_takes_all_of_it_and_nothing_else(store: Store) -> None:
    ours = MemoryStore(store, fields=["a", "b"], eraser=Eraser(store))
    for namespace in (("jo",), ("jo", "x"), ("jonas",)):
        ours.put(namespace, "k", {"a": f"marmalade of {namespace}", "b": "toast"})
    receipt = ours.erase_namespace(("jo",))
    assert receipt.state == "verified"
    assert ours.list_namespaces() == [("jonas",)]
    assert [item.namespace for item in ours.search((), query="toast")] == [("jonas",)]
    for file in [path for path in store.database.folder.rglob("*") if path.is_file()]:
        assert b"marmalade of ('jo'," not in file.read_bytes()


async def test_erasing_needs_an_eraser(store: Store) -> None:
    with pytest.raises(ConfigError, match="no eraser"):
        await MemoryStore(store).aerase_namespace(("a",))


# --- in use --------------------------------------------------------------------------------------


async def test_many_tasks_at_once_lose_nothing(store: Store) -> None:
    ours = MemoryStore(store)
    await asyncio.gather(*(ours.aput(("a",), f"k{n}", {"n": n}) for n in range(20)))
    found = await ours.asearch(("a",), limit=50)
    assert Counter(item.value["n"] for item in found) == Counter(range(20))


class State(TypedDict):
    said: Annotated[list[str], add]


async def remember(state: State, *, store: BaseStore) -> State:
    known = await store.asearch(("jo",), query=state["said"][-1], limit=1)
    await store.aput(("jo",), str(len(state["said"])), {"text": state["said"][-1]})
    return {"said": [item.value["text"] for item in known]}


async def test_a_graph_remembers_across_threads(store: Store) -> None:
    graph = StateGraph(State)
    graph.add_node("remember", remember)
    graph.add_edge(START, "remember")
    graph.add_edge("remember", END)
    compiled = graph.compile(store=MemoryStore(store))
    first = await compiled.ainvoke({"said": ["I like plums"]})
    second = await compiled.ainvoke({"said": ["plums?"]})
    assert first["said"] == ["I like plums"]
    assert second["said"] == ["plums?", "I like plums"]
