"""Changes to targets inside a write: rows, epoch, due time, log, all of them or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from elision.contract import Epoch
from elision.crypto.vault import Sealed, Vault, fingerprint
from elision.guards.lifecycle import CLOCK, Operation, due_at, overdue
from elision.guards.register.rows import body_of, columns_of
from elision.guards.register.schema import reasons, target_keys, targets
from elision.guards.register.writing import Writing
from elision.guards.targets import ForgetTarget


def admit(
    writing: Writing, vault: Vault, new: Sequence[ForgetTarget], *, action: str, actor: str
) -> tuple[Epoch, ...]:
    """Keep new targets of one tenant; return the epoch of each.

    Of a target that was purged elsewhere, the row is kept and nothing sealed.
    """
    tenant = new[0].tenant
    last = writing.raise_epoch(tenant, by=len(new))
    epochs = range(last - len(new) + 1, last + 1)
    rows, wrapped = list[dict[str, Any]](), list[dict[str, Any]]()
    for target, epoch in zip(new, epochs, strict=True):
        sealed = _sealed(target, vault)
        details: dict[str, Any] = {"epoch": epoch, "state": target.state}
        if sealed is not None:
            wrapped.append({"target": target.id, "wrapped": sealed.wrapped})
            details["body"] = fingerprint(sealed.body)
        place = {"tenant": tenant, "actor": actor, "target_id": target.id}
        writing.append(action, **place, version=1, **details)
        kept = {"epoch": epoch, "version": 1, "changed": epoch, "body": sealed and sealed.body}
        rows.append(columns_of(target) | kept)
    writing.connection.execute(insert(targets), rows)
    if wrapped:
        writing.connection.execute(insert(target_keys), wrapped)
    if any(row["due"] is not None for row in rows):
        writing.mend_due(tenant)
    return tuple(epochs)


def change(
    writing: Writing,
    vault: Vault,
    row: Row[Any],
    operation: Operation,
    *,
    actor: str,
    reason: str = "",
    **values: Any,
) -> Epoch:
    """Give a target's *row* new *values*, by *operation*; return the tenant's epoch since."""
    epoch, version = writing.raise_epoch(row.tenant), row.version + 1
    after = {**row._mapping, **values}
    times = {key: after[key] for key in ("effective_at", "expires_at")}
    due = due_at(after["state"], **times)
    kept = values | {"due": due, "changed": epoch, "version": version}
    writing.connection.execute(update(targets).where(targets.c.id == row.id).values(**kept))
    if due != row.due:
        writing.mend_due(row.tenant)
    details = {"epoch": epoch, "from": row.state, "state": after["state"]}
    details |= {key: values[key] for key in ("effective_at", "expires_at") if key in values}
    place = {"tenant": row.tenant, "target_id": row.id}
    sealed = vault.seal_note(reason, row.wrapped, **place) if reason else b""
    if sealed:
        details["reason"] = fingerprint(sealed)
    seq = writing.append(operation, actor=actor, version=version, **place, **details)
    if sealed:
        note = {"seq": seq, "target": row.id, "sealed": sealed}
        writing.connection.execute(insert(reasons), note)
    return epoch


def shred(writing: Writing, target_id: str) -> None:
    """Destroy what is sealed of a target, and first of all the key to it."""
    connection = writing.connection
    connection.execute(delete(target_keys).where(target_keys.c.target == target_id))
    connection.execute(delete(reasons).where(reasons.c.target == target_id))
    connection.execute(update(targets).where(targets.c.id == target_id).values(body=None))


def settle(writing: Writing, vault: Vault, tenant: str) -> None:
    """Do what the clock has to do to the tenant's targets by now; done twice, it is done once."""
    is_due = (targets.c.tenant == tenant) & (targets.c.due <= writing.now)
    query = select(targets).where(is_due).order_by(targets.c.due, targets.c.epoch)
    for row in writing.connection.execute(query).all():
        times = {"effective_at": row.effective_at, "expires_at": row.expires_at}
        for operation, state in overdue(row.state, **times, now=writing.now):
            change(writing, vault, row, operation, actor=CLOCK, state=state)
            same = select(targets).where(targets.c.id == row.id)
            row = writing.connection.execute(same).one()


def _sealed(target: ForgetTarget, vault: Vault) -> Sealed | None:
    if target.state == "purged":
        return None
    return vault.seal(body_of(target), tenant=target.tenant, target_id=target.id)
