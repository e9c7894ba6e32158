"""A batch is adjusted as its rows are one by one; heads as a descent in float64 has them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numba
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elision.contract import Context, Here, Recipe, Session, Stage, Stateless
from elision.guards.guard import Guard
from elision.guards.phrases.mask import MaskSession, forbid
from elision.guards.phrases.product import Blocked
from elision.guards.phrases.rows import forbid_rows_
from elision.guards.targets import ForgetTarget, Phrase
from elision.guards.verbatim.verbatim import Verbatim
from elision.middleware.interventions import (
    INTERVENTIONS,
    Chain,
    EntropyMinimisation,
    LogitBias,
)
from elision.middleware.interventions.batching import Place, adjust_rows
from elision.middleware.interventions.entropy import EM_INF, compiling, entropy, kernel
from elision.middleware.interventions.entropy import rows as sharpening
from elision.middleware.interventions.entropy.rows import minimise_entropies_, prepare
from elision.middleware.interventions.entropy.whole import minimised
from elision.testing import byte_lexicon
from elision.testing.laws import awkward_rows

V = 259
LEXICON = byte_lexicon()
CONTEXT = Context(lexicon=LEXICON, vocab_size=V, prompt_ids=(5, 6, 7), eos=frozenset({257}))
TARGET = ForgetTarget(
    title="t",
    phrases=(Phrase(text="male"), Phrase(text="a"), Phrase(text="made", mode="soft")),
    passages=("the boat that went out came back at dawn with nobody in it but the cat",),
)
GUARD: tuple[Recipe, ...] = (
    *Guard.compile([TARGET]).recipes(LEXICON),
    *Verbatim.compile([TARGET]).recipes(LEXICON),
)
BRANCHING = {"mti", "mti-random", "cfg", "cfg-plausible", "cad", "contrast", "cd", "cd-obrien"}
BRANCHING |= {"uld", "delta", "reinforced"}
ALONE = [
    make
    for name, make in INTERVENTIONS.items()
    if name not in BRANCHING and make().stage < Stage.TEMPERATURE
]
ROWS = awkward_rows(V)
EM = EntropyMinimisation()


def placed(row: Tensor, recipes: Sequence[Recipe], text: str = "") -> tuple[Session, ...]:
    chain = Chain.begin(recipes, CONTEXT)
    for byte in text.encode():
        chain = chain.advance(byte)
    return chain.early


def one_by_one(row: Tensor, sessions: Sequence[Session], here: Here) -> Tensor:
    for session in sessions:
        row = session.adjust(row, here)
    return row


def text_like(n_rows: int, n_scores: int = 6000, *, seed: int = 0) -> Tensor:
    """Scores as a model's are: a broad heap, a few far above it."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(n_rows, n_scores, generator=draw) * 3 - 4
    tops = torch.randn(n_rows, 12, generator=draw) * 1.5 + 12
    where = torch.randint(n_scores, (n_rows, 12), generator=draw)
    return rows.scatter(1, where, tops)


def descended(row: Tensor, recipe: EntropyMinimisation) -> Tensor:
    """EM-INF as its equations stand, in float64, every score of the row."""
    x = row.double() - row.double().amax()
    first, second = torch.zeros_like(x), torch.zeros_like(x)
    probs_then = x.softmax(0)
    for n in range(1, recipe.steps + 1):
        probs, finite = x.softmax(0), x > -inf
        mean = (probs * x)[finite].sum()
        if x.logsumexp(0) - mean <= recipe.threshold:
            break
        gradient = torch.zeros_like(x)
        pull = recipe.kl_weight * (probs - probs_then)
        gradient[finite] = (probs * (mean - x) + pull)[finite]
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        root = (second / (1 - 0.999**n)).sqrt() + 1e-8
        x = x - recipe.lr * (first / (1 - 0.9**n)) / root
    return x + row.double().amax()


