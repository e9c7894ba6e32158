"""Sealed bodies, a longer life, an audit log in place of the record of changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("targets") as targets:
        targets.add_column(sa.Column("version", sa.Integer, nullable=False, server_default="1"))
        targets.add_column(sa.Column("changed", sa.Integer, nullable=False, server_default="0"))
        targets.add_column(sa.Column("effective_at", sa.Float))
        targets.add_column(sa.Column("expires_at", sa.Float))
        targets.add_column(sa.Column("review_at", sa.Float))
        targets.add_column(sa.Column("due", sa.Float))
        for name in ("requested_by", "approved_by"):
            targets.add_column(sa.Column(name, sa.String(128), nullable=False, server_default=""))
        targets.alter_column("body", existing_type=sa.LargeBinary, nullable=True)
    with op.batch_alter_table("targets") as targets:
        for name in ("version", "changed", "requested_by", "approved_by"):
            targets.alter_column(name, server_default=None)
    op.create_index("ix_targets_tenant_changed", "targets", ["tenant", "changed"])
    timed = sa.text("due IS NOT NULL")
    op.create_index(
        "ix_targets_tenant_due",
        "targets",
        ["tenant", "due"],
        sqlite_where=timed,
        postgresql_where=timed,
    )
    op.drop_index("ix_targets_tenant_state", "targets")
    op.add_column("epochs", sa.Column("due", sa.Float))
    _sealing_tables()
    _log_tables()
    _adopt()
    op.drop_table("changes")


def downgrade() -> None:
    if op.get_bind().execute(sa.text("SELECT count(*) FROM targets")).scalar():
        raise RuntimeError("targets cannot be unsealed; export them, and import them elsewhere")
    tables = "target_keys reasons idempotency log audit checkpoints targets epochs".split()
    for table in tables:
        op.drop_table(table)
    from elision.guards.register.migrations.versions import r0001_targets

    r0001_targets.upgrade()


def _sealing_tables() -> None:
    op.create_table(
        "target_keys",
        sa.Column("target", sa.String(23), nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("target", name="pk_target_keys"),
    )
    op.create_table(
        "reasons",
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("target", sa.String(23), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_reasons"),
    )
    op.create_index("ix_reasons_target", "reasons", ["target"])
    op.create_table(
        "idempotency",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("body", sa.String(64), nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", name="pk_idempotency"),
    )
    op.create_index("ix_idempotency_at", "idempotency", ["at"])


def _log_tables() -> None:
    op.create_table(
        "log",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("log_id", sa.String(32), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("checkpoint_seq", sa.Integer, nullable=False),
        sa.Column("checkpoint_at", sa.Float, nullable=False),
        sa.Column("master", sa.String(64), nullable=False),
        sa.Column("public_key", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_log"),
    )
    op.create_table(
        "audit",
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("ts", sa.String(24), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("object_id", sa.String(64), nullable=False),
        sa.Column("object_version", sa.Integer, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("prev_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
    )
    op.create_index("ix_audit_tenant_seq", "audit", ["tenant", "seq"])
    op.create_table(
        "checkpoints",
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("ts", sa.String(24), nullable=False),
        sa.Column("signature", sa.String(88), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_checkpoints"),
    )


def _adopt() -> None:
    """Seal the bodies that are there, and bring the record of changes into the log."""
    connection = op.get_bind()
    if connection.execute(sa.text("SELECT count(*) FROM changes")).scalar():
        from elision.guards.register.adoption import adopt

        adopt(connection, context.config.attributes["keys"])
