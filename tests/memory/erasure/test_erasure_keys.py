"""Keys of a sealed store: what a receipt says is destroyed has no file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from elision.errors import StoreError
from elision.memory import sealing
from elision.memory.erasure.eraser import Eraser
from elision.memory.erasure.selector import Selector
from elision.memory.records import Draft, Scope
from elision.memory.store import Store

ME = Scope("me", ("notes",))
Opener = Callable[..., Store]


def test_an_erasure_is_not_verified_while_a_retired_key_lies_there(
    open_store: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: Path) -> int:
        raise OSError(5, "no disk")

    store, folder = open_store(sealed=True), tmp_path / "home" / "keys" / "memory"
    id_ = store.put(ME, Draft(text="Zyxwv Qponm lives behind the mill")).id
    store.put(ME, Draft(text="tea is drunk at five"))
    [old] = folder.iterdir()
    with monkeypatch.context() as broken:
        broken.setattr(sealing, "_shred", fail)
        eraser = Eraser(store)
        receipt = eraser.erase(Selector(tenant="me", ids=(id_,)), reason="r", actor="a")
        assert (receipt.state, receipt.unfinished) == ("pending", ("keys",))
        with open_store() as again:  # opens all the same
            assert [one.unfinished for one in Eraser(again).resume()] == [("keys",)]
        assert old.exists()
    [finished] = eraser.resume()
    assert (finished.state, finished.keys_destroyed) == ("verified", 1)
    assert not old.exists()
    assert [record.text for record in store.list(ME)] == ["tea is drunk at five"]


def test_a_key_that_cannot_be_destroyed_does_not_spare_the_others(
    open_store: Opener, tmp_path: Path
) -> None:
    keyring = open_store(sealed=True).bodies.keyring
    assert keyring is not None
    stuck, other = keyring.make("me"), keyring.make("me")
    (tmp_path / "home" / "keys" / "memory" / f"{stuck}.key").unlink()
    (tmp_path / "home" / "keys" / "memory" / f"{stuck}.key").mkdir()
    with pytest.raises(StoreError, match="cannot be destroyed"):
        keyring.destroy([stuck, other])
    assert not keyring.has(other)