texts = st.sampled_from(["", "m", "mal", "ma", "Das Mal", "x"])
chains = st.tuples(st.lists(st.sampled_from(ALONE), max_size=4, unique=True), st.booleans(), texts)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(chains, st.integers(0, len(ROWS) - 1)), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_a_batch_is_adjusted_as_its_rows_are_one_by_one(
    batch: list[tuple[tuple[list[object], bool, str], int]], random: object
) -> None:
    logits = torch.stack([ROWS[n] for _, n in batch] + [ROWS[0], torch.full((V,), torch.nan)])
    before, places, wanted = logits.clone(), [], logits.clone()
    for index, ((makers, guarded, text), _) in enumerate(batch):
        recipes = [make() for make in makers]  # type: ignore[operator]
        sessions = placed(before[index], (*recipes, *(GUARD if guarded else ())), text)
        there, here = Here(before[index]), Here(before[index])
        wanted[index] = one_by_one(before[index], sessions, there)
        places.append((Place(index, sessions, here), there))
    random.shuffle(places)  # type: ignore[attr-defined]
    empty = tuple(n for n in range(len(batch)) if not wanted[n].amax().isfinite())
    assert adjust_rows(logits, [place for place, _ in places]) == empty
    assert logits.equal(wanted) or torch.allclose(logits, wanted, rtol=0, atol=0, equal_nan=True)
    for place, there in places:
        assert isinstance(place.here, Here)
        assert place.here.notes == there.notes
    assert logits[: len(batch)][before[: len(batch)] == -inf].eq(-inf).all()


@pytest.mark.parametrize(
    "recipe",
    [
        EM,
        EM_INF["library"],
        EM_INF["contest"],
        EntropyMinimisation(threshold=1.2, kl_weight=0.2),
        EntropyMinimisation(lr=0.2, steps=5, kl_weight=0.0, threshold=0.0),
    ],
    ids=["focused", "library", "contest", "early end", "far"],
)
def test_heads_descend_as_in_float64_and_the_same_rows_are_taken(
    recipe: EntropyMinimisation,
) -> None:
    rows = text_like(40)
    rows[3, ::7] = -inf
    rows[4] = rows[4].where(rows[4] > 8, -inf)
    out = rows.clone()
    acted = minimise_entropies_(out, range(40), recipe, temperature=0.1)
    clear = [abs(entropy(row) - recipe.threshold) > 1e-4 for row in rows]
    assert all(clear)
    assert acted == {n: entropy(row) > recipe.threshold for n, row in enumerate(rows)}
    assert sum(map(bool, acted.values())) > 5
    for row, got in zip(rows, out, strict=True):
        want = descended(row, recipe)
        head = row > row.amax() - 7
        assert (got.double() - want)[head].abs().max() < 5e-6
        far = 0.5 * ((got.double() / 0.1).softmax(0) - (want / 0.1).softmax(0)).abs().sum()
        assert far < 2e-5  # what rounding to float32 makes of it at this temperature
        assert got.isneginf().equal(row.isneginf())


@pytest.mark.parametrize("temperature", [0.0, 0.1, 0.2, 0.3, 0.35])
def test_what_is_left_of_the_tail_is_nothing_at_any_temperature(temperature: float) -> None:
    rows = text_like(8, seed=1)
    out = rows.clone()
    minimise_entropies_(out, range(8), EM, temperature=temperature)
    for row, got in zip(rows, out, strict=True):
        want = descended(row, EM)
        left = (got == row) & ((want - row.double()).abs() > 1e-4)
        for scores in (got.double(), want):
            shares = ((scores - scores.amax()) / max(temperature, 1e-3)).softmax(0)
            assert shares[left].sum() < 1e-11


@pytest.mark.parametrize(
    ("recipe", "temperature"),
    [(EM, None), (EM, 0.5), (EM, 1.0), (EM_INF["paper"], 0.1), (EntropyMinimisation(lr=1), 0.1)],
)
def test_every_score_is_moved_where_every_score_counts(
    recipe: EntropyMinimisation, temperature: float | None
) -> None:
    rows = text_like(6, seed=2)
    out = rows.clone()
    minimise_entropies_(out, range(6), recipe, temperature=temperature)
    assert all(got.equal(recipe.adjust(row, Here(row))) for row, got in zip(rows, out, strict=True))


