from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.middleware.engines.round import SPARING
from elision.middleware.engines.station import LOSS
from elision.middleware.speculation.base import NOTHING, Draft, Mode
from elision.middleware.speculation.controller import (
    MOST_STEPS,
    PROBE_ROUNDS,
    Ask,
    Controller,
    Ledger,
)
from elision.middleware.speculation.cost import CostCurve
from elision.middleware.speculation.timing import GRID

EPS, DELTA = 0.03, 0.05
# Seconds on a CPU without AMX, one thread: float32 as it comes, bfloat16 with packed weights.
STAIRS = [s / 1e3 for s in (67, 110, 130, 96, 111, 113, 137, 143, 178, 194, 261, 304, 390)]
FLAT = [s / 1e3 for s in (43, 46, 48, 43, 44, 53, 56, 60, 75, 89, 126, 156, 195)]

weight_lists = st.lists(st.floats(0.0, 1.0), max_size=24).map(lambda ws: sorted(ws, reverse=True))
modes = st.sampled_from(["auto", "auto", "auto", "off", "force"])


def drafted(weights: Sequence[float]) -> Draft:
    n = len(weights)
    return Draft(tuple(range(n)), (0,) * n, tuple(weights))


def flat(spread: float = 1.1) -> CostCurve:
    return CostCurve(GRID, FLAT, [n * 1e-7 for n in GRID], spread=spread)


def stairs(spread: float = 1.1) -> CostCurve:
    return CostCurve(GRID, STAIRS, spread=spread)


def rich() -> Ledger:
    return Ledger(credit=1e6, opened=1.0)


def ask(
    weights: Sequence[float], ledger: Ledger | None = None, mode: Mode = "auto", width: int = 1
) -> Ask:
    return Ask(drafted(weights), ledger or rich(), mode, 300, width)


# the bound


def _bound_holds(ledger: Ledger) -> bool:
    return ledger.spent <= (1 + EPS) * ledger.plain + ledger.opened + 1e-9


@given(st.data(), st.sampled_from([flat, stairs]), st.floats(1.0, 1.4))
def test_no_ledger_loses_more_than_its_share_and_two_steps_whatever_is_accepted(
    data: st.DataObject, curve: Callable[[float], CostCurve], spread: float
) -> None:
    controller = Controller(curve(spread))
    ledgers = [Ledger(), Ledger(), Ledger()]
    for _ in range(data.draw(st.integers(1, 15))):
        n_sequences = data.draw(st.integers(1, 5))
        asks = [
            ask(
                data.draw(weight_lists),
                data.draw(st.sampled_from(ledgers)),
                data.draw(modes),
                data.draw(st.integers(1, 3)),
            )
            for _ in range(n_sequences)
        ]
        sizes = controller.choose(asks)
        emitted = [data.draw(st.integers(1, 1 + size)) for size in sizes]
        n_roots = sum(ask.width for ask in asks)
        n_rows = sum(ask.width * (1 + n) for ask, n in zip(asks, sizes, strict=True))
        high = controller.curve.high(n_rows, 300, n_roots)
        controller.settle(asks, sizes, emitted, high * data.draw(st.floats(0.3, 1.0)))
        assert all(_bound_holds(ledger) for ledger in ledgers)
        assert all(ledger.credit >= -1e-12 for ledger in ledgers)


@pytest.mark.parametrize("n_sequences", [1, 2, 8])
def test_a_drafter_that_boasts_and_is_always_wrong_costs_no_more_than_the_bound(
    n_sequences: int,
) -> None:
    controller, ledgers = Controller(flat()), [Ledger() for _ in range(n_sequences)]
    scored = 0
    for _ in range(500):
        asks = [ask([0.99**k for k in range(30)], ledger) for ledger in ledgers]
        sizes = controller.choose(asks)
        scored += sum(sizes)
        high = controller.curve.high(n_sequences + sum(sizes), 300, n_sequences)
        controller.settle(asks, sizes, [1] * n_sequences, high)
    assert scored > 0
    assert all(_bound_holds(ledger) for ledger in ledgers)
    assert all(ledger.spent > ledger.plain for ledger in ledgers)


