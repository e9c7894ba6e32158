"""The decoding proxy."""
