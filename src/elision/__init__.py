"""Elision: a decoding proxy that decides, token by token, what a model may say."""
