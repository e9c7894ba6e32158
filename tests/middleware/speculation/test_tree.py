from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.middleware.speculation.base import NOTHING, Draft
from elision.middleware.speculation.matrix import RecycleMatrix
from elision.middleware.speculation.stats import rank_prior
from elision.middleware.speculation.tree import (
    STATIC_80,
    Candidate,
    Path,
    TreeShape,
    best_first,
    static_draft,
)

# Tokens 0 to 3, at most 6 candidates a node, some of them twice: every path has its own list.
candidates = st.lists(
    st.tuples(st.integers(0, 3), st.floats(0.0, 1.0), st.integers(0, 1)), max_size=6
)
trees = st.dictionaries(st.lists(st.integers(0, 3), max_size=2).map(tuple), candidates, max_size=12)


def paths_of(parents: tuple[int, ...], labels: tuple[int, ...]) -> list[Path]:
    paths: list[Path] = [()]
    for parent, label in zip(parents, labels, strict=True):
        paths.append((*paths[parent], label))
    return paths[1:]


def named(digits: str) -> set[Path]:
    return {tuple(map(int, path)) for path in digits.split()}


def brute(tree: dict[Path, list[Candidate]], depth: int) -> dict[Path, float]:
    """Every node there is, with its weight: a token's best claim, as far as any is left."""
    weights: dict[Path, float] = {(): 1.0}
    for path in [(), *((a,) for a in range(4)), *((a, b) for a in range(4) for b in range(4))]:
        if path not in weights or len(path) >= depth:
            continue
        likeliest: dict[int, float] = {}
        for token, weight, _ in sorted(tree.get(path, ()), key=lambda c: -c[1]):
            likeliest.setdefault(token, weight)
        left = 1.0
        for token, weight in likeliest.items():
            claim = min(weight, left)
            left -= claim
            if weights[path] * claim > 0:
                weights[(*path, token)] = weights[path] * claim
    del weights[()]
    return weights


# --- the tree of the paper ---------------------------------------------------------------------


def test_the_static_tree_has_eighty_nodes_on_six_levels_and_forty_leaves() -> None:
    paths = paths_of(STATIC_80.parents, STATIC_80.ranks)
    levels = Counter(map(len, paths))
    leaves = set(range(1, 81)) - set(STATIC_80.parents)
    assert len(STATIC_80) == len(set(paths)) == 80
    assert [levels[depth] for depth in range(1, 7)] == [8, 21, 25, 15, 8, 3]
    assert len(leaves) == 40


def test_the_static_tree_has_the_paths_of_the_authors_code() -> None:
    paths = set(paths_of(STATIC_80.parents, STATIC_80.ranks))
    deep = {depth: {p for p in paths if len(p) == depth} for depth in range(3, 7)}
    assert deep[3] == named(
        "000 001 002 003 004 005 006 007 010 011 012 020 021 030 040 050 060 070 "
        "100 101 110 200 300 400 500"
    )
    assert deep[4] == named(
        "0000 0001 0002 0003 0004 0010 0011 0020 0030 0040 0100 0200 1000 2000 3000"
    )
    assert deep[5] == named("00000 00001 00002 00010 00020 00100 01000 10000")
    assert deep[6] == named("000000 000001 000100")


def test_children_of_the_static_tree_are_the_best_ranks_without_a_gap() -> None:
    paths = set(paths_of(STATIC_80.parents, STATIC_80.ranks))
    for path in paths:
        assert path[-1] == 0 or (*path[:-1], path[-1] - 1) in paths


def test_the_static_tree_is_within_a_hundredth_of_the_best_tree_of_its_size() -> None:
    best = best_first(prior, n=80, depth=20)
    static = 1 + sum(STATIC_80.weights)
    assert static == pytest.approx(2.76, abs=0.006)
    assert best.expected == pytest.approx(2.77, abs=0.006)
    assert 0 < best.expected - static < 0.015


