"""Drafting and verifying several tokens per forward."""
