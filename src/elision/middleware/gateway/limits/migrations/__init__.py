"""Alembic migrations of the ledger, run whenever it is opened."""
