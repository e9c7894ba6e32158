"""Memory's file: how it comes to the newest schema, and that this is the one of the tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text

from elision.errors import ConfigError
from elision.memory.database import LAYOUT
from elision.memory.records import Draft, Scope
from elision.memory.schema import HEAD, metadata
from elision.memory.store import Store


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", LAYOUT.migrations)
    return config


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(
        connection, opts={"version_table": LAYOUT.version_table, "compare_type": True}
    )
    return list(compare_metadata(context, metadata))


def test_the_migrations_lead_from_nothing_to_the_tables_of_the_schema(tmp_path: Path) -> None:
    Store(tmp_path / "m.db").close()
    engine = create_engine(f"sqlite:///{tmp_path}/m.db")
    with engine.connect() as connection:
        assert _differences(connection) == []
    engine.dispose()
    assert ScriptDirectory.from_config(_migrations()).get_heads() == [HEAD]


def test_numbers_are_never_given_twice_and_what_hangs_on_a_record_goes_with_it(
    tmp_path: Path,
) -> None:
    Store(tmp_path / "made.db").close()
    made, drawn = create_engine(f"sqlite:///{tmp_path}/made.db"), create_engine("sqlite://")
    metadata.create_all(drawn)
    query = text("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql IS NOT NULL")
    said = []
    for engine in (made, drawn):
        with engine.connect() as connection:
            tables = {name: " ".join(sql.split()) for name, sql in connection.execute(query)}
        said.append(
            {
                name: (
                    "AUTOINCREMENT" in sql,
                    sql.count("ON DELETE CASCADE"),
                    sql.count("SET NULL"),
                )
                for name, sql in tables.items()
                if name in metadata.tables
            }
        )
        engine.dispose()
    assert said[0] == said[1]


def test_the_migrations_lead_back_to_nothing_and_up_again(tmp_path: Path) -> None:
    Store(tmp_path / "m.db").close()
    engine = create_engine(f"sqlite:///{tmp_path}/m.db")
    for turn, to in ((command.downgrade, "base"), (command.upgrade, "head")):
        with engine.begin() as connection:
            config = _migrations()
            config.attributes["connection"] = connection
            turn(config, to)
    with engine.connect() as connection:
        assert _differences(connection) == []
    engine.dispose()


def test_memory_and_register_fit_into_one_file(tmp_path: Path) -> None:
    from elision.guards.register.register import Register

    Register(tmp_path / "both.db").close()
    with Store(tmp_path / "both.db") as store:
        store.put(Scope("t"), Draft(text="words"))
    with Register(tmp_path / "both.db") as register:
        assert register.list("t") == ()
    with Store(tmp_path / "both.db") as store:
        assert len(store.list(Scope("t"))) == 1


def test_opening_a_second_time_needs_no_alembic_and_nothing_heavy(tmp_path: Path) -> None:
    said = []
    for _ in range(2):
        script = (
            "import sys\n"
            "from elision.memory.store import Store\n"
            f"Store({str(tmp_path / 'm.db')!r}).close()\n"
            "print('alembic' in sys.modules, {'numpy', 'faiss', 'psycopg'} & set(sys.modules))"
        )
        run = [sys.executable, "-W", "error", "-c", script]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        said.append((done.stdout, done.stderr))
    assert said == [("True set()\n", ""), ("False set()\n", "")]


def test_a_database_of_a_newer_elision_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "m.db").close()
    engine = create_engine(f"sqlite:///{tmp_path}/m.db")
    with engine.begin() as connection:
        connection.execute(text("UPDATE memory_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(ConfigError, match="'9999', which this version does not know"):
        Store(tmp_path / "m.db")
