"""What every test can rely on: one compute thread, no network, a state folder of its own."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Read once when torch is first imported: a second thread beside a busy core costs 40x.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["COLUMNS"] = "200"  # tables are not wrapped, however wide the terminal

settings.register_profile(
    "elision",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("elision")


def _is_loopback(address: Any) -> bool:
    if not isinstance(address, tuple):  # a path: AF_UNIX never leaves the machine
        return True
    host = str(address[0]).partition("%")[0]
    if host in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Refuse every connection that would leave the machine."""
    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex"):
        original = getattr(socket.socket, name)

        def guarded(self: socket.socket, address: Any, _original: Any = original) -> Any:
            if not _is_loopback(address):
                raise RuntimeError(
                    f"a test tried to reach {address[0]!r}; tests talk to loopback only"
                )
            return _original(self, address)

        patch.setattr(socket.socket, name, guarded)
    yield
    patch.undo()


@pytest.fixture(scope="session", autouse=True)
def _migrated_once() -> Iterator[None]:
    """Let migrations make one new SQLite file of each layout, and repeat what they made for others.

    A file that is not new, a server's database, and what another process opens are migrated.
    """
    from sqlalchemy import Connection, text

    from elision.sql.database import Database, Layout

    patch, made = pytest.MonkeyPatch(), dict[Layout, list[str]]()
    migrate, all_of = Database._migrate, text("SELECT sql FROM sqlite_master WHERE sql NOT NULL")

    def again(self: Database, connection: Connection, needed: dict[str, Any]) -> None:
        layout = self._layout
        is_new = self.folder is not None and not connection.execute(all_of).first()
        if is_new and layout in made:
            for statement in made[layout]:
                connection.exec_driver_sql(statement)
            return
        migrate(self, connection, needed)
        if is_new:
            made[layout] = _repeatable(connection, layout.version_table)

    patch.setattr(Database, "_migrate", again)
    yield
    patch.undo()


def _repeatable(connection: Any, version_table: str) -> list[str]:
    """Return what makes a file like the new one of *connection*: its schema, and where it stands.

    Only of a file that holds nothing else.
    """
    rows = connection.exec_driver_sql(
        "SELECT type, name, sql FROM sqlite_master"
        " WHERE sql NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
    ).all()
    tables = [name for kind, name, _ in rows if kind == "table" and name != version_table]
    for name in tables:
        assert connection.exec_driver_sql(f'SELECT count(*) FROM "{name}"').scalar() == 0, name
    version = connection.exec_driver_sql(f'SELECT version_num FROM "{version_table}"').scalar()
    return [*(sql for *_, sql in rows), f"INSERT INTO \"{version_table}\" VALUES ('{version}')"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty ``ELISION_HOME``; no other setting leaks in, the model cache stays."""
    for name in [n for n in os.environ if n.startswith("ELISION_") and n != "ELISION_CACHE"]:
        monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("ELISION_HOME", str(folder))
    monkeypatch.chdir(tmp_path)  # an elision.yaml in the repository is not the tests' business
    return folder


@pytest.fixture(scope="session")
def smollm2_dir() -> Path:
    """Return the folder of the pulled smollm2-135m; without it the test is skipped.

    Where the model must be there (``CI`` or ``ELISION_REQUIRE_MODEL`` set), the test fails.
    """
    return _pulled("smollm2-135m")


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """Return the folder of the pulled all-minilm-l6-v2; see `smollm2_dir`."""
    return _pulled("all-minilm-l6-v2")


def _pulled(name: str) -> Path:
    from elision.middleware.models.pull import pulled
    from elision.settings import Settings

    folder = pulled(name, cache=Settings().cache)
    if folder is not None:
        return folder
    missing = f"{name} is not pulled; run: elision pull {name}"
    if os.environ.get("CI") or os.environ.get("ELISION_REQUIRE_MODEL"):
        pytest.fail(missing)
    pytest.skip(missing)