def test_flat_rows_descend_among_others_as_they_do_alone() -> None:
    rows = text_like(8, 60_000, seed=3)
    rows[1] = torch.linspace(0, 3, rows.shape[1])
    rows[3] = torch.linspace(-9, -6, rows.shape[1])
    rows[3, 9] = 0.0
    rows[5] = torch.linspace(-13.2, -10.2, rows.shape[1])
    rows[5, 9] = 0.0
    rows[6] = 2.5
    out = rows.clone()
    acted = minimise_entropies_(out, range(8), EM, temperature=0.1)
    assert [acted[n] for n in (1, 3, 5, 6)] == [True, True, True, False]
    for n in (0, 1, 3, 5, 6):
        row, want = rows[n], descended(rows[n], EM) if n != 6 else rows[n]
        near = (out[n].double() - want).abs()[row > row.amax() - 7]
        assert near.max() < 1e-5


def test_rows_without_a_distribution_poison_no_other() -> None:
    rows = text_like(12, seed=4)
    alone = rows.clone()
    minimise_entropies_(alone, range(12), EM, temperature=0.1)
    broken = rows.clone()
    broken[2], broken[5, 7], broken[8, 9] = -inf, torch.nan, inf
    given_ = broken.clone()
    acted = minimise_entropies_(broken, range(12), EM, temperature=0.1)
    assert [n for n, how in acted.items() if how is None] == [2, 5, 8]
    assert broken[[2, 5, 8]].allclose(given_[[2, 5, 8]], equal_nan=True)
    rest = [n for n in range(12) if n not in (2, 5, 8)]
    assert broken[rest].equal(alone[rest])


@pytest.mark.parametrize("n_scores", [2, 63, 64, 65, 130, 511, 512, 513, 1536, 1537, 5000])
def test_rows_of_any_length_descend_as_in_float64(n_scores: int) -> None:
    rows = text_like(4, n_scores, seed=n_scores)
    out = rows.clone()
    acted = minimise_entropies_(out, range(4), EM, temperature=0.1)
    assert acted == {n: entropy(row) > EM.threshold for n, row in enumerate(rows)}
    for row, got in zip(rows, out, strict=True):
        near = (got.double() - descended(row, EM)).abs()[row > row.amax() - 7]
        assert near.max() < 5e-6


def test_awkward_rows_are_taken_where_they_are_alone_and_lose_nothing() -> None:
    out = torch.stack(ROWS)
    acted = minimise_entropies_(out, range(len(ROWS)), EM, temperature=0.1)
    for n, row in enumerate(ROWS):
        best = row.amax()
        if not best.isfinite() or row.isnan().any():
            assert acted[n] is None
            assert out[n].allclose(row, equal_nan=True)
            continue
        assert out[n].isneginf().equal(row.isneginf())
        assert out[n].argmax() in (row == best).nonzero()
        spread = best - row[row > -inf].amin()
        if not 0 < spread < 1e-4:  # there rounding is the signal
            assert bool(acted[n]) == (EM.adjust(row, Here(row)) is not row)


