"""The audit log: who did what to which target when, in a chain that shows every alteration."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from elision.crypto.vault import Keys
from elision.errors import ConfigError, GuardError
from elision.guards.register import checkpoints as checkpoint_file
from elision.guards.register.chain import (
    ALGORITHM,
    BEFORE_GENESIS,
    Entry,
    Verification,
    verify_chain,
)
from elision.guards.register.checkpoints import Checkpoint
from elision.guards.register.database import RegisterDatabase
from elision.guards.register.schema import audit, checkpoints, log
from elision.guards.register.writing import Writing, row_of
from elision.guards.targets import iso

__all__ = ["AuditLog", "Checkpoint", "Entry", "Verification", "verify_export"]

_logger = logging.getLogger(__name__)
_PAGE = 1000


class AuditLog:
    """One chain per database, written in the same transactions as what it tells of.

    Thread-safe. Every method raises `GuardError` if the database fails.
    """

    def __init__(
        self,
        database: RegisterDatabase,
        keys: Keys,
        *,
        clock: Callable[[], float],
        checkpoint_file: Path | None = None,
    ) -> None:
        """Open the log, its genesis written if it has none.

        Args:
            database: Where it is kept.
            keys: Whose signing key signs checkpoints.
            clock: Seconds since 1970.
            checkpoint_file: A second place for checkpoints, one a line; best on another disk.

        Raises:
            ConfigError: If the database was written with other keys.
        """
        self._database, self._signer, self._clock = database, keys.signer, clock
        self._file = checkpoint_file
        self._is_dirty = False
        with database.reading() as connection:
            head = connection.execute(select(log)).one_or_none()
        if head is None:
            with database.writing() as connection:
                begin(connection, keys, now=clock())
                head = _head(connection)
        _check_keys(head, keys)

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """Open a write whose entries end in this log; a checkpoint is made if due."""
        with self._database.writing() as connection:
            writing = Writing(connection, now=self._clock())
            yield writing
            made = writing.finish(self._signer)
        self._is_dirty = made is None and (self._is_dirty or writing.has_entries)
        if made is not None:
            self._published(made)

    def entries(self, tenant: str, *, after: int = 0, limit: int = 100) -> tuple[Entry, ...]:
        """Return a tenant's entries behind place *after*, oldest first, at most *limit*."""
        query = select(audit).where(audit.c.tenant == tenant, audit.c.seq > after)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(audit.c.seq).limit(limit)).all()
        return tuple(map(_entry_of, rows))

    def export(self, tenant: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield every entry from the genesis on, as `verify_export` reads them.

        Args:
            tenant: Whose entries are shown; of other tenants' only the links, which a verifier
                needs. None shows all.
        """
        for entry in self._all():
            body = entry.to_body()
            if tenant is None or entry.tenant in ("", tenant):
                yield body
            else:
                yield {key: body[key] for key in ("seq", "prev_hash", "hash")}

    def verify(self, expected: Checkpoint | None = None) -> Verification:
        """Read the whole log and say whether it is as it was written.

        It is held against the newest checkpoint that is kept, and against *expected*, which should
        come from another place: who cuts the log's tail may cut the kept checkpoints too.
        """
        with self._database.reading() as connection:
            kept = _newest(connection)
        marks = [mark for mark in (expected, kept) if mark is not None]
        return _verified((entry.to_body() for entry in self._all()), self.public_key(), marks)

    def checkpoint(self) -> Checkpoint:
        """Return a signed checkpoint of the log as it stands, newly made unless there is one."""
        with self._database.writing() as connection:
            head, kept = _head(connection), _newest(connection)
            if kept is not None and kept.seq == head.seq:
                return kept
            made = Writing(connection, now=self._clock()).finish(self._signer, checkpoint=True)
        self._is_dirty = False
        return self._published(made)  # type: ignore[arg-type]

    def public_key(self) -> str:
        """Return the key that checkpoints, receipts and exports are verified with, in PEM."""
        return self._signer.public_key()

    def close(self) -> None:
        """Sign what was written since the last checkpoint; the database stays open."""
        if not self._is_dirty:
            return
        try:
            self.checkpoint()
        except GuardError as exc:
            _logger.warning("the log was closed without a checkpoint: %s", exc)

    def _published(self, made: Checkpoint) -> Checkpoint:
        if self._file is not None:
            checkpoint_file.append(self._file, made)
        return made

    def _all(self) -> Iterator[Entry]:
        after, rows = -1, list[Row[Any]]()
        while after < 0 or rows:
            query = select(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(_PAGE)
            with self._database.reading() as connection:
                rows = [*connection.execute(query)]
            yield from map(_entry_of, rows)
            after = rows[-1].seq if rows else 0


def begin(connection: Connection, keys: Keys, *, now: float) -> None:
    """Write the genesis of a log, unless there is one."""
    if connection.execute(select(log.c.id)).first() is not None:
        return
    log_id, ts = secrets.token_hex(16), str(iso(round(now, 3)))
    genesis = Entry.linked(
        seq=0,
        ts=ts,
        tenant="",
        actor="",
        action="genesis",
        object_id="",
        object_version=0,
        details={"log_id": log_id, "created": ts, "algorithm": ALGORITHM},
        prev_hash=BEFORE_GENESIS,
    )
    head = {"id": 1, "log_id": log_id, "seq": 0, "hash": genesis.hash, "at": round(now, 3)}
    mine = {"master": _check_of(keys), "public_key": keys.signer.public_key()}
    marked = {"checkpoint_seq": 0, "checkpoint_at": round(now, 3)}
    connection.execute(insert(audit), row_of(genesis))
    connection.execute(insert(log), head | mine | marked)


def verify_export(
    lines: Iterable[str | bytes | Mapping[str, Any]],
    public_key: str,
    checkpoint: Checkpoint | None = None,
) -> Verification:
    """Verify an exported log without the register.

    Args:
        lines: What `AuditLog.export` yields, as objects or as lines of JSON; blank lines count not.
        public_key: The register's public key in PEM, had from somewhere else than the export.
        checkpoint: How far the log must reach at least. Without one, a cut tail goes unseen.

    Raises:
        ConfigError: If the public key cannot be read.
    """
    marks = [] if checkpoint is None else [checkpoint]
    return _verified(map(_parsed, filter(_is_written, lines)), public_key, marks)


def _verified(
    bodies: Iterable[Mapping[str, Any]], public_key: str, marks: Sequence[Checkpoint]
) -> Verification:
    if not all(mark.is_genuine(public_key) for mark in marks):
        return Verification(ok=False, count=0, why="a checkpoint's signature is not the register's")
    return verify_chain(bodies, marks)


def _parsed(line: str | bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(line, Mapping):
        return line
    try:
        body = json.loads(line)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _is_written(line: str | bytes | Mapping[str, Any]) -> bool:
    return isinstance(line, Mapping) or bool(line.strip())


def _head(connection: Connection) -> Row[Any]:
    return connection.execute(select(log)).one()


def _newest(connection: Connection) -> Checkpoint | None:
    query = select(checkpoints).order_by(checkpoints.c.seq.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return Checkpoint(log_id=_head(connection).log_id, **row._mapping)


def _entry_of(row: Row[Any]) -> Entry:
    return Entry(**{**row._mapping, "details": json.loads(row.details)})


def _check_of(keys: Keys) -> str:
    return keys.vault.digest("check", "", b"")


def _check_keys(head: Row[Any], keys: Keys) -> None:
    for name, kept, mine in (
        ("master", head.master, _check_of(keys)),
        ("signing", head.public_key, keys.signer.public_key()),
    ):
        if kept != mine:
            raise ConfigError(
                f"the {name} key is not the one that this register was made with; "
                "restore the one that was, from a backup"
            )
