from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import TemperatureLogitsWarper

from elision.contract import Here
from elision.errors import ConfigError
from elision.middleware.interventions import Temperature

INF = float("inf")
rows = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30)


@given(row=rows, value=st.floats(0.001, 10))
def test_scores_are_divided_to_the_last_bit_as_transformers_does(
    row: list[float], value: float
) -> None:
    z = torch.tensor(row)
    theirs = TemperatureLogitsWarper(value)(torch.zeros((1, 1)), z[None])[0]
    assert torch.equal(Temperature(value=value).adjust(z, Here(z)), theirs)


@given(row=rows, value=st.floats(0, 0.001, exclude_min=True, exclude_max=True))
def test_no_temperature_is_too_cold(row: list[float], value: float) -> None:
    z = torch.tensor([*row, -INF])
    out = Temperature(value=value).adjust(z, Here(z))
    assert not out.isnan().any()
    assert out.max() == 0
    assert torch.equal(out == 0, z == z.max())
    assert out.softmax(-1).isfinite().all()


def test_a_cold_row_has_the_distribution_that_the_division_gives() -> None:
    z = torch.tensor([0.002, 0.001, 0.0])
    out = Temperature(value=5e-4).adjust(z, Here(z))
    assert torch.allclose(out.softmax(-1), (z / 5e-4).softmax(-1))


def test_a_row_without_tokens_stays_one_at_any_temperature() -> None:
    z = torch.full((3,), -INF)
    for value in (1e-40, 1e-4, 0.5, 2):
        assert torch.equal(Temperature(value=value).adjust(z, Here(z)), z)


@pytest.mark.parametrize("value", [0, -1, float("nan"), INF])
def test_a_temperature_of_0_is_the_draws_business(value: float) -> None:
    with pytest.raises(ConfigError, match="greedy"):
        Temperature(value=value)