@pytest.mark.parametrize("failure", [RuntimeError, OSError, EOFError])
def test_what_cannot_be_kept_is_compiled_all_the_same(
    failure: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def nowhere(*signature: str, cache: bool, **terms: Any) -> Any:
        asked.append(cache)
        if cache:
            raise failure
        return njit(*signature, **terms)

    njit = numba.njit
    monkeypatch.setattr(numba, "njit", nowhere)
    twice = compiling.kept("int64(int64)")(lambda n: 2 * n)
    assert twice(21) == 42
    assert asked == [True, False]


def test_a_row_whose_head_is_not_all_that_matters_is_left_as_it_was() -> None:
    flat = torch.linspace(-9, -6, 60_000)
    flat[9] = 0.0
    for row, widest, lr in ((flat, 7.0, EM.lr), (text_like(1, seed=14)[0], 14.0, inf)):
        before = row.clone()
        terms = (widest, EM.threshold, EM.kl_weight, lr, EM.steps)
        assert kernel.sharpen_(row.numpy(), 7.0, *terms) == kernel.WHOLE
        assert row.equal(before)


def test_a_row_comes_out_the_same_whoever_stands_beside_it() -> None:
    rows = text_like(40, seed=5)
    whole, apart, alone = rows.clone(), rows.clone(), rows.clone()
    minimise_entropies_(whole, range(40), EM, temperature=0.1)
    minimise_entropies_(apart, [*range(1, 40, 2)], EM, temperature=0.1)
    for n in range(40):
        minimise_entropies_(alone, [n], EM, temperature=0.1)
    assert whole.sub(alone).abs().max() < 2e-6
    assert whole[1::2].sub(apart[1::2]).abs().max() < 2e-6
    assert apart[::2].equal(rows[::2])


def test_rows_are_sharpened_inside_inference_mode_and_outside() -> None:
    rows = text_like(3, 6007, seed=8)
    with torch.inference_mode():
        inside = rows.clone()
        minimise_entropies_(inside, range(3), EM, temperature=0.1)
    outside = rows.clone()
    minimise_entropies_(outside, range(3), EM, temperature=0.1)
    assert inside.equal(outside)
    assert not outside.equal(rows)


@pytest.mark.parametrize("recipe", [EM, EM_INF["paper"], EM_INF["library"]])
def test_a_device_that_takes_all_rows_in_one_go_does_what_one_row_is_done(
    recipe: EntropyMinimisation,
) -> None:
    apart = [row for row in ROWS if not 0 < row.abs().max() < 1e-4]  # there rounding is the signal
    rows = torch.cat([text_like(8, 259, seed=9), torch.stack(apart)])
    rows[3, 7] = torch.nan
    got, acted = minimised(rows, recipe)
    for row, out, is_hesitant in zip(rows, got, acted.tolist(), strict=True):
        want = recipe.adjust(row, Here(row))
        assert is_hesitant == (want is not row)
        assert torch.allclose(out, want, rtol=2e-6, atol=1e-5, equal_nan=True)
        assert out.isneginf().equal(row.isneginf())


def test_scores_that_lie_across_the_memory_are_moved_all_the_same() -> None:
    rows = text_like(4, seed=6)
    across = rows.t().contiguous().t()
    minimise_entropies_(across, range(4), EM, temperature=0.1)
    assert all(got.equal(EM.adjust(row, Here(row))) for row, got in zip(rows, across, strict=True))


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
def test_elsewhere_than_on_a_cpu_rows_are_sharpened_a_bounded_number_at_a_time(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.cat([text_like(4, seed=6), torch.eye(3, text_like(1, seed=6).shape[1]) * 50])
    whole, rows = logits.clone(), [5, 0, 6, 2, 3]
    acted, widths = sharpening._on_device(whole, rows, EM), list[int]()

    def watched(some: Tensor, recipe: EntropyMinimisation) -> tuple[Tensor, Tensor]:
        widths.append(len(some))
        return minimised(some, recipe)

    monkeypatch.setattr(sharpening, "_DEVICE_SCORES", at_once * logits.shape[1] + 1)
    monkeypatch.setattr(sharpening, "minimised", watched)
    got = logits.clone()
    assert sharpening._on_device(got, rows, EM) == acted
    assert [row for row, how in acted.items() if how] == [0, 2, 3]
    assert torch.allclose(got, whole, atol=1e-6)
    assert not torch.equal(got, logits)
    assert got[[1, 4, 5, 6]].equal(logits[[1, 4, 5, 6]])
    assert max(widths) <= at_once
    assert sum(widths) == len(rows)


blocked = st.sets(st.integers(0, 40), max_size=6).map(
    lambda ids: Blocked(torch.tensor(sorted(ids), dtype=torch.long), max(ids, default=-1))
)
scores = st.one_of(st.floats(-50, 50, width=32), st.just(-inf), st.sampled_from([0.0, 30.0]))


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.lists(scores, min_size=9, max_size=9), blocked), min_size=1, max_size=5),
    st.sampled_from([0.0, 1e-3, 0.5]),
    st.booleans(),
)
def test_rows_are_masked_as_one_is(
    rows: list[tuple[list[float], Blocked]], min_mass: float, beside: bool
) -> None:
    logits = torch.tensor([row for row, _ in rows] + [[1.0] * 9] * beside)
    wanted, heres = logits.clone(), [Here(row) for row in logits]
    for n, (_, ids) in enumerate(rows):
        wanted[n] = forbid(logits[n].clone(), ids, heres[n], min_mass=min_mass)
    order = [*range(len(rows))][::-1]
    shares = forbid_rows_(logits, order, [rows[n][1] for n in order], min_mass=min_mass)
    assert logits.equal(wanted)
    assert [*shares] == [heres[n].notes.get("guard.masked", 0.0) for n in order]


