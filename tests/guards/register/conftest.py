"""Where registers are tested: a file, and a PostgreSQL server that the test run starts itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from elision.guards.register.register import Register


@dataclass
class Clock:
    """A clock that stands still until it is told otherwise."""

    now: float = 2_000_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Place:
    """A database, and the keys of the register in it."""

    url: str
    keys: Path
    clock: Clock = field(default_factory=Clock)
    opened: ExitStack = field(default_factory=ExitStack)

    def open(self, **options: Any) -> Register:
        """Open the register; once more for what another process would see."""
        options = {"keys": self.keys, "clock": self.clock} | options
        return self.opened.enter_context(Register(self.url, **options))

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """Go past the register, as somebody with the database's password would."""
        engine = create_engine(self.url)
        try:
            with engine.begin() as connection:
                done = connection.execute(text(statement), values)
                return list(done) if done.returns_rows else []
        finally:
            engine.dispose()


on_either = pytest.mark.parametrize(
    "place", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
"""Runs a test on SQLite and on PostgreSQL."""


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Return an empty database: SQLite, unless the test is `on_either`."""
    if getattr(request, "param", "sqlite") == "sqlite":
        url = f"sqlite:///{tmp_path}/state/register.db"
    else:
        url = request.getfixturevalue("postgres_url")
    place = Place(url, tmp_path / "keys")
    with place.opened:
        yield place


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """Return the URL of an empty PostgreSQL database."""
    name = f"r{uuid.uuid4().hex}"
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return postgres_server.replace("/postgres?", f"/{name}?")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Return the URL of a PostgreSQL server of our own; without its programs, skip.

    Where everything must be there (``CI`` or ``ELISION_REQUIRE_MODEL`` set), the test fails.
    """
    programs = _programs()
    if programs is None:
        missing = "PostgreSQL's initdb was not found; install postgresql"
        if os.environ.get("CI") or os.environ.get("ELISION_REQUIRE_MODEL"):
            pytest.fail(missing)
        pytest.skip(missing)
    with _running(programs) as folder:
        yield f"postgresql+psycopg://postgres@/postgres?host={folder}"


def _programs() -> Path | None:
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = shutil.which("initdb") or (debian[-1] if debian else None)
    return Path(found).parent if found else None


@contextmanager
def _running(programs: Path) -> Iterator[Path]:
    # In /tmp itself: a socket's path has at most 107 bytes, and the server may be another user.
    folder = Path(tempfile.mkdtemp(prefix="elision-pg-", dir="/tmp"))
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}

    def call(program: str, *arguments: str) -> None:
        command = [str(programs / program), "-D", str(folder / "data"), *arguments]
        log = folder / "log"
        with log.open("ab") as said:
            done = subprocess.run(command, cwd=folder, stdout=said, stderr=said, **user)
        assert done.returncode == 0, log.read_text()

    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    try:
        call("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        call("pg_ctl", "-w", "-o", options, "start")
        try:
            yield folder
        finally:
            call("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
