"""The drafter: a valid draft whatever happened before, and what it learns is what was seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from elision.middleware.speculation.base import NOTHING, Draft
from elision.middleware.speculation.recycling import Pool, Recycler
from elision.middleware.speculation.spine import Spine

V = 24
END = 3


def chain_of(order: int, *, seed: int = 0, sharpness: float = 4.0) -> Callable[..., Tensor]:
    """Return a language model that looks *order* tokens back."""
    cache: dict[tuple[int, ...], Tensor] = {}

    def scores(text: Sequence[int]) -> Tensor:
        state = tuple(text[-order:])
        if state not in cache:
            draw = torch.Generator().manual_seed(hash((seed, *state)) % 2**31)
            cache[state] = sharpness * torch.randn(V, generator=draw)
        return cache[state]

    return scores


def greedy(row: Tensor) -> int:
    return int(row.argmax())


def sampled(seed: int) -> Callable[[Tensor], int]:
    draw = torch.Generator().manual_seed(seed)
    return lambda row: int(torch.multinomial(row.softmax(-1), 1, generator=draw))


def recycler(prompt: Sequence[int] = (1, 2), pool: Pool | None = None) -> Recycler:
    return Recycler(pool or Pool.empty(V), Spine(prompt), frozenset({END}))


def paths(draft: Draft) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = [()]
    for token, parent in zip(draft.tokens, draft.parents, strict=True):
        found.append((*found[parent], token))
    return found


def step(
    drafter: Recycler,
    scores: Callable[[Sequence[int]], Tensor],
    draw: Callable[[Tensor], int],
    prompt: Sequence[int],
    reply: list[int],
    draft: Draft,
) -> int:
    """Score *draft*, walk, learn, as the engine does; return the tokens won."""
    rows = torch.stack([scores([*prompt, *reply, *path]) for path in paths(draft)])
    path, drawn, node = [0], list[int](), 0
    while True:
        drawn.append(draw(rows[node]))
        child = draft.child(node, drawn[-1])
        if child is None:
            break
        path.append(node := child)
    drafter.learn(list(reply), draft, rows, path, {})
    reply.extend(drawn)
    return len(drawn)


# --- drafts ---------------------------------------------------------------------------------------


@given(
    prompt=st.lists(st.integers(0, V - 1), min_size=1, max_size=20),
    n=st.integers(0, 20),
    depth=st.integers(0, 6),
    n_steps=st.integers(0, 8),
    data=st.data(),
)
def test_a_draft_is_a_tree_in_falling_weight_whatever_was_written_and_taken_back(
    prompt: list[int], n: int, depth: int, n_steps: int, data: st.DataObject
) -> None:
    drafter, scores, draw = recycler(prompt), chain_of(1), sampled(1)
    reply = [draw(scores(prompt))]
    for _ in range(n_steps):
        draft = drafter.propose(reply, n=n, depth=depth)
        assert len(draft) <= n
        assert max(draft.depths) <= depth
        assert list(draft.weights) == sorted(draft.weights, reverse=True)
        assert all(0.0 < weight <= 1.0 for weight in draft.weights)
        assert all(parent <= index for index, parent in enumerate(draft.parents))
        assert len(set(paths(draft))) == len(draft) + 1
        assert END not in draft.tokens
        scored = draft.first(data.draw(st.integers(0, n)))
        step(drafter, scores, draw, prompt, reply, scored)
        del reply[data.draw(st.integers(1, len(reply))) :]


def test_the_proposal_follows_the_last_token_and_no_other_state() -> None:
    """Asked twice, it says the same; after a rewind it says what it would have said there."""
    drafter, scores = recycler(), chain_of(2)
    reply = [4]
    for _ in range(12):
        step(drafter, scores, greedy, (1, 2), reply, NOTHING)
    before = drafter.propose(reply, n=12, depth=5)
    assert drafter.propose(reply, n=12, depth=5) == before
    other = drafter.propose(reply[:6], n=12, depth=5)
    assert drafter.propose(reply[:6], n=12, depth=5) == other
    assert drafter.propose(reply, n=12, depth=5).tokens == before.tokens


# --- learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2])
def test_plain_steps_teach_as_drafted_ones_do(order: int) -> None:
    """A greedy text of a finite chain falls into a loop: what is drafted then is what comes."""
    drafter, scores, reply = recycler(), chain_of(order), [4]
    for _ in range(200):
        step(drafter, scores, greedy, (1, 2), reply, NOTHING)
    draft = drafter.propose(reply, n=8, depth=8)
    assert step(drafter, scores, greedy, (1, 2), reply, draft) == 9 or END in reply[-9:]


def test_every_scored_node_is_written_and_what_was_visited_stays() -> None:
    drafter = recycler((1,))
    draft = Draft((5, 6, 5), (0, 0, 2), (0.9, 0.8, 0.7))
    rows = torch.zeros(4, V)
    for node, best in enumerate([10, 11, 12, 13]):
        rows[node, best] = 9.0
    drafter.learn([4], draft, rows, [0, 1], {})
    first = {token: drafter.pool.matrix.row(token)[0][0] for token in (4, 5, 6)}
    assert first == {4: 10, 5: 11, 6: 12}  # 5 was scored twice, once on a path not taken
    pairs = {pair: drafter.pool.pairs.row(pair)[0][0] for pair in ((1, 4), (4, 5), (4, 6), (6, 5))}
    assert pairs == {(1, 4): 10, (4, 5): 11, (4, 6): 12, (6, 5): 13}


def test_a_row_behind_a_visited_node_holds_what_the_chain_made_of_it() -> None:
    drafter = recycler((1,))
    draft = Draft((5,), (0,), (0.9,))
    rows = torch.zeros(2, V)
    rows[:, 7] = 9.0
    kept = rows.clone()
    banned = rows[0].clone()
    banned[7] = float("-inf")
    banned[8] = 5.0
    drafter.learn([4], draft, rows, [0], {0: banned})
    assert drafter.pool.matrix.row(4)[0][0] == 8
    assert 7 not in drafter.pool.matrix.row(4)[0]
    assert drafter.pool.matrix.row(5)[0][0] == 7
    assert torch.equal(rows, kept)


def test_the_text_goes_on_as_it_did_before_though_no_row_is_written() -> None:
    drafter = recycler((10, 11, 12, 13, 14, 15, 16, 10, 11, 12))
    assert drafter.propose([13], n=3, depth=3).tokens[:3] == (14, 15, 16)


def test_expected_tokens_are_those_that_come() -> None:
    """Sampled from a chain of order 2: the claims of 400 steps add up to what was won."""
    prompt, pool, scores, draw = [1, 2], Pool.empty(V), chain_of(2, sharpness=2.5), sampled(0)
    claimed = won = 0.0
    for start in range(4):
        drafter, reply = recycler(prompt, pool), [start + 4]
        for _ in range(100):
            draft = drafter.propose(reply, n=10, depth=6)
            claimed += draft.expected
            won += step(drafter, scores, draw, prompt, reply, draft)
    assert won > 1.5 * 400
    assert claimed == pytest.approx(won, rel=0.1)


def test_a_tally_counts_steps_tokens_and_what_was_scored() -> None:
    drafter = recycler()
    rows = torch.randn(3, V, generator=torch.Generator().manual_seed(0))
    drafter.learn([4], Draft((5, 6), (0, 1), (0.9, 0.8)), rows, [0, 1], {})
    drafter.learn([4, 5, 7], NOTHING, rows[:1], [0], {})
    tally = drafter.pool.tally
    assert (tally.steps, tally.visited, tally.scored) == (2, 3, 2)