class Breaks(Stateless):
    """A session that fails."""

    stage = Stage.SOFT_BIAS

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        raise ArithmeticError


class Empties(Stateless):
    """A session that leaves nothing."""

    stage = Stage.TEMPERATURE

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return torch.full_like(logits, -inf)


class Unreadable:
    """Stands where a mask's text should be."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError


def test_a_session_that_fails_takes_its_own_row_along_and_no_other() -> None:
    rows = torch.stack([ROWS[0]] * 5)
    sessions = placed(rows[0], (*GUARD, EM), "mal")
    mask = next(s for s in sessions if isinstance(s, MaskSession))
    broken = MaskSession(mask.recipe, Unreadable(), frozenset())  # type: ignore[arg-type]

    def no_place() -> Here:
        raise LookupError

    places = [
        Place(0, sessions, Here(rows[0].clone())),
        Place(1, (Breaks(), *sessions), Here(rows[1].clone())),
        Place(2, (broken, EM), Here(rows[2].clone())),
        Place(3, sessions, no_place),
    ]
    out = rows.clone()
    assert adjust_rows(out, places) == (1, 2, 3)
    assert out[1:4].eq(-inf).all()
    assert out[0].equal(one_by_one(rows[0], sessions, Here(rows[0])))
    assert out[4].equal(rows[4])


def test_rows_of_which_nothing_can_come_are_told() -> None:
    rows = text_like(6, seed=11)
    rows[2], rows[3, 5] = -inf, torch.nan
    places = [Place(n, (EM,), Here(rows[n].clone()), temperature=0.1) for n in range(4)]
    places.append(Place(4, (EM, Empties()), Here(rows[4].clone())))
    places.append(Place(5, (), Here(rows[5].clone())))
    assert adjust_rows(rows, places) == (2, 3, 4)


def test_a_descent_that_comes_to_no_number_is_made_anew_score_by_score(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = text_like(4, seed=12)
    out, alone = rows.clone(), rows.clone()
    assert minimise_entropies_(alone, range(4), EM) == dict.fromkeys(range(4), True)
    monkeypatch.setattr(kernel, "sharpen_", lambda *_: kernel.WHOLE)
    assert minimise_entropies_(out, range(4), EM, temperature=0.1) == dict.fromkeys(range(4), True)
    assert out.equal(alone)


@pytest.fixture
def anew() -> Iterator[None]:
    """Have what sharpens rows looked for again, and once more behind the test."""
    prepare.cache_clear()
    yield
    prepare.cache_clear()


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("missing", [True, False], ids=["no numba", "switched off"])
def test_without_a_compiler_every_score_of_each_row_is_moved(
    missing: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if missing:
        for name in (kernel.__name__, compiling.__name__):
            monkeypatch.delitem(sys.modules, name)
            monkeypatch.delattr(name)
        monkeypatch.setitem(sys.modules, "numba", None)
    else:
        monkeypatch.setattr(compiling, "IS_OFF", True)
    rows = text_like(3, seed=13)
    rows[1] = -inf
    out = rows.clone()
    acted = minimise_entropies_(out, range(3), EM, temperature=0.1)
    minimise_entropies_(rows.clone(), range(3), EM, temperature=0.1)
    assert acted == {0: True, 1: None, 2: True}
    assert out.equal(torch.stack([EM.adjust(row, Here(row)) for row in rows]))
    [told] = caplog.messages
    assert "not compiled" in told


def test_a_place_is_made_once_before_its_row_changes_and_only_for_who_asks() -> None:
    rows = torch.stack([ROWS[0]] * 2)
    made: list[Tensor] = []

    def make() -> Here:
        made.append(rows[1].clone())
        return Here(made[-1])

    masks = tuple(s for s in placed(rows[0], GUARD, "mal") if isinstance(s, MaskSession))
    bias = LogitBias(bias={3: 1.0}).begin(CONTEXT)
    adjust_rows(rows, [Place(0, (*masks, EM), make)])
    assert not made
    adjust_rows(rows, [Place(1, (*masks, bias, EM, bias), make)])
    assert len(made) == 1
    assert made[0].equal(ROWS[0])


def test_where_only_the_best_token_counts_shaping_is_left_out_and_masks_are_not() -> None:
    rows = torch.stack(ROWS[:3])
    recipes = (*GUARD, EM, INTERVENTIONS["target-entropy"](), INTERVENTIONS["em-inf-first"]())
    out, whole = rows.clone(), rows.clone()
    for n, row in enumerate(rows):
        sessions = placed(row, recipes, "mal")
        adjust_rows(out, [Place(n, sessions, Here(row.clone()), best_only=True)])
        adjust_rows(whole, [Place(n, sessions, Here(row.clone()))])
    assert out.argmax(-1).equal(whole.argmax(-1))
    assert out.isneginf().equal(whole.isneginf())
    assert not out.equal(whole)


def test_a_temperature_counts_only_where_nothing_acts_behind_it() -> None:
    rows = text_like(2, seed=7)
    bias = LogitBias(bias={3: 1.0}).begin(CONTEXT)
    out = rows.clone()
    adjust_rows(
        out,
        [
            Place(0, (EM, bias), Here(rows[0].clone()), temperature=0.1),
            Place(1, (EM,), Here(rows[1].clone()), temperature=0.1),
        ],
    )
    assert out[0].equal(one_by_one(rows[0], (EM, bias), Here(rows[0])))
    assert out[1].ne(rows[1]).sum() < 0.1 * len(rows[1])


def test_a_warm_row_changes_nothing_for_a_cool_one() -> None:
    rows = text_like(3, seed=10)
    out, alone = rows.clone(), rows.clone()
    warmth = [0.1, 1.0, None]
    adjust_rows(
        out, [Place(n, (EM,), Here(rows[n].clone()), temperature=t) for n, t in enumerate(warmth)]
    )
    adjust_rows(alone, [Place(0, (EM,), Here(rows[0].clone()), temperature=0.1)])
    assert out[0].equal(alone[0])
    assert not out[0].equal(EM.adjust(rows[0], Here(rows[0])))
    for n in (1, 2):
        assert out[n].equal(EM.adjust(rows[n], Here(rows[n])))


@pytest.mark.model
def test_a_real_models_rows_are_sharpened_as_in_float64(smollm2_dir: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(smollm2_dir, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)
    text = "The sea is a place of wonder and many people wrote about it in stories, where ships"
    with torch.no_grad():
        rows = model(**tokenizer(text, return_tensors="pt")).logits[0].float()
    out, far = rows.clone(), list[Tensor]()
    for n, row in enumerate(rows):
        if minimise_entropies_(out, [n], EM, temperature=0.1)[n]:
            changed = (out[n] != row).nonzero()[:, 0]
            want = descended(row - row.amax(), EM)
            assert (out[n].double() - want - row.amax())[changed].abs().max() < 1e-5
            terms = (EM.threshold, EM.kl_weight, EM.lr, EM.steps)
            status, _, ids, y = kernel.moved(row.numpy(), 7.0, 14.0, *terms)
            assert status == kernel.SHARPENED
            far.append((torch.from_numpy(y) - want[torch.from_numpy(ids).long()]).abs())
    assert len(far) > len(rows) / 2
    assert torch.cat(far).quantile(0.99) < 2e-7
    assert torch.cat(far).max() < 1e-5
