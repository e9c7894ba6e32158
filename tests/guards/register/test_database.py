"""The register's file: where it may lie, how it comes to the newest schema, what can go wrong."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine

from elision.errors import ConfigError, GuardError
from elision.guards.register.database import RegisterDatabase
from elision.guards.register.register import Register
from elision.guards.register.schema import HEAD, metadata
from elision.guards.targets import ForgetTarget, Phrase
from elision.sql import sqlite


def _target() -> ForgetTarget:
    return ForgetTarget(title="t", phrases=(Phrase(text="Zyxwv Qponm"),))


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", "elision.guards.register:migrations")
    return config


def _made(path: Path) -> Engine:
    Register(path).close()
    return create_engine(f"sqlite:///{path}")


def test_the_migrations_lead_from_nothing_to_the_tables_of_the_schema(tmp_path: Path) -> None:
    engine = _made(tmp_path / "r.db")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    assert ScriptDirectory.from_config(_migrations()).get_heads() == [HEAD]


@pytest.mark.postgres
def test_the_migrations_lead_to_the_same_tables_on_postgresql(
    tmp_path: Path, postgres_url: str
) -> None:
    Register(postgres_url, keys=tmp_path / "keys").close()
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_migrations_lead_back_to_nothing_and_up_again(tmp_path: Path) -> None:
    engine = _made(tmp_path / "r.db")
    for turn in (command.downgrade, command.upgrade):
        with engine.begin() as connection:
            config = _migrations()
            config.attributes["connection"] = connection
            turn(config, "base" if turn is command.downgrade else "head")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_what_is_sealed_is_not_migrated_back(tmp_path: Path) -> None:
    with Register(tmp_path / "r.db") as register:
        register.add(_target())
    engine, config = create_engine(f"sqlite:///{tmp_path}/r.db"), _migrations()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        with pytest.raises(RuntimeError, match="cannot be unsealed"):
            command.downgrade(config, "0001")
    engine.dispose()
    with Register(tmp_path / "r.db") as register:
        assert len(register.list("default")) == 1


def test_opening_configures_no_logging_and_a_second_time_needs_no_alembic(tmp_path: Path) -> None:
    said = []
    for _ in range(2):
        script = (
            "import logging, sys\n"
            "from elision.guards.register.register import Register\n"
            "logging.getLogger('mine').setLevel(logging.INFO)\n"
            f"Register({str(tmp_path / 'r.db')!r}).close()\n"
            "assert not logging.root.handlers and not logging.getLogger('mine').disabled\n"
            "print('alembic' in sys.modules)"
        )
        run = [sys.executable, "-W", "error", "-c", script]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        said.append((done.stdout, done.stderr))
    assert said == [("True\n", ""), ("False\n", "")]


def test_migrating_logs_no_more_than_alembics_own_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        Register(tmp_path / "r.db").close()
    assert {record.name.split(".")[0] for record in caplog.records} <= {"alembic"}


def test_commits_are_on_the_disk_and_the_log_is_written_ahead(tmp_path: Path) -> None:
    names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "secure_delete")
    database = RegisterDatabase(tmp_path / "r.db")
    with database.reading() as connection:
        settings = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}
    database.close()
    full = 2
    assert settings == {
        "journal_mode": "wal",
        "synchronous": full,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
        "secure_delete": 1,
    }


@pytest.mark.parametrize("name", ["plain", "with space", "100%", "%(here)s", "q?mark#hash", "ünï"])
def test_any_folder_name_will_do(tmp_path: Path, name: str) -> None:
    with Register.open(tmp_path / name) as register:
        register.add(_target())
    assert (tmp_path / name / "register.db").is_file()


def test_paths_and_urls_name_the_same_file(tmp_path: Path) -> None:
    for where in (tmp_path / "r.db", str(tmp_path / "r.db"), f"sqlite:///{tmp_path}/r.db"):
        with Register(where) as register:
            register.add(_target())
            n_kept = len(register.list("default"))
    assert n_kept == 3
    assert {file.name for file in tmp_path.iterdir()} == {"r.db", "keys"}


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("mysql://user:pass@host/db", "scheme 'mysql'; write sqlite:////PATH or postgresql"),
        ("postgresql+psycopg2://user:pass@host/db", "scheme 'postgresql+psycopg2'; write"),
        ("postgresql://user:pass@127.0.0.1:1/db", "cannot be opened: OperationalError"),
        ("sqlite://", "names no file; write sqlite:////PATH"),
        ("sqlite:///:memory:", "names no file; write sqlite:////PATH"),
        ("://", "cannot be read"),
    ],
)
def test_other_databases_are_refused_without_their_password(where: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Register(where)
    assert said in str(caught.value)
    assert "pass" not in str(caught.value)


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    Register(tmp_path / "r.db").close()
    with sqlite3.connect(tmp_path / "r.db") as direct:
        direct.execute("UPDATE alembic_version SET version_num = '9999'")
    direct.close()
    with pytest.raises(ConfigError, match=r"stands at schema '9999'.* install the Elision"):
        Register(tmp_path / "r.db")


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "r.db").write_bytes(b"these are my notes " * 100)
    with pytest.raises(ConfigError, match="file is not a database; name another place"):
        Register(tmp_path / "r.db")
    assert (tmp_path / "r.db").read_bytes() == b"these are my notes " * 100


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(ConfigError, match=r"cannot be opened: (File exists|Not a directory)"):
        Register.open(tmp_path / "home")


@pytest.mark.parametrize(
    ("names", "epochs"),
    [(["r"] * 6, [1, 2, 3, 4, 5, 6]), ([*"abcdef"], [1] * 6)],
    ids=["one file", "files of their own"],
)
def test_threads_that_open_at_once_all_get_it(
    tmp_path: Path, names: list[str], epochs: list[int]
) -> None:
    ready = threading.Barrier(6)

    def open_and_add(name: str) -> int:
        ready.wait()
        with Register(tmp_path / name) as register:
            return register.add(_target()).epoch

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(open_and_add, names)) == epochs


@pytest.mark.parametrize("patience_s", [10.0, 0.1])
def test_opening_waits_for_another_that_is_just_making_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", patience_s)
    other = sqlite3.connect(tmp_path / "r.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")  # SQLite refuses the switch to WAL at once, without waiting
    release = threading.Timer(0.5, other.execute, ["ROLLBACK"])
    release.start()
    if patience_s > 1:
        Register(tmp_path / "r.db").close()
    else:
        with pytest.raises(ConfigError, match="cannot be opened: database is locked"):
            Register(tmp_path / "r.db")
    release.join()
    other.close()


def test_a_writer_waits_for_another_and_then_says_that_it_gave_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.3)
    with Register(tmp_path / "r.db") as register:
        other = sqlite3.connect(tmp_path / "r.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        with pytest.raises(GuardError, match="database is locked"):
            register.add(_target())
        assert 0.3 <= time.monotonic() - begun < 5
        assert register.epoch("default") == 0  # readers do not wait
        other.execute("ROLLBACK")
        other.close()
        assert register.add(_target()).epoch == 1


def test_even_the_loudest_log_tells_no_phrase(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="sqlalchemy")
    with Register.open(tmp_path) as register:
        phrase = Phrase(text="Marguerite Delacroix")
        added = register.add(ForgetTarget(title="the painter", phrases=(phrase,)))
        register.get("default", added.target.id)
        register.list("default")
    assert any(record.name.startswith("sqlalchemy") for record in caplog.records)
    for secret in ("Delacroix", "painter"):
        assert secret not in caplog.text


_FULL = """
import resource, signal, sys
from pathlib import Path
from elision.errors import GuardError
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
home = Path(sys.argv[1])
phrases = tuple(Phrase(text=f"Zyxwv Qponm {n}") for n in range(2000))
with Register.open(home) as register:
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    kept = []
    try:
        while True:
            made = register.add(ForgetTarget(title="t", phrases=phrases[: 100 + len(kept) % 900]))
            kept.append(made.target.id)
    except GuardError as exc:
        print(exc)
    assert [found.id for found in register.list("default")] == kept  # it can still be read
print(*kept)
"""


def test_a_full_disk_is_told_and_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    run = [sys.executable, "-c", _FULL, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    message, ids = done.stdout.splitlines()
    assert message.startswith("the register's database failed: ")
    assert "disk is full" in message or "whether its disk is full" in message
    assert "Qponm" not in done.stdout + done.stderr
    with Register.open(tmp_path) as register:
        kept = [found.id for found in register.list("default")]
        assert kept == ids.split()
        assert len(kept) > 3
        assert register.audit.verify().ok
        register.add(_target())


def test_a_register_that_nobody_may_write_to_says_what_to_do(tmp_path: Path) -> None:
    with Register(tmp_path / "r.db") as register:
        register.add(_target())
        with register._database.reading() as connection:
            connection.exec_driver_sql("PRAGMA query_only = ON")
            connection.rollback()
        with pytest.raises(
            GuardError, match="readonly database; make its file and folder writable"
        ):
            register.add(_target())
        assert register.epoch("default") == 1
