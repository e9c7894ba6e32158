"""Erasure of what is remembered: rows, indices, caches, backups, and the proof of it."""
