"""Memory's tables, as the newest migration leaves them.

Whatever a person wrote lies in a ``body`` (and, as numbers, in ``data``); the other columns
hold ids, codes, keyed digests and figures only. So a table that has no such column has nothing to
erase, and a sealed store seals these columns and no others.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

HEAD = "0001"
"""The newest migration."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)
_Id = BigInteger().with_variant(Integer, "sqlite")
"""What SQLite counts by itself."""


def _rid(name: str = "rid", *, primary: bool = False) -> Column[int]:
    """Return a reference to a record that goes when the record goes."""
    to = ForeignKey("records.rid", ondelete="CASCADE")
    return Column(name, _Id, to, primary_key=primary, nullable=False, autoincrement=False)


meta = Table(
    "meta",
    metadata,
    # ``encoder``, ``keys``, ``sealed``: what the rest is to be read with; ``floor``: up to where
    # changes were forgotten; ``retired``: keys to be destroyed; ``spaces``: how often some went.
    Column("name", String(32), primary_key=True),
    Column("value", Text, nullable=False),
)

spaces = Table(
    "spaces",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("tenant", String(128), nullable=False),
    # Keyed digest of the namespace; the namespace itself, as a JSON array, is the body.
    Column("digest", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
    # Which data key seals what lies here; none in a store that is not sealed.
    Column("key_id", String(32)),
    Index("ix_spaces_tenant_digest", "tenant", "digest", unique=True),
    Index("ix_spaces_tenant_id", "tenant", "id"),
    sqlite_autoincrement=True,
)

records = Table(
    "records",
    metadata,
    # FAISS's id. Never given twice: an index that is behind must not find somebody else's.
    Column("rid", _Id, primary_key=True),
    Column("id", String(24), nullable=False, unique=True),
    Column("space", _Id, ForeignKey("spaces.id"), nullable=False),
    # Keyed digests of the key, and of kind, text and value.
    Column("key", String(64), nullable=False),
    Column("content", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("state", String(32), nullable=False),
    Column("trust", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("expires_at", Float),
    # JSON: key, text, value.
    Column("body", LargeBinary, nullable=False),
    Index("ix_records_space_key", "space", "key", unique=True),
    Index("ix_records_space_kind_state", "space", "kind", "state"),
    sqlite_autoincrement=True,
)
_EXPIRING = records.c.expires_at.is_not(None)
Index(
    "ix_records_expires_at",
    records.c.expires_at,
    sqlite_where=_EXPIRING,
    postgresql_where=_EXPIRING,
)

vectors = Table(
    "vectors",
    metadata,
    _rid(primary=True),
    # A unit row of little-endian float32, as `elision.memory.index.vectors` writes it.
    Column("data", LargeBinary, nullable=False),
)

reembedded = Table(
    "reembedded",
    metadata,
    # What takes the place of ``vectors.data`` once another encoder has read every text.
    _rid(primary=True),
    Column("data", LargeBinary, nullable=False),
)

lineage = Table(
    "lineage",
    metadata,
    _rid("child", primary=True),
    _rid("parent", primary=True),
    Index(None, "parent"),
)

subjects = Table(
    "subjects",
    metadata,
    # Keyed digest of the person's id.
    Column("subject", String(64), primary_key=True),
    _rid(primary=True),
    Index(None, "rid"),
)

changes = Table(
    "changes",
    metadata,
    # How an index catches up with what other processes wrote.
    Column("generation", _Id, primary_key=True),
    Column("tenant", String(128), nullable=False),
    Column("rid", _Id, nullable=False),
    Column("gone", Boolean, nullable=False),
    # Drawn at random for each write: another database, or this one put back from a backup, gives
    # the same numbers to other changes.
    Column("stamp", BigInteger, nullable=False),
    Index(None, "tenant", "generation"),
    sqlite_autoincrement=True,
)

tombstones = Table(
    "tombstones",
    metadata,
    # Keyed digest of tenant, namespace and key, and of the content: what an import must not revive.
    Column("digest", String(64), primary_key=True),
    Column("tenant", String(128), nullable=False),
    Column("at", Float, nullable=False),
    # Each erasure of the same content has its own: each receipt says that it has not come back.
    Column("receipt", String(32), primary_key=True),
)

erasures = Table(
    "erasures",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("at", Float, nullable=False),
    # What is still to be done, and what the receipt says: figures, digests and codes.
    Column("job", Text, nullable=False),
    Column("receipt", Text),
)

episodes = Table(
    "episodes",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant", String(128), nullable=False),
    Column("space", _Id, ForeignKey("spaces.id"), nullable=False),
    # The record with the task's words and vector; gone once it is erased, the figures stay.
    Column("rid", _Id, ForeignKey("records.rid", ondelete="SET NULL")),
    Column("state", String(16), nullable=False),
    Column("mode", String(16), nullable=False),
    Column("lane", String(16), nullable=False),
    # How the lane was chosen: figures and codes, as JSON; nothing once the task is erased.
    Column("decision", Text, nullable=False),
    Column("retried", Boolean, nullable=False),
    # None: unknown, which is not 0.
    Column("reward", Float),
    Column("success", Boolean),
    Column("rewarded_by", String(16)),
    Column("tokens", Integer, nullable=False),
    Column("cost", Float, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Index(None, "space", "started_at"),
    Index(None, "rid"),
)

exposures = Table(
    "exposures",
    metadata,
    Column("episode", String(36), ForeignKey("episodes.id"), primary_key=True),
    _rid(primary=True),
    Column("version", Integer, nullable=False),
    Column("applied", Boolean, nullable=False),
    Column("propensity", Float, nullable=False),
    Column("position", Integer, nullable=False),
    Column("adopted", Boolean),
    # Whether its reward is in the evidence already: counted once, whatever is sent twice.
    Column("counted", Boolean, nullable=False),
    Index(None, "rid"),
)

evidence = Table(
    "evidence",
    metadata,
    # One phase of `elision.memory.learning.evidence`: two arms under one propensity.
    _rid(primary=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("propensity", Float, primary_key=True, autoincrement=False),
    *(
        Column(f"{arm}_{what}", kind, nullable=False)
        for arm in ("applied", "withheld")
        for what, kind in (
            ("n", Integer),
            ("rewards", Float),
            ("rewards_sq", Float),
            ("tokens", BigInteger),
            ("tokens_sq", BigInteger),
            ("cost", Float),
            ("cost_sq", Float),
        )
    ),
    Column("adopted", Integer, nullable=False),
    Column("adopted_ok", Integer, nullable=False),
)

moves = Table(
    "moves",
    metadata,
    Column("id", _Id, primary_key=True),
    _rid(),
    Column("at", Float, nullable=False),
    Column("source", String(16), nullable=False),
    Column("target", String(16), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("figures", Text, nullable=False),
    Index(None, "rid"),
    sqlite_autoincrement=True,
)

ledger = Table(
    "ledger",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("episode", String(36), ForeignKey("episodes.id"), nullable=False),
    Column("role", String(16), nullable=False),
    Column("model", String(128), nullable=False),
    Column("calls", Integer, nullable=False),
    Column("tokens_in", Integer, nullable=False),
    Column("tokens_cached", Integer, nullable=False),
    Column("tokens_out", Integer, nullable=False),
    Column("wall_ms", Float, nullable=False),
    Column("cost", Float, nullable=False),
    # Whether the backend told no usage, so that tokens were counted from the text.
    Column("estimated", Boolean, nullable=False),
    Index(None, "episode"),
    sqlite_autoincrement=True,
)
