"""What the store keeps comes back as it was, to whom it belongs, and under its conditions."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.encoders.hashing import HashingEncoder
from elision.errors import ConfigError, ConflictError, NotFoundError, RequestError, StoreError
from elision.memory.journal import Journal, get_meta
from elision.memory.records import Draft, Scope, Trust
from elision.memory.store import Store

HERE = Scope("tenant", ("agent", "domain"))
ENCODER = HashingEncoder(32)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
labels = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
values = st.dictionaries(
    texts,
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


class Clock:
    now = 2_000_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with Store.open(tmp_path, encoder=ENCODER, clock=clock) as store:
        yield store


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("shared"), encoder=ENCODER) as store:
        yield store


# --- what goes in comes out ----------------------------------------------------------------------


@settings(max_examples=30)
@given(text=texts, value=values, key=labels, namespace=st.lists(labels, max_size=3).map(tuple))
def test_any_text_value_key_and_namespace_come_back_as_they_were(
    shared: Store, text: str, value: dict[str, Any], key: str, namespace: tuple[str, ...]
) -> None:
    scope = Scope("any", namespace)
    stored = shared.put(scope, Draft(text=text, value=value, key=key))
    record = shared.get(scope, key)
    assert record is not None
    assert (record.text, record.value, record.key) == (text, value, key)
    assert (record.scope, record.id, record.version) == (scope, stored.id, stored.version)
    assert shared.find("any", [stored.id]) == (record,)


@pytest.mark.parametrize(
    ("draft", "param"),
    [
        (Draft(text="\ud800"), "value"),
        (Draft(value={"x": float("nan")}), "value"),
        (Draft(value={"x": float("inf")}), "value"),
        (Draft(value={"x": 2**64}), "value"),
        (Draft(value={"x": object()}), "value"),
        (Draft(value={1: "x"}), "value"),  # type: ignore[dict-item]
        (Draft(value={"\udfff": 1}), "value"),
        (Draft(text=3), "value"),  # type: ignore[arg-type]
        (Draft(key=""), "key"),
        (Draft(key="a\x00b"), "key"),
        (Draft(key="k" * 513), "key"),
        (Draft(kind="Words of somebody"), "kind"),
        (Draft(kind=""), "kind"),
        (Draft(state="no code"), "state"),
        (Draft(ttl_s=0), "ttl_s"),
        (Draft(ttl_s=float("nan")), "ttl_s"),
        (Draft(parents=("m_none",)), "parents"),
        (Draft(parents=("m_\udc80",)), "parent"),
        (Draft(parents=(3,)), "parent"),  # type: ignore[arg-type]
        (Draft(subjects=frozenset({"somebody \udc80"})), "subject"),
        (Draft(subjects=frozenset({""})), "subject"),
        (Draft(trust=99), "trust"),  # type: ignore[arg-type]
        (Draft(trust=-1), "trust"),  # type: ignore[arg-type]
    ],
)
def test_what_would_not_come_back_as_it_was_is_refused_and_not_quoted(
    shared: Store, draft: Draft, param: str
) -> None:
    before = shared.stats()["records"]
    with pytest.raises(RequestError) as caught:
        shared.put_many(HERE, [Draft(text="a good one beside it"), draft])
    assert caught.value.param == param
    assert "somebody" not in str(caught.value)
    assert shared.stats()["records"] == before  # all or none


def test_the_same_content_is_kept_once_until_it_is_gone(store: Store) -> None:
    first = store.put(HERE, Draft(text="words", value={"b": 1, "a": 2}))
    again = store.put(HERE, Draft(text="words", value={"a": 2, "b": 1}))
    assert (first.status, again.status, again.id) == ("created", "same", first.id)
    other = store.put(Scope("tenant", ("agent",)), Draft(text="words", value={"b": 1, "a": 2}))
    assert other.id != first.id
    assert store.put(HERE, Draft(text="words", value={"b": 1, "a": 2}, kind="item")).id != first.id
    assert store.remove("tenant", [first.id]) == 1
    assert store.put(HERE, Draft(text="words", value={"b": 1, "a": 2})).id != first.id


def test_many_are_kept_in_their_order_also_where_a_key_comes_twice(store: Store) -> None:
    drafts = [Draft(text=f"text {n}", key=key) for n, key in enumerate("abacab")]
    stored = store.put_many(HERE, drafts)
    assert [(one.status, one.version) for one in stored] == [
        ("created", 1), ("created", 1), ("replaced", 2), ("created", 1), ("replaced", 3),
        ("replaced", 2),
    ]  # fmt: skip
    assert [getattr(store.get(HERE, key), "text", None) for key in "abc"] == [
        "text 4",
        "text 5",
        "text 3",
    ]


def test_a_change_is_refused_at_another_version_and_leaves_all_as_it_was(store: Store) -> None:
    stored = store.put(HERE, Draft(text="old", key="k", ttl_s=60))
    changed = store.change("tenant", stored.id, version=1, text="new", state="active")
    assert (changed.version, changed.text, changed.state) == (2, "new", "active")
    assert changed.expires_at == Clock.now + 60
    with pytest.raises(ConflictError) as caught:
        store.change("tenant", stored.id, version=1, text="newer")
    assert caught.value.code == "version_conflict"
    assert store.get(HERE, "k") == changed
    assert store.change("tenant", stored.id, ttl_s=None).expires_at is None
    for tenant, id_ in (("other", stored.id), ("tenant", "m_none")):
        with pytest.raises(NotFoundError):
            store.change(tenant, id_, text="newer")


def test_of_many_changes_at_once_at_one_version_one_is_made(store: Store) -> None:
    stored = store.put(HERE, Draft(text="old", key="k"))
    ready = threading.Barrier(6)

    def change(n: int) -> bool:
        ready.wait()
        try:
            store.change("tenant", stored.id, version=1, text=f"new {n}")
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(change, range(6))) == 1


# --- whose it is ---------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("t", "T", "t%", "t_", "tt", "ß", "ss")),
            st.lists(
                st.sampled_from(("a", "ab", "%", "_", ".", "a.b", "Ä", "A\u0308")), max_size=2
            ),
        ),
        min_size=2,
        max_size=5,
    )
)
@settings(max_examples=10)
def test_nobody_sees_what_lies_elsewhere(
    shared: Store, places: list[tuple[str, list[str]]]
) -> None:
    scopes = {Scope(tenant, ("fuzz", *labels)) for tenant, labels in places}
    words = {scope: f"words of {scope.tenant!r} {scope.namespace!r}" for scope in scopes}
    ids = {scope: shared.put(scope, Draft(text=words[scope], key="k")).id for scope in scopes}
    for scope in scopes:
        record = shared.get(scope, "k")
        assert record is not None
        assert record.text == words[scope]
        below = {one for one in scopes if scope.holds(one)}
        found = shared.search(scope, "words", 100).hits
        assert {hit.record.text for hit in found} >= {words[one] for one in below}
        assert all(scope.holds(hit.record.scope) for hit in found)
        assert {one.text for one in shared.list(scope, deep=False)} == {words[scope]}
        assert [one.id for one in shared.find(scope.tenant, ids.values())] == [
            id_ for one, id_ in ids.items() if one.tenant == scope.tenant
        ]
        others = [id_ for one, id_ in ids.items() if one.tenant != scope.tenant]
        assert shared.remove(scope.tenant, others) == 0


def test_a_label_stands_for_one_label_in_patterns(store: Store, clock: Clock) -> None:
    for namespace in ((), ("a",), ("a", "b"), ("a", "c", "d"), ("ab", "b"), ("*",)):
        store.put(Scope("t", namespace), Draft(text="x"))
    store.put(Scope("t", ("gone",)), Draft(text="x", ttl_s=1))
    clock.now += 1
    every = (), ("*",), ("a",), ("a", "b"), ("a", "c", "d"), ("ab", "b")
    assert store.namespaces("t") == every
    assert store.namespaces("t", prefix=("a",)) == (("a",), ("a", "b"), ("a", "c", "d"))
    assert store.namespaces("t", suffix=("b",)) == (("a", "b"), ("ab", "b"))
    assert store.namespaces("t", prefix=("*", "c")) == (("a", "c", "d"),)
    assert store.namespaces("t", prefix=("a",), depth=1) == (("a",),)
    assert store.namespaces("t", limit=2, offset=1) == (("*",), ("a",))
    assert store.namespaces("other") == ()


# --- trust, time, screen -------------------------------------------------------------------------


def test_what_is_made_of_something_is_trusted_no_further(store: Store) -> None:
    def trust(id_: str) -> Trust:
        return store.find("tenant", [id_])[0].trust

    page = store.put(HERE, Draft(text="a page", key="p", trust=Trust.TOOL)).id
    mine = store.put(HERE, Draft(text="mine", key="m", trust=Trust.OPERATOR)).id
    child = store.put(HERE, Draft(text="c", trust=Trust.OPERATOR, parents=(page, mine))).id
    grandchild = store.put(HERE, Draft(text="g", trust=Trust.USER, parents=(child,))).id
    assert (trust(child), trust(grandchild)) == (Trust.TOOL, Trust.TOOL)
    # Not even by saying the same again, or by a change.
    store.put(HERE, Draft(text="c", trust=Trust.OPERATOR))
    assert store.change("tenant", child, trust=Trust.OPERATOR).trust == Trust.TOOL
    # And when a parent falls, all fall that were made of it.
    store.put(HERE, Draft(text="another page", key="p", trust=Trust.EXTERNAL))
    assert (trust(child), trust(grandchild)) == (Trust.EXTERNAL, Trust.EXTERNAL)
    found = store.search(HERE, "g", least_trust=Trust.TOOL)
    assert [hit.record.id for hit in found.hits] == [mine]
    with pytest.raises(RequestError, match="its own parent"):
        store.put(HERE, Draft(text="mine again", key="m", parents=(mine,)))
    with pytest.raises(RequestError, match="1 of 1 parents"):
        store.put(Scope("other"), Draft(text="theirs", parents=(mine,)))


def test_a_circle_of_parents_ends(store: Store) -> None:
    a = store.put(HERE, Draft(text="a", key="a")).id
    b = store.put(HERE, Draft(text="b", key="b", parents=(a,))).id
    store.put(HERE, Draft(text="a2", key="a", parents=(b,)))
    store.change("tenant", a, trust=Trust.UNKNOWN)
    assert [one.trust for one in store.find("tenant", [a, b])] == [Trust.UNKNOWN] * 2


def test_what_has_expired_is_in_no_answer_and_sweeping_takes_it(store: Store, clock: Clock) -> None:
    old = store.put(HERE, Draft(text="short words", key="k", ttl_s=10))
    store.put(HERE, Draft(text="long words"))
    clock.now += 10
    assert store.get(HERE, "k") is None
    assert store.find("tenant", [old.id]) == ()
    assert [hit.record.text for hit in store.search(HERE, "short words").hits] == ["long words"]
    assert len(store.list(HERE)) == 1
    assert store.touch(HERE, ["k"]) == 0  # too late
    assert (store.sweep(), store.sweep()) == (1, 0)
    assert store.put(HERE, Draft(text="short words", key="k")).status == "created"


def test_reading_lets_nothing_live_longer_and_touching_does(store: Store, clock: Clock) -> None:
    store.put(HERE, Draft(text="words", key="k", ttl_s=10))
    for _ in range(3):
        clock.now += 8
        assert store.get(HERE, "k") is not None
        assert store.touch(HERE, ["k"]) == 1
    for _ in range(2):
        clock.now += 4
        assert store.search(HERE, "words").code == "ok"
    record = store.get(HERE, "k")
    assert record is not None
    assert (record.version, record.expires_at) == (1, clock.now + 2)
    store.touch(HERE, ["k"], 100)
    clock.now += 50
    assert store.search(HERE, "words").code == "ok"


class NoFoxes:
    """A screen that keeps foxes out; each side can be switched off."""

    writing, reading = True, True

    def may_write(self, tenant: str, text: str) -> bool:
        return not (self.writing and "fox" in text)

    def may_read(self, tenant: str, text: str) -> bool:
        return not (self.reading and "fox" in text)


@pytest.mark.parametrize(
    ("scope", "draft"),
    [
        (HERE, Draft(text="a fox")),
        (HERE, Draft(key="fox")),
        (HERE, Draft(value={"a": [{"b": "fox"}]})),
        (HERE, Draft(value={"fox": 1})),
        (Scope("tenant", ("fox",)), Draft(text="an animal")),
    ],
)
def test_what_the_screen_refuses_is_not_written_and_what_it_hides_is_in_no_answer(
    tmp_path: Path, scope: Scope, draft: Draft
) -> None:
    screen = NoFoxes()
    with Store.open(tmp_path, encoder=ENCODER, screen=screen) as store:
        with pytest.raises(RequestError) as caught:
            store.put_many(scope, [Draft(text="a hen"), draft])
        assert caught.value.code == "screened"
        assert "fox" not in str(caught.value)
        assert store.stats()["records"] == store.stats()["namespaces"] == 0
        screen.writing = False
        hen = store.put(scope, Draft(text="a hen", key="hen"))
        hidden = store.put(scope, draft)
        shown = () if scope.namespace == ("fox",) else (hen.id,)
        assert tuple(hit.record.id for hit in store.search(scope, "a fox", 2).hits) == shown
        assert tuple(hit.record.id for hit in store.search(scope, None, 2).hits) == shown
        assert tuple(record.id for record in store.list(scope)) == shown
        assert tuple(one.id for one in store.find("tenant", [hidden.id, hen.id])) == shown
        assert len(store.namespaces("tenant")) == len(shown)
        screen.writing = True
        with pytest.raises(RequestError):
            store.change("tenant", hen.id, text="a fox")


def test_a_screen_that_hides_the_nearest_lets_the_next_come_up(tmp_path: Path) -> None:
    screen = NoFoxes()
    screen.writing = False
    with Store.open(tmp_path, encoder=ENCODER, screen=screen) as store:
        store.put_many(HERE, [Draft(text=f"the fox number {n}") for n in range(40)])
        store.put_many(HERE, [Draft(text=f"some hen {n}") for n in range(3)])
        found = store.search(HERE, "the fox number", 3)
        assert len(found.hits) == 3


def test_a_screen_that_breaks_shows_nothing(tmp_path: Path) -> None:
    class Broken(NoFoxes):
        def may_read(self, tenant: str, text: str) -> bool:
            raise ValueError("broken")

    with Store.open(tmp_path, encoder=ENCODER, screen=Broken()) as store:
        store.put(HERE, Draft(text="a hen", key="k"))
        for ask in (
            lambda: store.get(HERE, "k"),
            lambda: store.list(HERE),
            lambda: store.search(HERE, "a hen"),
            lambda: store.namespaces("tenant"),
        ):
            with pytest.raises(ValueError, match="broken"):
                ask()


# --- searching -----------------------------------------------------------------------------------


def test_why_a_search_found_nothing_is_told(store: Store) -> None:
    assert store.search(HERE, "words").code == "unknown_scope"
    stored = store.put(HERE, Draft(text="words", value={"n": 1}))
    assert store.search(HERE, "words").code == "ok"
    assert store.search(HERE, "words", kinds=("item",)).code == "filtered_out"
    assert store.search(HERE, "words", where={"n": 2}).code == "filtered_out"
    assert store.search(HERE, None, where={"n": 2}).code == "filtered_out"
    assert store.search(HERE, "words", least_similarity=1.5).code == "nothing_similar"
    store.remove("tenant", [stored.id])
    assert store.search(HERE, "words").code == "empty_scope"
    assert store.search(HERE, None).code == "empty_scope"


def test_pages_of_a_search_and_of_a_list_follow_each_other(store: Store) -> None:
    store.put_many(HERE, [Draft(text=f"number {n}") for n in range(25)])
    whole = [hit.record.id for hit in store.search(HERE, "number 7", 25).hits]
    pages = [store.search(HERE, "number 7", 10, offset=n).hits for n in (0, 10, 20)]
    assert [hit.record.id for page in pages for hit in page] == whole
    listed, after = list[str](), None
    while page := store.list(HERE, after=after, limit=10):
        store.remove("tenant", [page[-1].id])  # a cursor outlives its record
        listed += [record.id for record in page]
        after = page[-1].id
    assert sorted(listed) == listed
    assert set(listed) == set(whole)


def test_recall_takes_whole_records_only_and_no_more_than_fit(store: Store) -> None:
    sizes = (30, 5, 20, 10)
    store.put_many(HERE, [Draft(text=" ".join(["word"] * n) + f" {n}") for n in sizes])

    def count(text: str) -> int:
        return len(text.split())

    for budget in range(0, 80, 7):
        hits = store.recall(HERE, "word 30", budget, count=count)
        assert sum(count(hit.record.text) for hit in hits) <= budget
        nearest = store.search(HERE, "word 30").hits[0].record
        assert (hits[:1] == () or budget < 31) or hits[0].record == nearest
    assert len(store.recall(HERE, "word 30", 1000, count=count)) == 4


def test_a_record_without_words_is_found_by_key_and_filter_only(store: Store) -> None:
    store.put(HERE, Draft(key="k", value={"colour": "red"}))
    assert store.search(HERE, "red").hits == ()
    assert len(store.search(HERE, None, where={"colour": "red"}).hits) == 1
    assert store.get(HERE, "k") is not None


# --- many writers --------------------------------------------------------------------------------


def test_writes_that_wait_together_share_a_commit_and_each_has_its_own_refusal(
    store: Store,
) -> None:
    def put(n: int) -> str:
        try:
            return store.put(
                HERE, Draft(text=f"text {n}", parents=("m_x",) if n % 5 == 0 else ())
            ).id
        except RequestError:
            return ""

    with ThreadPoolExecutor(20) as pool, store._commits._lead:
        running = [pool.submit(put, n) for n in range(20)]
        while len(store._commits._waiting) < 20:
            time.sleep(0.001)
        store._commits._lead.release()
        ids = [one.result() for one in running]
        store._commits._lead.acquire()
    assert [id_ == "" for id_ in ids] == [n % 5 == 0 for n in range(20)]
    assert len(store.find("tenant", ids)) == 16


def test_if_the_database_fails_all_that_shared_the_commit_fail_and_nothing_is_there(
    store: Store,
) -> None:
    store.put(HERE, Draft(text="before"))
    with sqlite3.connect(store.database.path or "") as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON vectors BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    other.close()

    def put(n: int) -> bool:
        try:
            store.put(HERE, Draft(text="" if n % 2 else f"text {n}", key=f"k{n}"))
        except StoreError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool, store._commits._lead:
        running = [pool.submit(put, n) for n in range(6)]
        while len(store._commits._waiting) < 6:
            time.sleep(0.001)
        store._commits._lead.release()
        done = [one.result() for one in running]
        store._commits._lead.acquire()
    assert done == [False] * 6
    assert [record.text for record in store.list(HERE)] == ["before"]
    assert put(1)


# --- what lies in the file -----------------------------------------------------------------------

SECRET = "Zyxwv Qponm"


def test_no_column_but_a_body_holds_words_of_anybody(store: Store) -> None:
    scope = Scope("tenant", (f"label {SECRET}",))
    parent = store.put(scope, Draft(text="first", key=f"key {SECRET}"))
    store.put(
        scope,
        Draft(
            text=f"text {SECRET}",
            value={f"name {SECRET}": [f"value {SECRET}"]},
            subjects=frozenset({f"subject {SECRET}"}),
            parents=(parent.id,),
        ),
    )
    store.change("tenant", parent.id, text=f"other {SECRET}")
    with sqlite3.connect(store.database.path or "") as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master")]
        columns = [
            (table, row[1])
            for table in tables
            for row in connection.execute(f"PRAGMA table_info({table})")
        ]
        holding = {
            (table, column)
            for table, column in columns
            for (value,) in connection.execute(f"SELECT {column} FROM {table}")
            if SECRET.encode() in (value if isinstance(value, bytes) else str(value).encode())
        }
    connection.close()
    assert holding == {("records", "body"), ("spaces", "body")}


def test_no_repr_and_no_error_shows_words(store: Store) -> None:
    draft = Draft(text=SECRET, value={SECRET: SECRET}, key=SECRET, subjects=frozenset({SECRET}))
    stored = store.put(Scope("tenant", (SECRET,)), draft)
    record = store.find("tenant", [stored.id])[0]
    found = store.search(Scope("tenant"), SECRET)
    said = [repr(one) for one in (draft, record, found, stored)]
    with pytest.raises(RequestError) as caught:
        store.put(HERE, Draft(text=SECRET, value={SECRET: object()}))
    said += [str(caught.value), repr(caught.value)]
    assert not [one for one in said if SECRET in one]


# --- what it is to be opened with ----------------------------------------------------------------


def test_another_encoder_is_refused_and_the_remedy_is_named(tmp_path: Path) -> None:
    with Store.open(tmp_path, encoder=ENCODER) as store:
        store.put(HERE, Draft(text="words"))
    with pytest.raises(ConfigError, match=r"'hashing-32:32', not 'hashing-64:64'.* reembed"):
        Store.open(tmp_path, encoder=HashingEncoder(64))
    with Store.open(tmp_path) as store:
        assert store.list(HERE)[0].text == "words"
        with pytest.raises(ConfigError, match="opened without an encoder"):
            store.put(HERE, Draft(text="never unindexed"))
        assert store.put(HERE, Draft(key="k")).status == "created"


def test_records_that_were_kept_without_an_encoder_are_encoded_before_one_is_used(
    tmp_path: Path,
) -> None:
    with Store.open(tmp_path) as store:
        store.put(HERE, Draft(text="words"))
        with pytest.raises(RequestError, match="no encoder"):
            store.search(HERE, "words")
    with pytest.raises(ConfigError, match="with no encoder"):
        Store.open(tmp_path, encoder=ENCODER)
    with Store.open(tmp_path, encoder=ENCODER, reembedding=True) as store:
        assert store.reembed() == 1
        assert store.search(HERE, "words").hits[0].similarity == pytest.approx(1)
    Store.open(tmp_path, encoder=ENCODER).close()


@pytest.mark.parametrize("sealed", [False, True])
def test_another_encoder_takes_over_where_it_was_cut_short(tmp_path: Path, sealed: bool) -> None:
    class Cut(HashingEncoder):
        left = 2

        def embed(self, texts: Any, *, tenant: str) -> Any:
            self.left -= 1
            if self.left < 0:
                raise OSError("cut")
            return super().embed(texts, tenant=tenant)

    words = [f"text number {n}" for n in range(10)]
    with Store.open(tmp_path, encoder=ENCODER, sealed=sealed) as old:
        ids = [one.id for one in old.put_many(HERE, [Draft(text=one) for one in words])]
        old.put(HERE, Draft(key="no words"))
        old.search(HERE, "text")
        with (
            Store.open(tmp_path, encoder=Cut(64), reembedding=True) as new,
            pytest.raises(OSError, match="cut"),
        ):
            new.reembed(batch=3)
        # Until it is done, the old one goes on.
        old.change("tenant", ids[0], text="text changed")
        old.remove("tenant", [ids[1]])
        assert old.search(HERE, "text changed").hits[0].record.id == ids[0]
        done = list[int]()
        with Store.open(tmp_path, encoder=HashingEncoder(64), reembedding=True) as new:
            assert new.reembed(batch=3, progress=done.append) == 9
            assert sum(done) < 9  # six were there, one of them has changed and one has gone
            assert new.search(HERE, "text changed").hits[0].record.id == ids[0]
        with pytest.raises(ConfigError, match="is encoded by 'hashing-64:64' now"):
            old.put(HERE, Draft(text="too late"))
    with Store.open(tmp_path, encoder=HashingEncoder(64)) as new:
        for record in new.list(HERE):
            if record.text:
                hit = new.search(HERE, record.text, 1).hits[0]
                assert (hit.record.id, hit.similarity) == (record.id, pytest.approx(1))
        assert new.stats()["vectors"] == 9


def test_other_keys_are_refused(tmp_path: Path) -> None:
    Store(tmp_path / "m.db").close()
    with pytest.raises(ConfigError, match="keys are not those"):
        Store(tmp_path / "m.db", keys=_new_keys(tmp_path / "others"))
    (tmp_path / "keys" / "master.key").unlink()
    with pytest.raises(ConfigError, match="is gone"):
        Store(tmp_path / "m.db")


def _new_keys(folder: Path) -> Path:
    Store(folder / "m.db", keys=folder).close()
    return folder


def test_a_store_stays_sealed_or_not(tmp_path: Path) -> None:
    with Store(tmp_path / "m.db") as store:
        assert store.sealed is False
    with pytest.raises(ConfigError, match="is not sealed, and stays so"):
        Store(tmp_path / "m.db", sealed=True)


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "m.db")
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.list(HERE)


def test_the_journal_is_trimmed_and_indexes_are_still_right(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal.__init__, "__kwdefaults__", {"kept": 10})
    store.put(Scope("quiet"), Draft(text="said once"))
    store.search(Scope("quiet"), "said once")
    store.search(HERE, "number")
    with Store.open(store.database.folder or Path(), encoder=ENCODER) as other:
        for n in range(40):
            other.put(HERE, Draft(text=f"number {n}"))
    with store.reading() as connection:
        assert int(get_meta(connection, "floor") or 0) > 10
    [[n_changes]] = store.database.rows("SELECT COUNT(*) FROM changes")
    assert n_changes < 25
    assert store.search(HERE, "number 39").hits[0].record.text == "number 39"
    assert store.search(HERE, "number").n_scanned == 40
    assert store.search(Scope("quiet"), "said once").code == "ok"
