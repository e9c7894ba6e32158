"""Weights are probabilities: what is said to come so often comes so often."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.middleware.speculation.blend import Blend, Evidence, SuffixStats
from elision.middleware.speculation.spine import Successor

probs = st.floats(0.0, 1.0)
rows = st.lists(st.tuples(st.integers(0, 9), probs), max_size=8, unique_by=lambda pair: pair[0])
found = st.lists(
    st.builds(Successor, st.integers(0, 9), st.integers(1, 16), st.integers(1, 9)),
    max_size=4,
    unique_by=lambda successor: successor.token,
)
evidence = st.builds(
    lambda one, two, successors, depth: Evidence(_row(one), _row(two), successors, depth),
    rows,
    rows,
    found,
    st.integers(1, 9),
)


def _row(pairs: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [token for token, _ in pairs], [prob for _, prob in pairs]


@given(seen=st.lists(st.tuples(evidence, st.integers(0, 12)), max_size=30), asked=evidence)
def test_every_named_token_has_a_weight_between_0_and_1_and_no_other_token(
    seen: list[tuple[Evidence, int]], asked: Evidence
) -> None:
    blend = Blend()
    for before, token in seen:
        blend.observe(before, blend.weigh(before), token)
    weighed = blend.weigh(asked)
    named = {*asked.single[0], *asked.pair[0], *(s.token for s in asked.successors)}
    assert sorted(token for token, _, _ in weighed.candidates) == sorted(named)
    assert all(0.0 < weight < 1.0 for _, weight, _ in weighed.candidates)


def draws(n: int) -> list[tuple[Evidence, int]]:
    """Return nodes at which a row is right in 60 %, the text in 44 %."""
    rng, made = random.Random(5), []
    for _ in range(n):
        truth = rng.randrange(5)
        row = truth if rng.random() < 0.5 else rng.randrange(5)
        text = truth if rng.random() < 0.3 else rng.randrange(5)
        one = Evidence(([row], [0.5]), ([], []), [Successor(text, 2, 1)], 1)
        made.append((one, truth))
    return made


def test_weights_are_calibrated_alone_and_where_sources_agree() -> None:
    blend, kinds = Blend(), dict[tuple[bool, bool], list[tuple[float, bool]]]()
    for number, (one, truth) in enumerate(draws(4000)):
        weighed = blend.weigh(one)
        if number >= 1000:
            for (token, weight, _), case in zip(*weighed, strict=True):
                kind = bool(case.lot & 1), bool(case.lot & 4)
                kinds.setdefault(kind, []).append((weight, token == truth))
        blend.observe(one, weighed, truth)
    assert len(kinds) == 3
    for pairs in kinds.values():
        claimed = sum(weight for weight, _ in pairs) / len(pairs)
        assert claimed == pytest.approx(sum(hit for _, hit in pairs) / len(pairs), abs=0.05)


def test_a_source_that_is_never_right_loses_its_say() -> None:
    blend = Blend()
    one = Evidence(([1], [0.9]), ([], []), [Successor(2, 6, 1)], 1)
    for _ in range(400):
        blend.observe(one, blend.weigh(one), 2)
    weights = {token: weight for token, weight, _ in blend.weigh(one).candidates}
    assert weights[1] < 0.05 < 0.9 < weights[2]


def test_successors_start_from_a_prior_that_rises_with_the_match_and_learn_from_trials() -> None:
    stats = SuffixStats()
    priors = [stats.weights([Successor(1, length, 1)])[0] for length in range(1, 17)]
    assert priors == sorted(priors)
    assert priors[0] < 0.2 < 0.9 < priors[-1]
    for _ in range(200):
        stats.observe([Successor(1, 1, 1)], 1)
    assert stats.weights([Successor(9, 1, 1)])[0] > 0.9
    assert stats.weights([Successor(9, 2, 1)])[0] == priors[1]


def test_what_the_text_says_is_forgotten_in_the_end() -> None:
    stats, one = SuffixStats(), [Successor(1, 3, 1)]
    for token in (1,) * 2000 + (2,) * 1200:
        stats.observe(one, token)
    assert stats.weights(one)[0] < 0.1
