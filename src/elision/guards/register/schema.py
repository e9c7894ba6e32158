"""The register's tables, as the newest migration leaves them.

States and kinds are plain strings without check constraints: SQLite cannot drop one in place, and a
longer life cycle must only add. Everything personal lies sealed in ``targets.body`` and
``reasons.sealed``, and the key to both in ``target_keys``: without that row they are noise.
"""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

HEAD = "0002"
"""The newest migration."""

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
    # How often it changed, registration included, and the epoch of the last time.
    Column("version", Integer, nullable=False),
    Column("changed", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("effective_at", Float),
    Column("expires_at", Float),
    Column("review_at", Float),
    Column("revoked_at", Float),
    # When the clock next changes it.
    Column("due", Float),
    Column("requested_by", String(128), nullable=False),
    Column("approved_by", String(128), nullable=False),
    # None once purged.
    Column("body", LargeBinary),
    UniqueConstraint("tenant", "epoch"),
    Index(None, "tenant", "changed"),
)
# Most targets are never due: an index without them costs a registration no page to write.
_TIMED = targets.c.due.is_not(None)
Index(
    "ix_targets_tenant_due",
    targets.c.tenant,
    targets.c.due,
    sqlite_where=_TIMED,
    postgresql_where=_TIMED,
)

target_keys = Table(
    "target_keys",
    metadata,
    Column("target", String(23), primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
)

reasons = Table(
    "reasons",
    metadata,
    # The entry of the log that it belongs to.
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("target", String(23), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Index(None, "target"),
)

epochs = Table(
    "epochs",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("epoch", Integer, nullable=False),
    # When the clock next changes one of the tenant's targets.
    Column("due", Float),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("tenant", String(64), primary_key=True),
    # Keyed digests of the key and of the body: neither is kept.
    Column("key", String(64), primary_key=True),
    Column("body", String(64), nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("at", Float, nullable=False),
    Index(None, "at"),
)

log = Table(
    "log",
    metadata,
    # One row: which log this is, where it ends, and whose keys it is kept with.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("log_id", String(32), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("at", Float, nullable=False),
    Column("checkpoint_seq", Integer, nullable=False),
    Column("checkpoint_at", Float, nullable=False),
    Column("master", String(64), nullable=False),
    Column("public_key", Text, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("ts", String(24), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(32), nullable=False),
    Column("object_id", String(64), nullable=False),
    Column("object_version", Integer, nullable=False),
    Column("details", Text, nullable=False),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index(None, "tenant", "seq"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("hash", String(64), nullable=False),
    Column("count", Integer, nullable=False),
    Column("ts", String(24), nullable=False),
    Column("signature", String(88), nullable=False),
)
