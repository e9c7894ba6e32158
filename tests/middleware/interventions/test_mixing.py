from __future__ import annotations

import json
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch import Tensor

from elision.contract import BranchKey, Capability, Context, Here, OtherModel, OtherPrompt
from elision.errors import CapabilityError, ConfigError, EngineError
from elision.middleware.interventions.base import Contrasts
from elision.middleware.interventions.mixing import (
    Mixture,
    Other,
    check_branches,
    check_plausibility,
    check_weight,
    mix,
)
from elision.middleware.interventions.penalties import penalise_repetition
from elision.testing import byte_lexicon

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "data" / "eminf_vectors.json").read_text()
)
INF = float("inf")
N = 12
scores = st.floats(-40, 40, width=32)
maybe_masked = st.one_of(st.just(-INF), scores)
rows = st.lists(maybe_masked, min_size=N, max_size=N).filter(lambda r: max(r) > -INF)
finite_rows = st.lists(scores, min_size=N, max_size=N)
weights = st.floats(-3, 3, width=32)
A, B = OtherPrompt((1, 2)), OtherModel("amateur")


def oracle(
    own: list[float], weight: float, terms: list[tuple[float, list[float]]], anchor: float,
    plausibility: float = 0.0,
) -> np.ndarray[Any, np.dtype[np.float64]]:  # fmt: skip
    """The mixture token by token, in float64, as its docstring has it."""

    def logp(row: list[float]) -> list[float]:
        normaliser = np.logaddexp.reduce(row)
        return [float(score - normaliser) for score in row]

    p, others = logp(own), [(share, logp(row)) for share, row in terms]
    out = np.full(len(own), -np.inf)
    for token, mine in enumerate(p):
        if mine == -np.inf or (plausibility and np.exp(mine) < plausibility * np.exp(max(p))):
            continue
        out[token] = weight * mine
        for share, q in others:
            least = min(score for score in q if score > -np.inf)
            out[token] += share * (q[token] if q[token] > -np.inf else least)
    return np.asarray(out - np.logaddexp.reduce(out) + anchor)


def assert_equal(out: Tensor, expected: Any, *, atol: float = 1e-4) -> None:
    wanted = torch.as_tensor(expected, dtype=torch.float64)
    assert torch.equal(out.isneginf(), wanted.isneginf())
    seen = ~wanted.isneginf()
    assert torch.allclose(out[seen].double(), wanted[seen], atol=atol, rtol=1e-5)


# --- Laws ----------------------------------------------------------------------------------------


@given(own=rows, weight=weights, one=rows, two=rows, shares=st.tuples(weights, weights))
def test_a_mixture_is_the_sum_of_its_equation(
    own: list[float], weight: float, one: list[float], two: list[float], shares: tuple[float, float]
) -> None:
    terms = list(zip(shares, (one, two), strict=True))
    out = mix(torch.tensor(own), weight, [(w, torch.tensor(row)) for w, row in terms], anchor=2.5)
    assert_equal(out, oracle(own, weight, terms, 2.5))


@given(own=rows, other=rows, plausibility=st.sampled_from([0.01, 0.1, 0.5, 1.0]))
def test_what_is_implausible_is_dropped_and_nothing_else(
    own: list[float], other: list[float], plausibility: float
) -> None:
    edge = max(own) + log(plausibility)
    assume(plausibility == 1 or all(abs(score - edge) > 1e-4 for score in own))
    z = torch.tensor(own)
    out = mix(z, 2.0, [(-1.0, torch.tensor(other))], anchor=0.0, plausibility=plausibility)
    if plausibility == 1:
        assert torch.equal(out > -INF, z == z.max())
    else:
        assert_equal(out, oracle(own, 2.0, [(-1.0, other)], 0.0, plausibility))


@given(own=rows, other=rows, weight=weights, anchor=st.floats(-50, 50))
def test_the_normaliser_of_the_mixture_is_the_anchor(
    own: list[float], other: list[float], weight: float, anchor: float
) -> None:
    out = mix(torch.tensor(own), weight, [(1 - weight, torch.tensor(other))], anchor=anchor)
    assert float(out.double().logsumexp(-1)) == pytest.approx(anchor, abs=2e-5)


