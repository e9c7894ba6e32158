"""Brings a register of the time before sealed bodies to the present one, in its migration."""

from __future__ import annotations

import time
from typing import Any

import orjson
from sqlalchemy import Connection, insert, text, update

from elision.crypto.vault import Keys, Vault, fingerprint
from elision.guards.lifecycle import due_at
from elision.guards.register.audit import begin
from elision.guards.register.rows import COLUMNS
from elision.guards.register.schema import reasons, target_keys, targets
from elision.guards.register.writing import Writing
from elision.guards.targets import iso


def adopt(connection: Connection, keys: Keys) -> None:
    """Seal every plain body, and enter every recorded change into a new log.

    The entries bear today's time, for they are written today; ``details.at`` says when it was.
    """
    now = time.time()
    begin(connection, keys, now=now)
    writing = Writing(connection, now=now)
    wrapped = {row.id: _seal(connection, row, keys.vault) for row in _rows(connection, "targets")}
    for change in _rows(connection, "changes"):
        _enter(writing, change, wrapped[change.target], keys.vault)
    writing.finish(keys.signer)


def _rows(connection: Connection, table: str) -> list[Any]:
    columns = "id, tenant, state, body" if table == "targets" else "*"
    order = "id" if table == "targets" else "seq"
    return [*connection.execute(text(f"SELECT {columns} FROM {table} ORDER BY {order}"))]  # noqa: S608


def _seal(connection: Connection, row: Any, vault: Vault) -> bytes:
    body = orjson.loads(row.body)
    clear = {name: body.pop(name) for name in COLUMNS if name in body}
    sealed = vault.seal(orjson.dumps(body), tenant=row.tenant, target_id=row.id)
    times = {key: clear.get(key) for key in ("effective_at", "expires_at")}
    columns = clear | {"body": sealed.body, "due": due_at(row.state, **times)}
    connection.execute(update(targets).where(targets.c.id == row.id).values(**columns))
    connection.execute(insert(target_keys), {"target": row.id, "wrapped": sealed.wrapped})
    return sealed.wrapped


def _enter(writing: Writing, change: Any, wrapped: bytes, vault: Vault) -> None:
    place = {"tenant": change.tenant, "target_id": change.target}
    version = 1 if change.action == "add" else 2
    details: dict[str, Any] = {"epoch": change.epoch, "at": iso(change.at)}
    sealed = vault.seal_note(change.reason, wrapped, **place) if change.reason else b""
    if sealed:
        details["reason"] = fingerprint(sealed)
    seq = writing.append(change.action, actor=change.actor, version=version, **place, **details)
    if sealed:
        row = {"seq": seq, "target": change.target, "sealed": sealed}
        writing.connection.execute(insert(reasons), row)
    known = update(targets).where(targets.c.id == change.target)
    writing.connection.execute(known.values(version=version, changed=change.epoch))
