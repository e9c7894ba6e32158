"""How learning entries move: the rules, what they may do by hand, and how often they are right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import ConfigError, ConflictError
from elision.memory.learning.attribution import score, summarise
from elision.memory.learning.evidence import Arm, Evidence, Phase
from elision.memory.learning.lifecycle import Policy, proves, rest, step
from elision.memory.learning.simulation import Shares, simulate
from elision.memory.learning.states import (
    SHOWN,
    Action,
    Reason,
    Standing,
    State,
    act,
    surplus,
)

POLICY = Policy()
SPEC = Policy(active=0.9, n_harm=4)
TABLE = {  # effect: (active, demoted) after 50 and 100 eligible episodes (2,000 runs each)
    0.2: ((0.69, 0.01), (0.90, 0.01)),
    0.1: ((0.46, 0.02), (0.68, 0.04)),
    0.0: ((0.25, 0.08), (0.37, 0.16)),
    -0.1: ((0.10, 0.22), (0.14, 0.43)),
    -0.2: ((0.03, 0.40), (0.04, 0.75)),
}


def arm(n: int, hits: int, *, tokens: int = 10, cost: float = 1.0) -> Arm:
    """Return an arm of 0/1 rewards whose episodes spend the same."""
    return Arm(n, hits, hits, n * tokens, n * tokens * tokens, n * cost, n * cost * cost)


def evidence(applied: Arm, withheld: Arm, *, propensity: float = 0.7) -> Evidence:
    return Evidence((Phase(propensity, applied, withheld),))


@st.composite
def phases(draw: st.DrawFn) -> Phase:
    sides = []
    for _ in range(2):
        n = draw(st.integers(0, 60))
        spent = {"tokens": draw(st.integers(5, 15)), "cost": draw(st.floats(0.5, 1.5))}
        sides.append(arm(n, draw(st.integers(0, n)), **spent))  # type: ignore[arg-type]
    return Phase(0.7, *sides)


found = st.builds(
    lambda one, two: Evidence((one, replace(two, propensity=0.9))), phases(), phases()
)


def mirror(one: Evidence) -> Evidence:
    """Return *one* with every success a failure, every failure a success."""
    return Evidence(
        tuple(
            replace(
                phase,
                applied=_flipped(phase.applied),
                withheld=_flipped(phase.withheld),
            )
            for phase in one.phases
        )
    )


def _flipped(one: Arm) -> Arm:
    return replace(one, rewards=one.n - one.rewards, rewards_sq=one.n - one.rewards)


def shown(shares: dict[State, float]) -> float:
    return shares[State.ACTIVE] + shares[State.PROVEN]


# Laws


@given(st.sampled_from(State), found)
def test_a_step_leaves_the_state_it_was_asked_about_and_only_a_shown_one(
    state: State, one: Evidence
) -> None:
    move = step(state, one, policy=POLICY)
    if move is not None:
        assert move.source is state
        assert move.target is not state
        assert state in SHOWN
        assert move.effect == summarise(one)


@given(found)
def test_fewer_than_eight_in_an_arm_never_move_an_entry(one: Evidence) -> None:
    if one.n_least < 8:
        assert all(step(state, one, policy=POLICY) is None for state in SHOWN)


@given(found)
def test_what_helps_is_not_called_harmful_when_mirrored_and_the_other_way_round(
    one: Evidence,
) -> None:
    move, other = (step(State.PROVISIONAL, e, policy=POLICY) for e in (one, mirror(one)))
    if move is not None and move.reason is Reason.HARMS:
        assert other is not None
        assert other.reason is Reason.HELPS
        assert not proves(one, policy=POLICY)


@given(found)
def test_a_stricter_policy_promotes_and_proves_no_more(one: Evidence) -> None:
    strict = replace(POLICY, p_up=0.9, error=0.01, error_later=0.001)
    move = step(State.PROVISIONAL, one, policy=strict)
    if move is not None and move.reason in {Reason.HELPS, Reason.CHEAPER}:
        usual = step(State.PROVISIONAL, one, policy=POLICY)
        assert usual is not None
        assert usual.target is State.ACTIVE
    assert proves(one, policy=strict) <= proves(one, policy=POLICY)


@given(st.sampled_from(State), st.sampled_from(Action))
def test_an_action_is_refused_or_leads_elsewhere_or_starts_afresh(
    state: State, action: Action
) -> None:
    try:
        move = act(state, action)
    except ConflictError:
        return
    assert move.source is state
    assert move.target is not state or move.afresh


@given(found)
def test_the_bayes_factor_is_the_integral_over_the_half_normal_prior(one: Evidence) -> None:
    tested = score(one)
    if tested is None or tested.z <= 0 or one.n_least < 8:
        return
    effects = np.linspace(0, 1.5, 20_001)
    prior = np.exp(-(effects**2) / (2 * 0.15**2))
    prior /= prior.sum()
    root = np.sqrt(tested.information)
    likelihood = np.exp(effects * root * tested.z - effects**2 * tested.information / 2)
    factor = float(prior @ likelihood)
    for slack in (0.99, 1.01):
        later = replace(POLICY, horizon=1, error_later=min(0.999, slack / factor))
        if 0.001 < later.error_later < 0.99:  # the horizon has passed: only the factor decides
            assert proves(one, policy=later) is (slack > 1)


# The rules


def test_an_entry_that_helps_is_promoted_then_proven() -> None:
    one = evidence(arm(140, 98), arm(60, 24))
    move = step(State.PROVISIONAL, one, policy=POLICY)
    assert move is not None
    assert (move.target, move.reason) == (State.ACTIVE, Reason.HELPS)
    move = step(move.target, one, policy=POLICY)
    assert move is not None
    assert (move.target, move.reason) == (State.PROVEN, Reason.PROVEN)
    assert step(move.target, one, policy=POLICY) is None


@pytest.mark.parametrize("state", SHOWN)
def test_an_entry_that_harms_is_demoted_from_wherever_it_is_shown(state: State) -> None:
    move = step(state, evidence(arm(30, 6), arm(12, 8)), policy=POLICY)
    assert move is not None
    assert (move.target, move.reason) == (State.DEMOTED, Reason.HARMS)


def test_eight_in_each_arm_are_enough_and_seven_are_not() -> None:
    assert step(State.PROVISIONAL, evidence(arm(20, 18), arm(7, 1)), policy=POLICY) is None
    assert step(State.PROVISIONAL, evidence(arm(20, 18), arm(8, 1)), policy=POLICY) is not None


def test_no_worse_and_cheaper_is_promoted_and_no_worse_at_the_same_cost_is_not() -> None:
    applied, withheld = arm(800, 404), arm(800, 400)
    cheap = replace(applied, cost=applied.cost / 2, cost_sq=applied.cost_sq / 4)
    neutral = replace(POLICY, n_neutral=1_000)
    move = step(State.PROVISIONAL, evidence(cheap, withheld, propensity=0.5), policy=neutral)
    assert move is not None
    assert (move.target, move.reason) == (State.ACTIVE, Reason.CHEAPER)
    same = evidence(applied, withheld, propensity=0.5)
    assert step(State.PROVISIONAL, same, policy=neutral) is None


@pytest.mark.parametrize(("tokens", "demoted"), [(10, True), (11, True), (9, False)])
def test_an_entry_that_does_nothing_is_demoted_unless_it_saves_tokens(
    tokens: int, demoted: bool
) -> None:
    one = evidence(arm(60, 30, tokens=tokens), arm(30, 15))
    for state in SHOWN:
        move = step(state, one, policy=POLICY)
        assert (move is not None) is demoted
        if move is not None:
            assert (move.target, move.reason) == (State.DEMOTED, Reason.NEUTRAL)


def test_nothing_withheld_is_nothing_measured() -> None:
    one = evidence(arm(500, 10), Arm(), propensity=1.0)
    assert all(step(state, one, policy=Policy(provisional=1.0)) is None for state in State)


def test_past_the_horizon_a_proof_needs_more() -> None:
    one = evidence(arm(140, 98), arm(60, 30))
    assert proves(one, policy=POLICY)
    assert not proves(one, policy=replace(POLICY, horizon=150))
    assert proves(evidence(arm(1400, 980), arm(600, 300)), policy=POLICY)


@pytest.mark.parametrize(
    ("days", "episodes", "retired"), [(29.9, 199, False), (30, 0, True), (0, 200, True)]
)
def test_a_demoted_entry_retires_after_thirty_days_or_two_hundred_episodes(
    days: float, episodes: int, retired: bool
) -> None:
    move = rest(State.DEMOTED, days=days, episodes=episodes, policy=POLICY)
    assert (move is not None) is retired
    assert move is None or (move.target, move.reason) == (State.RETIRED, Reason.UNCHANGED)
    others = set(State) - {State.DEMOTED}
    assert all(rest(s, days=1e9, episodes=10**9, policy=POLICY) is None for s in others)


def test_only_shown_entries_are_drawn_for_and_a_proven_one_is_withheld_least() -> None:
    drawn = {state: POLICY.propensity(state) for state in State}
    assert {state for state, p in drawn.items() if p} == set(SHOWN)
    assert drawn[State.PROVEN] == 0.9
    assert drawn[State.PROVISIONAL] == drawn[State.ACTIVE] == 0.7
    assert SPEC.propensity(State.ACTIVE) == 0.9


# By hand


@pytest.mark.parametrize("state", State)
def test_everything_can_be_erased_once_and_nothing_returns(state: State) -> None:
    if state is not State.ERASED:
        assert act(state, Action.ERASE).target is State.ERASED
        return
    for action in Action:
        with pytest.raises(ConflictError, match="an entry that is erased cannot"):
            act(state, action)


def test_what_is_quarantined_comes_back_by_approval_only() -> None:
    for state in set(State) - {State.QUARANTINED, State.ERASED}:
        assert act(state, Action.QUARANTINE).target is State.QUARANTINED
    allowed = set()
    for action in Action:
        try:
            allowed.add(act(State.QUARANTINED, action).target)
        except ConflictError:
            continue
    assert allowed == {State.PROVISIONAL, State.ERASED}


@pytest.mark.parametrize(
    ("action", "target"), [(Action.RESTORE, State.ACTIVE), (Action.REVISE, State.PROVISIONAL)]
)
def test_a_demoted_entry_that_returns_is_counted_afresh(action: Action, target: State) -> None:
    move = act(State.DEMOTED, action)
    assert (move.target, move.afresh) == (target, True)


def test_the_longest_unmatched_go_first_among_the_provisional_and_the_least_worth_elsewhere() -> (
    None
):
    entries = [
        Standing("old", matched=1, worth=0.9, n=50),
        Standing("poor", matched=3, worth=0.1, n=50),
        Standing("poor-and-rare", matched=4, worth=0.1, n=2),
    ]
    assert surplus(State.PROVISIONAL, entries, room=1) == ("old", "poor")
    assert surplus(State.ACTIVE, entries, room=1) == ("poor-and-rare", "poor")
    assert surplus(State.ACTIVE, entries, room=3) == ()


@pytest.mark.parametrize(
    "wrong", [{"p_up": 1.2}, {"active": -0.1}, {"error": 0.0}, {"n_arm": 0}, {"horizon": 0}]
)
def test_a_policy_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Policy(**wrong)  # type: ignore[arg-type]


# How often they are right


def test_the_simulation_is_seeded_and_its_shares_make_one() -> None:
    one = simulate(0.2, policy=POLICY, runs=10, looks=(5, 40))
    assert one == simulate(0.2, policy=POLICY, runs=10, looks=(5, 40))
    assert one != simulate(0.2, policy=POLICY, runs=10, looks=(5, 40), seed=1)
    assert one[5][State.PROVISIONAL] == 1
    for shares in one.values():
        assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("effect", [0.7, -0.5])
def test_an_effect_that_leaves_no_probability_is_refused(effect: float) -> None:
    with pytest.raises(ConfigError, match="cannot be simulated"):
        simulate(effect, policy=POLICY)


def test_what_strongly_helps_is_proven_and_what_strongly_harms_is_demoted() -> None:
    helps = simulate(0.5, policy=POLICY, runs=25, looks=(120,))
    harms = simulate(-0.4, policy=POLICY, runs=25, looks=(120,))
    assert helps[120][State.PROVEN] >= 0.9
    assert harms[120][State.DEMOTED] >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("effect", TABLE)
def test_the_specs_table_is_reproduced(effect: float) -> None:
    shares: Shares = simulate(effect, policy=SPEC, runs=3000, looks=(50, 100))
    for look, (active, demoted) in zip((50, 100), TABLE[effect], strict=True):
        slack = 0.03 if look == 100 else 0.05
        assert shown(shares[look]) == pytest.approx(active, abs=slack)
        assert shares[look][State.DEMOTED] == pytest.approx(demoted, abs=slack)


@pytest.mark.slow
def test_five_in_a_hundred_that_do_nothing_are_proven_however_long_one_looks() -> None:
    shares = simulate(0.0, policy=POLICY, looks=(250, 400))
    assert shares[250][State.PROVEN] <= 0.05
    assert shares[400][State.PROVEN] <= 0.05


@pytest.mark.slow
def test_eighty_five_in_a_hundred_that_help_are_proven_by_250() -> None:
    shares = simulate(0.2, policy=POLICY, looks=(200, 250))
    assert shares[250][State.PROVEN] >= 0.85
    assert shown(shares[200]) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("policy", [POLICY, SPEC], ids=["ours", "spec"])
def test_nine_in_ten_that_harm_are_demoted_by_200(policy: Policy) -> None:
    assert simulate(-0.2, policy=policy, looks=(200,))[200][State.DEMOTED] >= 0.9


@pytest.mark.slow
def test_the_neutral_rule_clears_most_of_what_neither_helps_nor_saves() -> None:
    shares = simulate(0.0, policy=SPEC, looks=(200,), runs=600, tokens=(1000, 1000))
    assert shares[200][State.DEMOTED] >= 0.5
