"""What is put right in vLLM: a value per request becomes one per token."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from elision.middleware.engines.plugin.mending import expanded, mend_expansion


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 2.0]), st.integers(0, 4)), min_size=1))
def test_each_token_has_its_requests_value(rows: list[tuple[float, int]]) -> None:
    values, counts = (torch.tensor(column) for column in zip(*rows, strict=True))
    got = expanded(values, counts.cumsum(0).int(), int(counts.sum()), 0, 1)
    assert got.tolist() == [value or 1.0 for value, n in rows for _ in range(n)]
    assert got.dtype == values.dtype


def lost(x: Tensor, _totals: Tensor, n: int, *_: Any, **__: Any) -> Tensor:
    """Return what a result that went elsewhere leaves behind, as vLLM 0.32 does on a CPU."""
    return torch.zeros(n, dtype=x.dtype)


@pytest.mark.parametrize(
    ("own", "is_cpu", "is_mended"),
    [(lost, True, True), (lost, False, False), (expanded, True, False)],
    ids=["lost", "another device", "right"],
)
def test_vllm_s_own_gives_way_where_it_loses_its_result(
    own: Any, is_cpu: bool, is_mended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, platforms = ModuleType("sampler"), ModuleType("platforms")
    vars(sampler)["expand_batch_to_tokens"] = own
    vars(platforms)["current_platform"] = SimpleNamespace(is_cpu=lambda: is_cpu)
    monkeypatch.setitem(sys.modules, "vllm.v1.sample.rejection_sampler", sampler)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    mend_expansion()
    assert (vars(sampler)["expand_batch_to_tokens"] is not own) == is_mended
