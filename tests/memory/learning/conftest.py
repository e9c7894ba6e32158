"""A store of its own for each test, with a clock that the test sets."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from elision.encoders.hashing import HashingEncoder
from elision.memory.learning.cues import Cue
from elision.memory.learning.entries import Entry, EntryDraft, to_record
from elision.memory.learning.episodes import Episodes
from elision.memory.learning.playbook import Playbook
from elision.memory.records import Scope
from elision.memory.rows import Origin
from elision.memory.store import Store


class Clock:
    """Tells the time that it was set to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store in which nothing lies: six times faster to copy than to make."""
    home: Path = tmp_path_factory.mktemp("empty")
    Store.open(home, encoder=HashingEncoder(64)).close()
    return home


@pytest.fixture
def store(tmp_path: Path, clock: Clock, empty: Path) -> Iterator[Store]:
    shutil.copytree(empty, tmp_path, dirs_exist_ok=True)
    with Store.open(tmp_path, encoder=HashingEncoder(64), clock=clock) as opened:
        yield opened


@pytest.fixture
def playbook(store: Store) -> Playbook:
    return Playbook(store)


@pytest.fixture
def episodes(store: Store, playbook: Playbook) -> Episodes:
    return Episodes(store, playbook)


def plant(store: Store, name: str, imperative: str = "query the ledger first") -> Entry:
    """Keep a provisional entry under an id that is not left to chance, nor then what is drawn."""
    scope, now = Scope("acme", ("atlas",)), store.clock()
    draft = EntryDraft(imperative=imperative, cue=Cue(type="keyword", pattern="late fee"))
    record = replace(to_record(draft, key=name), state="provisional")
    rows = store.encoded("acme", [draft.text])
    with store.writing() as writing:
        origin = Origin(id=name, created_at=now, updated_at=now)
        writing.put(scope, record, None if rows is None else rows[0], origin=origin)
    return Playbook(store).get("acme", name)


@pytest.fixture
def planted() -> Callable[..., Entry]:
    return plant
