from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.middleware.speculation.base import NOTHING, Draft, NoDraft

forests = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 3)), max_size=14).map(
    lambda drawn: Draft(
        tokens=tuple(token for _, token in drawn),
        parents=tuple(at % (index + 1) for index, (at, _) in enumerate(drawn)),
        weights=tuple(1 / (index + 2) for index in range(len(drawn))),
        sources=tuple(token % 2 for _, token in drawn),
    )
)


def chain(draft: Draft, node: int) -> set[int]:
    """A node and all above it, the root included."""
    return {node} | (chain(draft, draft.parents[node - 1]) if node else set())


@given(forests)
def test_a_node_attends_to_itself_and_what_is_above_it_alone(draft: Draft) -> None:
    seen = draft.ancestors
    assert seen.shape == (len(draft) + 1, len(draft) + 1)
    for node in range(len(draft) + 1):
        assert set(np.flatnonzero(seen[node]).tolist()) == chain(draft, node)


@given(forests)
def test_a_nodes_depth_is_the_number_of_nodes_above_it(draft: Draft) -> None:
    assert draft.depths == tuple(len(chain(draft, n)) - 1 for n in range(len(draft) + 1))


@given(forests, st.integers(0, 16))
def test_the_first_nodes_of_a_draft_are_a_draft(draft: Draft, n: int) -> None:
    first = draft.first(n)
    assert len(first) == min(n, len(draft))
    assert all(parent <= index for index, parent in enumerate(first.parents))
    assert first.depths == draft.depths[: len(first) + 1]
    assert np.array_equal(first.ancestors, draft.ancestors[: len(first) + 1, : len(first) + 1])
    assert first.expected == pytest.approx(1 + sum(draft.weights[:n]))
    assert first.sources == draft.sources[:n]


@given(forests)
def test_a_child_is_the_first_below_a_node_that_carries_the_token(draft: Draft) -> None:
    for node in range(len(draft) + 1):
        for token in range(5):
            below = [
                index + 1
                for index in range(len(draft))
                if draft.parents[index] == node and draft.tokens[index] == token
            ]
            assert draft.child(node, token) == (below[0] if below else None)


def test_masks_are_shared_and_cannot_be_written_to() -> None:
    draft, other = Draft((1, 2), (0, 1), (0.5, 0.2)), Draft((8, 9), (0, 1), (0.4, 0.1))
    assert draft.ancestors is other.ancestors
    with pytest.raises(ValueError, match="read-only"):
        draft.ancestors[0, 0] = False


def test_no_draft_is_worth_one_token_a_step() -> None:
    assert NoDraft().propose([1, 2], n=8, depth=4) is NOTHING
    assert NOTHING.expected == 1.0
    assert NOTHING.depths == (0,)
    assert NOTHING.ancestors.tolist() == [[True]]
