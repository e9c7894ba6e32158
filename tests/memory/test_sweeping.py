"""What has expired leaves no trace once it is swept: not in the database, not beside it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from elision.encoders.hashing import HashingEncoder
from elision.memory.index.vectors import to_bytes
from elision.memory.records import Draft, Scope
from elision.memory.store import Store

HERE = Scope("tenant", ("desk",))


def test_sweeping_rebuilds_the_database_so_that_free_space_holds_nothing(tmp_path: Path) -> None:
    def holds() -> bool:
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        return any(b"Zyxwv Qponm" in file.read_bytes() for file in files)

    now = [1e9]
    with Store.open(tmp_path, clock=lambda: now[0]) as store:
        store.put(HERE, Draft(text="short words", ttl_s=2))
        store.put(HERE, Draft(text="long words"))
        with closing(sqlite3.connect(tmp_path / "memory.db", isolation_level=None)) as other:
            for statement in (  # what SQLite leaves where it does not overwrite
                "PRAGMA secure_delete = OFF",
                "CREATE TABLE pages (body)",
                "INSERT INTO pages VALUES (replace(hex(zeroblob(900)), '0', 'Zyxwv Qponm '))",
                "DROP TABLE pages",
            ):
                other.execute(statement)
        store.database.sweep()
        assert (store.sweep(), holds()) == (0, True)
        now[0] += 10
        assert (store.sweep(), holds()) == (1, False)
        assert [record.text for record in store.list(HERE)] == ["long words"]


def test_sweeping_takes_the_saved_index_that_knows_what_expired(tmp_path: Path) -> None:
    now, encoder = [1e9], HashingEncoder(32)
    needle = to_bytes(encoder.embed(["short words"], tenant="tenant").result())
    with Store.open(tmp_path, encoder=encoder, clock=lambda: now[0]) as store:
        store.put_many(HERE, [Draft(text="short words", ttl_s=2), Draft(text="long words")])
        store.put(Scope("other"), Draft(text="their words"))
        for tenant in ("tenant", "other"):
            store.search(Scope(tenant), "words")
        store.partitions.save()
        saved = [*(tmp_path / "memory").iterdir()]
        assert any(needle in file.read_bytes() for file in saved)
        now[0] += 10
        assert store.sweep() == 1
        left = [*(tmp_path / "memory").iterdir()]
        assert len(left) == len(saved) // 2 > 0  # the other tenant's
        assert [hit.record.text for hit in store.search(HERE, "words").hits] == ["long words"]
    assert len([*(tmp_path / "memory").iterdir()]) == len(saved)  # written anew
    assert not any(needle in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
