"""Lists: they find what they were tuned to find, also where queries are unlike what is stored."""

from __future__ import annotations

import numpy as np
import pytest

from elision.memory.index import VectorIndex, unit
from elision.memory.index.codes import Codes
from elision.memory.index.inverted import Inverted
from elision.memory.index.rows import Rows

N, DIM = 6000, 32


def clustered(n, *, seed=0, spread=0.6, clusters=40):
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(clusters, DIM)))
    return unit(centres[rng.integers(clusters, size=n)] + spread * unit(rng.normal(size=(n, DIM))))


def listed(rows):
    return Inverted(Rows.of(np.arange(len(rows)), rows.copy()))


@pytest.fixture(scope="module")
def lists():
    return listed(clustered(N))


def recall(lists, queries, k=10):
    rows = lists._rows.matrix
    hits = 0
    for query in queries:
        best = np.argsort(-(rows @ query), kind="stable")[:k]
        hits += np.isin(best, lists.candidates(query, k, None)).sum()
    return hits / (k * len(queries))


QUERIES = {
    "others of the same clusters": lambda rows: clustered(100, seed=7)[:60],
    "of clusters unlike those": lambda rows: clustered(60, seed=99),
    "random": lambda rows: unit(np.random.default_rng(3).normal(size=(60, DIM))),
    "between two": lambda rows: unit(rows[:60] + rows[100:160]),
    "opposite": lambda rows: -rows[:60],
}


@pytest.mark.parametrize("kind", QUERIES)
def test_lists_find_98_of_100(lists, kind):
    assert lists.n_probed < lists._n_lists  # or it would be a scan
    assert recall(lists, QUERIES[kind](clustered(N))) >= 0.98


def test_vectors_without_clusters_are_scanned():
    index = VectorIndex(DIM, ivf_from=3000)
    index.build(range(3000), unit(np.random.default_rng(0).normal(size=(3000, DIM))))
    assert isinstance(index._sieve, Codes)
    assert index.exact


def test_more_lists_are_read_once_too_little_is_found(monkeypatch):
    monkeypatch.setattr("elision.memory.index.inverted._CHECKED", 2)
    lists = listed(clustered(3000))
    lists.n_probed = 1
    queries = clustered(400, seed=8)
    poor = recall(lists, queries[:50])
    for query in queries:
        lists.candidates(query, 10, None)
    assert poor < 0.9
    assert recall(lists, queries[:50]) >= 0.95
    assert 1 < lists.n_probed <= lists._n_lists


def test_what_is_kept_of_it_makes_the_same_again(lists):
    again = Inverted(lists._rows, lists.arrays())
    for query in clustered(20, seed=5):
        assert (
            again.candidates(query, 10, None).tolist() == lists.candidates(query, 10, None).tolist()
        )
    kept, told = lists.arrays(), again.arrays()
    assert all((kept[name] == told[name]).all() for name in kept)
    assert len(kept) == len(told) == 3


def test_places_that_move_take_their_vectors_along():
    held = Rows.of(np.arange(900), clustered(900).copy())
    lists = Inverted(held)
    lists.n_probed = lists._n_lists
    lists.drop(*held.drop(range(0, 900, 3)))
    rows = clustered(40, seed=2)
    lists.put(held.put(np.arange(880, 920), rows))  # twenty replaced, twenty new
    assert lists._faiss.ntotal == len(held) == 600 + 20 + len(range(882, 900, 3))
    for query in clustered(20, seed=4):
        best = np.argsort(-(held.matrix @ query), kind="stable")[:10]
        assert set(best) <= set(lists.candidates(query, 10, None))
