"""Engines: each translates one kind of model into the contract."""
