from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from elision.contract import Context, Here
from elision.errors import ConfigError
from elision.middleware.interventions import Chain, MinP, Temperature, TopK, TopNSigma, TopP
from elision.middleware.interventions.truncation import (
    best_tokens,
    keep_min_p,
    keep_top_k,
    keep_top_n_sigma,
    keep_top_p,
)
from elision.testing import byte_lexicon

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "data" / "eminf_vectors.json").read_text()
)
Z = torch.tensor(VECTORS["z"])
INF = float("inf")
IDS = torch.zeros((1, 1), dtype=torch.int64)
SIZES = [20, 1024, 1025, 3000, 20_000, 49_152]

# Eighths tie often, as the scores of a bfloat16 head do.
ties = st.integers(-40, 40).map(lambda n: n / 8)
scores = st.one_of(ties, st.just(-INF), st.floats(-20, 20, width=32))
rows = st.lists(scores, min_size=1, max_size=64).filter(lambda r: max(r) > -INF)


def draw_rows(size: int) -> list[Tensor]:
    """Rows of every character: flat, sharp, tied, masked, power law, cut by another warper."""
    draw = torch.Generator().manual_seed(size)
    plain = torch.randn(size, generator=draw)
    masked = (plain * 4).masked_fill(torch.rand(size, generator=draw) < 0.3, -INF)
    law = -1.3 * torch.arange(1.0, size + 1).log()[torch.randperm(size, generator=draw)]
    cut = (plain * 4).masked_fill(plain * 4 < (plain * 4).topk(10).values[-1], -INF)
    tied = (plain * 3).bfloat16().float()
    return [plain, plain * 4, plain * 12, (plain * 4).round(), tied, masked, law, cut, plain * 0]


