"""Entropies from a server's likeliest tokens: bounds that hold, thresholds that are known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import CapabilityError, RequestError
from elision.middleware.engines.fleet.entropies import (
    Entropies,
    entropies_of,
    entropy_bounds,
    quantile,
    read_entropies,
)

ROWS = st.lists(st.floats(-12, 12), min_size=2, max_size=60)


@given(ROWS, st.integers(1, 60), st.integers(0, 59))
def test_the_entropy_lies_between_its_bounds(scores: list[float], k: int, own: int) -> None:
    logps = torch.tensor(scores, dtype=torch.float64).log_softmax(-1)
    entropy = float(torch.special.entr(logps.exp()).sum())
    told = {*logps.topk(min(k, len(scores))).indices.tolist(), own % len(scores)}
    low, high = entropy_bounds(float(logps[one]) for one in told)
    assert low - 1e-6 <= entropy <= high + 1e-6


@given(ROWS)
def test_where_all_tokens_are_told_the_bounds_meet(scores: list[float]) -> None:
    logps = torch.tensor(scores, dtype=torch.float64).log_softmax(-1)
    low, high = entropy_bounds(logps.tolist())
    assert high - low < 1e-6


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50), st.floats(0, 1))
def test_a_quantile_is_that_of_torch(values: list[float], share: float) -> None:
    rising = sorted(values)
    expected = torch.tensor(rising, dtype=torch.float64).quantile(share)
    assert quantile(rising, share) == pytest.approx(float(expected), abs=1e-9)


def test_a_threshold_is_told_only_where_its_share_is_known() -> None:
    exact = tuple(n / 100 for n in range(101))
    assert Entropies(exact, exact).exceeded(0.25) == pytest.approx(0.75)
    wide = tuple(sorted(one + 0.5 for one in exact))
    assert Entropies(exact, wide).exceeded(0.25) is None
    close = tuple(one + 0.01 for one in exact)
    assert Entropies(exact, close).exceeded(0.25) == pytest.approx(0.753)


class Server:
    """Tells at most so many alternatives."""

    model = "m"

    def __init__(self, most: int) -> None:
        self.most = most
        self.asked: list[int] = []

    async def ask(self, method: str, route: str, body: Mapping[str, Any] | None = None) -> Any:
        assert body is not None
        self.asked.append(body["prompt_logprobs"])
        if body["prompt_logprobs"] > self.most:
            raise RequestError("too many")
        row = {str(n): {"logprob": math.log(0.25)} for n in range(4)}
        return {"choices": [{"prompt_logprobs": [None, row, row]}]}


async def test_as_many_alternatives_are_asked_for_as_are_told() -> None:
    server = Server(256)
    found = await entropies_of(server, {})
    assert server.asked == [1024, 512, 256]
    assert found.exceeded(0.5) == pytest.approx(math.log(4))


@pytest.mark.parametrize("reply", [None, {}, {"choices": [{"prompt_logprobs": None}]}, []])
def test_a_reply_without_entropies_is_none(reply: Any) -> None:
    with pytest.raises(CapabilityError, match="give tau"):
        read_entropies(reply)


async def test_a_server_that_tells_none_is_named_with_what_to_do() -> None:
    with pytest.raises(CapabilityError, match="--max-logprobs"):
        await entropies_of(Server(0), {})