def test_sequences_of_one_tenant_cannot_spend_the_same_credit_twice() -> None:
    ledger, controller = Ledger(credit=0.03, opened=1.0), Controller(flat(spread=1.0))
    asks = [ask([0.9, 0.8, 0.7, 0.6], ledger) for _ in range(8)]
    sizes = controller.choose(asks)
    curve = controller.curve
    assert sum(sizes) > 0
    assert curve.high(8 + sum(sizes), 300, 8) - curve.seconds(8, 300, 8) <= 0.03


def test_what_one_tenant_loses_is_no_other_tenants_loss() -> None:
    controller, loser, bystander = Controller(flat()), Ledger(), Ledger()
    asks = [ask([0.9] * 8, loser), ask([], bystander)]
    for _ in range(10):
        sizes = controller.choose(asks)
        controller.settle(asks, sizes, [1, 1], controller.curve.high(2 + sum(sizes), 300, 2))
    assert loser.credit < bystander.credit
    assert bystander.spent == pytest.approx(bystander.plain)


def test_credit_is_capped() -> None:
    controller, ledger = Controller(flat()), Ledger()
    for _ in range(2000):
        controller.settle([ask([], ledger)], [0], [1], FLAT[0])
    assert ledger.credit == pytest.approx(MOST_STEPS * controller.curve.seconds(1, 300))


def test_an_interruption_is_not_charged_and_debt_is_earned_out() -> None:
    controller, ledger = Controller(flat()), Ledger()
    asks = [ask([0.9, 0.8, 0.7, 0.6], ledger)]
    sizes = controller.choose(asks)
    assert sizes[0] > 0
    controller.settle(asks, sizes, [1], 60.0)
    assert ledger.credit > -controller.curve.seconds(1, 300)
    for n_plain in itertools.count():
        assert n_plain < 50
        if controller.choose(asks) != [0]:
            break
        controller.settle(asks, [0], [1], FLAT[0])


def test_drafting_that_is_not_scored_is_charged_too() -> None:
    controller, ledger = Controller(flat()), Ledger()
    for _ in range(500):
        if not controller.room(1, 300, ledger):
            break
        controller.settle([ask([0.01], ledger)], [0], [1], FLAT[0], drafting_s=0.01)
    assert controller.room(1, 300, ledger) == 0
    assert ledger.credit > -0.01
    assert ledger.spent <= (1 + EPS) * ledger.plain + ledger.opened + 0.01


@given(st.sampled_from(["off", "force"]), weight_lists)
def test_only_auto_moves_a_ledger(mode: Mode, weights: list[float]) -> None:
    controller, ledger = Controller(flat()), Ledger()
    asks = [ask(weights, ledger, mode)]
    sizes = controller.choose(asks)
    before = ledger.credit
    controller.settle(asks, sizes, [1], 0.5)
    assert (ledger.credit, ledger.spent, ledger.plain) == (before, 0.0, 0.0)


# choosing


def _spec_4_5(controller: Controller, one: Ask, node_s: float, token_s: float) -> int:
    """The pseudo-code of spec 4.5, word for word."""
    curve, context = controller.curve, one.n_context
    t1, best, best_ratio = curve.seconds(1, context), 0, 0.0
    for m in range(1, len(one.draft) + 1):
        worst = curve.high(1 + m, context) + node_s * m - t1
        if one.mode == "auto" and worst > one.ledger.credit:
            continue
        expected = one.draft.first(m).expected
        took = curve.seconds(1 + m, context) + node_s * m + expected * token_s
        ratio = expected * (t1 + token_s) / took
        if ratio > best_ratio * (1 + 1e-12):
            best, best_ratio = m, ratio
    return best if one.mode == "force" or best_ratio >= 1 + DELTA else 0


