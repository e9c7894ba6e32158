"""Snapshots: a shortcut that is believed only where it is exactly what the store would give."""

from __future__ import annotations

import errno
import json
import os
import pickle
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.memory.index import Partitions, unit
from elision.memory.index.partition import Row

DIM, N = 8, 40
VECTORS = unit(np.random.default_rng(5).normal(size=(200, DIM)))


class Rows:
    """Rows of tenants, each with a generation; counts how often they are read."""

    def __init__(self, n=N):
        self.held = {"a": {rid: self.row(rid) for rid in range(n)}, "b": {}}
        self.at = {"a": 7, "b": 7}
        self.n_read = 0
        self.drawn = 2**62
        self.on_generation = lambda: None

    @staticmethod
    def row(rid):
        vector = None if rid % 10 == 9 else VECTORS[rid]
        return Row(rid, rid % 3, f"kind{rid % 2}", "", rid % 5, 50.0 if rid == 1 else None, vector)

    def generation(self, tenant):
        self.on_generation()
        return self.at.get(tenant, 0)

    def stamp(self, tenant, generation):
        return self.drawn + generation

    def rows(self, tenant):
        self.n_read += 1
        yield from self.held.get(tenant, {}).values()

    def since(self, tenant, generation):
        return None

    def values(self, tenant, rids):
        yield from ()

    def drop(self, rid):
        del self.held["a"][rid]
        self.at["a"] += 1


def content(partition):
    arrays, names = partition.arrays()
    return {name: array.tolist() for name, array in arrays.items()}, names


def saved(folder, rows=None, **options):
    rows = rows or Rows()
    partitions = Partitions(rows, folder=folder, **options)
    partitions.at("a")
    assert partitions.save() == 1
    return rows


def files(folder):
    return sorted(path for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize("ivf_from", [10**9, 20])
def test_a_start_reads_the_snapshot_and_not_the_rows(tmp_path, ivf_from):
    rows = saved(tmp_path, ivf_from=ivf_from)
    before = Partitions(rows, ivf_from=ivf_from).at("a")
    rows.n_read = 0
    after = Partitions(rows, folder=tmp_path, ivf_from=ivf_from).at("a")
    assert rows.n_read == 0
    assert content(after) == content(before)
    assert after.exact == before.exact
    for query in VECTORS[50:60]:
        allowed = after.select(now=60.0, spaces=[0, 1])
        assert allowed.tolist() == [rid for rid in range(N) if rid % 3 < 2 and rid != 1]
        assert after.search(query, 5, allowed) == before.search(query, 5, allowed)
        assert after.search(query, 5) == before.search(query, 5)


def test_what_was_loaded_can_be_changed(tmp_path):
    rows = saved(tmp_path)
    rows.since = lambda tenant, generation: ([rows.row(100)], [3], 8)
    partition = (partitions := Partitions(rows, folder=tmp_path)).at("a")
    rows.at["a"] = 8
    assert partitions.at("a") is partition
    assert partition.search(VECTORS[100], 1)[0][0] == 100
    assert partition.search(VECTORS[3], 1)[0][0] != 3


def test_a_snapshot_is_numbers_for_the_owner_only_and_nothing_that_runs(tmp_path):
    saved(tmp_path / "memory")
    manifest, numbers = files(tmp_path / "memory")
    assert {stat.S_IMODE(path.stat().st_mode) for path in (manifest, numbers)} == {0o600}
    assert stat.S_IMODE((tmp_path / "memory").stat().st_mode) == 0o700
    told = json.loads(manifest.read_bytes())
    assert set(told) == {"format", "identity", "tenant", "generation", "stamp", "sha256", "n",
                         "dim", "names", "arrays"}  # fmt: skip
    with pytest.raises((pickle.UnpicklingError, ValueError, EOFError)):
        pickle.loads(numbers.read_bytes())
    assert VECTORS[0].tobytes() in numbers.read_bytes()  # so that its absence means something


def broken(folder, damage):
    """Return how often the rows were read, and whether the result was right, after *damage*."""
    rows = saved(folder)
    want = content(Partitions(rows).at("a"))
    rows.n_read = 0
    damage(*files(folder))
    partitions = Partitions(rows, folder=folder)
    assert content(partitions.at("a")) == want
    return rows.n_read


def test_an_untouched_one_is_believed(tmp_path):
    assert broken(tmp_path, lambda manifest, numbers: None) == 0


@given(st.booleans(), st.integers(0, 10**6), st.integers(1, 255))
@settings(max_examples=30)
def test_one_with_any_byte_changed_is_not_believed(tmp_path_factory, in_manifest, at, by):
    def flip(manifest, numbers):
        path = manifest if in_manifest else numbers
        data = bytearray(path.read_bytes())
        data[at % len(data)] ^= by
        path.write_bytes(data)

    assert broken(tmp_path_factory.mktemp("snapshot"), flip) == 1


@given(st.booleans(), st.floats(0, 0.999))
@settings(max_examples=15)
def test_one_cut_short_or_made_longer_is_not_believed(tmp_path_factory, in_manifest, share):
    def cut(manifest, numbers):
        path = manifest if in_manifest else numbers
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])

    def lengthen(manifest, numbers):
        with numbers.open("ab") as stream:
            stream.write(b"\0" * DIM * 4)

    assert broken(tmp_path_factory.mktemp("cut"), cut) == 1
    assert broken(tmp_path_factory.mktemp("longer"), lengthen) == 1


