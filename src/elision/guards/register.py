"""The register: which targets each tenant has, kept in SQL, and an epoch that tells of changes."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, insert, select, text, update

from elision.contract import Epoch
from elision.errors import GuardError, NotFoundError, TargetError
from elision.guards.advice import Advice, advise
from elision.guards.database import connect, told
from elision.guards.fields import check_line
from elision.guards.schema import changes, row_of, target_of, targets
from elision.guards.targets import ForgetTarget

MAX_REASON_CHARS = 1000
MAX_ACTOR_CHARS = 128

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: sorts as it counts
_ID = re.compile(r"ft_[0-9a-z]{20}")
_EPOCH = "SELECT epoch FROM epochs WHERE tenant = ?"
_NEXT_EPOCH = text(
    "INSERT INTO epochs (tenant, epoch) VALUES (:tenant, 1) "
    "ON CONFLICT (tenant) DO UPDATE SET epoch = epochs.epoch + 1 RETURNING epoch"
)
_TENANTS_KEPT = 64


@dataclass(frozen=True, slots=True)
class Registered:
    """What came of a registration.

    Attributes:
        target: The target as it is kept: with id, state and time.
        epoch: The tenant's epoch since; whatever was compiled for an older one is stale.
        warnings: What the operator should know about single phrases.
    """

    target: ForgetTarget
    epoch: Epoch
    warnings: tuple[Advice, ...]

    def to_body(self) -> dict[str, Any]:
        """Return the answer to ``POST /v1/forget``."""
        return {
            "id": self.target.id,
            "state": self.target.state,
            "epoch": self.epoch,
            "warnings": [*self.warnings],
        }


class Register:
    """The forget targets of all tenants, in one SQLite database.

    Thread-safe, and any number of processes may share a database. A change is on the disk when
    its call returns: the row, the epoch and who did it when, all or nothing. Reading sees every
    change that any process has made by then.

    Every method raises `GuardError` if the database fails, never with a phrase in the message.
    """

    def __init__(self, where: str | Path) -> None:
        """Open the database at a path or ``sqlite:///`` URL, made or migrated if need be.

        Raises:
            ConfigError: If it cannot be opened, or a newer Elision wrote it.
        """
        self._engine = connect(where)
        self._writer = self._engine.execution_options(begin="IMMEDIATE")
        self._write = threading.Lock()  # fairer among threads than SQLite's polling
        self._kept: dict[str, tuple[Epoch, tuple[ForgetTarget, ...]]] = {}
        self._keeping = threading.Lock()
        self._closed = False

    @classmethod
    def open(cls, home: Path) -> Self:
        """Open ``register.db`` in the folder *home*, both made private to the user if absent."""
        return cls(home / "register.db")

    def add(self, target: ForgetTarget, *, actor: str = "unspecified") -> Registered:
        """Register a new target; it is active at once.

        Args:
            target: What to keep. Its id is given here; state and times are set here too.
            actor: Who registers it, for the record of changes.

        Raises:
            TargetError: If the target cannot be enforced as given, or already has an id.
        """
        target.validate()
        check_line(actor, "actor", most=MAX_ACTOR_CHARS)
        if target.id:
            raise TargetError("id is given by the register; leave it empty", param="id")
        warnings, now = advise(target), _now()
        target = replace(target, id=_new_id(now), state="active", created_at=now, revoked_at=None)
        with self._writing() as connection:
            epoch = _raise_epoch(connection, target, "add", now, actor)
            connection.execute(insert(targets), row_of(target) | {"epoch": epoch})
        return Registered(target, epoch, warnings)

    def get(self, tenant: str, target_id: str) -> ForgetTarget:
        """Return one target, active or revoked.

        Raises:
            NotFoundError: If this tenant has no target of that id.
        """
        with self._reading() as connection:
            return _find(connection, tenant, target_id)

    def list(self, tenant: str, *, include_revoked: bool = False) -> tuple[ForgetTarget, ...]:
        """Return the tenant's targets in the order of their registration."""
        query = select(targets).where(targets.c.tenant == tenant).order_by(targets.c.epoch)
        if not include_revoked:
            query = query.where(targets.c.state == "active")
        with self._reading() as connection:
            return tuple(map(target_of, connection.execute(query)))

    def active(self, tenant: str) -> tuple[ForgetTarget, ...]:
        """Return what is enforced for *tenant* now; the same object until its epoch changes.

        Read `epoch` before this, never after: then the targets are at least as new as the epoch.
        """
        epoch = self.epoch(tenant)
        with self._keeping:
            kept = self._kept.get(tenant)
        if kept is not None and kept[0] == epoch:
            return kept[1]
        found = self.list(tenant)
        with self._keeping:
            self._kept[tenant] = (epoch, found)
            if len(self._kept) > _TENANTS_KEPT:
                del self._kept[next(iter(self._kept))]
        return found

    def epoch(self, tenant: str) -> Epoch:
        """Return how often the tenant's targets have changed; 0 for a tenant never heard of.

        Asked on every request, so it goes past SQLAlchemy's statement layer (10 µs against 65).
        """
        with self._connected(), closing(self._engine.raw_connection()) as connection:
            cursor = connection.cursor()
            rows = cursor.execute(_EPOCH, (tenant,)).fetchall()
            cursor.close()
        return int(rows[0][0]) if rows else 0

    def revoke(
        self,
        tenant: str,
        target_id: str,
        *,
        reason: str = "unspecified",
        actor: str = "unspecified",
    ) -> Epoch:
        """Take a target out of force; done twice, the second time changes nothing.

        Args:
            tenant: Whose target it is.
            target_id: The target's id.
            reason: Why, for the record of changes.
            actor: Who, likewise.

        Returns:
            The tenant's epoch since.

        Raises:
            NotFoundError: If this tenant has no target of that id.
            TargetError: If reason or actor is empty, too long or not one line.
        """
        check_line(reason, "reason", most=MAX_REASON_CHARS)
        check_line(actor, "actor", most=MAX_ACTOR_CHARS)
        with self._writing() as connection:
            target = _find(connection, tenant, target_id)
            if target.state == "revoked":
                return self.epoch(tenant)
            now = _now()
            epoch = _raise_epoch(connection, target, "revoke", now, actor, reason)
            gone = update(targets).where(targets.c.id == target_id)
            connection.execute(gone.values(state="revoked", revoked_at=now))
        return epoch

    def close(self) -> None:
        """Let go of the database; may be called twice, and nothing else after it."""
        self._closed = True
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _connected(self) -> Iterator[None]:
        if self._closed:
            raise GuardError("the register is closed; open it again")
        with told():
            yield

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._connected(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._connected(), self._write, self._writer.begin() as connection:
            yield connection


def _now() -> float:
    """Return the time in seconds since 1970, in whole milliseconds as the wire shows them."""
    return round(time.time(), 3)


def _new_id(now: float) -> str:
    """Return ``ft_``, nine digits of milliseconds (good until 3084), eleven of chance (55 bits)."""
    moment, chance = int(now * 1000), secrets.randbits(55)
    return "ft_" + _base32(moment, 9) + _base32(chance, 11)


def _base32(number: int, n_digits: int) -> str:
    return "".join(_ALPHABET[number >> 5 * n & 31] for n in reversed(range(n_digits)))


def _raise_epoch(
    connection: Connection,
    target: ForgetTarget,
    action: str,
    now: float,
    actor: str,
    reason: str | None = None,
) -> Epoch:
    """Raise the tenant's epoch and record the change that does so."""
    epoch = connection.execute(_NEXT_EPOCH, {"tenant": target.tenant}).scalar_one()
    change = {"tenant": target.tenant, "epoch": epoch, "at": now, "actor": actor}
    row = change | {"action": action, "target": target.id, "reason": reason}
    connection.execute(insert(changes), row)
    return int(epoch)


def _find(connection: Connection, tenant: str, target_id: str) -> ForgetTarget:
    query = select(targets).where(targets.c.tenant == tenant, targets.c.id == target_id)
    row = connection.execute(query).one_or_none() if _ID.fullmatch(target_id) else None
    if row is None:
        raise NotFoundError("this tenant has no forget target of that id", code="target_not_found")
    return target_of(row)
