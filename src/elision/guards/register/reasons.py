"""Why things were done to a target, in the operators' words, sealed with the target's own key."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Connection, Row, select

from elision.crypto.vault import Vault
from elision.guards.register.schema import audit, reasons


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one thing was done.

    Attributes:
        seq: The log's entry that it belongs to.
        action: What was done.
        actor: Who did it.
        ts: When.
        text: Why.
    """

    seq: int
    action: str
    actor: str
    ts: str
    text: str = field(repr=False)


def reasons_of(connection: Connection, vault: Vault, row: Row[object]) -> tuple[Reason, ...]:
    """Return the reasons of a target, oldest first; *row* is its row of `rows.WHOLE`.

    Raises:
        GuardError: If they cannot be opened.
    """
    query = (
        select(audit.c.seq, audit.c.action, audit.c.actor, audit.c.ts, reasons.c.sealed)
        .join(reasons, reasons.c.seq == audit.c.seq)
        .where(reasons.c.target == row.id)
        .order_by(audit.c.seq)
    )
    place = {"tenant": row.tenant, "target_id": row.id}
    return tuple(
        Reason(*found[:-1], vault.open_note(found.sealed, row.wrapped, **place))
        for found in connection.execute(query)
    )