def edited(**changes):
    def edit(manifest, numbers):
        manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | changes))

    return edit


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": 6}, {"generation": 8}, {"stamp": 2**62}, {"format": 2}, {"dim": DIM + 1},
        {"n": N - 1}, {"identity": "other:8"}, {"tenant": "0" * 32}, {"sha256": "0" * 64},
        {"more": 1}, {"names": ["kind0"]}, {"arrays": []},
        {"arrays": [{"name": "rid", "dtype": "<i8", "shape": [-1]}]},
        {"arrays": [{"name": "rid", "dtype": "O", "shape": [4]}]},
        {"arrays": [{"name": "rid", "dtype": "<i8", "shape": [2**60, 2**60]}]},
    ],
)  # fmt: skip
def test_one_that_says_it_is_something_else_is_not_believed(tmp_path, changes):
    assert broken(tmp_path, edited(**changes)) == 1


def test_another_stores_of_the_same_name_and_number_is_not_believed(tmp_path):
    saved(tmp_path)
    other = Rows(20)
    other.drawn += 1
    assert len(Partitions(other, folder=tmp_path).at("a")) == 20
    assert files(tmp_path) == []


@pytest.mark.parametrize("missing", [0, 1])
def test_one_without_its_other_half_is_not_believed_and_goes(tmp_path, missing):
    def remove(*both):
        both[missing].unlink()

    assert broken(tmp_path, remove) == 1
    assert files(tmp_path) == []


def test_another_tenants_is_not_believed(tmp_path):
    rows = saved(tmp_path)
    mine = files(tmp_path)
    rows.held["b"] = {20: rows.row(20)}
    other = Partitions(rows, folder=tmp_path)
    other.at("b"), other.save()
    for theirs in set(files(tmp_path)).difference(mine):
        next(path for path in mine if path.suffix == theirs.suffix).replace(theirs)
    rows.n_read = 0
    found = Partitions(rows, folder=tmp_path).at("b").search(VECTORS[20], 9)
    assert found == [(20, pytest.approx(1))]
    assert rows.n_read == 1


def test_one_of_another_encoder_is_not_believed(tmp_path):
    rows = saved(tmp_path, identity="minilm:8")
    rows.n_read = 0
    Partitions(rows, folder=tmp_path, identity="minilm:8").at("a")
    assert rows.n_read == 0
    Partitions(rows, folder=tmp_path, identity="other:8").at("a")
    assert rows.n_read == 1


def test_what_was_removed_is_in_no_byte_of_the_next_snapshot(tmp_path):
    rows = saved(tmp_path)
    partitions = Partitions(rows, folder=tmp_path)
    partitions.at("a")
    for rid in (0, 5, 38):
        rows.drop(rid)
    assert partitions.save() == 1
    data = b"".join(path.read_bytes() for path in files(tmp_path))
    there = [rid for rid in range(N) if VECTORS[rid].tobytes() in data]
    assert there == [rid for rid in range(N) if rid not in (0, 5, 38) and rid % 10 != 9]


def test_a_forgotten_tenant_leaves_no_file(tmp_path):
    rows = saved(tmp_path)
    (tmp_path / f"{files(tmp_path)[0].stem}.numbers.new").write_bytes(b"half")
    assert Partitions(rows, folder=tmp_path).forget("a") == 3
    assert files(tmp_path) == []
    assert Partitions(rows, folder=tmp_path).forget("a") == 0


def test_a_snapshot_is_not_written_twice_for_the_same_generation(tmp_path):
    rows = saved(tmp_path)
    partitions = Partitions(rows, folder=tmp_path)
    partitions.at("a")
    assert partitions.save() == 0
    rows.drop(4)
    assert partitions.save() == 1
    partitions.close()


def test_nothing_is_kept_of_a_tenant_that_has_nothing(tmp_path):
    rows = saved(tmp_path)
    partitions = Partitions(rows, folder=tmp_path)
    partitions.at("a"), partitions.at("b"), partitions.at("c")
    rows.held["a"].clear()
    rows.at["a"] += 1
    assert partitions.save() == 0
    assert files(tmp_path) == []


def test_a_tenant_pushed_out_is_saved(tmp_path):
    rows = Rows()
    partitions = Partitions(rows, folder=tmp_path, most=1)
    partitions.at("a"), partitions.at("b")
    rows.n_read = 0
    Partitions(rows, folder=tmp_path).at("a")
    assert rows.n_read == 0


def test_what_is_erased_while_a_snapshot_is_written_does_not_stay_in_it(tmp_path, monkeypatch):
    rows = Rows()
    partitions = Partitions(rows, folder=tmp_path)
    partitions.at("a")
    replace = Path.replace

    def erasing(path, target):
        if target.suffix == ".json":
            rows.drop(2)  # another process, between the last look and the last file
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", erasing)
    assert partitions.save() == 0
    assert files(tmp_path) == []


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("where", ["fsync", "open", "replace"])
def test_a_full_disk_leaves_no_file_and_a_working_index(tmp_path, monkeypatch, fault, where):
    rows = saved(tmp_path)
    partitions = Partitions(rows, folder=tmp_path)
    partitions.at("a")
    rows.drop(0)

    def fail(*given, **named):
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(*((Path, "replace") if where == "replace" else (os, where)), fail)
    assert partitions.save() == 0
    monkeypatch.undo()
    assert [path for path in files(tmp_path) if path.suffix != ".new"] == []
    assert partitions.at("a").search(VECTORS[8], 1) == [(8, pytest.approx(1))]
    assert partitions.save() == 1


def test_a_link_in_the_way_is_not_followed(tmp_path):
    rows = saved(tmp_path / "memory")
    manifest, numbers = files(tmp_path / "memory")
    kept = tmp_path / "kept"
    kept.write_bytes(b"kept")
    for path in (manifest, numbers):
        path.with_name(f"{path.name}.new").symlink_to(kept)
    rows.drop(1)
    partitions = Partitions(rows, folder=tmp_path / "memory")
    partitions.at("a")
    assert partitions.save() == 1
    assert kept.read_bytes() == b"kept"
