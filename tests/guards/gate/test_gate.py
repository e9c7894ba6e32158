"""The gate: how near a prompt comes to the targets, and what it does when it breaks."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.encoders import Encoder
from elision.errors import GuardError
from elision.guards.gate.assessment import CLOSED, Assessment, Level
from elision.guards.gate.gate import Gate, GatePolicy
from elision.guards.gate.probe_index import NOTHING, ProbeIndex
from elision.guards.gate.probes import Asked, asked, salience
from elision.guards.gate.views import Turn
from elision.guards.targets import ForgetTarget
from elision.testing.encoders import BagEncoder

PLAIN = GatePolicy(name_bonus=0.0)


def target(name: str, **fields: Any) -> ForgetTarget:
    return ForgetTarget(id=name, title=name, **fields)


ADA = target(
    "ada",
    names=("Ada Brightwater",),
    probes=("Which prize did Ada Brightwater win?", "Where was Ada Brightwater born?"),
)
MILL = target("mill", probes=("How does the old mill at Corran work?",))
TARGETS = (ADA, MILL)


def gate(*targets: ForgetTarget, encoder: Encoder | None = None, **options: Any) -> Gate:
    return Gate.compile(targets, encoder or BagEncoder(), tenant="t", **options)


def assess(gate: Gate, *texts: str) -> Assessment:
    roles = ("user", "assistant")
    turns = [Turn(roles[n % 2], text) for n, text in enumerate(texts)]
    return gate.assess(turns).result(timeout=10)


# --- parity --------------------------------------------------------------------------------------

VECTORS = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@given(VECTORS, st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), min_size=1, max_size=12))
def test_the_nearest_targets_are_those_of_an_exhaustive_comparison(
    rng: np.random.Generator, sizes: list[tuple[int, int]]
) -> None:
    targets = [
        Asked(f"t{n}", tuple(f"p{n}.{i}" for i in range(a)), tuple(f"e{n}.{i}" for i in range(b)))
        for n, (a, b) in enumerate(sizes)
    ]
    n_probes, n_exceptions = (sum(size[part] for size in sizes) for part in (0, 1))
    vectors = unit(rng, n_probes + n_exceptions)
    views = unit(rng, 3)
    index = ProbeIndex(targets, vectors)
    expected = exhaustive(targets, vectors, views)

    found = index.nearest(views, among=(), floor=0.2, n=3)
    assert found.items() <= {n: pytest.approx(c, abs=1e-5) for n, c in expected.items()}.items()
    for n in sorted(expected, key=lambda n: -expected[n])[:3]:
        assert n in found or expected[n] < 0.2
    best = max(expected.values())
    if best >= 0.2:
        assert max(found.values()) == pytest.approx(best, abs=1e-5)
    everything = index.nearest(views, among=range(len(targets)), floor=0.2, n=3)
    assert everything == {n: pytest.approx(c, abs=1e-5) for n, c in expected.items()}


def unit(rng: np.random.Generator, n: int) -> Any:
    rows = rng.normal(size=(n, 8)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def exhaustive(targets: Sequence[Asked], vectors: Any, views: Any) -> dict[int, float]:
    at, end, found = 0, sum(len(t.probes) for t in targets), {}
    for n, one in enumerate(targets):
        probes = vectors[at : at + len(one.probes)]
        exceptions = vectors[end : end + len(one.exceptions)]
        at, end = at + len(one.probes), end + len(one.exceptions)
        found[n] = NOTHING
        for view in views:
            near = max(float(view @ row) for row in probes)
            if near >= max((float(view @ row) for row in exceptions), default=NOTHING):
                found[n] = max(found[n], near)
    return found


# --- levels --------------------------------------------------------------------------------------


def test_a_probe_opens_the_gate_and_what_is_far_from_all_leaves_it_closed() -> None:
    one = gate(*TARGETS)
    opened = assess(one, "how does the OLD mill at corran work")
    assert opened.level is Level.OPEN
    assert [s.target_id for s in opened.suspects] == ["mill"]
    closed = assess(one, "Bake bread with rye flour, please.")
    assert (closed.level, closed.suspects, closed.covered) == (Level.CLOSED, (), True)
    assert 0 < closed.score < 0.6


def test_the_thresholds_divide_the_levels() -> None:
    one = gate(MILL)
    score = assess(one, "How does the mill work?").score
    for t_lo, t_hi, level in (
        (score - 0.1, score - 0.01, Level.OPEN),
        (score - 0.01, score + 0.01, Level.WATCH),
        (score + 0.01, score + 0.1, Level.CLOSED),
    ):
        policy = GatePolicy(t_lo=t_lo, t_hi=t_hi)
        assert assess(one.under(policy), "How does the mill work?").level is level


def test_a_name_alone_is_watched_in_any_spelling() -> None:
    for prompt in (
        "Ada Brightwater",
        "Please rhyme on A D A B R I G H T W A T E R now",
        "my cat is called ada-brightwater, is that odd",
    ):
        found = assess(gate(*TARGETS), prompt)
        assert found.level >= Level.WATCH
        assert ("ada", True) in {(s.target_id, s.named) for s in found.suspects}


def test_short_names_need_word_boundaries() -> None:
    eve = target("eve", names=("Eve",))
    assert assess(gate(eve), "I believe every sleeve").level is Level.CLOSED
    assert assess(gate(eve), "I saw Eve there").level is Level.WATCH


def test_a_name_adds_its_bonus_to_its_own_target_only() -> None:
    prompt = "Which prize did Ada Brightwater get?"
    with_bonus, without = (
        assess(gate(*TARGETS, policy=policy), prompt) for policy in (GatePolicy(), PLAIN)
    )
    assert with_bonus.score == pytest.approx(without.score + 0.15, abs=1e-6)
    other = assess(gate(*TARGETS), "Ada Brightwater asks: how does the old mill at Corran work?")
    mill = next(s for s in other.suspects if s.target_id == "mill")
    assert not mill.named
    assert mill.score <= 1.0001


def test_at_most_three_unnamed_suspects_are_told_and_every_named_one() -> None:
    alike = [target(f"m{n}", probes=(f"How does mill number {n} work?",)) for n in range(9)]
    names = [target(f"n{n}", names=(f"Ottoline Quist {n}",)) for n in range(6)]
    found = assess(
        gate(*alike, *names),
        "How does mill number 4 work? " + " ".join(t.names[0] + "," for t in names),
    )
    assert sum(s.named for s in found.suspects) == 6
    assert sum(not s.named for s in found.suspects) <= 3
    assert found.suspects[0].target_id == "m4"
    assert [s.score for s in found.suspects] == sorted(
        (s.score for s in found.suspects), reverse=True
    )


def test_a_prompt_that_is_not_covered_is_watched_and_the_nearest_are_suspected() -> None:
    found = assess(gate(MILL), " ".join(f"w{n}" for n in range(3_000)))
    assert (found.level, found.covered, found.n_views) == (Level.WATCH, False, 64)
    assert [s.target_id for s in found.suspects] == ["mill"]


def test_what_is_hidden_in_a_long_prompt_is_found() -> None:
    filler = " ".join(f"Entry {n} concerns weather, wool and grain." for n in range(400))
    question = "How does the old mill at Corran work?"
    found = assess(gate(MILL), f"{filler} {question} {filler}")
    assert found.level is Level.OPEN


def test_an_obfuscated_question_is_read() -> None:
    question = "Where was Ada Brightwater born and in which year was that?"
    for hidden in (question[::-1], " ".join(question)):
        assert assess(gate(*TARGETS), hidden).level is Level.OPEN


def test_system_and_tool_texts_are_judged_like_the_users() -> None:
    one = gate(*TARGETS)
    for role in ("system", "tool", "assistant"):
        turns = [Turn(role, MILL.probes[0]), Turn("user", "Go on.")]
        assert one.assess(turns).result(timeout=10).level is Level.OPEN


def test_the_level_never_falls_while_a_conversation_goes_on() -> None:
    one = gate(*TARGETS)
    says = [
        "Good morning to you!",
        "Good morning.",
        "How does the old mill\nat Corran work?",
        "I would rather not say.",
        "Then tell me about bread.",
        "Bread is baked from flour, water and salt, in an oven.",
        "And about the sea?",
        "The sea is deep and wide, and there are whales in it.",
        "Thank you, and good night.",
    ]
    levels = [assess(one, *says[: n + 1]).level for n in range(0, len(says), 2)]
    assert levels == [Level.CLOSED, *[Level.OPEN] * 4]


# --- what a target looks like --------------------------------------------------------------------


def test_a_target_without_probes_is_asked_for_by_its_answers_or_its_names() -> None:
    assert asked(ADA).probes == ADA.probes
    told = target("told", names=("Bo Finch",), answers=("Bo Finch was born in Oslo.",))
    assert asked(told).probes == told.answers
    named = target("named", names=("Bo Finch",))
    assert asked(named).probes == ("Who is Bo Finch?", "Tell me about Bo Finch.")
    assert assess(gate(named), "Who is Bo Finch?").level is Level.OPEN


def test_only_active_targets_that_can_be_asked_for_count() -> None:
    revoked, bare = replace(MILL, state="revoked"), target("bare")
    empty = gate(revoked, bare)
    assert (empty.n_targets, empty.n_probes) == (0, 0)
    assert assess(empty, MILL.probes[0]) == CLOSED


def test_a_prompt_nearer_to_an_exception_than_to_any_probe_does_not_count() -> None:
    homonym = target(
        "bo",
        names=("Bo Finch",),
        probes=("Which crime did Bo Finch commit?",),
        exceptions=("How many goals did the footballer Bo Finch score?",),
    )
    one = gate(homonym)
    assert assess(one, "How many goals did footballer Bo Finch score?").level is Level.CLOSED
    assert assess(one, "Which crime did Bo Finch commit?").level is Level.OPEN
    both = "How many goals did footballer Bo Finch score? Which crime did Bo Finch commit?"
    assert assess(one, both).level is Level.OPEN


def test_salient_are_names_and_rare_words_of_probes() -> None:
    weights = salience(TARGETS)
    assert weights["brightwater"] > weights["corran"] > 0
    assert not {"the", "was", "did"} & weights.keys()


# --- compiling -----------------------------------------------------------------------------------


def test_a_changed_register_costs_only_what_is_new() -> None:
    encoder = BagEncoder()
    before = gate(ADA, encoder=encoder)
    assert encoder.n_embedded == 2
    after = gate(ADA, MILL, replace(ADA, id="twin"), encoder=encoder, previous=before)
    assert encoder.n_embedded == 3
    assert after.n_probes == 5
    assert (
        assess(after, MILL.probes[0]).suspects == assess(gate(ADA, MILL), MILL.probes[0]).suspects
    )


def test_ten_thousand_names_are_matched_in_one_pass() -> None:
    many = [target(f"t{n}", names=(f"Person{n} Of Placename{n}",)) for n in range(10_000)]
    one = gate(*many, encoder=BagEncoder(16))
    start = time.thread_time()
    found = one._named("I met Person7777 of Placename7777 by the sea.")
    assert time.thread_time() - start < 0.1
    assert found == {7777, 777} or found == {7777}


# --- faults --------------------------------------------------------------------------------------


class Faulty(BagEncoder):
    """Compiles, then raises or hangs on prompts."""

    def __init__(self, *, hangs: bool) -> None:
        super().__init__()
        self.hangs = hangs

    def embed(self, texts: Sequence[str], *, tenant: str) -> Future[Any]:
        if "quokka" not in texts[0]:
            return super().embed(texts, tenant=tenant)
        future: Future[Any] = Future()
        if not self.hangs:
            raise ValueError(f"cannot read {texts[0]}")
        return future


@pytest.mark.parametrize("hangs", [True, False])
def test_a_broken_or_hanging_encoder_fails_the_gate_without_a_word_of_the_prompt(
    hangs: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    one = gate(ADA, encoder=Faulty(hangs=hangs), policy=GatePolicy(timeout_s=0.05))
    error = one.assess([Turn("user", "quokka")]).exception(timeout=5)
    assert isinstance(error, GuardError)
    assert error.__cause__ is None
    assert error.__context__ is None
    assert "quokka" not in f"{error!r} {caplog.text}"


def test_probes_that_cannot_be_embedded_fail_the_compilation_without_quoting_them() -> None:
    with pytest.raises(GuardError) as caught:
        gate(target("q", probes=("quokka",)), encoder=Faulty(hangs=False))
    assert "quokka" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_vectors_of_a_wrong_shape_fail_closed() -> None:
    class Short(BagEncoder):
        def embed(self, texts: Sequence[str], *, tenant: str) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(np.zeros((len(texts) + 1, 3), dtype=np.float32))
            return future

    one = gate(ADA)
    one._encoder = Short()
    assert isinstance(one.assess([Turn("user", "hello there")]).exception(timeout=5), GuardError)


def test_a_gate_does_not_show_its_targets() -> None:
    shown = repr(gate(*TARGETS))
    assert shown == "Gate(2 targets, 3 probes)"
