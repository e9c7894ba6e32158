"""The command line: one file per group of commands, all of them hung into ``root.app``."""

from __future__ import annotations

from elision.cli.root import app as app
from elision.cli.root import main as main

__all__ = ["app", "main"]
