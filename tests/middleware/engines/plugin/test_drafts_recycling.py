"""Chains of recycled tokens: what is stored, what is proposed, what is kept apart."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elision.middleware.engines.plugin.recycling import (
    K,
    PoolKey,
    Recycled,
    Scored,
    allowed,
    best_of,
)

V = 24
POOL: PoolKey = ("pool", "")
OUT = float("-inf")


def rows(*best: int) -> torch.Tensor:
    """Return a row per token in which it is the best, and lower ids are better than higher."""
    scores = -torch.arange(V, dtype=torch.float32).repeat(len(best), 1)
    for row, token in zip(scores, best, strict=True):
        row[token] = 9.0
    return scores


def scored(tokens: tuple[int, ...], raw: torch.Tensor, made: torch.Tensor | None = None) -> Scored:
    behind = raw if made is None else made
    return Scored(POOL, tokens, allowed(best_of(raw), behind), best_of(behind))


def test_an_empty_pool_proposes_nothing() -> None:
    assert Recycled(V).propose(POOL, 3, 4, ()) == []


def test_best_successors_are_followed() -> None:
    recycled = Recycled(V)
    recycled.learn([scored((1, 2, 3), rows(2, 3, 7))], [3])
    assert recycled.propose(POOL, 1, 4, ()) == [2, 3, 7]
    assert recycled.propose(POOL, 1, 2, ()) == [2, 3]
    assert recycled.propose(POOL, 1, 0, ()) == []
    assert recycled.propose(POOL, 1, -3, ()) == []


def test_nothing_is_proposed_from_an_end_token_on() -> None:
    recycled = Recycled(V)
    recycled.learn([scored((1, 2, 3), rows(2, 3, 7))], [3])
    assert recycled.propose(POOL, 1, 4, {3}) == [2]


def test_a_loop_ends_with_the_number_asked_for() -> None:
    recycled = Recycled(V)
    recycled.learn([scored((1, 2), rows(2, 1))], [2])
    assert recycled.propose(POOL, 1, 5, ()) == [2, 1, 2, 1, 2]


def test_rows_on_the_path_hold_what_the_chain_made_of_them() -> None:
    recycled = Recycled(V)
    recycled.learn([scored((1, 2), rows(5, 6), rows(8, 9))], [2])
    assert recycled.propose(POOL, 1, 1, ()) == [8]
    assert recycled.propose(POOL, 2, 1, ()) == [9]


def test_other_rows_hold_the_model_s_own_scores_less_what_was_forbidden_there() -> None:
    recycled = Recycled(V)
    made = rows(8, 9)
    made[1, 6] = OUT
    recycled.learn([scored((1, 2), rows(5, 6), made)], [1])
    assert recycled.propose(POOL, 1, 1, ()) == [8]
    assert recycled.propose(POOL, 2, 1, ()) == [0]


def test_where_everything_was_forbidden_nothing_is_proposed() -> None:
    recycled = Recycled(V)
    recycled.learn([scored((1,), rows(5), torch.full((1, V), OUT))], [1])
    assert recycled.propose(POOL, 1, 4, ()) == []


def test_of_two_rows_of_one_token_the_one_on_the_path_stays() -> None:
    recycled = Recycled(V)
    recycled.learn([scored((1, 1), rows(5, 6))], [1])
    assert recycled.propose(POOL, 1, 1, ()) == [5]


def test_what_one_pool_has_shown_no_other_proposes() -> None:
    recycled = Recycled(V)
    recycled.learn([scored((1,), rows(5))], [1])
    for other in (("pool", "masks"), ("another", ""), ("", "")):
        assert recycled.propose(other, 1, 4, ()) == []


def test_the_pool_used_longest_ago_goes_first() -> None:
    recycled = Recycled(V, limit=2)
    for name in ("a", "b", "a", "c"):
        best = best_of(rows(5))
        recycled.learn([Scored((name, ""), (1,), best, best)], [1])
    assert len(recycled) == 2
    assert recycled.propose(("b", ""), 1, 1, ()) == []
    assert recycled.propose(("a", ""), 1, 1, ()) == [5]


def test_what_is_recycled_is_not_told_copied_or_persisted() -> None:
    recycled = Recycled(V)
    one = scored((1, 2), rows(5, 6))
    recycled.learn([one], [2])
    assert repr(recycled) == "Recycled(n=1, limit=32)"
    assert "5" not in repr(one).rpartition(" at ")[0]
    for spread in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            spread(recycled)


ROW = st.lists(st.sampled_from([OUT, 0.0, 1.0, 2.5]), min_size=V, max_size=V)


@given(st.lists(ROW, min_size=1, max_size=4))
def test_the_best_tokens_are_those_a_sort_finds_less_the_forbidden(
    scores: list[list[float]],
) -> None:
    raw = torch.arange(V * len(scores), dtype=torch.float32).reshape(-1, V) % 7
    made = torch.tensor(scores)
    got = allowed(best_of(raw), made).tolist()
    for row, of_model, of_chain in zip(got, raw.tolist(), scores, strict=True):
        best = sorted(range(V), key=lambda token: (-of_model[token], token))[:K]
        wanted = [token for token in best if of_chain[token] != OUT]
        assert row == wanted + [-1] * (K - len(wanted))


TOKENS = st.integers(0, V - 1)


@given(data=st.data())
def test_proposals_are_the_chain_of_the_rows_written_last(data: st.DataObject) -> None:
    """Against a dictionary: rejected rows first, then the path, the last write of a token stays."""
    recycled, known = Recycled(V), dict[int, int]()
    for _ in range(data.draw(st.integers(1, 4))):
        batch, taken = [], []
        for _ in range(data.draw(st.integers(1, 3))):
            tokens = tuple(data.draw(st.lists(TOKENS, min_size=1, max_size=4)))
            best = [data.draw(TOKENS) for _ in tokens]
            n = data.draw(st.integers(1, len(tokens)))
            batch.append(scored(tokens, rows(*best)))
            taken.append(n)
            for place in [*range(n, len(tokens)), *range(n)]:
                known[tokens[place]] = best[place]
        recycled.learn(batch, taken)
    start, n = data.draw(TOKENS), data.draw(st.integers(0, 6))
    ends = data.draw(st.sets(TOKENS, max_size=3))
    wanted, token = list[int](), start
    while len(wanted) < n and token in known and known[token] not in ends:
        token = known[token]
        wanted.append(token)
    assert recycled.propose(POOL, start, n, ends) == wanted
