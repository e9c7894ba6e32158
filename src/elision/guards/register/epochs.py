"""The one question that every request asks of a register: whether anything has changed."""

from __future__ import annotations

from collections.abc import Callable

from elision.contract import Epoch
from elision.crypto.vault import Vault
from elision.guards.register.audit import AuditLog
from elision.guards.register.changing import settle
from elision.guards.register.database import RegisterDatabase


class Epochs:
    """The epochs of a register's tenants. Each method raises `GuardError` if the database fails."""

    _database: RegisterDatabase
    _audit: AuditLog
    _vault: Vault
    _clock: Callable[[], float]

    def epoch(self, tenant: str) -> Epoch:
        """Return how often the tenant's targets have changed; 0 for a tenant never heard of.

        What the clock has to do by now is done first: a target is in force from the very moment of
        its ``effective_at`` until that of its ``expires_at``.
        """
        epoch, due = self._database.epoch(tenant)
        if due is None or due > self._clock():
            return epoch
        with self._audit.writing() as writing:
            settle(writing, self._vault, tenant)
        return self._database.epoch(tenant)[0]

    def epoch_at_once(self, tenant: str) -> Epoch | None:
        """Return `epoch` if that takes no time; None if it may have to wait.

        It takes none, some 15 µs, where the database is a file of this machine (whose readers
        wait for no writer) and the clock has nothing to do.
        """
        if self._database.folder is None:
            return None
        epoch, due = self._database.epoch(tenant)
        return epoch if due is None or due > self._clock() else None
