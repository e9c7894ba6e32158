from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from elision.contract import Context, Here, Stage
from elision.errors import ConfigError
from elision.middleware.interventions import Chain, EntropyMinimisation, LogitBias, Repetition
from elision.middleware.interventions.entropy import EM_INF, entropy, minimise_entropy
from elision.middleware.profiles import PROFILES
from elision.testing import byte_lexicon
from elision.testing.laws import awkward_rows, check_adjust, check_neutral, check_sessions

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "data" / "eminf_descent_vectors.json").read_text()
)
Z = torch.tensor(VECTORS["z"])
INF = float("inf")
PAPER = EM_INF["paper"]
rows = st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=48)
rates = st.sampled_from([0.1, 1.0, 5.0, 20.0, 100.0])


def descend(
    z: Tensor, *, eta: float = 1.0, steps: int = 1, delta: float = 0.0, kl: float = 0.0
) -> Tensor:
    return minimise_entropy(z, threshold=delta, kl_weight=kl, lr=eta, steps=steps, method="gd")


def sgd_by_autograd(
    z: Tensor, *, eta: float, steps: int, delta: float, kl: float
) -> tuple[Tensor, list[float]]:
    """The paper's loss, max(H, delta), and torch's plain gradient descent, in float64."""
    theta = z.double().clone().requires_grad_()
    start = theta.detach().log_softmax(-1)
    sgd = torch.optim.SGD([theta], lr=eta)
    entropies = []
    for _ in range(steps):
        logp = theta.log_softmax(-1)
        h = -(logp.exp() * logp).sum()
        entropies.append(h.item())
        sgd.zero_grad()
        loss = h.clamp_min(delta) + kl * (start.exp() * (start - logp)).sum()
        if h < delta:
            break
        loss.backward()
        sgd.step()
    return theta.detach(), entropies


def context(vocab_size: int) -> Context:
    return Context(lexicon=byte_lexicon(), vocab_size=vocab_size, prompt_ids=(1, 2))


# --- Laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EM_INF)
def test_every_named_setting_keeps_the_promises_of_a_recipe(name: str) -> None:
    recipe = EM_INF[name]
    check_adjust(recipe, context(259), awkward_rows(259), tokens=(5, 17))
    check_sessions(recipe, context(259), awkward_rows(259)[:3], tokens=(5, 17))
    check_neutral(replace(recipe, steps=0), context(259), awkward_rows(259))
    check_neutral(replace(recipe, lr=0), context(259), awkward_rows(259))
    check_neutral(replace(recipe, threshold=100), context(259), awkward_rows(259))


@given(row=rows, eta=rates, steps=st.integers(1, 15))
def test_descent_never_raises_the_entropy_nor_changes_the_best_token(
    row: list[float], eta: float, steps: int
) -> None:
    z = torch.tensor(row)
    out = descend(z, eta=eta, steps=steps)
    assert out.isfinite().all()
    assert entropy(out) <= entropy(z) + 1e-5
    assert torch.isclose(out[z == z.max()], out.max(), atol=1e-4).all()


@given(row=rows, eta=rates, delta=st.floats(0.05, 2))
def test_descent_stops_at_the_first_step_that_reaches_the_floor(
    row: list[float], eta: float, delta: float
) -> None:
    z = torch.tensor(row)
    trail = [descend(z, eta=eta, steps=n, delta=delta) for n in range(7)]
    entropies = [entropy(step) for step in trail]
    assume(all(abs(nats - delta) > 1e-4 for nats in entropies))
    first = next((n for n, nats in enumerate(entropies) if nats < delta), len(trail))
    assert all(torch.equal(trail[first], later) for later in trail[first:])
    if first == 0:
        assert trail[-1] is z


@given(row=st.lists(st.integers(-60, 60), min_size=2, max_size=48), masked=st.integers(1, 20))
def test_descent_does_not_know_of_masked_tokens(row: list[int], masked: int) -> None:
    z = torch.tensor(row) / 8
    out = descend(torch.cat((z, torch.full((masked,), -INF))), steps=5)
    assert out[len(row) :].isneginf().all()
    assert torch.allclose(out[: len(row)], descend(z, steps=5), atol=1e-4)


@given(row=st.lists(st.sampled_from([-3.0, 1.5]), min_size=2, max_size=24))
def test_a_step_over_two_levels_of_scores_is_a_temperature(row: list[float]) -> None:
    z = torch.tensor(row)
    assume(z.min() < z.max())
    out = descend(z, delta=1e-6)
    beta = (out.max() - out.min()) / (z.max() - z.min())
    assert beta >= 1
    assert torch.allclose(out.softmax(-1), (beta * z).softmax(-1), atol=1e-6)


# --- Parity --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("eta", "steps", "kl"), [(0.1, 15, 0.0), (1, 5, 0.0), (5, 3, 0.05)])
@pytest.mark.parametrize("vocab_size", [11, 1000, 50_257])
def test_closed_form_descent_equals_autograd(
    vocab_size: int, eta: float, steps: int, kl: float
) -> None:
    draw = torch.Generator().manual_seed(vocab_size)
    for spread in (1.0, 3.0, 6.0):
        z = torch.randn(vocab_size, generator=draw) * spread
        wanted, entropies = sgd_by_autograd(z, eta=eta, steps=steps, delta=0.3, kl=kl)
        assert min(abs(h - 0.3) for h in entropies) > 1e-5, "take another seed"
        got = descend(z, eta=eta, steps=steps, delta=0.3, kl=kl).double()
        assert (got - wanted).abs().max() < 1e-4
        assert (got.softmax(-1) - wanted.softmax(-1)).abs().max() < 1e-6


