"""Rows of pairs: a dictionary that forgets what is oldest."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.middleware.speculation.pairs import PairMatrix

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12)


def write(matrix: PairMatrix, written: list[tuple[int, int]], start: int) -> None:
    ids = np.arange(start, start + len(written), dtype=np.int32)[:, None].repeat(2, axis=1)
    matrix.update(written, ids, np.full(ids.shape, 0.5, np.float32))


@given(batches=st.lists(pairs, max_size=5))
def test_with_room_for_all_the_last_row_of_every_pair_is_kept(
    batches: list[list[tuple[int, int]]],
) -> None:
    matrix, kept, n = PairMatrix(2, places=16), dict[tuple[int, int], int](), 0
    for batch in batches:
        write(matrix, batch, n)
        kept |= {pair: n + i for i, pair in enumerate(batch)}
        n += len(batch)
    assert len(matrix) == len(kept)
    for pair, number in kept.items():
        assert matrix.row(pair) == ([number, number], [0.5, 0.5])


@given(batches=st.lists(pairs, min_size=1, max_size=6), places=st.integers(1, 5))
def test_short_of_room_every_row_that_is_left_is_its_pairs_latest(
    batches: list[list[tuple[int, int]]], places: int
) -> None:
    matrix, latest, n = PairMatrix(2, places=places), dict[tuple[int, int], int](), 0
    for batch in batches:
        write(matrix, batch, n)
        latest |= {pair: n + i for i, pair in enumerate(batch)}
        n += len(batch)
    assert len(matrix) == min(places, len(latest))
    rows = {pair: matrix.row(pair)[0] for pair in latest}
    left = {pair: row for pair, row in rows.items() if row}
    assert len(left) == len(matrix)
    assert all(row == [latest[pair]] * 2 for pair, row in left.items())


def test_order_decides_which_row_of_a_pair_stays_and_what_it_leaves_out_is_not_written() -> None:
    matrix = PairMatrix(1)
    ids = np.array([[1], [2], [3]], np.int32)
    probs = np.ones((3, 1), np.float32)
    matrix.update([(0, 0), (0, 0), (5, 5)], ids, probs, [1, 0])
    assert matrix.row((0, 0)) == ([1], [1.0])
    assert matrix.row((5, 5)) == ([], [])


def test_cleared_it_holds_nothing_and_it_is_never_persisted() -> None:
    matrix = PairMatrix(2)
    write(matrix, [(4711, 4712)], 0)
    assert matrix.nbytes > 0
    assert "471" not in repr(matrix)
    with pytest.raises(TypeError):
        pickle.dumps(matrix)
    matrix.clear()
    assert (len(matrix), matrix.nbytes, matrix.row((4711, 4712))) == (0, 0, ([], []))
