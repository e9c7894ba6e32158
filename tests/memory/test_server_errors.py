"""What a server says of a row that it refuses is said to nobody, in no traceback either."""

from __future__ import annotations

from pathlib import Path
from traceback import format_exception

import pytest
from sqlalchemy.exc import IntegrityError

from elision.errors import ConfigError, StoreError
from elision.memory.database import MemoryDatabase

SERVER = "postgresql+psycopg://nobody@127.0.0.1:1/none"
SECRET = "Zyxwv Qponm"


def fail(database: MemoryDatabase) -> str:
    psycopg = pytest.importorskip("psycopg")
    refused = psycopg.errors.NotNullViolation(f"Failing row contains (1, {SECRET}, null).")
    with pytest.raises(StoreError, match="memory's database failed") as caught, database._told():
        raise IntegrityError("INSERT", {}, refused)
    return "".join(format_exception(caught.value))


def test_a_servers_error_is_told_without_the_row_that_it_quotes(tmp_path: Path) -> None:
    server, file = MemoryDatabase(SERVER), MemoryDatabase(tmp_path / "memory.db")
    assert SECRET not in fail(server)
    assert SECRET in fail(file)  # so that its absence means something
    server.close()
    file.close()


def test_a_server_that_cannot_be_reached_is_told_without_its_own_words() -> None:
    pytest.importorskip("psycopg")
    server = MemoryDatabase(SERVER)
    with pytest.raises(ConfigError, match="OperationalError") as caught:
        server.upgrade()
    assert "connection failed" not in "".join(format_exception(caught.value))
    server.close()