@given(row=st.lists(st.floats(-8, 8, width=16), min_size=2, max_size=12), eta=st.floats(0.01, 3))
def test_closed_form_descent_equals_autograd_on_any_short_row(row: list[float], eta: float) -> None:
    z = torch.tensor(row)
    wanted, entropies = sgd_by_autograd(z, eta=eta, steps=4, delta=0.3, kl=0.05)
    assume(min(abs(h - 0.3) for h in entropies) > 1e-4)
    got = descend(z, eta=eta, steps=4, delta=0.3, kl=0.05).double()
    assert (got.softmax(-1) - wanted.softmax(-1)).abs().max() < 1e-5


# --- Examples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", ["0.1", "1.0", "5.0"])
def test_one_step_meets_the_worked_example(eta: str) -> None:
    case = VECTORS[f"gd_1step_eta{eta}"]
    out = descend(Z, eta=float(eta))
    assert torch.allclose(out, torch.tensor(case["z"]), atol=1e-5)
    assert entropy(out) == pytest.approx(case["H"], abs=1e-5)


def test_the_paper_s_settings_take_five_steps_to_the_floor() -> None:
    case = VECTORS["gd_eta1_max15_delta0.3"]
    here = Here(Z)
    out = PAPER.adjust(Z, here)
    assert torch.allclose(out, torch.tensor(case["z"]), atol=1e-5)
    assert here.notes == {"entropy_minimised": 1}
    trace = [entropy(descend(Z, steps=n, delta=0.3)) for n in range(case["steps_taken"] + 1)]
    assert trace == pytest.approx(case["H_trace"], abs=1e-5)
    assert trace[-2] > 0.3 > trace[-1]


@pytest.mark.parametrize(("eta", "swapped"), [(5, False), (17, True)])
def test_only_a_huge_step_swaps_two_near_ties_below_the_top(eta: int, *, swapped: bool) -> None:
    case = VECTORS["order_swap_gd"]
    out = descend(torch.tensor(case["z"]), eta=eta)
    assert torch.allclose(out, torch.tensor(case[f"eta{eta}"]), atol=1e-5)
    assert bool(out[2] > out[1]) == swapped


def test_descent_leaves_alone_the_noise_that_adam_amplifies() -> None:
    z = torch.tensor(VECTORS["adam_noise_amplification"]["z"])
    kept = descend(z, steps=3)
    assert (kept.softmax(-1) - z.softmax(-1)).abs().max() < 1e-5
    assert (minimise_entropy(z, threshold=0).softmax(-1) - z.softmax(-1)).abs().max() > 0.1


def test_the_two_level_example_is_the_temperature_worked_out() -> None:
    case = VECTORS["two_level"]
    z = torch.tensor(case["z"])
    out = descend(z)
    assert torch.allclose(out, torch.tensor(case["gd_eta1"]), atol=1e-5)
    beta = case["equivalent_beta"]
    assert torch.allclose(out.softmax(-1), (beta * z).softmax(-1), atol=1e-6)


@pytest.mark.parametrize(
    "row",
    [[-INF, -INF], [1.0, float("nan")], [1.0, INF], [-INF, 2.0], [0.7, 0.7, 0.7], [0.7, -INF, 0.7]],
)
def test_descent_returns_rows_without_a_gradient_as_they_are(row: list[float]) -> None:
    z = torch.tensor(row)
    assert descend(z, steps=15) is z


# --- By name, and first --------------------------------------------------------------------------


def test_what_the_focused_profile_runs_is_the_authors_code_behind_the_masks() -> None:
    assert PROFILES["focused"].recipes() == (EM_INF["focused"],)
    assert replace(EM_INF["code"], first=False) == EM_INF["focused"]


def test_all_names_mean_something_else() -> None:
    assert len(set(EM_INF.values())) == len(EM_INF)


@pytest.mark.parametrize("method", ["adam", "gd"])
def test_first_it_acts_before_biases_penalties_and_masks(method: Any) -> None:
    recipe = EntropyMinimisation(method=method, first=True)
    bias, penalty = LogitBias(bias={0: -100.0, 2: 0.5}), Repetition(penalty=1.3)
    chain = Chain.begin([bias, penalty, recipe], context(4))
    here = Here(Z)
    by_hand = recipe.adjust(Z, here)
    for later in (bias, penalty):
        by_hand = later.begin(context(4)).adjust(by_hand, here)
    assert torch.equal(chain.adjust(Z, Here(Z)), by_hand)
    behind = Chain.begin([bias, penalty, replace(recipe, first=False)], context(4))
    assert not torch.allclose(behind.adjust(Z, Here(Z)), by_hand)


def test_first_it_still_leaves_the_mixers_their_raw_row() -> None:
    assert EM_INF["code"].stage == Stage.MIXER
    assert EM_INF["focused"].stage == Stage.ENTROPY
    assert EM_INF["code"].rank == 90


@pytest.mark.parametrize("name", ["kl_weight", "lr", "steps"])
def test_settings_beyond_reason_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        EntropyMinimisation(**{name: 1e6})


def test_a_method_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="sgd"):
        EntropyMinimisation(method="sgd")  # type: ignore[arg-type]


def test_the_floor_keeps_descent_from_becoming_greedy() -> None:
    assert entropy(descend(Z, steps=15)) < 0.1
    assert 0.2 < entropy(descend(Z, steps=15, delta=0.3)) < 0.3


def test_a_huge_step_lands_far_below_the_floor() -> None:
    assert entropy(descend(Z, eta=20, steps=15, delta=0.9)) < 0.01
