"""Writes that share a commit share nothing else: each gets its own answer, whoever waits beside."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from elision.errors import RequestError, StoreError
from elision.memory.committing import MOST, Commits, _Ticket
from elision.memory.records import Stored


class Disk:
    """What was written, and on it once its transaction ended well."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.sizes: list[int] = []

    @contextmanager
    def writing(self) -> Iterator[Any]:
        new: list[str] = []
        yield new
        self.kept += new
        self.sizes.append(len(new))


def put(name: str, *, then: BaseException | None = None) -> Any:
    def act(writing: Any) -> Stored:
        writing.append(name)
        if then is not None:
            raise then
        return Stored(name, 1, "created")

    return act


def refused(_: Any) -> Stored:
    raise RequestError("no")


@pytest.fixture
def disk() -> Disk:
    return Disk()


def waiting(commits: Commits, *acts: Any) -> list[_Ticket]:
    tickets = [_Ticket(act) for act in acts]
    commits._waiting.extend(tickets)
    return tickets


def test_a_write_behind_more_than_one_commit_takes_gets_its_own_answer(disk: Disk) -> None:
    commits = Commits(disk.writing)
    waiting(commits, *(put(f"{n}") for n in range(2 * MOST + 1)))
    assert commits.commit(put("mine")) == Stored("mine", 1, "created")
    assert disk.kept[-1] == "mine"
    assert disk.sizes == [MOST, MOST, 2]


def test_a_write_that_breaks_takes_no_other_with_it_and_leaves_nothing(disk: Disk) -> None:
    commits = Commits(disk.writing)
    broken = ValueError("odd")
    tickets = waiting(commits, put("a"), put("bad", then=broken), refused, put("b"))
    assert commits.commit(put("mine")).id == "mine"
    assert disk.kept == ["a", "b", "mine"]
    assert [type(one.error) for one in tickets] == [
        type(None),
        ValueError,
        RequestError,
        type(None),
    ]
    with pytest.raises(ValueError, match="odd"):
        commits.commit(put("bad", then=broken))


def test_a_database_that_fails_fails_all_and_is_asked_once(disk: Disk) -> None:
    commits = Commits(disk.writing)
    [other] = waiting(commits, put("a"))
    with pytest.raises(StoreError):
        commits.commit(put("mine", then=StoreError("full")))
    assert isinstance(other.error, StoreError)
    assert (disk.kept, disk.sizes) == ([], [])


def test_many_threads_each_get_what_they_wrote(disk: Disk) -> None:
    commits, found = Commits(disk.writing), dict[int, str]()

    def one(n: int) -> None:
        found[n] = commits.commit(put(f"{n}")).id

    threads = [threading.Thread(target=one, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: f"{n}" for n in range(40)}
    assert sorted(map(int, disk.kept)) == list(range(40))
