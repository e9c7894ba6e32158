"""Phrases in disguise: rotated, reversed, leet, base64, hexadecimal, escaped."""
