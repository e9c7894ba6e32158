"""Logit methods, one file per paper."""
