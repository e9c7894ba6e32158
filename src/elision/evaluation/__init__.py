"""Benches and evaluation suites."""
