"""The register's tables, as the newest migration leaves them.

Three tables, one row in each of the last two per change. States and kinds are plain strings
without check constraints: SQLite cannot drop one in place, and a longer life cycle must only add.
Everything personal lies in ``targets.body``, so that it can be sealed or erased in one place.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import orjson
from sqlalchemy import (
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    UniqueConstraint,
)

from elision.guards.scope import EVERYWHERE, Scope
from elision.guards.targets import ForgetTarget, Phrase

HEAD = "0001"
"""The newest migration; a database that stands there needs no Alembic to be opened."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

targets = Table(
    "targets",
    metadata,
    Column("id", String(23), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("action", String(32), nullable=False),
    Column("state", String(32), nullable=False),
    # The epoch of its registration: unlike a clock it gives one order per tenant.
    Column("epoch", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("tenant", "epoch"),
    Index(None, "tenant", "state"),
)

epochs = Table(
    "epochs",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("epoch", Integer, nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(32), nullable=False),
    Column("target", String(23), nullable=False),
    Column("reason", String(1000)),
    UniqueConstraint("tenant", "epoch"),
)

_KEPT = frozenset(
    "names probes passages answers exceptions effective_at expires_at review_at case_ref "
    "legal_basis requested_by approved_by".split()
)
_PLAIN = {field.name: field.default for field in fields(Phrase) if field.name != "text"}


def row_of(target: ForgetTarget) -> dict[str, Any]:
    """Return *target* as a row of ``targets``, less its epoch."""
    phrases = [_phrase_body(phrase) for phrase in target.phrases]
    kept = ((key, getattr(target, key)) for key in _KEPT)
    body = {"title": target.title, "phrases": phrases} | {k: v for k, v in kept if v}
    if target.scope != EVERYWHERE:
        body["scope"] = target.scope.to_body()
    return {
        "id": target.id,
        "tenant": target.tenant,
        "kind": target.kind,
        "action": target.action,
        "state": target.state,
        "created_at": target.created_at,
        "revoked_at": target.revoked_at,
        "body": orjson.dumps(body),
    }


def target_of(row: Row[Any]) -> ForgetTarget:
    """Return the target that a row of ``targets`` keeps."""
    body = orjson.loads(row.body)
    kept: dict[str, Any] = {
        key: tuple(body[key]) if isinstance(body[key], list) else body[key]
        for key in _KEPT & body.keys()
    }
    return ForgetTarget(
        id=row.id,
        tenant=row.tenant,
        title=body["title"],
        kind=row.kind,
        scope=Scope.from_body(body["scope"]) if "scope" in body else EVERYWHERE,
        phrases=tuple(
            Phrase(text=item) if isinstance(item, str) else Phrase(**item)
            for item in body["phrases"]
        ),
        action=row.action,
        state=row.state,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
        **kept,
    )


def _phrase_body(phrase: Phrase) -> str | dict[str, Any]:
    """Return the text alone where all else is default: most phrases, at a third of the size."""
    set_ = {name: getattr(phrase, name) for name in _PLAIN if getattr(phrase, name) != _PLAIN[name]}
    return {"text": phrase.text, **set_} if set_ else phrase.text
