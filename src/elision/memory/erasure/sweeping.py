"""What is left of deleted rows beside them: files of the index, the log, free pages."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from elision.errors import StoreError
from elision.memory.index.snapshot import Snapshots

if TYPE_CHECKING:
    from elision.memory.store import Store


def drop_index(store: Store, tenant: str) -> None:
    """Drop the tenant's index and its files, those of a folder that is no longer used too."""
    store.partitions.forget(tenant)
    for folder in snapshot_folders(store):
        Snapshots(folder).unlink(tenant)


def snapshot_folders(store: Store) -> tuple[Path, ...]:
    """Return where files of indexes may lie: in the store's folder, and in the default one."""
    path = store.database.path
    by_default = None if path is None else path.with_suffix("")
    return tuple({one for one in (store.folder, by_default) if one is not None})


def sweep(store: Store, *, wait_s: float) -> bool:
    """Rebuild the database and empty its log; return whether that was done.

    Rebuilt, because splitting a page leaves copies of rows in its free space, which deleting them
    later does not overwrite.

    Args:
        store: Whose.
        wait_s: How long readers of the log are waited for, in seconds.
    """
    path = store.database.path
    if path is not None and not _log_is_free(path, wait_s):
        return False
    try:
        store.database.sweep(free_pages=True)
    except StoreError:
        return False
    return True


def _log_is_free(path: Path, wait_s: float) -> bool:
    """Return whether no reader needs the log: asked first, for a rebuild behind one fills it."""
    deadline = time.monotonic() + wait_s
    while not _emptied(path):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def _emptied(path: Path) -> bool:
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        try:
            return not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.OperationalError:
            return False
