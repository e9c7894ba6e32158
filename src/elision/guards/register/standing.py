"""The targets in force, kept opened in memory; only what has changed since is read anew."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, select

from elision.contract import Epoch
from elision.crypto.vault import Vault
from elision.guards.register.database import RegisterDatabase
from elision.guards.register.rows import WHOLE, target_of
from elision.guards.register.schema import epochs, targets
from elision.guards.targets import ForgetTarget

TENANTS_KEPT = 64
"""Tenants whose targets are kept opened; the least recently used one's go first."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """One tenant's active targets at an epoch, by the epoch of their registration."""

    epoch: Epoch = 0
    by_epoch: dict[Epoch, ForgetTarget] = field(default_factory=dict)
    targets: tuple[ForgetTarget, ...] = ()


class Standing:
    """Every tenant's active targets. Thread-safe."""

    def __init__(self, database: RegisterDatabase, vault: Vault) -> None:
        self._database, self._vault = database, vault
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def at(self, tenant: str, epoch: Epoch) -> tuple[ForgetTarget, ...]:
        """Return the tenant's active targets, at least as new as *epoch*, in their order.

        The same object until the epoch changes.

        Raises:
            GuardError: If the database fails, or what it keeps cannot be opened.
        """
        with self._lock:
            kept = self._kept.get(tenant, _Kept())
        if kept.epoch != epoch:
            kept = self._renewed(tenant, kept)
            self._keep(tenant, kept)
        return kept.targets

    def forget(self, tenant: str) -> None:
        """Drop what is kept of a tenant."""
        with self._lock:
            self._kept.pop(tenant, None)

    def _renewed(self, tenant: str, kept: _Kept) -> _Kept:
        """Return *kept* with what has changed since its epoch; all anew if time went back.

        The epoch is read before the rows: on a database where each statement sees what is newest,
        rows may then be newer than the epoch, and are read once more; they are never older.
        """
        current = select(epochs.c.epoch).where(epochs.c.tenant == tenant)
        with self._database.reading() as connection:
            epoch = connection.execute(current).scalar() or 0
            if epoch < kept.epoch:  # another database, or an older state of this one
                kept = _Kept()
            rows = connection.execute(_changed_since(tenant, kept)).all()
        by_epoch = dict(kept.by_epoch)
        for row in rows:
            by_epoch.pop(row.epoch, None)
            if row.state == "active":
                by_epoch[row.epoch] = target_of(row, self._vault)
        return _Kept(epoch, by_epoch, tuple(by_epoch[number] for number in sorted(by_epoch)))

    def _keep(self, tenant: str, kept: _Kept) -> None:
        with self._lock:
            self._kept[tenant] = kept
            self._kept.move_to_end(tenant)
            while len(self._kept) > TENANTS_KEPT:
                self._kept.popitem(last=False)


def _changed_since(tenant: str, kept: _Kept) -> Select[Any]:
    changed = WHOLE.where(targets.c.tenant == tenant, targets.c.changed > kept.epoch)
    return changed if kept.by_epoch else changed.where(targets.c.state == "active")