@given(own=finite_rows, other=finite_rows, shift=st.integers(-400, 400))
def test_moving_a_row_as_a_whole_changes_nothing(
    own: list[float], other: list[float], shift: int
) -> None:
    eighths = [torch.tensor(row).mul(8).round() / 8 for row in (own, other)]
    z, u = eighths  # eighths add up exactly, so the moved rows are the same rows
    out = mix(z, 1.5, [(-0.5, u)], anchor=1.0)
    assert torch.equal(out, mix(z + shift, 1.5, [(-0.5, u)], anchor=1.0))
    assert torch.equal(out, mix(z, 1.5, [(-0.5, u + shift)], anchor=1.0))


@given(own=rows, other=rows, weight=weights)
def test_no_row_is_written_to(own: list[float], other: list[float], weight: float) -> None:
    z, u = torch.tensor(own), torch.tensor(other)
    versions = z._version, u._version
    out = mix(z, weight, [(1 - weight, u)], anchor=0.0, plausibility=0.1)
    assert (z._version, u._version) == versions
    assert out.data_ptr() not in (z.data_ptr(), u.data_ptr())


@given(own=rows)
def test_a_row_mixed_with_itself_says_what_it_said(own: list[float]) -> None:
    z = torch.tensor(own)
    out = mix(z, 3.0, [(-2.0, z)], anchor=0.0)
    assert_equal(out, z.double().log_softmax(-1))


@given(own=rows, other=rows)
@example(own=[0.0] * N, other=[5.0] + [-INF] * (N - 1))
def test_a_token_that_only_the_other_row_forbids_is_not_made_certain(
    own: list[float], other: list[float]
) -> None:
    z, u = torch.tensor(own), torch.tensor(other)
    out = mix(z, 1.5, [(-0.5, u)], anchor=0.0)
    stand_in = u.masked_fill(u.isneginf(), float(u[u > -INF].min()))
    assert torch.equal(out, mix(z, 1.5, [(-0.5, stand_in)], anchor=0.0))


# --- Edges ---------------------------------------------------------------------------------------


def test_a_row_without_a_finite_score_contributes_nothing() -> None:
    z, none = torch.tensor([2.0, 1.0, 0.0]), torch.full((3,), -INF)
    assert torch.equal(mix(z, 1.5, [(-0.5, none)], anchor=1.0), mix(z, 1.5, [], anchor=1.0))


@pytest.mark.parametrize("bad", [[-INF] * 3, [0.0, float("nan"), 1.0], [0.0, INF, 1.0]])
def test_a_row_without_a_distribution_comes_back_as_it_is(bad: list[float]) -> None:
    row = torch.tensor(bad)
    assert mix(row, 1.5, [(-0.5, torch.zeros(3))], anchor=0.0) is row


def test_a_mixture_that_overflows_comes_back_as_it_was() -> None:
    row = torch.tensor([3e38, -3e38, 0.0])
    assert mix(row, 100.0, [(50.0, -row)], anchor=0.0) is row


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_row_of_another_length_is_never_stretched_to_fit(length: int) -> None:
    with pytest.raises(EngineError, match="vocabulary"):
        mix(torch.zeros(3), 1.5, [(-0.5, torch.zeros(length))], anchor=0.0)


@pytest.mark.parametrize("value", [float("nan"), INF])
def test_a_broken_branch_breaks_the_reply_instead_of_leaving_it_unmixed(value: float) -> None:
    with pytest.raises(EngineError, match="not numbers"):
        mix(torch.zeros(3), 1.5, [(-0.5, torch.tensor([0.0, value, 1.0]))], anchor=0.0)


def test_a_row_of_weight_zero_is_not_looked_at() -> None:
    broken = torch.tensor([float("nan")])
    out = mix(torch.tensor([1.0, 0.0]), 1.0, [(0.0, broken)], anchor=0.0)
    assert_equal(out, torch.tensor([1.0, 0.0]).double().log_softmax(-1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_rows_of_any_float_type_give_float32(dtype: torch.dtype) -> None:
    own, other = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1.0, 1.5, 0.0])
    out = mix(own.to(dtype), 1.5, [(-0.5, other.to(dtype))], anchor=0.0)
    assert out.dtype == torch.float32
    assert torch.equal(out, mix(own, 1.5, [(-0.5, other)], anchor=0.0))


