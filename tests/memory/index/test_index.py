"""The index over remembered vectors: what a dictionary and numpy find, it finds."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from elision.errors import ConfigError, MissingExtraError, RequestError, ShapeError, StoreError
from elision.memory.index import VectorIndex, from_bytes, to_bytes, unit
from elision.memory.index.inverted import Inverted
from elision.memory.index.lock import SharedLock
from elision.memory.index.nearest import cosines

DIM = 6
IDS = st.lists(st.integers(0, 40), unique=True, max_size=30)
# Few values, so that rows repeat, point the same way and tie.
POOL = np.random.default_rng(1).choice([-1.0, 0.5, 1.0], size=(60, DIM))
ROW = st.integers(0, len(POOL) - 1).map(POOL.__getitem__)
ENTRIES = st.dictionaries(st.integers(0, 40), ROW, min_size=1, max_size=30)
FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


def cosine(left, right):
    """One at a time and in float64: the slow, obvious way."""
    total = sum(float(a) * float(b) for a, b in zip(left, right, strict=True))
    return min(1.0, max(-1.0, total))


def oracle(held, query, k, allowed=None):
    """Return [(id, cosine)] of a plain dictionary of rows."""
    query = unit(query)[0]
    chosen = [one for one in held if allowed is None or one in allowed]
    scored = [(one, float(cosines(held[one][None], query)[0])) for one in chosen]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:k]


def clustered(n, dim=32, *, clusters=40, spread=0.6, seed=0):
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(clusters, dim)))
    noise = unit(rng.normal(size=(n, dim)))
    return unit(centres[rng.integers(clusters, size=n)] + spread * noise)


def serialized(index):
    """Return every byte that would be kept of *index*."""
    return b"".join(array.tobytes() for array in index.arrays().values())


def holds(data, row):
    return np.ascontiguousarray(row, dtype="<f4").tobytes() in data


class SameAsADictionary(RuleBasedStateMachine):
    """Any sequence of add, replace, remove, build and search."""

    ivf_from = 10**9
    codes_from = 10**9

    def __init__(self):
        super().__init__()
        self.index = VectorIndex(DIM, ivf_from=self.ivf_from, codes_from=self.codes_from)
        self.held = {}

    @initialize(entries=ENTRIES)
    def begin(self, entries):
        self.add(entries)

    @rule(entries=ENTRIES)
    def add(self, entries):
        rows = [*entries.values()]
        self.index.add(entries, rows)
        self.held |= dict(zip(entries, unit(rows), strict=True))

    @rule(entries=ENTRIES)
    def build(self, entries):
        rows = [*entries.values()]
        self.index.build(entries, rows)
        self.held = dict(zip(entries, unit(rows), strict=True))

    @rule(ids=IDS)
    def remove(self, ids):
        gone = [self.held.pop(one) for one in ids if one in self.held]
        assert self.index.remove(ids) == len(gone)
        data, left = serialized(self.index), [row.tobytes() for row in self.held.values()]
        assert [row for row in gone if row.tobytes() not in left and row.tobytes() in data] == []

    @rule(query=ROW, k=st.integers(1, 45))
    def search(self, query, k):
        assert self.index.search(query, k) == oracle(self.held, query, k)

    @rule(query=ROW, k=st.integers(1, 12), allowed=IDS)
    def search_among(self, query, k, allowed):
        assert self.index.search(query, k, allowed) == oracle(self.held, query, k, set(allowed))

    @invariant()
    def it_holds_what_the_dictionary_holds(self):
        assert len(self.index) == len(self.held)
        assert [one for one in range(41) if one in self.index] == sorted(self.held)


class AlsoWithCodes(SameAsADictionary):
    """With codes nothing changes."""

    codes_from = 1


class AlsoWithLists(SameAsADictionary):
    """With lists, a filtered search is exact still; an unfiltered one finds as many, in order."""

    ivf_from = 12

    @rule(query=ROW, k=st.integers(1, 45))
    def search(self, query, k):
        found = self.index.search(query, k)
        assert len(found) == min(k, len(self.held))
        for pair in found:
            assert pair == oracle(self.held, query, 1, {pair[0]})[0]
        assert found == sorted(found, key=lambda pair: (-pair[1], pair[0]))


for machine in (SameAsADictionary, AlsoWithCodes, AlsoWithLists):
    machine.TestCase.settings = settings(max_examples=20, stateful_step_count=12)
TestSameAsADictionary = SameAsADictionary.TestCase
TestAlsoWithCodes = AlsoWithCodes.TestCase
TestAlsoWithLists = AlsoWithLists.TestCase


@given(st.lists(st.lists(FINITE, min_size=4, max_size=4).filter(any), min_size=1, max_size=8))
def test_unit_rows_have_length_one_keep_their_direction_and_come_back_bit_for_bit(rows):
    scaled = unit(rows)
    assert scaled.dtype == np.float32
    for given_row, row in zip(np.array(rows, dtype=np.float32).astype(float), scaled, strict=True):
        assert np.linalg.norm(row.astype(float)) == pytest.approx(1, abs=2**-22)
        direction = given_row / np.abs(given_row).max()
        assert row == pytest.approx(direction / np.linalg.norm(direction), abs=1e-6)
    assert unit(scaled).tobytes() == scaled.tobytes()
    assert from_bytes(to_bytes(rows), 4).tobytes() == scaled.tobytes()


def test_the_bytes_are_little_endian_float32():
    assert to_bytes([0.0, 2.0]) == b"\x00\x00\x00\x00\x00\x00\x80\x3f"


def test_unit_leaves_what_came_in_as_it_was():
    rows = np.array([[3.0, 4.0]], dtype=np.float32)
    assert unit(rows)[0] == pytest.approx([0.6, 0.8])
    assert rows.tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize(
    "rows", [[0.0, 0.0], [[1.0, 0.0], [float("nan"), 1.0]], [float("inf"), 0.0], [1e300, 1.0]]
)
def test_a_vector_without_a_direction_is_refused(rows):
    with pytest.raises(RequestError, match="zero or not finite"):
        unit(rows)


def test_an_error_about_a_vector_does_not_repeat_it():
    with pytest.raises(RequestError, match="numbers only") as caught:
        unit(["secret", "words"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("rows", [1.0, [[[1.0, 2.0]]], [1.0, 2.0, 3.0], []])
def test_a_vector_of_another_shape_is_refused(rows):
    with pytest.raises(ShapeError):
        unit(rows, dim=2)


def test_stored_bytes_that_are_damaged_are_refused():
    data = to_bytes([[0.6, 0.8], [1.0, 0.0]])
    with pytest.raises(StoreError, match="stored vectors have 13 bytes"):
        from_bytes(data[:-3], 2)
    with pytest.raises(StoreError, match="stored vector 1 of 2 is damaged"):
        from_bytes(data[:8] + bytes(8), 2)
    with pytest.raises(StoreError, match="damaged"):
        from_bytes(b"\xff" * 8, 2)


@given(st.integers(1, 60), st.integers(1, 400), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_a_cosine_does_not_depend_on_where_its_row_stands(n, dim, random):
    rng = np.random.default_rng(random.getrandbits(32))
    rows, query = unit(rng.normal(size=(n, dim))), unit(rng.normal(size=dim))[0]
    order = rng.permutation(n)
    together = cosines(rows, query)
    assert together[order].tolist() == cosines(rows[order], query).tolist()
    assert together.tolist() == [cosines(row[None], query)[0] for row in rows]
    slow = [cosine(row, query) for row in rows]
    assert together == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize("n_allowed", [1, 30, 100, 700, 1500])
@pytest.mark.parametrize("apart", [1, 1000])
def test_a_filtered_search_equals_brute_force(n_allowed, apart):
    rows = clustered(1500, 48)
    ids = np.random.default_rng(3).permutation(1500) * apart
    index = VectorIndex(48)
    index.add(ids, rows)
    held = dict(zip(ids.tolist(), rows, strict=True))
    allowed = ids[:n_allowed]
    for query in clustered(4, 48, seed=9):
        want = oracle(held, query, 10, set(allowed.tolist()))
        assert index.search(query, 10, allowed) == want
        assert index.search(query, 10, {*allowed.tolist(), 10**12}) == want


def test_ties_go_by_id_even_where_they_reach_past_what_was_asked_for():
    index = VectorIndex(3)
    ids = np.random.default_rng(0).permutation(500)
    index.add(ids, np.tile([1.0, 2.0, 3.0], (500, 1)))
    index.add([1000], [[3.0, 2.0, 1.0]])
    assert [one for one, _ in index.search([1.0, 2.0, 3.0], 7)] == list(range(7))
    assert [one for one, _ in index.search([1.0, 2.0, 3.0], 501)] == [*range(500), 1000]
    odd = range(1, 500, 2)
    assert [one for one, _ in index.search([1.0, 2.0, 3.0], 3, odd)] == [1, 3, 5]


def test_a_known_id_is_replaced():
    index = VectorIndex(2)
    index.add([7, 8], [[1.0, 0.0], [0.0, 1.0]])
    index.add([7], [[-1.0, 0.0]])
    assert index.search([1.0, 0.0], 5) == [(8, 0.0), (7, -1.0)]


def test_an_empty_index_finds_nothing():
    index = VectorIndex(2)
    index.add([], [])
    index.build([], np.empty((0, 2)))
    assert index.search([1.0, 0.0], 3) == [] == index.search([1.0, 0.0], 3, [1])
    assert index.remove([5]) == 0
    assert len(index) == 0
    assert "5" not in index


BAD = [
    ([1], [[1.0, 0.0, 0.0]], ShapeError),
    ([1, 2], [[1.0, 0.0]], ShapeError),
    ([1], [], ShapeError),
    ([], [[1.0, 0.0]], ShapeError),
    ([3, 3], [[1.0, 0.0], [0.0, 1.0]], RequestError),
    ([-1], [[1.0, 0.0]], RequestError),
    ([2**63], [[1.0, 0.0]], RequestError),
    ([2**70], [[1.0, 0.0]], RequestError),
    ([1.5], [[1.0, 0.0]], RequestError),
    (["a"], [[1.0, 0.0]], RequestError),
    ([1, 4], [[1.0, 0.0], [0.0, 0.0]], RequestError),
    ([1, 4], [[1.0, 0.0], [0.0, float("nan")]], RequestError),
]


@pytest.mark.parametrize(("ids", "rows", "error"), BAD)
def test_what_cannot_be_held_is_refused_and_nothing_is_changed(ids, rows, error):
    index = VectorIndex(2)
    index.add([1], [[0.0, 1.0]])
    for method in (index.add, index.build):
        with pytest.raises(error):
            method(ids, rows)
    assert index.search([0.0, 1.0], 9) == [(1, 1.0)]


def test_a_search_that_makes_no_sense_is_refused():
    index = VectorIndex(2)
    with pytest.raises(RequestError, match="k is 0"):
        index.search([1.0, 0.0], 0)
    with pytest.raises(ShapeError):
        index.search([[1.0, 0.0], [0.0, 1.0]], 1)
    with pytest.raises(RequestError):
        index.search([0.0, 0.0], 1)
    with pytest.raises(RequestError, match="ids are"):
        index.search([0.0, 1.0], 1, [-1])
    with pytest.raises(ConfigError):
        VectorIndex(0)


def test_an_absent_numpy_is_named_with_the_extra(monkeypatch):
    for name in ("rows", "places"):
        monkeypatch.delitem(sys.modules, f"elision.memory.index.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(MissingExtraError, match=r"numpy.*local"):
        VectorIndex(2)


def test_without_faiss_all_is_compared(monkeypatch):
    monkeypatch.setattr("elision.memory.index.index._has_faiss", lambda: False)
    rows = clustered(60)
    index = VectorIndex(32, ivf_from=40, codes_from=20)
    index.add(range(60), rows)
    assert index.exact
    held = dict(enumerate(rows))
    assert index.search(rows[3], 10) == oracle(held, rows[3], 10)
    assert index.search(rows[3], 10, range(30)) == oracle(held, rows[3], 10, range(30))


def test_importing_the_index_imports_neither_faiss_nor_numpy():
    code = "import sys, elision.memory.index; print({'faiss', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("ivf_from", [10**9, 200])
def test_what_was_removed_is_in_no_byte(ivf_from):
    rows = clustered(600)
    index = VectorIndex(32, ivf_from=ivf_from)
    index.add(range(600), rows)
    assert all(holds(serialized(index), row) for row in rows)
    assert index.remove(range(0, 600, 3)) == 200
    data = serialized(index)
    assert [one for one in range(600) if holds(data, rows[one])] == [
        one for one in range(600) if one % 3
    ]


def test_a_centroid_does_not_keep_what_was_removed():
    others = clustered(600, clusters=3, spread=0.1)
    alone = unit(-others.sum(axis=0))[0]
    rows = np.concatenate([alone[None], others])
    index = VectorIndex(32, ivf_from=200)
    index.add(range(601), rows)
    assert (index._sieve._centroids() @ alone).max() > 1 - 1e-6  # a list with one member
    index.remove([0])
    assert (index._sieve._centroids() @ alone).max() < 0.9
    assert not holds(serialized(index), alone)
    index.add([0], [alone])
    assert index.search(alone, 1)[0][0] == 0


def recall(index, rows, queries, k=10, allowed=None):
    chosen = np.arange(len(rows)) if allowed is None else np.asarray(allowed)
    hits = 0
    for query in queries:
        truth = set(chosen[np.argsort(-(rows[chosen] @ query), kind="stable")[:k]].tolist())
        found = index.search(query, k, allowed)
        assert len(found) == k
        hits += len(truth & {one for one, _ in found})
    return hits / (k * len(queries))


def test_lists_find_98_of_100_also_for_unseen_queries_filters_and_other_k():
    rows, queries = np.split(clustered(6060), [6000])
    index = VectorIndex(32, ivf_from=2000)
    index.build(range(6000), rows)
    assert not index.exact
    assert index._sieve.n_probed < index._sieve._n_lists / 2  # or it would be a scan
    assert recall(index, rows, queries) >= 0.98
    assert recall(index, rows, queries, k=100) >= 0.98
    assert recall(index, rows, queries, allowed=range(0, 6000, 2)) >= 0.98
    assert recall(index, rows, queries, allowed=range(0, 6000, 3)) == 1  # 2,000: brute force


def test_lists_are_trained_anew_when_the_vectors_double_and_given_up_when_few_are_left():
    rows = clustered(2000)
    index = VectorIndex(32, ivf_from=500)
    index.add(range(499), rows[:499])
    assert index.exact
    trained = []
    for start, end in pairwise([499, 500, 999, 1000, 1900, 2000]):
        index.add(range(start, end), rows[start:end])
        trained.append(index._sieve)
    assert not index.exact
    first, second, third, fourth, fifth = trained
    assert first is second is not third is fourth is not fifth
    index.remove(range(1750))
    assert not index.exact
    index.remove([1750])
    assert index.exact
    held = {one: rows[one] for one in range(1751, 2000)}
    assert index.search(rows[0], 10) == oracle(held, rows[0], 10)


def test_searches_go_on_while_lists_are_trained(monkeypatch):
    begun, done, train = Event(), Event(), Inverted.__init__

    def slow(self, rows):
        begun.set()
        assert done.wait(20)
        train(self, rows)

    monkeypatch.setattr(Inverted, "__init__", slow)
    rows = clustered(300)
    index = VectorIndex(32, ivf_from=300)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(index.add, range(300), rows)
        assert begun.wait(20)
        assert index.search(rows[4], 1)[0][0] == 4
        done.set()
        writing.result(20)
    assert not index.exact


def test_readers_and_writers_in_threads_never_see_half_a_change():
    rows = clustered(400, 16)
    index = VectorIndex(16, ivf_from=300)
    index.add(range(200), rows[:200])

    def write(first):
        ids = range(first, first + 50)
        for _ in range(15):
            index.add(ids, rows[first : first + 50])
            assert index.remove(ids) == 50
        index.add(ids, rows[first : first + 50])

    def read(seed):
        for one in np.random.default_rng(seed).integers(200, size=150).tolist():
            found = index.search(rows[one], 5, range(200))  # never touched by a writer
            assert found == want[one]

    held = dict(enumerate(rows[:200]))
    want = [oracle(held, row, 5) for row in rows[:200]]
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(write, first) for first in range(200, 400, 50)]
        jobs += [pool.submit(read, seed) for seed in range(4)]
        for job in jobs:
            job.result(60)
    assert len(index) == 400
    assert index.search(rows[399], 1)[0][0] == 399


def test_a_waiting_writer_goes_before_new_readers():
    lock, order = SharedLock(), []

    def write():
        with lock.exclusive():
            order.append("writer")

    def read():
        with lock.shared():
            order.append("reader")

    with ThreadPoolExecutor(2) as pool:
        with lock.shared():
            writing = pool.submit(write)
            while not lock._waiting:
                Event().wait(0.001)
            reading = pool.submit(read)
            Event().wait(0.02)
            assert order == []
        writing.result(10), reading.result(10)
    assert order == ["writer", "reader"]


def test_a_row_that_rounding_left_a_step_from_length_one_is_not_touched():
    rows = (unit([[1.0, 2.0, 3.0]]) * (1 + 2.0**-23)).astype(np.float32)
    assert unit(rows).tobytes() == rows.tobytes()


def test_a_search_whose_lists_run_out_reads_the_others():
    rows = clustered(600)
    index = VectorIndex(32, ivf_from=200)
    index.add(range(600), rows)
    index._sieve.n_probed = 1
    sizes = [index._sieve._faiss.invlists.list_size(i) for i in range(index._sieve._n_lists)]
    assert min(sizes) < 10
    assert {len(index.search(row, 10)) for row in rows} == {10}


def test_no_search_sees_a_change_half_made(monkeypatch):
    index, begun, done = VectorIndex(2, codes_from=1), Event(), Event()
    index.add([1], [[1.0, 0.0]])
    put = index._sieve.put

    def slow(places):
        begun.set()
        assert done.wait(20)
        put(places)

    monkeypatch.setattr(index._sieve, "put", slow)
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(index.add, [1], [[0.0, 1.0]])  # the row is there, its code is not
        assert begun.wait(20)
        searching = pool.submit(index.search, [0.0, 1.0], 1)
        Event().wait(0.02)
        assert not searching.done()
        done.set()
        writing.result(20)
        assert searching.result(20) == [(1, 1.0)]