def cyclic(vocab: int = 50) -> RecycleMatrix:
    matrix = RecycleMatrix(vocab)
    matrix.seed(range(vocab), [[(7 * t + r + 1) % vocab for r in range(8)] for t in range(vocab)])
    return matrix


def test_a_static_draft_takes_each_token_from_its_parents_row_at_its_rank() -> None:
    draft = static_draft(3, cyclic())
    nodes = (3, *draft.tokens)
    assert len(draft) == 80
    assert draft.parents == STATIC_80.parents
    for parent, rank, token in zip(draft.parents, STATIC_80.ranks, draft.tokens, strict=True):
        assert token == (7 * nodes[parent] + rank + 1) % 50


def test_a_static_draft_leaves_out_what_is_not_written_and_all_below_it() -> None:
    matrix = RecycleMatrix(50)
    assert static_draft(3, matrix) == NOTHING
    matrix.update([3, 10], [[10, 11, -1, -1, -1, -1, -1, -1], [3, 12, 13, -1, -1, -1, -1, -1]])
    draft = static_draft(3, matrix)
    known = {3: [10, 11], 10: [3, 12, 13]}
    wanted = set()
    for ranks in paths_of(STATIC_80.parents, STATIC_80.ranks):
        tokens = [3]
        for rank in ranks:
            row = known.get(tokens[-1], [])
            tokens += row[rank : rank + 1] or [-1]
        if -1 not in tokens:
            wanted.add(tuple(tokens[1:]))
    assert set(paths_of(draft.parents, draft.tokens)) == wanted
    assert lawful(draft)


@given(st.lists(st.lists(st.integers(0, 7), max_size=4).map(tuple), max_size=12))
def test_any_closed_set_of_paths_is_a_shape(drawn: list[Path]) -> None:
    closed = {path[:i] for path in drawn for i in range(1, len(path) + 1)}
    shape = TreeShape.of_paths(closed)
    assert set(paths_of(shape.parents, shape.ranks)) == closed
    assert all(a >= b for a, b in pairwise(shape.weights))
    assert all(parent <= index for index, parent in enumerate(shape.parents))


# --- the best tree ------------------------------------------------------------------------------


def lawful(draft: Draft) -> bool:
    """Parents before children, weights falling, no token twice below one node."""
    before = all(parent <= index for index, parent in enumerate(draft.parents))
    falling = all(a >= b for a, b in pairwise(draft.weights))
    return (
        before and falling and len(set(zip(draft.parents, draft.tokens, strict=True))) == len(draft)
    )


def prior(path: Path) -> list[Candidate]:
    return [(rank, rank_prior(rank), 0) for rank in range(8)]


@given(trees, st.integers(0, 40), st.integers(0, 3))
def test_it_is_the_best_of_every_node_there_is(
    tree: dict[Path, list[Candidate]], n: int, depth: int
) -> None:
    draft = best_first(lambda path: tree.get(path, ()), n=n, depth=depth)
    everything = brute(tree, depth)
    ours = dict(zip(paths_of(draft.parents, draft.tokens), draft.weights, strict=True))
    assert list(ours.values()) == pytest.approx(sorted(everything.values(), reverse=True)[:n])
    assert all(everything[path] == pytest.approx(weight) for path, weight in ours.items())
    assert lawful(draft)


@given(trees, st.integers(0, 40))
def test_the_first_nodes_of_a_tree_are_the_smaller_tree(
    tree: dict[Path, list[Candidate]], n: int
) -> None:
    def children(path: Path) -> list[Candidate]:
        return tree.get(path, [])

    assert best_first(children, n=40, depth=3).first(n) == best_first(children, n=n, depth=3)


@given(trees, st.floats(0.0, 1.0))
def test_a_floor_keeps_exactly_what_weighs_more(
    tree: dict[Path, list[Candidate]], floor: float
) -> None:
    def children(path: Path) -> list[Candidate]:
        return tree.get(path, [])

    whole = best_first(children, n=99, depth=3)
    cut = best_first(children, n=99, depth=3, floor=floor)
    assert cut == whole.first(sum(weight > floor for weight in whole.weights))


