"""Sheets: what a long run has found out already, one JSON object a line, so that it can go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from elision.errors import ConfigError


class Sheet:
    """An append-only file of values by key. A line that was cut while it was written is dropped.

    Args:
        file: Where it lies; made with its first value.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._values: dict[str, dict[str, Any]] = {}
        if not file.exists():
            return
        whole = file.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            file.write_bytes(whole[:end])
        for line in whole[:end].splitlines():
            row = orjson.loads(line)
            self._values[row.pop("key")] = row

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the value under *key*; None if there is none yet."""
        return self._values.get(key)

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep *value*; it is on disk when this returns."""
        self._values[key] = dict(value)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("ab") as out:
            out.write(orjson.dumps({"key": key, **value}) + b"\n")


def claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Make *folder* this run's, or make sure that it is already.

    Args:
        folder: Where a run keeps its sheets.
        identity: What its values depend on.

    Raises:
        ConfigError: If it holds the values of a run that differs; the message names in what.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "run.json"
    if not file.exists():
        file.write_bytes(orjson.dumps(dict(identity), option=orjson.OPT_INDENT_2))
        return
    known = orjson.loads(file.read_bytes())
    differing = sorted(k for k in {*known, *identity} if known.get(k) != identity.get(k))
    if differing:
        raise ConfigError(
            f"{str(folder)!r} holds another run, with another {', '.join(differing)}; "
            "give another --out"
        )
