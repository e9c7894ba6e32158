"""What is PostgreSQL's own: processes that share a server, and a server that fails."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from elision.errors import ConfigError, GuardError, MissingExtraError
from elision.guards.register.database import LAYOUT
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase
from elision.sql import postgres

SECRET = "Zyxwv Qponm"
pytestmark = pytest.mark.postgres


def target(words: str = SECRET, *, tenant: str = "default") -> ForgetTarget:
    return ForgetTarget(title="A title", phrases=(Phrase(text=words),), tenant=tenant)


_OTHER = """
import sys
from pathlib import Path
from elision.guards.register.database import LAYOUT
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase

with Register(sys.argv[1], keys=Path(sys.argv[2])) as register:
    print("ready", flush=True)
    for line in sys.stdin:
        target = ForgetTarget(title="t", phrases=(Phrase(text=line.strip()),))
        print(register.add(target).target.id, flush=True)
"""


def test_another_processs_change_is_seen_at_the_next_call(
    postgres_url: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    command = [sys.executable, "-c", _OTHER, postgres_url, str(keys)]
    with (
        Register(postgres_url, keys=keys) as register,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other,
    ):
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        for n in range(1, 4):
            assert register.epoch("default") == n - 1
            other.stdin.write(f"phrase {n}\n")
            other.stdin.flush()
            target_id = other.stdout.readline().strip()
            assert register.epoch("default") == n
            assert register.active("default")[-1].id == target_id
        other.stdin.close()
        assert other.wait(timeout=30) == 0
        assert register.audit.verify().ok


def test_processes_that_open_a_new_register_at_once_all_get_it(
    postgres_url: str, tmp_path: Path
) -> None:
    ready = threading.Barrier(4)

    def open_and_add(n: int) -> int:
        ready.wait()
        with Register(postgres_url, keys=tmp_path / "keys") as register:
            return register.add(target(f"phrase {n}")).epoch

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(open_and_add, range(4))) == [1, 2, 3, 4]
    with Register(postgres_url, keys=tmp_path / "keys") as register:
        seen = register.audit.verify()
        assert (seen.ok, seen.count) == (True, 5)


def test_both_forms_of_the_url_will_do(postgres_url: str, tmp_path: Path) -> None:
    plain = postgres_url.replace("postgresql+psycopg://", "postgresql://")
    with Register(plain, keys=tmp_path / "keys") as register:
        register.add(target())
    with Register(postgres_url, keys=tmp_path / "keys") as register:
        assert len(register.list("default")) == 1


def test_a_writer_waits_for_another_and_then_says_that_it_gave_up(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "PATIENCE_S", 1)
    engine = create_engine(postgres_url)
    with Register(postgres_url, keys=tmp_path / "keys") as register:
        with engine.begin() as connection:
            postgres.become_the_writer(connection, LAYOUT.lock)
            with pytest.raises(GuardError) as caught:
                register.add(target())
            assert register.epoch("default") == 0  # readers do not wait
        assert str(caught.value) == (
            "the register's database failed: LockNotAvailable; "
            "another replica holds it; end that one, or try again"
        )
        assert register.add(target()).epoch == 1
    engine.dispose()


def test_a_lost_connection_is_made_anew(postgres_url: str, tmp_path: Path) -> None:
    engine = create_engine(postgres_url)
    with Register(postgres_url, keys=tmp_path / "keys") as register:
        register.add(target())
        with engine.begin() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        assert register.epoch("default") == 1
        assert register.add(target()).epoch == 2
    engine.dispose()


def test_the_servers_own_message_hides_what_was_to_be_kept(
    postgres_url: str, tmp_path: Path
) -> None:
    with Register(postgres_url, keys=tmp_path / "keys") as register:
        register.add(target(tenant="Qponm"))
        with pytest.raises(GuardError) as caught, register._database.writing() as connection:
            connection.execute(text("INSERT INTO epochs VALUES (:tenant, 1)"), {"tenant": "Qponm"})
    assert str(caught.value) == "the register's database failed: UniqueViolation"


def test_a_server_that_cannot_be_reached_is_told_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Register("postgresql://me:Fqzx@127.0.0.1:1/db", keys=tmp_path / "keys")
    assert "cannot be opened: OperationalError" in str(caught.value)
    assert "Fqzx" not in str(caught.value)
    assert not (tmp_path / "keys").exists()


def test_without_psycopg_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"elision\[postgres\]"):
        Register("postgresql://127.0.0.1/db", keys=tmp_path / "keys")


def test_opening_an_sqlite_register_does_not_load_psycopg(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from elision.guards.register.register import Register\n"
        f"Register({str(tmp_path / 'r.db')!r}).close()\n"
        "assert 'psycopg' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