def warped(warper: Any, row: Tensor) -> Tensor:
    """What transformers makes of *row*; its sort made stable, else ties are settled by chance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "sort", partial(torch.sort, stable=True))
        out: Tensor = warper(IDS, row[None].clone())[0]
    return out


# --- Parity with transformers ----------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("k", [1, 2, 10, 50, 1023, 1024, 5000])
def test_top_k_keeps_what_transformers_keeps(size: int, k: int) -> None:
    for row in draw_rows(size):
        assert torch.equal(keep_top_k(row, k), warped(TopKLogitsWarper(k), row))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.9, 0.95, 0.999])
def test_top_p_keeps_what_transformers_keeps(size: int, p: float) -> None:
    for row in draw_rows(size):
        got = keep_top_p(row, p)
        assert torch.equal(got, warped(TopPLogitsWarper(p), row))
        unstable = TopPLogitsWarper(p)(IDS, row[None].clone())[0]
        assert torch.equal(got.sort().values, unstable.sort().values)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("p", [0.001, 0.05, 0.1, 0.5, 1.0])
def test_min_p_keeps_what_transformers_keeps(size: int, p: float) -> None:
    for row in draw_rows(size):
        assert torch.equal(keep_min_p(row, p), warped(MinPLogitsWarper(p), row))


@given(row=rows, k=st.integers(1, 64), p=st.floats(0.01, 0.99), m=st.floats(0.01, 1))
def test_any_short_row_is_cut_as_transformers_cuts_it(
    row: list[float], k: int, p: float, m: float
) -> None:
    z = torch.tensor(row)
    assert torch.equal(keep_top_k(z, k), warped(TopKLogitsWarper(k), z))
    assert torch.equal(keep_top_p(z, p), warped(TopPLogitsWarper(p), z))
    assert torch.equal(keep_min_p(z, m), warped(MinPLogitsWarper(m), z))


@pytest.mark.parametrize("size", [300, 49_152])
def test_together_they_cut_in_the_order_of_generate(size: int) -> None:
    recipes = (MinP(p=0.02), TopP(p=0.9), TopK(k=40), Temperature(value=0.8))
    chain = Chain.begin(recipes, Context(lexicon=byte_lexicon(), vocab_size=size))
    theirs = LogitsProcessorList(
        [
            TemperatureLogitsWarper(0.8),
            TopKLogitsWarper(40),
            TopPLogitsWarper(0.9),
            MinPLogitsWarper(0.02),
        ]
    )
    for row in draw_rows(size):
        assert torch.equal(chain.adjust(row, Here(row)), warped(theirs, row))


# --- Against the obvious form ----------------------------------------------------------------


@given(row=rows, k=st.integers(1, 64))
def test_the_best_tokens_are_those_of_topk(row: list[float], k: int) -> None:
    z = torch.tensor(row)
    k = min(k, len(row))
    best, ids = best_tokens(z, k)
    assert torch.equal(best, z.topk(k).values)
    assert torch.equal(z[ids], best)
    assert len(set(ids.tolist())) == k


@pytest.mark.parametrize("size", [17, 160, 163, 1000, 20_003])
@pytest.mark.parametrize("k", [1, 5, 10])
def test_folding_a_long_row_loses_no_best_token(size: int, k: int) -> None:
    for row in draw_rows(size):
        for place in (0, size // 2, size - 1):
            marked = row.clone()
            marked[place] = 1000.0
            best, ids = best_tokens(marked, k)
            assert ids[0] == place
            assert torch.equal(best, marked.topk(k).values)
            assert torch.equal(marked[ids], best)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n", [0.3, 1.0, 1.5, 4.0])
def test_top_n_sigma_keeps_what_its_formula_says(size: int, n: float) -> None:
    for row in draw_rows(size):
        finite = row[row > -INF].double()
        least = finite.max() - n * finite.std()
        out = keep_top_n_sigma(row, n)
        sure = (row.double() - least).abs() > 1e-4
        assert torch.equal((out > -INF)[sure], ((row.double() >= least) & (row > -INF))[sure])
        assert torch.equal(out[out > -INF], row[out > -INF])


@given(row=st.lists(ties, min_size=2, max_size=40), temperature=st.sampled_from([0.25, 0.5, 2.0]))
def test_top_n_sigma_does_not_depend_on_temperature(row: list[float], temperature: float) -> None:
    z = torch.tensor(row)
    kept, cooled = keep_top_n_sigma(z, 1.1) > -INF, keep_top_n_sigma(z / temperature, 1.1) > -INF
    assert torch.equal(kept, cooled)


@given(row=rows)
def test_what_is_kept_keeps_its_score(row: list[float]) -> None:
    z = torch.tensor(row)
    for out in (keep_top_k(z, 3), keep_top_p(z, 0.7), keep_min_p(z, 0.2), keep_top_n_sigma(z, 1)):
        kept = out > -INF
        assert kept.any()
        assert torch.equal(out[kept], z[kept])
        assert out is z or (kept.sum() < (z > -INF).sum())


# --- Examples --------------------------------------------------------------------------------


def test_worked_examples() -> None:
    assert (keep_min_p(Z, 0.1) > -INF).tolist() == VECTORS["min_p_0.1_keep"]
    assert (keep_min_p(Z / 0.1, 0.1) > -INF).sum() == 1
    assert keep_min_p(Z / 2, 0.1) is not Z
    assert (keep_min_p(Z / 2, 0.1) > -INF).all()
    sigma = VECTORS["top_n_sigma_1"]
    assert float(Z.std()) == sigma["std_unbiased"]
    assert (keep_top_n_sigma(Z, 1.0) > -INF).tolist() == sigma["keep"]


def test_top_k_keeps_all_that_tie_with_the_last() -> None:
    row = torch.tensor([1.0, 3.0, 2.0, 2.0, 2.0, 0.0])
    assert (keep_top_k(row, 2) > -INF).tolist() == [False, True, True, True, True, False]


def test_top_p_settles_a_tie_as_a_stable_sort_does() -> None:
    row = torch.zeros(4)
    assert (keep_top_p(row, 0.6) > -INF).tolist() == [False, True, True, True]
    long = torch.full((5000,), -20.0)
    long[[10, 20, 30, 40]] = 5.0
    assert (keep_top_p(long, 0.6) > -INF).nonzero().flatten().tolist() == [20, 30, 40]


def test_a_deviation_is_taken_over_the_tokens_that_are_left() -> None:
    masked = torch.cat((Z, torch.tensor([-INF, -INF])))
    assert torch.equal(keep_top_n_sigma(masked, 1.0)[:4], keep_top_n_sigma(Z, 1.0))


@pytest.mark.parametrize(
    ("recipe", "setting"),
    [
        (TopK, {"k": -1}),
        (TopP, {"p": 0}),
        (TopP, {"p": 1.1}),
        (TopP, {"p": float("nan")}),
        (MinP, {"p": -0.1}),
        (MinP, {"p": 1.1}),
        (TopNSigma, {"n": -1}),
        (TopNSigma, {"n": float("nan")}),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(recipe: Any, setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        recipe(**setting)