@given(trees)
def test_children_together_never_outweigh_their_parent(tree: dict[Path, list[Candidate]]) -> None:
    draft = best_first(lambda path: tree.get(path, ()), n=99, depth=3)
    total: Counter[int] = Counter()
    for parent, weight in zip(draft.parents, draft.weights, strict=True):
        total[parent] += weight  # type: ignore[assignment]
    for parent, weight in total.items():
        assert weight <= (1.0, *draft.weights)[parent] + 1e-9
    assert draft.expected <= 1 + 3 + 1e-9


def test_of_sources_that_name_the_same_token_the_surer_one_counts() -> None:
    draft = best_first(
        lambda path: [(5, 0.4, 0), (6, 0.3, 0), (5, 0.6, 1)] if not path else [], n=9, depth=2
    )
    assert draft == Draft((5, 6), (0, 0), (0.6, 0.3), (1, 0))


def test_claims_beyond_certainty_are_cut_from_the_least_likely_on() -> None:
    draft = best_first(
        lambda path: [(1, 0.7, 0), (2, 0.5, 0), (3, 0.4, 0)] if not path else [], n=9, depth=1
    )
    assert draft.tokens == (1, 2)
    assert draft.weights == pytest.approx((0.7, 0.3))


@pytest.mark.parametrize("broken", [float("nan"), -1.0, 0.0])
def test_a_candidate_without_a_probability_is_not_drafted(broken: float) -> None:
    draft = best_first(
        lambda path: [(1, broken, 0), (2, 0.5, 0), (3, broken, 0)] if not path else [], n=9, depth=1
    )
    assert draft.tokens == (2,)


def test_equal_weights_come_in_the_order_given_and_again_the_same() -> None:
    def children(path: Path) -> list[Candidate]:
        return [(token, 0.25, 0) for token in (3, 1, 2, 0)]

    first = best_first(children, n=30, depth=4)
    assert first.tokens[:4] == (3, 1, 2, 0)
    assert first == best_first(children, n=30, depth=4)


def test_a_node_is_asked_for_its_children_once_and_only_if_it_was_taken() -> None:
    asked: list[Path] = []

    def children(path: Path) -> list[Candidate]:
        asked.append(path)
        return prior(path)

    draft = best_first(children, n=20, depth=3)
    taken = paths_of(draft.parents, draft.tokens)
    assert len(asked) == len(set(asked))
    assert set(asked) == {(), *(path for path in taken[:-1] if len(path) < 3)}


def test_sizes_are_worth_what_the_model_of_independent_ranks_says() -> None:
    sizes = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 81)
    known = (1.45, 1.65, 1.78, 1.94, 2.05, 2.19, 2.29, 2.42, 2.52, 2.63, 2.71, 2.77)
    ours = [best_first(prior, n=n - 1, depth=20).expected for n in sizes]
    assert ours == pytest.approx(known, abs=0.01)


def test_a_weight_is_the_product_of_the_probabilities_along_its_path() -> None:
    draft = best_first(prior, n=30, depth=5)
    for path, weight in zip(paths_of(draft.parents, draft.tokens), draft.weights, strict=True):
        assert weight == pytest.approx(prod(map(rank_prior, path)))


def test_nothing_is_drafted_where_nothing_may_be() -> None:
    assert best_first(prior, n=0, depth=3) is NOTHING
    assert best_first(prior, n=3, depth=0) is NOTHING
    assert best_first(lambda path: [], n=3, depth=3) is NOTHING


def test_thirty_two_nodes_cost_less_than_a_millisecond_of_a_busy_machine() -> None:
    rounds = []
    for _ in range(30):
        begun = time.perf_counter()
        best_first(prior, n=32, depth=8)
        rounds.append(time.perf_counter() - begun)
    assert min(rounds) < 1e-3
