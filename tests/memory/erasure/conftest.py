"""Stores to erase from, and a way to look into every file that knows nothing of the eraser's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from elision.encoders.hashing import HashingEncoder
from elision.memory.store import Store

Opener = Callable[..., Store]


@pytest.fixture(scope="session")
def empty_homes(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Return homes of empty stores, not sealed and sealed: migrating each anew takes a while."""
    homes = {sealed: tmp_path_factory.mktemp("empty") for sealed in (False, True)}
    for sealed, home in homes.items():
        Store.open(home, sealed=sealed).close()
    return homes


@pytest.fixture
def open_store(tmp_path: Path, empty_homes: dict[bool, Path]) -> Iterator[Opener]:
    """Return what opens the store of this test, in ``home``, as often as it is asked to."""
    opened: list[Store] = []

    def opening(*, sealed: bool = False, **options: Any) -> Store:
        if not (tmp_path / "home").exists():
            shutil.copytree(empty_homes[sealed], tmp_path / "home")
        store = Store.open(tmp_path / "home", **{"encoder": HashingEncoder(64)} | options)
        opened.append(store)
        return store

    yield opening
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Opener) -> Store:
    """Return a store that is not sealed."""
    return open_store()


@pytest.fixture
def copies(tmp_path: Path) -> Callable[..., int]:
    """Return what counts copies of texts and bytes in all files of this test, one by one."""

    def count(*wanted: str | bytes) -> int:
        files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        spelt = [
            one.encode(code) if isinstance(one, str) else one
            for one in wanted
            for code in (("utf-8", "utf-16-le", "utf-16-be") if isinstance(one, str) else ("",))
        ]
        return sum(data.count(one) for data in files for one in spelt)

    return count
