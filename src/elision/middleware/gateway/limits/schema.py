"""The one table of budgets: what each key has spent in each period."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Float, MetaData, PrimaryKeyConstraint, String, Table

HEAD: Final = "0001"
"""The newest migration."""

metadata = MetaData()

spent = Table(
    "spent",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("key", String(64), nullable=False),
    # ``2026-11-22``, ``2026-11`` or ``total``, in UTC.
    Column("period", String(10), nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("at", Float, nullable=False),
    PrimaryKeyConstraint("tenant", "key", "period", name="pk_spent"),
)
