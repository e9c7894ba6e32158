"""An index saved beside one database is not believed beside another, nor an older one."""

from __future__ import annotations

import shutil
from pathlib import Path

from elision.encoders.hashing import HashingEncoder
from elision.memory.records import Draft, Scope
from elision.memory.store import Store

HERE = Scope("tenant", ("desk",))


def kept(home: Path, *texts: str) -> None:
    """Write *texts* and leave a snapshot that knows them."""
    with Store.open(home, encoder=HashingEncoder(32)) as store:
        for text in texts:
            store.put(HERE, Draft(text=text))
        assert store.search(HERE, texts[0]).hits


def same(home: Path, text: str) -> list[str]:
    """Return the texts of the records whose vectors are that of *text*."""
    with Store.open(home, encoder=HashingEncoder(32)) as store:
        hits = store.search(HERE, text, least_similarity=0.99).hits
        return [hit.record.text for hit in hits]


def test_a_database_put_back_from_a_backup_is_searched_as_it_is(tmp_path: Path) -> None:
    home, backup = tmp_path / "home", tmp_path / "backup.db"
    kept(home, "cats sleep")
    shutil.copy(home / "memory.db", backup)
    kept(home, "boats sail")
    newer = {file.name: file.read_bytes() for file in (home / "memory").iterdir()}
    shutil.copy(backup, home / "memory.db")
    kept(home, "trains run")
    for name, data in newer.items():  # of the same generation as what was written since
        (home / "memory" / name).write_bytes(data)
    assert same(home, "trains run") == ["trains run"]


def test_an_index_of_another_database_is_not_believed(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    kept(mine, "cats sleep", "boats sail")
    kept(theirs, "boats sail", "cats sleep")
    for file in (theirs / "memory").iterdir():
        shutil.copy(file, mine / "memory" / file.name)
    assert same(mine, "boats sail") == ["boats sail"]
