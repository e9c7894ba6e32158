"""What Alembic runs: migrate the connection that was handed in, and configure no logging."""

from __future__ import annotations

from alembic import context

from elision.middleware.gateway.limits.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=context.config.attributes.get("version_table", "ledger_version"),
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
