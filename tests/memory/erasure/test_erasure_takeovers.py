"""Erasures that several processes carry on with, each with caches and an index of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from elision.errors import EngineError, StoreError
from elision.memory.erasure.eraser import Eraser
from elision.memory.erasure.receipts import Receipt
from elision.memory.erasure.selector import Selector
from elision.memory.records import Draft, Scope
from elision.memory.store import Store

SECRET = "Zyxwv Qponm lives in the third house behind the old water mill of Kirkgate"
ME = Scope("me", ("notes",))
Opener = Callable[..., Store]


class Cache:
    """A cache that says what it was told."""

    def __init__(self, *, fails: Exception | None = None) -> None:
        self.told: list[tuple[str, Any]] = []
        self.fails = fails

    def erase(self, tenant: str, *, texts: Any = None) -> int:
        self.told.append((tenant, texts))
        if self.fails is not None:
            raise self.fails
        return 3


def taken_over(open_store: Opener, at: str, cache: Cache) -> tuple[Receipt, Receipt]:
    """Return what one process gets whose job another finishes at a state, and the other's."""
    store, others = open_store(), list[Receipt]()
    store.put(ME, Draft(text=SECRET))

    def resume(state: str) -> None:
        if state == at and not others:
            with open_store() as other:
                others.extend(Eraser(other).resume())

    eraser = Eraser(store, erasables=[cache], on_state=resume)
    mine = eraser.erase(Selector(tenant="me"), reason="r", actor="a")
    assert eraser.receipts("me") == tuple(others)
    assert eraser.status(mine.id) == "verified"
    assert eraser.resume() == ()
    return mine, others[0]


@pytest.mark.parametrize("at", ["planned", "deleted", "swept"])
def test_who_asked_for_an_erasure_tells_its_caches_though_another_process_finished_it(
    open_store: Opener, at: str
) -> None:
    cache = Cache()
    mine, other = taken_over(open_store, at, cache)
    assert len(cache.told) == 1
    assert mine == other  # and a receipt that looked for something is not written over
    assert mine.state == "verified"
    assert mine.scan["windows"] > 0


@pytest.mark.parametrize("at", ["planned", "deleted"])
def test_a_cache_that_fails_after_another_process_has_verified_is_an_error(
    open_store: Opener, at: str
) -> None:
    with pytest.raises(StoreError, match="end this process"):
        taken_over(open_store, at, Cache(fails=EngineError("the cache is broken")))


def test_a_job_that_was_finished_after_the_list_of_open_ones_was_read_keeps_its_receipt(
    open_store: Opener,
) -> None:
    store, cache, others = open_store(), Cache(fails=EngineError("broken")), list[Receipt]()

    def resume(state: str) -> None:
        if cache.fails is None and not others:
            with open_store() as other:
                others.extend(Eraser(other, erasables=[Cache()]).resume())

    eraser = Eraser(store, erasables=[cache], on_state=resume)
    for n in range(2):
        store.put(ME, Draft(text=f"{SECRET}, {n}"))
        eraser.erase(Selector(tenant="me"), reason="r", actor="a")
    cache.fails = None
    assert eraser.resume() == tuple(others) == eraser.receipts("me")
    assert [receipt.state for receipt in others] == ["verified", "verified"]
    assert len(cache.told) == 4  # its own are told all the same


@pytest.mark.parametrize("failure", [EngineError("broken"), OSError("no disk")])
def test_a_cache_that_failed_is_not_forgotten_by_a_process_that_has_none_like_it(
    open_store: Opener, failure: Exception
) -> None:
    store, cache = open_store(), Cache(fails=failure)
    store.put(ME, Draft(text=SECRET))
    eraser = Eraser(store, erasables=[cache])
    assert eraser.erase(Selector(tenant="me"), reason="r", actor="a").unfinished == ("caches",)
    with open_store() as other:
        assert [one.unfinished for one in Eraser(other).resume()] == [("caches",)]
    cache.fails = None
    assert [one.state for one in eraser.resume()] == ["verified"]
    assert cache.told[-1] == ("me", None)
