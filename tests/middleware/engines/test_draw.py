"""Draws: laws of the noise, and parity with torch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Sampling
from elision.middleware.engines.draw import (
    CounterDraw,
    Greedy,
    TorchDraw,
    draw_for,
    exponential_noise,
)

SCORES = torch.tensor([1.0, 0.5, 0.0, -1.0, -torch.inf, 2.0])
DRAWS = [Greedy(), CounterDraw(seed=3), TorchDraw(torch.Generator().manual_seed(3))]


@pytest.mark.parametrize("draw", DRAWS, ids=lambda d: type(d).__name__)
def test_nothing_is_drawn_where_nothing_is_allowed(draw: Greedy) -> None:
    assert draw.pick(torch.full((5,), -torch.inf), 0) is None


@pytest.mark.parametrize("draw", DRAWS, ids=lambda d: type(d).__name__)
def test_a_banned_token_is_never_drawn(draw: Greedy) -> None:
    assert 4 not in {draw.pick(SCORES, position) for position in range(300)}


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 1000), st.integers(0, 3))
def test_the_same_place_gives_the_same_token(seed: int, position: int, attempt: int) -> None:
    draw = CounterDraw(seed=seed)
    assert draw.pick(SCORES, position, attempt) == draw.pick(SCORES, position, attempt)


@given(st.integers(0, 10_000), st.integers(0, 5))
def test_removing_a_loser_changes_nothing(position: int, loser: int) -> None:
    draw = CounterDraw(seed=0)
    winner = draw.pick(SCORES, position)
    if winner != loser:
        without = SCORES.clone()
        without[loser] = -torch.inf
        assert draw.pick(without, position) == winner


@given(st.floats(-50, 50, allow_nan=False), st.integers(0, 500))
def test_a_common_shift_of_all_scores_changes_nothing(shift: float, position: int) -> None:
    draw, scores = CounterDraw(seed=1), SCORES.double()
    assert draw.pick((scores + shift), position) == draw.pick(scores, position)


def test_choices_attempts_and_positions_draw_apart() -> None:
    flat = torch.zeros(1000)
    first = [CounterDraw(seed=0).pick(flat, p) for p in range(50)]
    choice = [CounterDraw(seed=0, choice=1).pick(flat, p) for p in range(50)]
    attempt = [CounterDraw(seed=0).pick(flat, p, attempt=1) for p in range(50)]

    assert len(set(first)) > 45
    assert sum(a == b for a, b in zip(first, choice, strict=True)) <= 2
    assert sum(a == b for a, b in zip(first, attempt, strict=True)) <= 2


def test_tokens_are_drawn_as_often_as_their_probability_says() -> None:
    n = 20_000
    probs = SCORES.softmax(-1)
    counts = torch.zeros(6)
    for position in range(n):
        token = CounterDraw(seed=11).pick(SCORES, position)
        assert token is not None
        counts[token] += 1
    error = (counts / n - probs).abs()
    assert (error < 4 * (probs * (1 - probs) / n).sqrt() + 1e-9).all()


def test_the_noise_is_standard_exponential() -> None:
    noise = exponential_noise(123, torch.arange(200_000))
    assert noise.min() > 0
    assert math.isclose(float(noise.mean()), 1.0, abs_tol=0.01)
    assert math.isclose(float(noise.var()), 1.0, abs_tol=0.03)
    assert math.isclose(float((noise < 1e-3).float().mean()), 1e-3, abs_tol=3e-4)


def test_the_noise_of_a_token_does_not_depend_on_who_else_is_asked() -> None:
    whole = exponential_noise(-5, torch.arange(100))
    assert torch.equal(exponential_noise(-5, torch.tensor([7, 70])), whole[[7, 70]])


def test_torch_draws_equal_the_stream_of_a_seeded_multinomial() -> None:
    draw = draw_for(Sampling(rng="torch"), choice=0, seed=9, device=torch.device("cpu"))
    torch.manual_seed(9)
    expected = [int(torch.multinomial(SCORES[None].softmax(-1), 1)) for _ in range(50)]
    assert [draw.pick(SCORES, p) for p in range(50)] == expected


def test_temperature_zero_is_greedy() -> None:
    draw = draw_for(Sampling(temperature=0), choice=0, seed=0, device=torch.device("cpu"))
    assert draw == Greedy()
    assert draw.pick(SCORES, 0) == 5