def test_behind_a_mixer_a_penalty_keeps_the_meaning_it_has_on_the_models_own_scores() -> None:
    known = VECTORS["rep_penalty_1.3_token0"]
    z, seen = torch.tensor(known["z"]), torch.tensor([0])
    mixed = mix(z, 1.0, [], anchor=float(z.logsumexp(-1)))
    penalised = penalise_repetition(mixed, seen, penalty=1.3).softmax(-1)
    assert penalised.tolist() == pytest.approx(known["p_on_raw_logits"], abs=1e-5)


def test_context_aware_decoding_is_the_same_equation() -> None:
    known = VECTORS["cad_alpha0.5"]
    own, other = torch.tensor(known["with"]), torch.tensor(known["without"])
    out = mix(own, 1.5, [(-0.5, other)], anchor=0.0)
    assert out.softmax(-1).tolist() == pytest.approx(known["p"], abs=1e-6)
    logits = torch.tensor(known["logits"])
    assert torch.allclose(out - out[0], logits - logits[0], atol=1e-5)


# --- The session ---------------------------------------------------------------------------------


def at(row: Tensor, read: list[BranchKey], others: dict[BranchKey, Tensor]) -> Here:
    def branch(key: BranchKey) -> Tensor:
        read.append(key)
        return others[key]

    return Here(row, branch=branch)


def test_a_mixture_reads_what_it_says_it_needs() -> None:
    row, read = torch.tensor([2.0, 1.0, 0.0]), list[BranchKey]()
    others: dict[BranchKey, Tensor] = {
        A: torch.tensor([1.0, 1.5, 0.0]),
        B: torch.tensor([0.0, 1.0, 0.0]),
    }
    session = Mixture("noted", 1.0, (Other(A, -0.5), Other(B, 0.5, temperature=0.5)))
    assert isinstance(session, Contrasts)
    assert session.always
    here = at(row, read, others)
    assert session.needs(here) == session.branches == (A, B)
    assert read == []
    out = session.adjust(row, here)
    assert read == [A, B]
    assert here.notes == {"noted": 1}
    terms = [(-0.5, others[A]), (0.5, others[B] / 0.5)]
    assert torch.equal(out, mix(row, 1.0, terms, anchor=here.logsumexp))
    assert session.advance(1) is session.finish() is session


def test_a_row_that_two_terms_share_is_asked_for_once() -> None:
    assert Mixture("noted", 1.0, (Other(A, -0.5), Other(A, 0.2))).branches == (A,)


def test_a_neutral_mixture_asks_and_notes_nothing() -> None:
    row = torch.tensor([2.0, 1.0, 0.0])
    here = Here(row)
    assert Mixture("noted").adjust(row, here) is row
    assert Mixture("noted").needs(here) == ()
    assert here.notes == {}


def test_where_nothing_can_be_done_nothing_is_noted() -> None:
    row = torch.full((3,), -INF)
    here = at(row, [], {A: torch.zeros(3)})
    assert Mixture("noted", 1.5, (Other(A, -0.5),)).adjust(row, here) is row
    assert here.notes == {}


def test_no_token_of_another_prompt_stands_in_a_repr() -> None:
    assert "31337" not in repr(Mixture("noted", 1.5, (Other(OtherPrompt((31337,)), -0.5),)))


# --- Checks --------------------------------------------------------------------------------------


def test_an_engine_without_branches_is_named_a_reason() -> None:
    context = Context(lexicon=byte_lexicon(), vocab_size=3)
    with pytest.raises(CapabilityError, match="'cfg' needs BRANCH"):
        check_branches("cfg", context)
    able = Context(lexicon=byte_lexicon(), vocab_size=3, capabilities=Capability.BRANCH)
    check_branches("cfg", able)


@pytest.mark.parametrize("value", [100.5, -INF, float("nan")])
def test_a_weight_is_a_number_of_a_sensible_size(value: float) -> None:
    check_weight("scale", -100)
    with pytest.raises(ConfigError, match="scale is"):
        check_weight("scale", value)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_plausibility_is_a_share(value: float) -> None:
    check_plausibility(1)
    with pytest.raises(ConfigError, match="plausibility is"):
        check_plausibility(value)