@given(
    weight_lists,
    st.floats(0.0, 0.4),
    st.sampled_from(["auto", "force"]),
    st.sampled_from([flat, stairs]),
    st.sampled_from([0.0, 0.001]),
    st.sampled_from([0.0, 0.002]),
)
def test_one_sequence_gets_what_the_spec_says(
    weights: list[float],
    credit: float,
    mode: Mode,
    curve: Callable[[], CostCurve],
    node_s: float,
    token_s: float,
) -> None:
    controller = Controller(curve(), node_s=node_s, token_s=token_s)
    one = ask(weights, Ledger(credit=credit, opened=1.0), mode)
    assert controller.choose([one]) == [_spec_4_5(controller, one, node_s, token_s)]


@given(st.lists(weight_lists, min_size=1, max_size=4), st.sampled_from([flat, stairs]))
def test_several_sequences_get_the_best_prefix_of_all_nodes_ranked(
    drafts: list[list[float]], curve: Callable[[], CostCurve]
) -> None:
    controller, n = Controller(curve()), len(drafts)
    sizes = controller.choose([ask(weights) for weights in drafts])

    def speed(m: int, gained: float) -> float:
        return (n + gained) / controller.curve.seconds(n + m, 300, n)

    ranked = sorted((w for weights in drafts for w in weights), reverse=True)
    best = max((speed(m, sum(ranked[:m])) for m in range(1, len(ranked) + 1)), default=0.0)
    gained = sum(sum(ws[:size]) for ws, size in zip(drafts, sizes, strict=True))
    if best < (1 + DELTA) * speed(0, 0.0) * (1 - 1e-9):
        assert sizes == [0] * n
    elif best > (1 + DELTA) * speed(0, 0.0) * (1 + 1e-9):
        assert speed(sum(sizes), gained) == pytest.approx(best)


