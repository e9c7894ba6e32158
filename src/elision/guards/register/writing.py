"""One write to a register: what changes, and the entries of the log that say so, or neither."""

from __future__ import annotations

from typing import Any

import rfc8785
from sqlalchemy import Connection, func, insert, select, text, update

from elision.contract import Epoch
from elision.crypto.signing import Signer
from elision.guards.register.chain import Entry
from elision.guards.register.checkpoints import Checkpoint
from elision.guards.register.schema import audit, checkpoints, epochs, log, targets
from elision.guards.targets import iso

CHECKPOINT_ENTRIES = 100
CHECKPOINT_S = 60.0

_RAISE = text(
    "INSERT INTO epochs (tenant, epoch) VALUES (:tenant, :by) "
    "ON CONFLICT (tenant) DO UPDATE SET epoch = epochs.epoch + :by RETURNING epoch"
)


class Writing:
    """A transaction of the only writer; lives until it is committed.

    Attributes:
        connection: The transaction.
        now: Its time in seconds since 1970, whole milliseconds as the wire shows them.
    """

    def __init__(self, connection: Connection, *, now: float) -> None:
        self.connection = connection
        self.now = round(now, 3)
        self._log = connection.execute(select(log)).one()
        self._seq, self._hash = int(self._log.seq), str(self._log.hash)
        self._entries: list[dict[str, Any]] = []

    @property
    def has_entries(self) -> bool:
        """Whether anything was appended."""
        return bool(self._entries)

    def raise_epoch(self, tenant: str, *, by: int = 1) -> Epoch:
        """Raise the tenant's epoch and return it."""
        given = {"tenant": tenant, "by": by}
        return int(self.connection.execute(_RAISE, given).scalar_one())

    def mend_due(self, tenant: str) -> None:
        """Note anew when the clock next changes one of the tenant's targets."""
        mine = targets.c.tenant == tenant
        first = select(func.min(targets.c.due)).where(mine, targets.c.due.is_not(None))
        due = update(epochs).where(epochs.c.tenant == tenant).values(due=first.scalar_subquery())
        self.connection.execute(due)

    def append(
        self,
        action: str,
        *,
        tenant: str,
        actor: str,
        target_id: str = "",
        version: int = 0,
        **details: Any,
    ) -> int:
        """Add an entry to the log and return its place there.

        *details* must hold nothing personal. A clock that is behind the entry before is told
        among them, and the entry bears the other's time: time in the log never goes back.
        """
        if (behind := self._log.at - self.now) > 0:
            details["clock_behind_s"] = round(behind, 3)
        entry = Entry.linked(
            seq=self._seq + 1,
            ts=self._ts(),
            tenant=tenant,
            actor=actor,
            action=action,
            object_id=target_id,
            object_version=version,
            details=details,
            prev_hash=self._hash,
        )
        self._seq, self._hash = entry.seq, entry.hash
        self._entries.append(row_of(entry))
        return entry.seq

    def finish(self, signer: Signer, *, checkpoint: bool = False) -> Checkpoint | None:
        """Write what was appended; return the checkpoint that was due, or asked for."""
        if self._entries:
            self.connection.execute(insert(audit), self._entries)
        at = max(self.now, self._log.at)
        values: dict[str, Any] = {"seq": self._seq, "hash": self._hash, "at": at}
        made = None
        if checkpoint or (self._entries and self._is_checkpoint_due()):
            made = self._mark(signer)
            values |= {"checkpoint_seq": self._seq, "checkpoint_at": at}
        if self._entries or made:
            self.connection.execute(update(log).values(**values))
        return made

    def _is_checkpoint_due(self) -> bool:
        n_entries = self._seq - int(self._log.checkpoint_seq)
        seconds = self.now - float(self._log.checkpoint_at)
        return n_entries >= CHECKPOINT_ENTRIES or seconds >= CHECKPOINT_S

    def _mark(self, signer: Signer) -> Checkpoint:
        made = Checkpoint.signed(
            signer, log_id=self._log.log_id, seq=self._seq, hash_=self._hash, ts=self._ts()
        )
        row = {key: value for key, value in made.to_body().items() if key != "log_id"}
        self.connection.execute(insert(checkpoints), row)
        return made

    def _ts(self) -> str:
        return str(iso(max(self.now, self._log.at)))


def row_of(entry: Entry) -> dict[str, Any]:
    """Return *entry* as a row of ``audit``."""
    return entry.to_body() | {"details": rfc8785.dumps(dict(entry.details)).decode()}
