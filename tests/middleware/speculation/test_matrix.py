from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import ShapeError
from elision.middleware.speculation.base import Draft
from elision.middleware.speculation.matrix import UNWRITTEN, RecycleMatrix, write_order

V, K = 12, 3

tokens = st.integers(0, V - 1)
steps = st.lists(tokens, min_size=1, max_size=10).flatmap(
    lambda t: st.tuples(
        st.just(t),
        st.lists(st.lists(tokens, min_size=K, max_size=K), min_size=len(t), max_size=len(t)),
        st.lists(st.integers(0, len(t) - 1), max_size=12),
    )
)
forests = st.lists(st.integers(0, 1000), max_size=14).map(
    lambda draws: tuple(drawn % (i + 1) for i, drawn in enumerate(draws))
)


@given(st.lists(steps, max_size=6))
def test_rows_are_what_writing_them_one_after_the_other_leaves(
    history: list[tuple[list[int], list[list[int]], list[int]]],
) -> None:
    matrix, slow = RecycleMatrix(V, K), {}
    for nodes, ids, order in history:
        matrix.update(nodes, ids, None, order)
        for i in order:
            slow[nodes[i]] = ids[i]
    for token in range(V):
        assert matrix.row(token)[0] == slow.get(token, [])
    assert matrix.rows(range(V))[0].tolist() == [slow.get(t, [UNWRITTEN] * K) for t in range(V)]


def test_a_token_at_several_nodes_keeps_the_row_written_last() -> None:
    matrix = RecycleMatrix(V, K)
    nodes, ids = [5, 7, 5], [[1, 1, 1], [2, 2, 2], [3, 3, 3]]
    matrix.update(nodes, ids)
    assert matrix.row(5)[0] == [3, 3, 3]
    matrix.update(nodes, ids, order=[2, 1, 0])
    assert matrix.row(5)[0] == [1, 1, 1]


def test_nodes_left_out_of_the_order_are_not_written() -> None:
    matrix = RecycleMatrix(V, K)
    matrix.update([5, 7], [[1, 2, 3], [4, 5, 6]], order=[0])
    assert matrix.row(7) == ([], [])


@given(forests, st.data())
def test_rejected_nodes_are_written_breadth_first_and_the_path_after_them(
    parents: tuple[int, ...], data: st.DataObject
) -> None:
    draft = Draft((0,) * len(parents), parents, (1.0,) * len(parents))
    node = data.draw(st.integers(0, len(parents)))
    path = [node]
    while path[0]:
        path.insert(0, parents[path[0] - 1])
    order = write_order(draft, path)
    rejected = order[: -len(path)]
    assert sorted(order) == list(range(len(parents) + 1))
    assert order[-len(path) :] == path
    assert all(draft.depths[a] <= draft.depths[b] for a, b in pairwise(rejected))


def test_siblings_are_written_family_by_family() -> None:
    # 1 and 2 below the root; 3 below 2, 4 below 1: breadth first meets 4 before 3.
    draft = Draft((9,) * 4, (0, 0, 2, 1), (0.5, 0.4, 0.3, 0.2))
    assert write_order(draft, [0]) == [1, 2, 4, 3, 0]


def test_the_row_behind_the_true_text_outlives_that_of_a_guess() -> None:
    matrix = RecycleMatrix(V, K)
    draft = Draft((4, 4), (0, 1), (0.5, 0.2))  # the same token again, one deeper
    matrix.update([3, *draft.tokens], [[1] * 3, [2] * 3, [5] * 3], order=write_order(draft, [0, 1]))
    assert matrix.row(4)[0] == [2] * 3


def test_rows_of_fewer_tokens_end_where_nothing_is_known() -> None:
    matrix = RecycleMatrix(V, K)
    matrix.update(
        [1, 2], [[4, UNWRITTEN, UNWRITTEN], [UNWRITTEN] * 3], [[0.5, 0.2, 0.1], [0.1] * 3]
    )
    assert matrix.row(1) == ([4], [0.5])
    assert matrix.row(2) == ([], [])


def test_a_known_probability_never_becomes_an_unknown_one() -> None:
    matrix = RecycleMatrix(V, K)
    matrix.update([1], [[4, 5, 6]], [[1.0, 1e-9, 0.0]])
    assert matrix.row(1)[1][0] == 1.0
    assert all(0.0 < p < 1e-6 for p in matrix.row(1)[1][1:])


def test_what_is_no_probability_is_unknown() -> None:
    matrix = RecycleMatrix(V, K)
    matrix.update([1, 2], [[4, 5, 6]] * 2, [[float("nan")] * 3, [2.0, 0.5, 0.25]])
    assert matrix.row(1)[1] == [0.0] * 3
    assert matrix.row(2)[1] == [1.0, 0.5, 0.25]
    matrix.update([2], [[4, 5, 6]])
    assert matrix.row(2)[1] == [0.0] * 3


def test_a_prompt_leaves_the_row_of_each_tokens_last_occurrence() -> None:
    matrix = RecycleMatrix(V, K)
    matrix.seed([1, 2, 1], [[3] * 3, [4] * 3, [5] * 3], [[0.5] * 3] * 3)
    assert matrix.row(1) == ([5] * 3, [0.5] * 3)
    assert matrix.row(2)[0] == [4] * 3


def test_nothing_is_allocated_before_the_first_write_nor_after_clearing() -> None:
    matrix = RecycleMatrix(49_152)
    matrix.update([], np.empty((0, 8)))
    assert matrix.nbytes == 0
    matrix.update([1], [[1] * 8])
    assert matrix.nbytes == 49_152 * 8 * (4 + 2)
    matrix.clear()
    assert matrix.nbytes == 0
    assert matrix.row(1) == ([], [])
    assert (matrix.rows([1])[0] == UNWRITTEN).all()


def test_rows_handed_out_are_copies() -> None:
    matrix = RecycleMatrix(V, K)
    matrix.update([1], [[4, 5, 6]])
    matrix.rows([1])[0][:] = 0
    matrix.row(1)[0].clear()
    assert matrix.row(1)[0] == [4, 5, 6]


@pytest.mark.parametrize(
    ("ids", "probs"), [([[1, 2]], None), ([[1, 2, 3]] * 2, None), ([[1, 2, 3]], [[0.5]])]
)
def test_rows_of_another_shape_are_refused(
    ids: list[list[int]], probs: list[list[float]] | None
) -> None:
    matrix = RecycleMatrix(V, K)
    with pytest.raises(ShapeError):
        matrix.update([1], ids, probs)
    assert matrix.nbytes == 0


def test_it_is_never_copied_or_persisted_and_says_nothing_of_what_it_holds() -> None:
    matrix = RecycleMatrix(99, K)
    matrix.update([77], [[88, 66, 55]])
    for keep in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never"):
            keep(matrix)
    assert not {"77", "88", "66", "55"} & set(
        repr(matrix).replace("=", " ").replace(",", " ").split()
    )
