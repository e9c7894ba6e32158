"""Erasing: what goes, what stays, and what the receipt says."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from elision.encoders.hashing import HashingEncoder
from elision.errors import EngineError, NotFoundError, RequestError
from elision.memory import schema as t
from elision.memory.erasure import backups
from elision.memory.erasure.eraser import Eraser
from elision.memory.erasure.receipts import Receipt
from elision.memory.erasure.selector import Selector
from elision.memory.records import Draft, Record, Scope
from elision.memory.store import Store

SECRET = "Zyxwv Qponm lives in the third house behind the old water mill of Kirkgate"
ME = Scope("me", ("notes",))
Copies = Callable[..., int]
Opener = Callable[..., Store]


def erase(store: Store, **selector: Any) -> Any:
    given = {"tenant": "me"} | selector
    return Eraser(store).erase(Selector(**given), reason="user_request", actor="admin")


def seen(store: Store, tenant: str) -> tuple[Any, ...]:
    """Return all that a tenant sees of its memory."""
    scope = Scope(tenant)
    found = store.search(scope, "house behind the mill", k=50) if store.encoder else None
    return (
        store.list(scope, limit=1000),
        found and [(hit.record.id, hit.similarity) for hit in found.hits],
        store.namespaces(tenant),
    )


def vector(store: Store, text: str) -> bytes:
    assert store.encoder is not None
    row: bytes = store.encoder.embed([text], tenant="x").result()[0].astype("<f4").tobytes()
    return row


# --- laws ----------------------------------------------------------------------------------------

TENANTS = ("me", "other", "me2")
LABELS = st.sampled_from([(), ("a",), ("a", "b"), ("ab",)])
STEP = st.tuples(
    st.sampled_from(["put", "put", "put", "derive", "remove", "change", "search", "reopen"]),
    st.sampled_from(TENANTS),
    LABELS,
    st.integers(0, 7),
)


def text_of(tenant: str, n: int, turn: int) -> str:
    mark = zlib.crc32(f"{tenant}{n}{turn}".encode())
    return f"{tenant} number {n} wrote {mark:08x} in its diary {turn}"


def play(home: Path, steps: list[tuple[Any, ...]]) -> tuple[Store, dict[str, set[str]]]:
    """Return the store after *steps*, and every text that each tenant ever wrote."""
    said: dict[str, set[str]] = {tenant: set() for tenant in TENANTS}
    store = Store.open(home, encoder=HashingEncoder(32))
    for turn, (what, tenant, labels, n) in enumerate(steps):
        text, scope = text_of(tenant, n, turn), Scope(tenant, labels)
        mine = store.list(Scope(tenant), limit=1000)
        if what == "put" or (what == "derive" and not mine):
            draft = Draft(
                text=text, key=f"{tenant}-key-of-number-{n}", value={"said": [text[::-1]]}
            )
            said[tenant] |= {text, text[::-1]}
            store.put(scope, draft)
        elif what == "derive":
            said[tenant].add(text)
            store.put(scope, Draft(text=text, parents=(mine[n % len(mine)].id,)))
        elif what == "remove" and mine:
            store.remove(tenant, [mine[n % len(mine)].id])
        elif what == "change" and mine:
            said[tenant].add(text)
            store.change(tenant, mine[n % len(mine)].id, text=text)
        elif what == "search":
            store.search(Scope(tenant), "diary")
        elif what == "reopen":
            store.close()
            store = Store.open(home, encoder=HashingEncoder(32))
    return store, said


@pytest.mark.parametrize("sealed", [False, True])
@settings(max_examples=5)
@given(steps=st.lists(STEP, min_size=1, max_size=14))
def test_after_a_tenant_is_erased_no_file_has_a_word_of_it_and_others_see_what_they_saw(
    sealed: bool,
    steps: list[tuple[Any, ...]],
    tmp_path_factory: pytest.TempPathFactory,
    empty_homes: dict[bool, Path],
) -> None:
    home = tmp_path_factory.mktemp("law") / "home"
    shutil.copytree(empty_homes[sealed], home)
    store, said = play(home, steps)
    others = [seen(store, tenant) for tenant in ("other", "me2")]
    plan = Eraser(store).plan(Selector(tenant="me"))
    receipt = erase(store)
    assert receipt.counts == plan.counts
    assert receipt.state == "verified"
    assert Eraser(store).verify(receipt)
    assert [seen(store, tenant) for tenant in ("other", "me2")] == others
    assert store.list(Scope("me")) == ()
    assert store.namespaces("me") == ()
    texts = [text for text in said["me"] if len(text) >= 8]
    needles = [text.encode(code) for text in texts for code in ("utf-8", "utf-16-le", "utf-16-be")]
    needles += [vector(store, text) for text in texts]
    for closed in (False, True):
        files = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
        assert not any(needle in data for data in files for needle in needles)
        if not closed:
            store.close()


def test_whatever_was_made_of_it_goes_with_it_in_any_namespace(store: Store) -> None:
    root = store.put(ME, Draft(text=SECRET)).id
    child = store.put(Scope("me", ("elsewhere",)), Draft(text="a child of it", parents=(root,))).id
    store.put(ME, Draft(text="a grandchild of it", parents=(child,)))
    kept = store.put(ME, Draft(text="no relation")).id
    receipt = erase(store, ids=(root,))
    assert [record.id for record in store.list(Scope("me"))] == [kept]
    assert (receipt.counts["records"], receipt.counts["lineage"]) == (3, 2)
    assert receipt.counts["spaces"] == 1


# --- what a selector means -----------------------------------------------------------------------


@pytest.fixture
def ten(store: Store) -> dict[str, str]:
    """Return ids by name of what stands in the store."""
    drafts = {
        "mill": (ME, Draft(text=SECRET, subjects=frozenset({"zyx"}))),
        "about": (ME, Draft(text="drawn from what was said", subjects=frozenset({"zyx", "abc"}))),
        "tea": (ME, Draft(text="tea is drunk at five", kind="advice", state="active")),
        "deep": (Scope("me", ("notes", "old")), Draft(value={"who": ["Zyxwv Qponm"]})),
        "beside": (Scope("me", ("notes2",)), Draft(text="a neighbouring namespace")),
        "foreign": (Scope("me-too", ("notes",)), Draft(text=SECRET, subjects=frozenset({"zyx"}))),
    }
    return {name: store.put(scope, draft).id for name, (scope, draft) in drafts.items()}


@pytest.mark.parametrize(
    ("selector", "gone"),
    [
        ({}, {"mill", "about", "tea", "deep", "beside"}),
        ({"namespace": ("notes",)}, {"mill", "about", "tea", "deep"}),
        ({"namespace": ("notes", "old")}, {"deep"}),
        ({"namespace": ("not",)}, set()),
        ({"subject": "zyx"}, {"mill", "about"}),
        ({"subject": "zy"}, set()),
        ({"kinds": ("advice",)}, {"tea"}),
        ({"kinds": ("advice",), "subject": "zyx"}, set()),
        ({"ids": ()}, set()),
        ({"kinds": ()}, set()),
        ({"older_than_s": 3600.0}, set()),
        ({"older_than_s": 0.0}, {"mill", "about", "tea", "deep", "beside"}),
        ({"matching": lambda text: "Zyxwv" in text}, {"mill", "deep"}),
        ({"matching": lambda text: text == "old"}, {"deep"}),
        ({"namespace": ("notes", "old"), "matching": lambda text: "Zyxwv" in text}, {"deep"}),
    ],
)
def test_a_selector_takes_what_meets_every_condition(
    store: Store, ten: dict[str, str], selector: dict[str, Any], gone: set[str]
) -> None:
    receipt = erase(store, **selector)
    left = {record.id for tenant in ("me", "me-too") for record in store.list(Scope(tenant))}
    assert left == {id_ for name, id_ in ten.items() if name not in gone}
    assert receipt.counts["records"] == len(gone)
    assert receipt.state == "verified"


def test_ids_of_another_tenant_mean_nothing(store: Store, ten: dict[str, str]) -> None:
    assert erase(store, ids=(ten["foreign"],)).counts["records"] == 0
    assert store.find("me-too", [ten["foreign"]])


def test_erasing_twice_takes_nothing_and_has_a_receipt_of_its_own(
    store: Store, ten: dict[str, str]
) -> None:
    first, second = erase(store), erase(store)
    assert first.id != second.id
    assert first.selector == second.selector
    assert set(second.counts.values()) == {0}
    assert second.state == "verified"
    assert Eraser(store).receipts("me") == (first, second)
    assert Eraser(store).receipts("me-too") == ()


@pytest.mark.parametrize("reason", ["", "Zyxwv asked for it", "x" * 65])
def test_a_reason_is_a_code(store: Store, reason: str) -> None:
    with pytest.raises(RequestError, match="must be a code"):
        Eraser(store).erase(Selector(tenant="me"), reason=reason, actor="admin")


# --- what goes with a record ---------------------------------------------------------------------


CHOSEN = '{"why":"a-code-of-the-caller"}'


def episode(store: Store, id_: str, record: Record) -> None:
    """Write an episode that was told in *record* and met it as an entry."""
    with store.writing() as writing:
        rid = writing.rid_of("me", record.id)
        space = writing.connection.scalar(select(t.records.c.space).where(t.records.c.rid == rid))
        figures = {"reward": 0.5, "tokens": 12, "cost": 0.1, "started_at": 1.0}
        row = {"id": id_, "tenant": "me", "space": space, "rid": rid, "state": "succeeded"}
        row |= {"mode": "on", "lane": "auto", "decision": CHOSEN, "retried": False, **figures}
        writing.connection.execute(insert(t.episodes).values(**row))
        met = {"version": 1, "applied": True, "propensity": 0.5, "position": 0, "counted": True}
        writing.connection.execute(insert(t.exposures).values(episode=id_, rid=rid, **met))
        moved = {"at": 1.0, "source": "a", "target": "b", "reason": "r", "actor": "x"}
        writing.connection.execute(insert(t.moves).values(rid=rid, **moved, figures="{}"))


def test_episodes_keep_figures_and_lose_words_and_the_names_of_where_they_were(
    store: Store, copies: Copies
) -> None:
    scope = Scope("me", ("the very private project",))
    stored = store.put(scope, Draft(text=SECRET, kind="episode"))
    episode(store, "e1", store.find("me", [stored.id])[0])
    receipt = erase(store)
    gone = {"records": 1, "vectors": 1, "exposures": 1, "moves": 1, "episodes": 1, "spaces": 1}
    assert {name: n for name, n in receipt.counts.items() if n} == gone
    with store.reading() as connection:
        [row] = connection.execute(select(t.episodes)).all()
    assert (row.rid, row.reward, row.tokens, row.decision) == (None, 0.5, 12, "{}")
    assert copies(SECRET, "the very private project") == 0
    assert store.namespaces("me") == ()
    assert set(erase(store).counts.values()) == {0}


def test_earlier_versions_removed_rows_and_expired_ones_leave_no_trace(
    open_store: Opener, copies: Copies
) -> None:
    now = [1000.0]
    store = open_store(clock=lambda: now[0])
    texts = [f"{SECRET}, version {n}" for n in range(4)]
    id_ = store.put(ME, Draft(text=texts[0], key="k")).id
    store.change("me", id_, text=texts[1])
    store.remove("me", [store.put(ME, Draft(text=texts[2])).id])
    store.put(ME, Draft(text=texts[3], ttl_s=5))
    now[0] += 60
    assert erase(store).counts["records"] == 2
    assert copies(*texts, *(vector(store, text) for text in texts)) == 0


def test_a_search_with_an_erased_vector_finds_what_is_left_only(store: Store) -> None:
    kept = store.put(ME, Draft(text="tea is drunk at five")).id
    id_ = store.put(ME, Draft(text=SECRET)).id
    assert store.search(ME, SECRET, k=1).hits[0].record.id == id_
    receipt = erase(store, ids=(id_,))
    assert [hit.record.id for hit in store.search(ME, SECRET, k=5).hits] == [kept]
    assert receipt.scan["searched"] == 1


# --- sealed --------------------------------------------------------------------------------------


def test_in_a_sealed_store_survivors_get_a_new_key_and_the_old_one_is_destroyed(
    open_store: Opener, tmp_path: Path
) -> None:
    store = open_store(sealed=True)
    id_ = store.put(ME, Draft(text=SECRET)).id
    store.put(ME, Draft(text="tea is drunk at five"))
    store.put(Scope("other"), Draft(text="another key"))
    before = {path.name for path in (tmp_path / "home" / "keys" / "memory").iterdir()}
    receipt = erase(store, ids=(id_,))
    after = {path.name for path in (tmp_path / "home" / "keys" / "memory").iterdir()}
    assert receipt.keys_destroyed == 1
    assert len(before - after) == len(after - before) == 1
    assert [record.text for record in store.list(ME)] == ["tea is drunk at five"]
    assert erase(store).keys_destroyed == 1
    assert len(list((tmp_path / "home" / "keys" / "memory").iterdir())) == 1


# --- caches --------------------------------------------------------------------------------------


class Cache:
    """A cache that says what it was told."""

    def __init__(self, *, fails: bool = False) -> None:
        self.told: list[tuple[str, Any]] = []
        self.fails = fails

    def erase(self, tenant: str, *, texts: Any = None) -> int:
        self.told.append((tenant, texts))
        if self.fails:
            raise EngineError("the cache is broken")
        return 3


class CachingEncoder(HashingEncoder):
    """An encoder that keeps what it read."""

    erased = ""

    def erase(self, tenant: str, *, texts: Any = None) -> int:
        self.erased = tenant
        return 1

    def embed(self, texts: Any, *, tenant: str) -> Future[Any]:
        return super().embed(texts, tenant=tenant)


def test_caches_and_the_encoder_are_told_what_went(open_store: Opener) -> None:
    cache, encoder = Cache(), CachingEncoder(16)
    store = open_store(encoder=encoder)
    ids = [store.put(ME, Draft(text=SECRET, key=f"key number {n}")).id for n in range(2)]
    eraser = Eraser(store, erasables=[cache])
    receipt = eraser.erase(Selector(tenant="me", ids=(ids[0],)), reason="r", actor="a")
    assert cache.told == [("me", [SECRET, "key number 0"])]
    assert encoder.erased == "me"
    assert receipt.caches == 4
    eraser.erase(Selector(tenant="me"), reason="r", actor="a")
    assert cache.told[1] == ("me", None)  # all of the tenant


def test_a_cache_that_fails_keeps_the_erasure_pending(store: Store) -> None:
    cache = Cache(fails=True)
    store.put(ME, Draft(text=SECRET))
    eraser = Eraser(store, erasables=[cache])
    receipt = eraser.erase(Selector(tenant="me"), reason="r", actor="a")
    assert receipt.unfinished == ("caches",)
    cache.fails = False
    assert eraser.resume()[0].state == "verified"
    assert cache.told[-1] == ("me", None)


# --- receipts ------------------------------------------------------------------------------------


def test_a_receipt_has_no_word_of_what_was_erased_nor_of_whom(store: Store) -> None:
    store.put(ME, Draft(text=SECRET, key="his key", subjects=frozenset({"zyxwv@example.org"})))
    eraser = Eraser(store)
    selector = Selector(tenant="me", subject="zyxwv@example.org", namespace=("notes",))
    receipt = eraser.erase(selector, reason="gdpr.17", actor="zyxwv@example.org")
    said = str(receipt.to_body()) + repr(receipt) + repr(selector)
    assert not any(word in said for word in ("Zyxwv", "zyxwv", "his key", "notes", "Kirkgate"))
    assert receipt.actor == "subject"


def test_no_row_of_a_job_has_a_word_or_a_window_of_what_was_erased(
    store: Store, tmp_path: Path
) -> None:
    store.put(ME, Draft(text=SECRET))
    states: list[str] = []

    def look(state: str) -> None:
        states.append(state)
        with store.reading() as connection:
            [row] = connection.execute(select(t.erasures)).all()
        assert row.state == state
        assert "Zyxwv" not in str(row)
        assert "water" not in str(row)

    Eraser(store, on_state=look).erase(Selector(tenant="me"), reason="r", actor="a")
    assert states == ["planned", "deleted", "swept", "verified"]


def test_a_receipt_that_was_touched_does_not_verify(store: Store) -> None:
    store.put(ME, Draft(text=SECRET))
    receipt, eraser = erase(store), Eraser(store)
    assert eraser.verify(receipt)
    body = receipt.to_body()
    for name, value in {"at": "2020", "counts": {}, "state": "pending", "limits": []}.items():
        assert not eraser.verify(Receipt.from_body(body | {name: value}))


def test_what_comes_back_is_noticed(store: Store) -> None:
    store.put(ME, Draft(text=SECRET))
    receipt, eraser = erase(store), Eraser(store)
    store.put(ME, Draft(text=SECRET.replace("third", "fourth")))
    assert eraser.verify(receipt)
    store.put(Scope("other"), Draft(text=SECRET))
    assert eraser.verify(receipt)  # another's own words
    store.put(ME, Draft(text=SECRET))
    assert not eraser.verify(receipt)


def test_what_comes_back_is_noticed_by_the_receipt_of_each_erasure_of_it(store: Store) -> None:
    receipts = []
    for _ in range(2):
        store.put(ME, Draft(text=SECRET))
        receipts.append(erase(store))
    assert [Eraser(store).verify(receipt) for receipt in receipts] == [True, True]
    store.put(ME, Draft(text=SECRET))
    assert [Eraser(store).verify(receipt) for receipt in receipts] == [False, False]


def test_a_receipt_does_not_verify_on_a_database_from_before_the_deletion(
    open_store: Opener, tmp_path: Path
) -> None:
    older = tmp_path / "older.db"

    def keep(state: str) -> None:
        if state == "planned":
            backups.copy(store.database, tmp_path / "home" / "memory.db", older)

    with open_store() as store:
        store.put(ME, Draft(text=SECRET))
        eraser = Eraser(store, on_state=keep)
        receipt = eraser.erase(Selector(tenant="me"), reason="r", actor="a")
        assert eraser.verify(receipt)
    older.replace(tmp_path / "home" / "memory.db")
    again = open_store()
    assert not Eraser(again).verify(receipt)
    assert len(again.list(ME)) == 1


def test_a_receipt_of_another_store_does_not_verify(store: Store, tmp_path: Path) -> None:
    receipt = erase(store)
    with Store.open(tmp_path / "second") as other:
        assert not Eraser(other).verify(receipt)


def test_an_unknown_erasure_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError):
        Eraser(store).status("er_none")
