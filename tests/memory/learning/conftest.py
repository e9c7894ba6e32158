"""A store of its own for each test, with a clock that the test sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from elision.encoders.hashing import HashingEncoder
from elision.memory.learning.episodes import Episodes
from elision.memory.learning.playbook import Playbook
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


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with Store.open(tmp_path, encoder=HashingEncoder(64), clock=clock) as opened:
        yield opened


@pytest.fixture
def playbook(store: Store) -> Playbook:
    return Playbook(store)


@pytest.fixture
def episodes(store: Store, playbook: Playbook) -> Episodes:
    return Episodes(store, playbook)
