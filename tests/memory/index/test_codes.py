"""Codes: they decide how much is read, and never what is found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.memory.index import VectorIndex, unit
from elision.memory.index.codes import TOP, Asked, Codes, coded, step_of
from elision.memory.index.nearest import nearest
from elision.memory.index.rows import Rows

SEEDS = st.integers(0, 2**32 - 1)


def normal(n, dim, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(n, dim)))


def spiky(n, dim, seed=0):
    """Rows with most of their length in a few numbers: past what codes reach."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, dim)) * 0.02
    rows[np.arange(n), rng.integers(dim, size=n)] = rng.choice([-1.0, 1.0], size=n)
    return unit(rows)


def near_copies(n, dim, seed=0):
    """Rows nearer to one another than codes tell apart."""
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=dim) + rng.normal(size=(n, dim)) * 1e-3)


def mixed(n, dim, seed=0):
    return np.concatenate([normal(n - n // 40, dim, seed), spiky(n // 40, dim, seed)])


KINDS = {f.__name__: f for f in (normal, spiky, near_copies, mixed)}


def coded_rows(rows):
    held = Rows(rows.shape[1])
    held.put(np.arange(len(rows)), rows)
    return held, Codes(held)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [None, 0.6, 0.2, 0.05])
def test_the_nearest_are_found_whatever_the_vectors_are_like(kind, share):
    rows = KINDS[kind](1500, 96)
    codes = coded_rows(rows)[1]
    rng = np.random.default_rng(4)
    queries = [*normal(4, 96, 8), *unit(rows[:4] + 0.02 * normal(4, 96, 9)), *spiky(3, 96, 10)]
    for query in queries:
        chosen = None if share is None else rng.random(1500) < share
        places = np.arange(1500) if chosen is None else np.flatnonzero(chosen)
        for k in (1, 10, 300):
            found = codes.candidates(query, k, chosen)
            assert len(np.unique(found)) == len(found)
            assert set(found) <= set(places)
            want = nearest(places, rows[places], query, k)
            assert nearest(found, rows[found], query, k) == want


def test_a_filter_far_from_the_query_finds_the_nearest_that_it_allows():
    rows = np.concatenate([near_copies(2000, 64, 1), near_copies(2000, 64, 2)])
    codes = coded_rows(rows)[1]
    chosen = np.arange(4000) >= 2000
    for query in rows[:5]:
        found = codes.candidates(query, 10, chosen)
        places = np.flatnonzero(chosen)
        assert nearest(found, rows[found], query, 10) == nearest(places, rows[places], query, 10)


def test_few_are_read_where_vectors_differ():
    rows = normal(20_000, 96)
    codes = coded_rows(rows)[1]
    assert np.mean([len(codes.candidates(query, 10, None)) for query in normal(20, 96, 3)]) < 100


@given(SEEDS, st.integers(1, 200), st.sampled_from([*KINDS]))
@settings(max_examples=40)
def test_a_score_is_off_by_no_more_than_is_said(seed, dim, kind):
    rows, query = KINDS[kind](80, dim, seed), normal(1, dim, seed)[0]
    codes = coded_rows(rows)[1]
    asked = Asked.of(query)
    scores, places = codes._scan(asked, 80, None)
    off = np.abs(scores * codes._step * asked.step - rows[places].astype(float) @ query)
    bound = codes._error + asked.error * (1 + codes._error) + 1e-6
    assert off[~codes._rough[places]].max(initial=0) <= bound


@given(SEEDS, st.integers(1, 64))
def test_codes_are_whole_numbers_within_reach(seed, dim):
    rows = spiky(5, dim, seed)
    codes = coded(rows, step_of(dim))
    assert np.abs(codes).max() <= TOP
    assert (codes == np.rint(codes)).all()
    fine = coded(rows, 1 / TOP) / TOP
    assert np.abs(fine - rows).max() <= 0.5 / TOP + 1e-6


def test_codes_grow_coarser_only_when_many_rows_reach_past_them():
    few, many = (np.concatenate([normal(640, 96), spiky(n, 96, 5)]) for n in (8, 80))
    few, many = coded_rows(few)[1], coded_rows(many)[1]
    assert (few._step, few._rough.sum()) == (step_of(96), 8)
    assert many._step > step_of(96)
    assert many._rough.sum() * 64 <= 720


def test_what_was_dropped_is_in_no_code():
    rows = normal(900, 64)
    held, codes = coded_rows(rows)
    memory = codes._codes()
    before = memory.tobytes()
    gone = [*range(0, 900, 4), 899]
    codes.drop(*held.drop(gone))
    kept = codes._codes().tobytes()
    written = coded(rows, codes._step).astype(np.int8).view(np.uint8) ^ 0x80
    assert all(row.tobytes() in before for row in written)
    left = set(range(900)).difference(gone)
    assert [one for one in range(900) if written[one].tobytes() in kept] == sorted(left)


def test_an_index_takes_up_codes_when_it_grows_and_remains_right():
    rows, queries = normal(900, 48), normal(5, 48, 2)
    index, plain = VectorIndex(48, codes_from=300), VectorIndex(48)
    for start in range(0, 900, 60):
        for one in (index, plain):
            one.add(range(start, start + 60), rows[start : start + 60])
            one.remove(range(start, start + 9))
        for query in queries:
            assert index.search(query, 7) == plain.search(query, 7)
    assert (plain._sieve, type(index._sieve)) == (None, Codes)
