"""Memory on PostgreSQL: the same answers, several processes, and what is its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import format_exception

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from elision.encoders.hashing import HashingEncoder
from elision.errors import ConfigError, ConflictError, StoreError
from elision.memory.database import LAYOUT
from elision.memory.records import Draft, Scope, Trust
from elision.memory.schema import metadata
from elision.memory.store import Store

pytestmark = pytest.mark.postgres
ENCODER = HashingEncoder(32)
HERE = Scope("tenant", ("a", "%"))
SECRET = "Zyxwv Qponm"

# The register's tests start the server that these use too.
_spec = spec_from_file_location(
    "register_places", Path(__file__).parents[1] / "guards" / "register" / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_places = sys.modules[_spec.name] = module_from_spec(_spec)
_spec.loader.exec_module(_places)
postgres_server, postgres_url = _places.postgres_server, _places.postgres_url


@pytest.fixture
def store(postgres_url: str, tmp_path: Path) -> Iterator[Store]:
    with Store(postgres_url, encoder=ENCODER, keys=tmp_path / "keys") as store:
        yield store


def test_the_migrations_lead_to_the_same_tables(store: Store) -> None:
    with store.reading() as connection:
        options = {"version_table": LAYOUT.version_table, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert list(compare_metadata(context, metadata)) == []


def test_a_record_lives_as_it_does_in_a_file(store: Store) -> None:
    assert store.sealed
    page = store.put(HERE, Draft(text="a page about cats", key="p", trust=Trust.TOOL))
    child = store.put(
        HERE, Draft(text="cats", parents=(page.id,), subjects=frozenset({"x"}), ttl_s=60)
    )
    many = store.put_many(HERE, [Draft(text=f"dog {n}", value={"n": n}) for n in range(5)])
    assert store.put(HERE, Draft(text="dog 1", value={"n": 1})).status == "same"
    assert store.search(Scope("tenant"), "cats", 1).hits[0].record.id == child.id
    assert store.search(HERE, "cats", where={"n": {"$gte": 3}}).n_scanned == 2
    assert store.change("tenant", page.id, trust=Trust.EXTERNAL, text="dogs").version == 2
    assert store.find("tenant", [child.id])[0].trust == Trust.EXTERNAL
    with pytest.raises(ConflictError):
        store.change("tenant", page.id, version=1, text="late")
    assert [one.id for one in store.list(HERE, limit=3)] == [page.id, child.id, many[0].id]
    assert store.namespaces("tenant", prefix=("a",)) == (("a", "%"),)
    assert store.remove("tenant", [page.id]) == 1
    assert store.sweep(store.clock() + 61) == 1
    assert store.search(HERE, None).n_scanned == 5
    assert store.stats()["records"] == 5


def test_the_server_has_neither_words_nor_vectors(store: Store) -> None:
    stored = store.put(HERE, Draft(text=SECRET, key="k"))
    raw = [bytes(row[0]) for row in store.database.rows("SELECT body FROM records")]
    raw += [bytes(row[0]) for row in store.database.rows("SELECT data FROM vectors")]
    raw += [bytes(row[0]) for row in store.database.rows("SELECT body FROM spaces")]
    assert len(raw) == 3
    assert not [one for one in raw if SECRET.encode() in one]
    with store.writing() as writing:
        place = writing.rooms.find(HERE)
        assert place is not None
        writing.rooms.reseal(place.space)
    assert store.find("tenant", [stored.id])[0].text == SECRET


def test_a_sealed_store_needs_a_folder_for_its_keys(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MASTER", "SIGNING"):
        monkeypatch.setenv(f"ELISION_{name}_KEY", "A" * 43 + "=")
    with pytest.raises(ConfigError, match="name a folder for its keys"):
        Store(postgres_url)
    with Store(postgres_url, sealed=False) as store:
        assert store.put(HERE, Draft(text="words")).status == "created"


_OTHER = """
import sys
from pathlib import Path
from elision.encoders.hashing import HashingEncoder
from elision.memory.records import Draft, Scope
from elision.memory.store import Store

with Store(sys.argv[1], encoder=HashingEncoder(32), keys=Path(sys.argv[2])) as store:
    for n in range(40):
        store.put(Scope("tenant", ("a", "%")), Draft(text=f"theirs {n}"))
        store.put(Scope("tenant", ("shared",)), Draft(text=f"said twice {n}"))
"""


def test_processes_that_write_at_once_lose_nothing_and_see_each_other(
    store: Store, postgres_url: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", _OTHER, postgres_url, str(tmp_path / "keys")]

    def put(n: int) -> None:
        store.put(HERE, Draft(text=f"mine {n}"))
        store.put(Scope("tenant", ("shared",)), Draft(text=f"said twice {n}"))
        store.search(HERE, "mine")

    with subprocess.Popen(command) as other, ThreadPoolExecutor(3) as pool:
        list(pool.map(put, range(40)))
        assert other.wait(timeout=60) == 0
    assert store.search(HERE, "theirs 7").hits[0].record.text == "theirs 7"
    assert store.search(HERE, "x").n_scanned == 80
    assert len(store.list(Scope("tenant", ("shared",)))) == 40


def test_one_reading_is_of_one_moment_as_it_is_in_a_file(store: Store) -> None:
    count = text("SELECT count(*) FROM records")
    store.put(HERE, Draft(text="before"))
    with store.reading() as connection:
        assert connection.scalar(count) == 1
        store.put(HERE, Draft(text="meanwhile"))
        assert connection.scalar(count) == 1
    with store.reading() as connection:
        assert connection.scalar(count) == 2


def test_replicas_keep_no_files_of_the_index_that_another_could_not_erase(
    postgres_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "replica"
    with Store(
        postgres_url, encoder=ENCODER, keys=tmp_path / "keys", sealed=False, folder=folder
    ) as store:
        store.put(HERE, Draft(text="words"))
        assert store.search(HERE, "words").hits
        assert (store.folder, store.partitions.save()) == (None, 0)
    assert not folder.exists()


def test_the_servers_own_message_hides_what_was_to_be_kept(store: Store) -> None:
    def write_twice() -> None:
        given = {"name": SECRET, "value": SECRET}
        with store.writing() as writing:
            for _ in range(2):
                writing.connection.execute(text("INSERT INTO meta VALUES (:name, :value)"), given)

    with pytest.raises(StoreError) as caught:
        write_twice()
    assert str(caught.value) == "the memory's database failed: UniqueViolation"
    assert SECRET not in "".join(format_exception(caught.value))


def test_register_and_memory_share_a_server_without_waiting_for_each_other(
    store: Store, postgres_url: str
) -> None:
    from elision.guards.register.database import LAYOUT as REGISTER
    from elision.sql.postgres import become_the_writer

    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        become_the_writer(connection, REGISTER.lock)
        assert store.put(HERE, Draft(text="words")).status == "created"
    engine.dispose()
