"""Erasing from files: the database's log, indexes, backups, and copies that nobody knew of."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from elision.encoders.hashing import HashingEncoder
from elision.errors import RequestError, StoreError
from elision.memory.erasure import backups
from elision.memory.erasure.eraser import Eraser
from elision.memory.erasure.selector import Selector
from elision.memory.records import Draft, Scope
from elision.memory.store import Store

SECRET = "Zyxwv Qponm lives in the third house behind the old water mill of Kirkgate"
ME = Scope("me", ("notes",))
Copies = Callable[..., int]
Opener = Callable[..., Store]


def erase(store: Store, **selector: Any) -> Any:
    given = {"tenant": "me"} | selector
    return Eraser(store).erase(Selector(**given), reason="user_request", actor="admin")


def vector(store: Store, text: str) -> bytes:
    assert store.encoder is not None
    row: bytes = store.encoder.embed([text], tenant="x").result()[0].astype("<f4").tobytes()
    return row


def test_files_of_the_index_go_those_of_a_folder_out_of_use_too(
    open_store: Opener, copies: Copies
) -> None:
    with open_store() as store:
        store.put(ME, Draft(text=SECRET))
        store.search(ME, "x")
        needle = vector(store, SECRET)
    assert copies(needle) >= 2
    receipt = erase(open_store(snapshots=False))
    assert copies(needle) == 0
    assert receipt.state == "verified"
    assert receipt.scan["files"] >= 1


@pytest.mark.parametrize("sealed", [False, True])
def test_backups_are_written_anew_without_what_was_erased(
    open_store: Opener, copies: Copies, tmp_path: Path, sealed: bool
) -> None:
    store = open_store(sealed=sealed)
    eraser = Eraser(store)
    store.put(ME, Draft(text=SECRET))
    kept = store.put(Scope("other"), Draft(text="tea is drunk at five")).id
    (tmp_path / "away").mkdir()
    eraser.backup(tmp_path / "away" / "b.db")
    store.put(ME, Draft(text=f"{SECRET} and more"))
    receipt = erase(store)
    assert receipt.backups == {"rewritten": 1, "deleted": 0, "unreachable": 0}
    assert receipt.state == "verified"
    assert copies(SECRET, vector(store, SECRET)) == 0
    restored = Store(tmp_path / "away" / "b.db", encoder=HashingEncoder(64), keys=store.keys_folder)
    with restored:
        assert [record.id for record in restored.list(Scope("other"))] == [kept]
        assert restored.list(Scope("me")) == ()


def test_a_backup_out_of_reach_keeps_the_erasure_pending_until_it_is_back_or_given_up(
    store: Store, tmp_path: Path
) -> None:
    eraser, backup = Eraser(store), tmp_path / "b.db"
    store.put(ME, Draft(text=SECRET))
    eraser.backup(backup)
    backup.rename(tmp_path / "elsewhere.db")
    receipt = erase(store)
    assert (receipt.state, receipt.unfinished) == ("pending", ("backups",))
    assert receipt.backups["unreachable"] == 1
    assert eraser.status(receipt.id) == "pending"
    (tmp_path / "elsewhere.db").rename(backup)
    [finished] = eraser.resume()
    assert (finished.id, finished.state) == (receipt.id, "verified")
    assert SECRET.encode() not in backup.read_bytes()
    with pytest.raises(RequestError, match="still exists"):
        eraser.forget_backup(backup)
    backup.unlink()
    eraser.forget_backup(backup)
    assert erase(store).state == "verified"


def test_a_backup_during_which_something_is_erased_does_not_hold_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(ME, Draft(text=SECRET))
    written, copy = list[Path](), backups._copy

    def slowly(file: Path, dest: Path, draft: Path) -> None:
        copy(file, dest, draft)
        written.append(dest)
        if len(written) == 1:  # another process has erased, and did not see this copy
            former = dest.read_bytes()
            erase(store)
            dest.write_bytes(former)

    monkeypatch.setattr(backups, "_copy", slowly)
    Eraser(store).backup(tmp_path / "b.db")
    assert SECRET.encode() not in (tmp_path / "b.db").read_bytes()
    assert len(written) >= 2


def test_what_a_killed_backup_left_is_unlinked(store: Store, tmp_path: Path) -> None:
    store.put(ME, Draft(text=SECRET))
    Eraser(store).backup(tmp_path / "b.db")
    (tmp_path / ".b.db.0123.tmp").write_text(SECRET)
    assert erase(store).state == "verified"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.db", "home"]


def test_the_logs_of_a_backup_that_was_written_to_are_unlinked_and_looked_through(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: Copies
) -> None:
    store.put(ME, Draft(text=SECRET))
    Eraser(store).backup(tmp_path / "b.db")
    for ending in ("wal", "shm", "journal"):
        (tmp_path / f"b.db-{ending}").write_text(SECRET)
    with monkeypatch.context() as patched:
        patched.setattr(backups, "_discard_beside", lambda _path: None)
        assert erase(store).unfinished == ("residual",)
    assert [one.state for one in Eraser(store).resume()] == ["verified"]
    assert copies(SECRET) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.db", "home"]


def test_a_backup_that_cannot_be_written_is_not_waited_for(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="backup cannot be written"):
        Eraser(store).backup(tmp_path / "absent" / "b.db")
    with pytest.raises(RequestError, match="take the place of the store"):
        Eraser(store).backup(tmp_path / "home" / "memory.db")
    assert erase(store).state == "verified"


def test_an_export_that_was_registered_is_deleted(store: Store, tmp_path: Path) -> None:
    store.put(ME, Draft(text=SECRET))
    (tmp_path / "export.jsonl").write_text(SECRET)
    eraser = Eraser(store, backups=[tmp_path / "export.jsonl"])
    receipt = eraser.erase(Selector(tenant="me"), reason="r", actor="a")
    assert receipt.backups["deleted"] == 1
    assert not (tmp_path / "export.jsonl").exists()


def test_a_copy_that_nobody_registered_is_found_and_said(store: Store, tmp_path: Path) -> None:
    store.put(ME, Draft(text=SECRET, key="a key of which nobody else has one"))
    stray = tmp_path / "home" / "memory" / "notes.txt"
    stray.parent.mkdir(exist_ok=True)
    stray.write_text(SECRET.upper() + SECRET.encode("utf-16-be").decode("utf-16-be"))
    receipt = erase(store)
    assert receipt.unfinished == ("residual",)
    assert receipt.residual_found > 0
    stray.write_bytes(b"x")
    assert [one.state for one in Eraser(store).resume()] == ["verified"]


def test_what_a_live_row_holds_too_is_ambiguous_and_not_residual(store: Store) -> None:
    store.put(Scope("other"), Draft(text=SECRET))
    store.put(ME, Draft(text=SECRET))
    receipt = erase(store)
    assert receipt.state == "verified"
    assert receipt.residual_found == 0
    assert receipt.scan["ambiguous"] > 0
    assert store.list(Scope("other"))[0].text == SECRET


def test_an_open_reader_is_waited_for_then_said_and_the_rest_is_done_later(
    store: Store, tmp_path: Path, copies: Copies
) -> None:
    store.put(ME, Draft(text=SECRET))
    with closing(sqlite3.connect(tmp_path / "home" / "memory.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchall()
        eraser = Eraser(store)
        receipt = eraser.erase(Selector(tenant="me"), reason="r", actor="a", wait_s=0.1)
        assert receipt.state == "pending"
        assert "reader" in receipt.unfinished
        assert store.list(ME) == ()  # gone for everyone, if not from the log
        assert eraser.verify(receipt)
    [finished] = eraser.resume()
    assert (finished.id, finished.state, finished.unfinished) == (receipt.id, "verified", ())
    assert copies(SECRET) == 0
    assert eraser.resume() == ()
