"""Passages: no longer run of them is repeated word for word."""
