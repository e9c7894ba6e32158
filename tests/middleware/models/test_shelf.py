"""Where pulled models stand: locks, workshops, sweeping, and what the disk says."""

from __future__ import annotations

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from elision.errors import PullError
from elision.middleware.models.progress import Silence
from elision.middleware.models.shelf import Manifest, Shelf, disk_trouble_told, sizes

ABOUT = Manifest(model="m", source="s", digest="d")


def _made(workshop: Path, text: str) -> Path:
    made = workshop / "model"
    (made / "deep").mkdir(parents=True)
    (made / "deep" / "file").write_text(text)
    return made


def _publish(shelf: Shelf, text: str) -> None:
    with shelf.locked(Silence()), shelf.workshop() as workshop:
        made = _made(workshop, text)
        shelf.publish(made, Manifest(model="m", source="s", digest="d", files=sizes(made)))


def test_a_sweep_spares_the_workshop_of_a_pull_that_lives(tmp_path: Path) -> None:
    one, other, dead = (Shelf(tmp_path, slug) for slug in ("one", "org--other.v2", "dead"))
    (tmp_path / ".dead.abc.part").mkdir()
    with one.locked(Silence()), other.locked(Silence()), other.workshop() as living:
        assert not (tmp_path / ".dead.abc.part").exists()
        (tmp_path / f".{dead.slug}.xyz.part").mkdir()
        with one.workshop():
            assert living.is_dir()
            assert not (tmp_path / ".dead.xyz.part").exists()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_held_by_one_at_a_time_however_many_want_it(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []
    place = Shelf(tmp_path, "m")

    def work(n: int) -> None:
        with place.locked(Silence()):
            inside.append(n)
            most.append(len(inside))
            time.sleep(0.002)
            inside.remove(n)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))
    assert most == [1] * 24
    assert list(tmp_path.iterdir()) == []


def test_what_was_published_is_found_whole_and_replaced_whole(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m")
    assert shelf.manifest() is None
    for text in ("first", "second"):
        _publish(shelf, text)
        found = shelf.manifest()
        assert found is not None
        assert found.files == {"deep/file": len(text)}
        assert (shelf.folder / "deep" / "file").read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_whoever_has_the_old_model_open_keeps_it(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m")
    _publish(shelf, "first")
    with (shelf.folder / "deep" / "file").open() as old:
        _publish(shelf, "second")
        assert old.read() == "first"


def test_if_the_new_model_cannot_be_moved_in_the_old_one_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(tmp_path, "m")
    _publish(shelf, "first")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == "model":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output"):
        _publish(shelf, "second")
    assert (shelf.folder / "deep" / "file").read_text() == "first"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "disk.*is full.*free some space.*ELISION_CACHE"),
        (errno.EDQUOT, "disk.*is full.*free some space.*ELISION_CACHE"),
        (errno.EACCES, "cannot be written.*ELISION_CACHE"),
        (errno.EROFS, "cannot be written.*ELISION_CACHE"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_what_the_disk_says_becomes_advice(number: int, said: str) -> None:
    with pytest.raises(PullError, match=said), disk_trouble_told():
        raise OSError(number, os.strerror(number))