@given(
    st.lists(
        st.tuples(weight_lists, modes, st.floats(-0.1, 0.3), st.integers(0, 2)),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([flat, stairs]),
)
def test_no_sequence_gets_more_than_it_has_or_its_mode_or_its_ledger_allows(
    drawn: list[tuple[list[float], Mode, float, int]], curve: Callable[[], CostCurve]
) -> None:
    controller = Controller(curve())
    ledgers = [Ledger(credit=drawn[0][2] + k / 20, opened=1.0) for k in range(3)]
    asks = [ask(weights, ledgers[k], mode) for weights, mode, _, k in drawn]
    sizes = controller.choose(asks)
    total, n = sum(sizes), len(asks)
    extra = controller.curve.high(n + total, 300, n) - controller.curve.seconds(n, 300, n)
    for one, size in zip(asks, sizes, strict=True):
        assert 0 <= size <= len(one.draft)
        assert size == 0 or one.mode != "off"
        assert size > 0 or one.mode != "force" or not one.draft.tokens
    for ledger in ledgers:
        pays = [a.mode == "auto" and a.ledger is ledger for a in asks]
        its = sum(size for size, its in zip(sizes, pays, strict=True) if its)
        assert its == 0 or extra * its / total <= ledger.credit + 1e-12


def test_a_poor_tenant_does_not_keep_a_rich_one_from_drafting() -> None:
    controller = Controller(flat())
    poor, wealthy = ask([0.9] * 6, Ledger(0.0, opened=1.0)), ask([0.5, 0.4, 0.3])
    assert controller.choose([poor, wealthy])[0] == 0
    assert controller.choose([poor, wealthy])[1] > 0


def test_the_tree_of_each_shrinks_as_the_batch_grows() -> None:
    controller, weights = Controller(flat()), [0.6 * 0.85**k for k in range(40)]
    sizes = [max(controller.choose([ask(weights)] * n)) for n in (1, 2, 4, 8, 16)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] >= 2 * sizes[3]


def test_the_tree_takes_the_cheap_step_of_the_stairs() -> None:
    assert Controller(stairs()).choose([ask([0.6, 0.5, 0.4, 0.02, 0.01])]) == [3]


def test_a_copying_sequence_gets_the_nodes_that_the_others_cannot_use() -> None:
    sizes = Controller(flat()).choose([ask([0.95**k for k in range(1, 30)]), ask([0.05] * 20)])
    assert sizes[0] > 8
    assert sizes[1] == 0


def test_nothing_drafted_is_nothing_scored() -> None:
    for mode in ("auto", "off", "force"):
        one = Ask(NOTHING, Ledger(), mode, 300)
        assert Controller(flat()).choose([one]) == [0]


# what plain decoding costs stays known


def _run(
    controller: Controller, truth: dict[int, float], n_rounds: int, accepted: int
) -> list[int]:
    """Decode text of which *accepted* nodes are right per round; return the sizes."""
    ledger, sizes = Ledger(), list[int]()
    for _ in range(n_rounds):
        asks = [ask([0.8, 0.6, 0.4], ledger)]
        size = controller.choose(asks)
        n = 1 + size[0]
        controller.settle(asks, size, [1 + min(accepted, size[0])], truth[n])
        sizes += size
    return sizes


def test_now_and_then_a_round_is_plain_however_well_drafting_goes() -> None:
    truth = dict(zip(GRID, FLAT, strict=True))
    sizes = _run(Controller(flat()), truth, 1000, accepted=2)
    plain = [i for i, size in enumerate(sizes) if size == 0]
    assert plain[0] <= 8
    assert max(b - a for a, b in itertools.pairwise(plain)) == PROBE_ROUNDS + 1
    assert len(plain) < 16


def test_drafting_ends_when_the_calibration_had_flattered_it() -> None:
    truth = dict(zip(GRID, FLAT, strict=True)) | {1: 0.014}
    controller = Controller(flat())
    sizes = _run(controller, truth, 2000, accepted=2)
    assert sum(size > 0 for size in sizes[:200]) > 100
    assert sum(size > 0 for size in sizes[-500:]) < 50


# room


@pytest.mark.parametrize("curve", [flat, stairs])
def test_room_ends_where_even_copied_text_gains_nothing(curve: Callable[[], CostCurve]) -> None:
    controller = Controller(curve())
    room = controller.room(1, 300)
    copied = [0.95**k for k in range(1, 81)]
    assert controller.choose([ask(copied)]) == [room]
    assert 8 < room < 40


def test_room_shrinks_as_the_batch_grows_and_is_nothing_for_a_tenant_in_debt() -> None:
    controller = Controller(flat())
    rooms = [controller.room(n, 300) for n in (1, 2, 4, 8, 16)]
    assert rooms == sorted(rooms, reverse=True)
    assert controller.room(1, 300, Ledger(-0.01, opened=1.0)) == 0
    assert controller.room(1, 300, Ledger()) == rooms[0]


def test_gauges_tell_how_it_goes() -> None:
    controller = Controller(flat())
    for _ in range(300):
        asks = [ask([0.9, 0.8]), ask([0.9, 0.8])]
        controller.settle(asks, [2, 1], [3, 2], 0.05, drafting_s=0.0006, walk_s=0.005)
    gauges = controller.gauges()
    assert gauges["rounds"] == 300
    assert gauges["plain_rounds"] == 0
    assert gauges["tokens_per_step"] == pytest.approx(2.5)
    assert gauges["tree_size"] == pytest.approx(1.5)
    assert gauges["node_s"] == pytest.approx(0.0002)
    assert gauges["token_s"] == pytest.approx(0.001)


# T11: texts of known acceptance on a CPU-like curve, spec 4.5

SIM_POINTS = ([1, 8, 16, 81], [1.0, 1.4, 1.8, 4.9])
N_TOKENS, NOISE = 3000, 0.1


def _ranks(p1: float) -> list[float]:
    """Chance that the right token has each rank: falling as a power, in all p1 * 5/3."""
    fall = [(r + 1) ** -1.47 for r in range(8)]
    rest = p1 * (0.75 / 0.45 - 1) / sum(fall[1:])
    return [p1, *(rest * f for f in fall[1:])]


@dataclass
class Simulation:
    """Decodes a text whose tokens have known chances, drafting from what was learned of them."""

    text: Callable[[int], float]
    rng: random.Random = field(default_factory=lambda: random.Random(11))
    hits: list[float] = field(default_factory=lambda: [20 * p for p in _ranks(0.3)])
    trials: float = 20.0

    def speedup(self, fixed: int | None = None) -> float:
        points = [float(np.interp(n, *SIM_POINTS)) / 20 for n in GRID]
        controller = Controller(CostCurve(GRID, points))
        ledger, clock, n, plain = Ledger(), 0.0, 0, 0.0
        step = 0
        while n < N_TOKENS:
            if step % 32 == 0:
                draft, children = self._tree(80)
            step += 1
            asks = [Ask(draft, ledger, "auto", 64)]
            sizes = controller.choose(asks) if fixed is None else [fixed]
            rows = 1 + sizes[0]
            emitted = self._walk(children, sizes[0], self.text(n))
            took = float(np.interp(rows, *SIM_POINTS)) / 20 * self.rng.lognormvariate(0, NOISE)
            controller.settle(asks, sizes, [emitted], took)
            plain += sum(self.rng.lognormvariate(0, NOISE) / 20 for _ in range(emitted))
            clock, n = clock + took, n + emitted
        return plain / clock

    def _walk(self, children: dict[tuple[int, int], int], size: int, p1: float) -> int:
        node, emitted = 0, 0
        while True:
            rank = self._draw(p1)
            self.trials = 0.995 * self.trials + 1
            self.hits = [0.995 * h + (r == rank) for r, h in enumerate(self.hits)]
            emitted += 1
            child = children.get((node, rank), size + 1)
            if child > size:
                return emitted
            node = child

    def _draw(self, p1: float) -> int:
        u = self.rng.random()
        for rank, p in enumerate(_ranks(p1)):
            u -= p
            if u < 0:
                return rank
        return 8

    def _tree(self, n: int) -> tuple[Draft, dict[tuple[int, int], int]]:
        p = [h / self.trials for h in self.hits]
        heap = [(-q, 0, rank) for rank, q in enumerate(p)]
        heapq.heapify(heap)
        parents, weights, children = list[int](), list[float](), dict[tuple[int, int], int]()
        while len(weights) < n:
            minus, parent, rank = heapq.heappop(heap)
            parents.append(parent)
            weights.append(min(1.0, -minus))
            children[parent, rank] = len(weights)
            for r, q in enumerate(p):
                heapq.heappush(heap, (minus * q, len(weights), r))
        return Draft((0,) * n, tuple(parents), tuple(weights)), children


@pytest.mark.parametrize(
    ("name", "text", "at_least"),
    [
        ("good", lambda n: 0.45, 1.46),
        ("medium", lambda n: 0.30, 1.17),
        ("bad", lambda n: 0.05, 0.985),
        ("zero", lambda n: 0.0, 0.985),
        ("alternating", lambda n: 0.45 * (n // 200 % 2 == 0), 1.08),
        ("collapse", lambda n: 0.45 * (n < 1000), 1.08),
    ],
)
def test_a_text_is_as_fast_as_the_simulation_of_the_spec(
    name: str, text: Callable[[int], float], at_least: float
) -> None:
    speedup = Simulation(text).speedup()
    assert at_least <= speedup < at_least + 0.1, name


@pytest.mark.parametrize(("p1", "at_most"), [(0.45, 0.65), (0.05, 0.25)])
def test_a_fixed_tree_of_eighty_is_far_slower_than_plain(p1: float, at_most: float) -> None:
    assert Simulation(lambda n: p1).speedup(fixed=80) <= at_most


@pytest.mark.parametrize(("sparing", "tried"), [(True, True), (False, False)])
def test_who_has_spent_all_may_try_again_if_not_every_step_is_learned_from(
    sparing: bool, tried: bool
) -> None:
    """Learning costs about what a ledger earns; so an engine that rests learns from some steps."""
    controller, ledger = Controller(flat(), eps=LOSS), Ledger()
    assert controller.room(1, 300, ledger) > 0
    ledger.credit = 0.0
    n_steps = 0
    while not controller.room(1, 300, ledger) and n_steps < 400:
        learns = not sparing or n_steps % SPARING == 0
        drafting_s = 0.012 * FLAT[0] if learns else 0.0005 * FLAT[0]
        controller.settle([ask([], ledger)], [0], [1], FLAT[0], drafting_s=drafting_s)
        n_steps += 1
    assert (n_steps < 400) == tried
