"""Alembic migrations of the register, run whenever a register is opened."""
