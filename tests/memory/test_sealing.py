"""Sealed: neither the database nor a copy of it tells anything without the keys beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from elision.crypto.vault import Vault
from elision.encoders.hashing import HashingEncoder
from elision.errors import StoreError
from elision.memory.database import MemoryDatabase
from elision.memory.index.vectors import to_bytes
from elision.memory.records import Draft, Scope
from elision.memory.schema import vectors
from elision.memory.sealing import Keyring
from elision.memory.store import Store

ENCODER = HashingEncoder(32)
SECRET = "Zyxwv Qponm"
HERE, THERE = Scope("tenant", ("a", "label Zyxwv")), Scope("tenant", ("b",))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path, encoder=ENCODER, sealed=True) as store:
        yield store


def _bytes_of(store: Store) -> bytes:
    folder = store.database.folder
    assert folder is not None
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"\0".join(path.read_bytes() for path in files)


def _needles(text: str) -> list[bytes]:
    vector = to_bytes(ENCODER.embed([text], tenant="tenant").result())
    return [text.encode(), text.encode("utf-16-le"), vector, vector[:16]]


def test_no_file_holds_words_or_vectors(store: Store) -> None:
    text = f"text {SECRET}"
    stored = store.put(HERE, Draft(text=text, value={SECRET: SECRET}, key=SECRET))
    assert store.search(HERE, text).hits[0].record.id == stored.id
    store.close()
    with Store.open(store.database.folder or Path(), encoder=ENCODER) as again:
        assert again.sealed
        assert again.folder is None  # no snapshots
        assert again.search(HERE, text).hits[0].record.text == text
    held = _bytes_of(store)
    assert [n for n in (*_needles(text), b"Zyxwv", b"Qponm") if n in held] == []


def test_the_same_test_finds_both_in_a_store_that_is_not_sealed(tmp_path: Path) -> None:
    text = f"text {SECRET}"
    with Store.open(tmp_path, encoder=ENCODER) as store:
        store.put(HERE, Draft(text=text))
        held = _bytes_of(store)
    found = _needles(text)
    assert [found[0] in held, found[2] in held] == [True, True]


def test_each_namespace_has_a_key_of_its_own(store: Store) -> None:
    store.put_many(HERE, [Draft(text="one"), Draft(text="two")])
    store.put(THERE, Draft(text="three"))
    folder = store.keys_folder
    assert folder is not None
    keys = sorted((folder / "memory").iterdir())
    assert len(keys) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)
    assert all(path.read_bytes() not in _bytes_of_database(store) for path in keys)


def test_what_is_left_is_resealed_and_an_old_copy_of_the_database_opens_no_more(
    store: Store, tmp_path: Path
) -> None:
    gone = store.put(HERE, Draft(text=SECRET, key="gone"))
    store.put(HERE, Draft(text="stays", key="stays", value={"n": 1}))
    store.put(THERE, Draft(text="elsewhere", key="k"))
    copy = _copied(store, tmp_path / "copy")
    with store.writing() as writing:
        place = writing.rooms.find(HERE)
        assert place is not None
        rid = writing.rid_of("tenant", gone.id)
        writing.remove("tenant", [rid or 0])
        writing.rooms.reseal(place.space)
    record = store.get(HERE, "stays")
    assert record is not None
    assert (record.text, record.value) == ("stays", {"n": 1})
    assert store.search(HERE, "stays").hits[0].similarity == pytest.approx(1)
    with Store(copy, encoder=ENCODER, keys=store.keys_folder) as old:
        assert old.get(HERE, "gone") is None
        assert old.namespaces("tenant") == (("b",),)
        with pytest.raises(StoreError, match="key of the store cannot be read"):
            old.find("tenant", [gone.id])
        assert old.get(THERE, "k") is not None


def sealed_anew(store: Store, *gone: str) -> None:
    """Take records out of `HERE` and seal the rest anew, as an erasure does."""
    with store.writing() as writing:
        place = writing.rooms.find(HERE)
        assert place is not None
        rids = [writing.rid_of("tenant", id_) for id_ in gone]
        writing.remove("tenant", [rid for rid in rids if rid is not None])
        writing.rooms.reseal(place.space)


def test_what_is_sealed_anew_while_all_is_listed_is_listed_as_it_is_then(store: Store) -> None:
    ids = [one.id for one in store.put_many(HERE, [Draft(text=f"text {n}") for n in range(300)])]
    listing = store._reader.in_order("tenant", None)
    assert next(listing).id == ids[0]
    sealed_anew(store, ids[7], ids[299])
    assert [record.id for record in listing] == [id_ for id_ in ids[1:299] if id_ != ids[7]]


def test_what_is_sealed_anew_while_an_index_is_made_is_in_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = [Draft(text=f"text {n}", value={"n": n}) for n in range(5)]
    ids = [one.id for one in store.put_many(HERE, drafts)]
    monkeypatch.setattr(MemoryDatabase.batches, "__kwdefaults__", {"size": 2})
    source = store.partitions._source
    for made in (source.rows("tenant"), source.values("tenant", None)):
        first, *_ = seen = [next(made)]
        sealed_anew(store, ids.pop())
        seen += made
        assert len(seen) == len(ids)
        assert first is seen[0]
    assert len(store.search(HERE, "text 1", where={"n": {"$gte": 1}}).hits) == len(ids) - 1
    with store.writing() as writing:
        writing.connection.execute(update(vectors).values(data=b"\0" * 160))
    with pytest.raises(StoreError):  # damaged is not sealed anew
        list(source.rows("tenant"))


def test_a_namespace_that_is_left_loses_its_key(store: Store) -> None:
    stored = store.put(HERE, Draft(text=SECRET))
    with store.writing() as writing:
        place = writing.rooms.find(HERE)
        assert place is not None
        assert writing.rooms.leave([place.space]) == 0  # something lies there
        writing.remove("tenant", [writing.rid_of("tenant", stored.id) or 0])
        assert writing.rooms.leave([place.space]) == 1
    assert store.keys_folder is not None
    assert list((store.keys_folder / "memory").iterdir()) == []
    assert store.search(HERE, SECRET).code == "unknown_scope"
    assert store.put(HERE, Draft(text="anew")).status == "created"


def test_a_key_whose_destruction_a_crash_prevented_is_destroyed_at_the_next_opening(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(HERE, Draft(text="stays", key="k"))
    with monkeypatch.context() as patch:
        patch.setattr(Keyring, "destroy", lambda self, key_ids: 0)
        with store.writing() as writing:
            place = writing.rooms.find(HERE)
            assert place is not None
            writing.rooms.reseal(place.space)
    assert store.keys_folder is not None
    folder = store.keys_folder / "memory"
    assert len(list(folder.iterdir())) == 2
    with Store.open(store.database.folder or Path(), encoder=ENCODER) as again:
        assert len(list(folder.iterdir())) == 1
        assert again.get(HERE, "k") is not None


def test_what_is_moved_within_the_database_does_not_open(store: Store) -> None:
    store.put(HERE, Draft(text="mine", key="a"))
    store.put(HERE, Draft(text="yours", key="b"))
    with sqlite3.connect(store.database.path or "") as connection:
        connection.execute(
            "UPDATE records SET body = (SELECT body FROM records WHERE rid = 1) WHERE rid = 2"
        )
    connection.close()
    assert store.get(HERE, "a") is not None
    with pytest.raises(StoreError, match="altered or moved"):
        store.get(HERE, "b")


def test_a_write_that_fails_leaves_no_record_under_an_unknown_key(store: Store) -> None:
    def write_and_fail() -> None:
        with store.writing() as writing:
            writing.put(HERE, Draft(text="never"), None)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert store.search(HERE, None).code == "unknown_scope"


def test_a_key_file_opens_under_its_own_name_and_master_key_only(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "keys", Vault(b"1" * 32))
    one, two = ring.make("t"), ring.make("t")
    sealed = ring.seal(b"plain", tenant="t", key_id=one, place=b"p")
    other = Keyring(tmp_path / "keys", Vault(b"2" * 32))
    fresh = Keyring(tmp_path / "keys", Vault(b"1" * 32))
    assert fresh.open(sealed, tenant="t", key_id=one, place=b"p") == b"plain"
    for ring_, tenant, key_id, place in (
        (other, "t", one, b"p"),
        (Keyring(ring.folder, Vault(b"1" * 32)), "u", one, b"p"),
        (fresh, "t", one, b"q"),
        (fresh, "t", two, b"p"),
    ):
        with pytest.raises(StoreError):
            ring_.open(sealed, tenant=tenant, key_id=key_id, place=place)
    assert (ring.destroy([one]), ring.destroy([one])) == (1, 0)
    with pytest.raises(StoreError):
        ring.open(sealed, tenant="t", key_id=one, place=b"p")


def _bytes_of_database(store: Store) -> bytes:
    path = store.database.path
    assert path is not None
    return b"".join(one.read_bytes() for one in path.parent.glob("memory.db*"))


def _copied(store: Store, folder: Path) -> Path:
    assert store.database.path is not None
    folder.mkdir()
    with sqlite3.connect(store.database.path) as connection:
        connection.execute("VACUUM INTO ?", (str(folder / "m.db"),))
    connection.close()
    return folder / "m.db"
