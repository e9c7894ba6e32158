"""The vendored slice of the alert data, as the database that the full data is."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from elision.evaluation.atlas.excytin_data import DATABASE

SLICE = Path(__file__).parents[2] / "data" / "excytin"
TABLES = {"SecurityAlert": "alerts.jsonl", "SecurityIncident": "incidents.jsonl"}


@pytest.fixture(scope="session")
def excytin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder laid out as the full data."""
    folder = tmp_path_factory.mktemp("excytin")
    for file in SLICE.glob("incident_*.json"):
        shutil.copy(file, folder)
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        for table, file_name in TABLES.items():
            rows = [json.loads(line) for line in (SLICE / file_name).read_text().splitlines()]
            names = list(dict.fromkeys(name for row in rows for name in row))
            connection.execute(f"CREATE TABLE {table} ({', '.join(f'{n} TEXT' for n in names)})")
            places = ", ".join("?" * len(names))
            connection.executemany(
                f"INSERT INTO {table} VALUES ({places})",
                [[row.get(name, "") for name in names] for row in rows],
            )
    return folder
