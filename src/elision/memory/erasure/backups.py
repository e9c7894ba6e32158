"""Backups that erasure reaches: made by copying what is live, registered, and made anew."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson
from sqlalchemy import select

from elision.errors import RequestError, StoreError
from elision.memory import schema as t
from elision.memory.journal import get_meta, put_meta
from elision.sql.database import reason_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from elision.memory.database import MemoryDatabase

_NAME: Final = "backups"
_MAGIC: Final = b"SQLite format 3\x00"
_BESIDE: Final = ("-wal", "-shm", "-journal")
_WAIT_S: Final = 10.0


def copy(database: MemoryDatabase, file: Path, dest: Path) -> None:
    """Write what is live to *dest*, which it replaces whole or not at all.

    ``VACUUM INTO``, because copying pages would copy what was deleted from them too. Done again
    where something was erased meanwhile: that erasure may have seen *dest* as it was before.

    Args:
        database: The store's.
        file: Its file.
        dest: Where to.

    Raises:
        StoreError: If that fails.
    """
    seen: frozenset[str] | None = None
    while (erased := _erased(database)) != seen:
        seen = erased
        try:
            _discard_drafts(dest)
            _copy(file, dest, dest.with_name(f"{_draft_prefix(dest)}{secrets.token_hex(8)}.tmp"))
        except (OSError, sqlite3.Error) as exc:
            raise StoreError(f"the backup cannot be written: {reason_of(exc)}") from exc


def back_up(database: MemoryDatabase, dest: Path) -> None:
    """Copy the store to *dest* and register that.

    Raises:
        RequestError: If the store lies on a server, or *dest* is its own file.
        StoreError: If it cannot be written.
    """
    dest = dest.expanduser().absolute()
    file = database.path
    if file is None:
        raise RequestError("a store on a server is backed up by the server's own tools")
    if dest.exists() and dest.samefile(file):
        raise RequestError("a backup cannot take the place of the store", param="dest")
    with database.writing() as connection:  # registered first: what lies there is always known
        register(connection, (dest,))
    try:
        copy(database, file, dest)
    except StoreError:
        if not dest.exists():
            with database.writing() as connection:
                forget_missing(connection, dest)
        raise


def register(connection: Connection, paths: Iterable[Path]) -> None:
    """Note that *paths* hold copies of what is remembered: backups, or exports."""
    known = {str(path) for path in registered(connection)}
    known.update(str(path.expanduser().absolute()) for path in paths)
    put_meta(connection, _NAME, orjson.dumps(sorted(known)).decode())


def registered(connection: Connection) -> tuple[Path, ...]:
    """Return the paths of which `register` was told."""
    return tuple(Path(path) for path in orjson.loads(get_meta(connection, _NAME) or "[]"))


def renew(database: MemoryDatabase, paths: Iterable[Path]) -> dict[str, int]:
    """Write each backup anew from the store as it stands now, and delete what is no database.

    Not edited in place: what a backup holds beside what is in the store (earlier versions of a
    record, records that were deleted since) is not known to the store any more.

    Args:
        database: The store's; of one on a server every copy is deleted.
        paths: Copies of this store. One that is gone counts as out of reach, for it may come back.
    """
    done = {"rewritten": 0, "deleted": 0, "unreachable": 0}
    for path in paths:
        done[_renew(database, path)] += 1
    return done


def forget_missing(connection: Connection, path: Path) -> None:
    """Take a copy that no longer exists anywhere from the register.

    Raises:
        RequestError: If it still lies there.
    """
    path = path.expanduser().absolute()
    if any(one.exists() for one in (path, *beside(path))):
        raise RequestError("the backup still exists; delete it first", param="path")
    left = [str(one) for one in registered(connection) if one != path]
    put_meta(connection, _NAME, orjson.dumps(left).decode())


def _renew(database: MemoryDatabase, path: Path) -> str:
    try:
        with path.open("rb") as opened:
            is_database = opened.read(len(_MAGIC)) == _MAGIC
        if not is_database or database.path is None:
            _discard_beside(path)
            path.unlink()
            return "deleted"
        copy(database, database.path, path)
    except (OSError, StoreError):
        return "unreachable"
    return "rewritten"


def _copy(file: Path, dest: Path, draft: Path) -> None:
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(file, timeout=_WAIT_S, isolation_level=None)) as connection:
            connection.execute("VACUUM INTO ?", (str(draft),))
        _onto_disk(draft)
        _discard_beside(dest)
        draft.replace(dest)
        _onto_disk(dest.parent)
    finally:
        draft.unlink(missing_ok=True)


def beside(path: Path) -> tuple[Path, ...]:
    """Return where SQLite keeps the logs of a copy at *path*, once somebody has written to it."""
    return tuple(path.with_name(path.name + ending) for ending in _BESIDE)


def _discard_beside(path: Path) -> None:
    """Unlink a copy's logs: they hold its pages, and would be taken for those of the new one."""
    for one in beside(path):
        one.unlink(missing_ok=True)


def _discard_drafts(dest: Path) -> None:
    """Unlink what a killed process left of a copy: it may hold what was erased since."""
    for path in dest.parent.iterdir():
        if path.name.startswith(_draft_prefix(dest)) and path.suffix == ".tmp":
            path.unlink(missing_ok=True)


def _draft_prefix(dest: Path) -> str:
    return f".{dest.name}."


def _erased(database: MemoryDatabase) -> frozenset[str]:
    """Return the erasures whose rows are gone by now."""
    with database.reading() as connection:
        gone = t.erasures.c.state != "planned"
        return frozenset(connection.scalars(select(t.erasures.c.id).where(gone)))


def _onto_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
