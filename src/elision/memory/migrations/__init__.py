"""Alembic migrations of memory, run whenever a store is opened."""
