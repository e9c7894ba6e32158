"""Records, what they were made from, and what is learned with them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_ARMS = ("applied", "withheld")
_SUMS = (
    ("n", sa.Integer),
    ("rewards", sa.Float),
    ("rewards_sq", sa.Float),
    ("tokens", sa.BigInteger),
    ("tokens_sq", sa.BigInteger),
    ("cost", sa.Float),
    ("cost_sq", sa.Float),
)


def upgrade() -> None:
    """Make the tables."""
    _content()
    _bookkeeping()
    _episodes()
    _learning()


def downgrade() -> None:
    """Drop them."""
    for table in (
        "ledger", "moves", "evidence", "exposures", "episodes", "erasures", "tombstones", "changes",
        "subjects", "lineage", "reembedded", "vectors", "records", "spaces", "meta",
    ):  # fmt: skip
        op.drop_table(table)


def _rid(table: str, column: str = "rid") -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}"
    return sa.ForeignKeyConstraint([column], ["records.rid"], name=name, ondelete="CASCADE")


def _ids(*names: str) -> tuple[sa.Column[int], ...]:
    return tuple(sa.Column(name, _ID, nullable=False, autoincrement=False) for name in names)


def _content() -> None:
    op.create_table(
        "spaces",
        sa.Column("id", _ID, nullable=False),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("key_id", sa.String(32)),
        sa.PrimaryKeyConstraint("id", name="pk_spaces"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_spaces_tenant_digest", "spaces", ["tenant", "digest"], unique=True)
    op.create_index("ix_spaces_tenant_id", "spaces", ["tenant", "id"])
    op.create_table(
        "records",
        sa.Column("rid", _ID, nullable=False),
        sa.Column("id", sa.String(24), nullable=False),
        sa.Column("space", _ID, nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("content", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("trust", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("rid", name="pk_records"),
        sa.UniqueConstraint("id", name="uq_records_id"),
        sa.ForeignKeyConstraint(["space"], ["spaces.id"], name="fk_records_space"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_records_space_key", "records", ["space", "key"], unique=True)
    op.create_index("ix_records_space_kind_state", "records", ["space", "kind", "state"])
    some = sa.text("expires_at IS NOT NULL")
    op.create_index(
        "ix_records_expires_at",
        "records",
        ["expires_at"],
        sqlite_where=some,
        postgresql_where=some,
    )
    for table in ("vectors", "reembedded"):
        op.create_table(
            table,
            *_ids("rid"),
            sa.Column("data", sa.LargeBinary, nullable=False),
            sa.PrimaryKeyConstraint("rid", name=f"pk_{table}"),
            _rid(table),
        )


def _bookkeeping() -> None:
    op.create_table(
        "meta",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_meta"),
    )
    op.create_table(
        "lineage",
        *_ids("child", "parent"),
        sa.PrimaryKeyConstraint("child", "parent", name="pk_lineage"),
        _rid("lineage", "child"),
        _rid("lineage", "parent"),
    )
    op.create_index("ix_lineage_parent", "lineage", ["parent"])
    op.create_table(
        "subjects",
        sa.Column("subject", sa.String(64), nullable=False),
        *_ids("rid"),
        sa.PrimaryKeyConstraint("subject", "rid", name="pk_subjects"),
        _rid("subjects"),
    )
    op.create_index("ix_subjects_rid", "subjects", ["rid"])
    op.create_table(
        "changes",
        sa.Column("generation", _ID, nullable=False),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("rid", _ID, nullable=False),
        sa.Column("gone", sa.Boolean, nullable=False),
        sa.Column("stamp", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("generation", name="pk_changes"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_changes_tenant_generation", "changes", ["tenant", "generation"])
    op.create_table(
        "tombstones",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("receipt", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("digest", "receipt", name="pk_tombstones"),
    )
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("receipt", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_erasures"),
    )


def _episodes() -> None:
    op.create_table(
        "episodes",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("space", _ID, nullable=False),
        sa.Column("rid", _ID),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("lane", sa.String(16), nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("retried", sa.Boolean, nullable=False),
        sa.Column("reward", sa.Float),
        sa.Column("success", sa.Boolean),
        sa.Column("rewarded_by", sa.String(16)),
        sa.Column("tokens", sa.Integer, nullable=False),
        sa.Column("cost", sa.Float, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float),
        sa.PrimaryKeyConstraint("id", name="pk_episodes"),
        sa.ForeignKeyConstraint(["space"], ["spaces.id"], name="fk_episodes_space"),
        sa.ForeignKeyConstraint(
            ["rid"], ["records.rid"], name="fk_episodes_rid", ondelete="SET NULL"
        ),
    )
    op.create_index("ix_episodes_space_started_at", "episodes", ["space", "started_at"])
    op.create_index("ix_episodes_rid", "episodes", ["rid"])
    op.create_table(
        "ledger",
        sa.Column("id", _ID, nullable=False),
        sa.Column("episode", sa.String(36), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("calls", sa.Integer, nullable=False),
        sa.Column("tokens_in", sa.Integer, nullable=False),
        sa.Column("tokens_cached", sa.Integer, nullable=False),
        sa.Column("tokens_out", sa.Integer, nullable=False),
        sa.Column("wall_ms", sa.Float, nullable=False),
        sa.Column("cost", sa.Float, nullable=False),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
        sa.ForeignKeyConstraint(["episode"], ["episodes.id"], name="fk_ledger_episode"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_ledger_episode", "ledger", ["episode"])


def _learning() -> None:
    op.create_table(
        "exposures",
        sa.Column("episode", sa.String(36), nullable=False),
        *_ids("rid"),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("applied", sa.Boolean, nullable=False),
        sa.Column("propensity", sa.Float, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("adopted", sa.Boolean),
        sa.Column("counted", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("episode", "rid", name="pk_exposures"),
        sa.ForeignKeyConstraint(["episode"], ["episodes.id"], name="fk_exposures_episode"),
        _rid("exposures"),
    )
    op.create_index("ix_exposures_rid", "exposures", ["rid"])
    op.create_table(
        "evidence",
        *_ids("rid"),
        sa.Column("version", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("propensity", sa.Float, nullable=False),
        *(
            sa.Column(f"{arm}_{what}", kind, nullable=False)
            for arm in _ARMS
            for what, kind in _SUMS
        ),
        sa.Column("adopted", sa.Integer, nullable=False),
        sa.Column("adopted_ok", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("rid", "version", "propensity", name="pk_evidence"),
        _rid("evidence"),
    )
    op.create_table(
        "moves",
        sa.Column("id", _ID, nullable=False),
        sa.Column("rid", _ID, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("target", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("figures", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_moves"),
        _rid("moves"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_moves_rid", "moves", ["rid"])
