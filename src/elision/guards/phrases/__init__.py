"""Phrases: texts that never leave, in any spelling of the same normal form."""
