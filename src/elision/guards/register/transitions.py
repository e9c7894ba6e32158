"""What can be done to a target that a register keeps: one method per operation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select

from elision.contract import Epoch
from elision.crypto.vault import Vault
from elision.errors import ConflictError, PermissionDeniedError, TargetError
from elision.guards.fields import check_line
from elision.guards.lifecycle import Operation, after, changes_nothing, in_force
from elision.guards.register.audit import AuditLog
from elision.guards.register.changing import change, settle, shred
from elision.guards.register.database import RegisterDatabase
from elision.guards.register.rows import COLUMNS, find, target_of
from elision.guards.register.schema import epochs
from elision.guards.register.writing import Writing
from elision.guards.targets import ForgetTarget

MAX_REASON_CHARS = 1000
MAX_ACTOR_CHARS = 128
NOBODY = "unspecified"


@dataclass(frozen=True, slots=True)
class Changed:
    """What came of an operation.

    Attributes:
        target: The target as it is now.
        epoch: The tenant's epoch since.
    """

    target: ForgetTarget
    epoch: Epoch

    def to_body(self) -> dict[str, Any]:
        """Return the answer to the operation's route."""
        return {"id": self.target.id, "state": self.target.state, "epoch": self.epoch}


class Transitions:
    """The operations of a register on the targets it keeps.

    Each takes the tenant, the target's id, who does it (*actor*) and why (*reason*, sealed with the
    target: the log has only its hash), raises the tenant's epoch, and is entered into the log. Each
    raises `NotFoundError` if this tenant has no target of that id, `ConflictError` if its state
    does not allow it (`elision.guards.lifecycle.TABLE`), `TargetError` if actor or reason is too
    long or not one line, and `GuardError` if the database fails.
    """

    _database: RegisterDatabase
    _audit: AuditLog
    _vault: Vault
    approval_required: bool

    def mark_previewed(
        self, tenant: str, target_id: str, *, actor: str = NOBODY, reason: str = ""
    ) -> Changed:
        """Note that somebody has looked at what a draft would do."""
        return self._move(tenant, target_id, "preview", actor, reason)

    def submit(
        self, tenant: str, target_id: str, *, actor: str = NOBODY, reason: str = ""
    ) -> Changed:
        """Ask for a draft's approval; where nobody has to approve, it comes into force."""
        return self._move(tenant, target_id, "submit", actor, reason)

    def approve(self, tenant: str, target_id: str, *, actor: str, reason: str = "") -> Changed:
        """Bring a target into force that somebody else asked for.

        Raises:
            PermissionDeniedError: If *actor* registered the target.
        """
        return self._move(tenant, target_id, "approve", actor, reason)

    def activate(
        self, tenant: str, target_id: str, *, actor: str = NOBODY, reason: str = ""
    ) -> Changed:
        """Bring a draft or a scheduled target into force now, whatever its ``effective_at``.

        Raises:
            ConflictError: Also for a draft, where approval is required.
        """
        return self._move(tenant, target_id, "activate", actor, reason)

    def suspend(
        self, tenant: str, target_id: str, *, actor: str = NOBODY, reason: str = ""
    ) -> Changed:
        """Take a target out of force for a while."""
        return self._move(tenant, target_id, "suspend", actor, reason)

    def resume(
        self, tenant: str, target_id: str, *, actor: str = NOBODY, reason: str = ""
    ) -> Changed:
        """Bring a suspended target back into force."""
        return self._move(tenant, target_id, "resume", actor, reason)

    def extend(
        self,
        tenant: str,
        target_id: str,
        expires_at: float | None,
        *,
        actor: str = NOBODY,
        reason: str = "",
    ) -> Changed:
        """Set when a target expires, in seconds since 1970; None: never.

        Raises:
            TargetError: Also if that is not ahead, or not after ``effective_at``.
        """
        ends = None if expires_at is None else round(expires_at, 3)
        return self._move(tenant, target_id, "extend", actor, reason, expires_at=ends)

    def revoke(self, tenant: str, target_id: str, *, reason: str, actor: str = NOBODY) -> Changed:
        """Take a target out of force for good; done twice, the second time changes nothing."""
        check_line(reason, "reason", most=MAX_REASON_CHARS)
        return self._move(tenant, target_id, "revoke", actor, reason)

    def purge(
        self, tenant: str, target_id: str, *, actor: str = NOBODY, reason: str = ""
    ) -> Changed:
        """Destroy what the register knows of a target that is no longer in force, its key first.

        The log keeps its entries and verifies as before. Backups are not reached. Done twice, the
        second time only sweeps the database's files again. The reason is not kept: it would be
        about what has just been destroyed.

        Raises:
            GuardError: Also if the files could not be swept; then purge once more.
        """
        changed = self._move(tenant, target_id, "purge", actor, reason)
        self._forget(tenant)
        self._database.sweep()
        return changed

    def _forget(self, tenant: str) -> None:
        """Drop what is kept of the tenant in memory."""
        raise NotImplementedError

    def _move(
        self,
        tenant: str,
        target_id: str,
        operation: Operation,
        actor: str,
        reason: str,
        **values: Any,
    ) -> Changed:
        check_line(actor, "actor", most=MAX_ACTOR_CHARS)
        if reason:
            check_line(reason, "reason", most=MAX_REASON_CHARS)
        with self._audit.writing() as writing:
            settle(writing, self._vault, tenant)
            row = find(writing.connection, tenant, target_id)
            kept, then = target_of(row, self._vault), after(row.state, operation)
            if changes_nothing(row.state, operation):
                return Changed(kept, _epoch(writing, tenant))
            values = self._values(kept, operation, actor, writing.now, {"state": then, **values})
            if operation == "purge":
                reason = ""
            epoch = change(
                writing, self._vault, row, operation, actor=actor, reason=reason, **values
            )
            if operation == "purge":
                shred(writing, target_id)
                kept = _emptied(kept)
        return Changed(replace(kept, **values), epoch)

    def _values(
        self,
        kept: ForgetTarget,
        operation: Operation,
        actor: str,
        now: float,
        values: dict[str, Any],
    ) -> dict[str, Any]:
        """Return what *operation* changes of a target's columns, if the target's times allow it."""
        if operation == "approve":
            self._check_second_person(kept, actor)
            values["approved_by"] = actor
        if operation == "activate":
            self._check_approved(kept)
            if kept.effective_at is not None and kept.effective_at > now:
                values["effective_at"] = now
        elif operation == "submit" and not self.approval_required:
            values["state"] = "active"
        if operation == "revoke":
            values["revoked_at"] = now
        if operation == "extend":
            _check_end(kept, values["expires_at"], now)
        elif values["state"] == "active" and kept.state != "active":
            _check_not_over(kept, now)
            values["state"] = in_force(values.get("effective_at", kept.effective_at), now)
        return values

    def _check_second_person(self, kept: ForgetTarget, actor: str) -> None:
        if actor == kept.requested_by:
            raise PermissionDeniedError(
                "who registered a target cannot approve it; have somebody else approve it"
            )

    def _check_approved(self, kept: ForgetTarget) -> None:
        if self.approval_required and kept.state in ("draft", "previewed"):
            raise ConflictError(
                f"a target in state {kept.state!r} comes into force by approval; submit it first"
            )


def _epoch(writing: Writing, tenant: str) -> Epoch:
    query = select(epochs.c.epoch).where(epochs.c.tenant == tenant)
    return int(writing.connection.execute(query).scalar_one())


def _check_end(kept: ForgetTarget, expires_at: float | None, now: float) -> None:
    if expires_at is not None and expires_at <= max(now, kept.effective_at or 0):
        raise TargetError(
            "expires_at is not ahead, or not after effective_at; write a later time",
            param="expires_at",
        )


def _check_not_over(kept: ForgetTarget, now: float) -> None:
    if kept.expires_at is not None and kept.expires_at <= now:
        raise ConflictError("the target's expires_at has passed; extend it first")


def _emptied(kept: ForgetTarget) -> ForgetTarget:
    return ForgetTarget(title="", **{name: getattr(kept, name) for name in COLUMNS})
