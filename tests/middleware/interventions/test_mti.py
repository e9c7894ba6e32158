from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from elision.contract import (
    BranchKey,
    Capability,
    Context,
    Here,
    OtherPrompt,
    Recipe,
    Session,
    Suffix,
)
from elision.errors import CapabilityError, ConfigError, RequestError
from elision.middleware.interventions.base import Chain, Contrasts
from elision.middleware.interventions.guidance import Guidance
from elision.middleware.interventions.mti import MinimalIntervention as Mti
from elision.middleware.interventions.mti import usage
from elision.testing import byte_lexicon
from elision.testing.branches import MadeUpReader, made_up_branch, with_branches
from elision.testing.laws import awkward_rows, check_neutral
from elision.testing.models import tiny_model

from .mixer_laws import REPLY, check_promises, check_values

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "data" / "eminf_vectors.json").read_text()
)
INF = float("inf")
ACTING: list[Recipe] = [
    Mti(),
    Mti(tau=0.5),
    Mti(tau=-1, scale=0),
    Mti(scale=-2, negative=(3, 1)),
    Mti(branch="last_token", tau=1.0),
    Mti(branch="prompt", negative="be rude"),
    Mti(gate="random", share=0.5),
    Mti(gate="always", scale=3),
]
scores = st.floats(-40, 40, width=32)
rows = st.lists(st.one_of(st.just(-INF), scores), min_size=8, max_size=8).filter(
    lambda r: max(r) > -INF
)


def context(vocab_size: int = 259, **changes: Any) -> Context:
    plain = Context(lexicon=byte_lexicon(), vocab_size=vocab_size, prompt_ids=(1, 2, 2, 7))
    return replace(with_branches(plain), **changes)


class Asked:
    """A position whose branches are made up, and which remembers the ones that were read."""

    def __init__(self, row: Tensor, position: int = 0) -> None:
        self.read: list[BranchKey] = []
        self._made_up = made_up_branch(len(row))
        self.here = Here(row, position=position, branch=self._branch)

    def _branch(self, key: BranchKey) -> Tensor:
        self.read.append(key)
        return self._made_up(key)


def contrasts(session: Session) -> Contrasts:
    assert isinstance(session, Contrasts)
    return session


# --- Laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("some_masked", [False, True])
@pytest.mark.parametrize("recipe", ACTING, ids=repr)
def test_adjust_keeps_its_promises(recipe: Recipe, some_masked: bool) -> None:
    check_promises(recipe, context, some_masked=some_masked)


@pytest.mark.parametrize("recipe", ACTING, ids=repr)
def test_sessions_are_values(recipe: Recipe) -> None:
    check_values(recipe, context)


@pytest.mark.parametrize(
    "recipe", [Mti(scale=1), Mti(tau=INF), Mti(scale=1, gate="always"), Mti(tau=log(259) + 0.01)]
)
def test_neutral_settings_return_the_very_same_object(recipe: Recipe) -> None:
    check_neutral(recipe, context(), awkward_rows(259), tokens=REPLY)


@pytest.mark.parametrize("recipe", [Mti(scale=1), Mti(tau=INF)])
def test_neutral_settings_ask_nothing_of_the_engine(recipe: Mti) -> None:
    bare = Context(lexicon=byte_lexicon(), vocab_size=259)
    session, position = recipe.begin(bare), Asked(torch.zeros(259))
    assert contrasts(session).branches == contrasts(session).needs(position.here) == ()
    session.adjust(position.here.raw, position.here)
    assert position.here.notes == {}


@pytest.mark.parametrize("recipe", ACTING, ids=repr)
@given(row=rows, position=st.integers(0, 50))
def test_what_is_read_is_what_was_said_to_be_needed(
    recipe: Recipe, row: list[float], position: int
) -> None:
    z = torch.tensor(row)
    session, at = contrasts(recipe.begin(context(8))), Asked(z, position)
    needed = session.needs(at.here)
    assert at.read == []
    out = session.adjust(z, at.here)  # type: ignore[attr-defined]
    assert tuple(at.read) == needed
    assert set(needed) <= set(session.branches)
    assert (out is z) == (not needed)
    assert at.here.notes == {"mti_gate_seen": 1, **({"mti_guided": 1} if needed else {})}
    assert not session.always or needed == session.branches


@given(row=rows, scale=st.floats(-3, 3, width=32).filter(lambda s: s != 1))
def test_where_the_gate_is_open_it_is_guidance(row: list[float], scale: float) -> None:
    z = torch.tensor(row)
    everywhere = Mti(tau=-1, scale=scale, branch="last_token").begin(context(8))
    plain = Guidance(scale=scale).begin(context(8))
    assert contrasts(everywhere).always
    assert torch.equal(everywhere.adjust(z, Asked(z).here), plain.adjust(z, Asked(z).here))


@given(row=rows, tau=st.floats(0, 2))
def test_the_gate_measures_the_models_own_row_whatever_came_before(
    row: list[float], tau: float
) -> None:
    z = torch.tensor(row)
    session = Mti(tau=tau).begin(context(8))
    uniform, sure = torch.zeros(8), torch.tensor([0.0, *[-INF] * 7])
    opened = session.adjust(z, Asked(z).here) is not z
    for edited in (uniform, sure):
        assert (session.adjust(edited, Asked(z).here) is not edited) == opened


@given(row=rows)
def test_a_positions_entropy_is_that_of_its_row(row: list[float]) -> None:
    p = torch.tensor(row, dtype=torch.float64).softmax(-1)
    exact = float(torch.special.entr(p).sum())
    assert Here(torch.tensor(row)).entropy == pytest.approx(exact, abs=2e-6)


@pytest.mark.parametrize("vocab_size", [49152, 151936])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_entropy_of_a_whole_vocabulary_is_exact(vocab_size: int, dtype: torch.dtype) -> None:
    row = (torch.randn(vocab_size, generator=torch.Generator().manual_seed(0)) * 2 + 5).to(dtype)
    row[::3] = -INF
    exact = float(torch.special.entr(row.double().softmax(-1)).sum())
    assert Here(row).entropy == pytest.approx(exact, abs=2e-6)
    assert Here(torch.zeros(vocab_size, dtype=dtype)).entropy == pytest.approx(log(vocab_size))


@pytest.mark.parametrize("bad", [-INF, INF, float("nan")])
def test_a_row_without_a_distribution_has_no_entropy_and_opens_no_gate(bad: float) -> None:
    row = torch.full((4,), bad)
    assert Here(row).entropy != Here(row).entropy
    assert Mti(tau=0.0).begin(context(4)).needs(Here(row)) == ()


# --- Worked examples -----------------------------------------------------------------------------


@pytest.mark.parametrize("tau", list(VECTORS["mti_gate"]["mask"]))
def test_the_gate_opens_where_the_worked_example_says(tau: str) -> None:
    session = Mti(tau=float(tau)).begin(context(4))
    known = VECTORS["mti_gate"]
    for row, nats, is_open in zip(known["rows"], known["H"], known["mask"][tau], strict=True):
        here = Here(torch.tensor(row))
        assert here.entropy == pytest.approx(nats, abs=1e-6)
        assert bool(contrasts(session).needs(here)) == is_open


def test_the_gate_is_strict() -> None:
    here = Here(torch.zeros(4))
    assert not Mti(tau=here.entropy).begin(context(4)).needs(here)
    assert Mti(tau=here.entropy - 1e-9).begin(context(4)).needs(here)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_the_scores_of_the_worked_example_come_out(n: int) -> None:
    known = VECTORS["mti_tau1_omega1.5"]
    own, other = torch.tensor(known["cond"][n]), torch.tensor(known["uncond"][n])
    here = Here(own, branch=lambda _: other)
    out = Mti(tau=1.0, scale=1.5).begin(context(4)).adjust(own, here)
    stated = torch.tensor(known["scores"][n])
    assert torch.allclose(out - out[0], stated - stated[0], atol=1e-5)
    assert float(out.logsumexp(-1)) == pytest.approx(here.logsumexp, abs=1e-6)
    assert (out is own) == (n == 0)


def test_scale_zero_is_what_would_be_said_after_the_negative_words() -> None:
    own, other = torch.tensor([2.0, 1.0, 0.5, -1.0]), torch.tensor([1.0, 1.5, 0.0, -0.5])
    session = Mti(tau=-1, scale=0).begin(context(4))
    out = session.adjust(own, Here(own, branch=lambda _: other))
    assert torch.allclose(out.softmax(-1), other.softmax(-1), atol=1e-6)


# --- Branches ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "key"),
    [
        (Mti(), Suffix(tuple(b"OUTPUT ERROR"))),
        (Mti(negative="apple"), Suffix(tuple(b"apple"))),
        (Mti(negative=(3, 1)), Suffix((3, 1))),
        (Mti(branch="last_token"), OtherPrompt((7,))),
        (Mti(branch="prompt", negative="be rude"), OtherPrompt(tuple(b"be rude"))),
        (Mti(branch="prompt", negative=(3, 1)), OtherPrompt((3, 1))),
    ],
)
def test_the_negative_prompt_makes_the_branch(recipe: Mti, key: BranchKey) -> None:
    assert Chain((recipe.begin(context()),)).branches == {key: False}
    always = replace(recipe, gate="always").begin(context())
    assert Chain((always,)).branches == {key: True}


def test_the_default_gate_asks_the_engine_what_entropy_a_share_exceeds() -> None:
    entropies = (0.5, 1.0, 2.0)
    measured = context(reader=MadeUpReader(259, entropies=entropies))
    for share, tau in ((1.0, 0.5), (0.5, 1.0), (0.01, 2.0)):
        session = Mti(share=share).begin(measured)
        assert session == Mti(tau=tau).begin(measured)


def test_tokens_and_a_threshold_need_nobody_who_can_read() -> None:
    session = Mti(tau=0.5, negative=(3, 1)).begin(context(reader=None))
    assert contrasts(session).branches == (Suffix((3, 1)),)


@pytest.mark.parametrize("recipe", [Mti(tau=0.5), Mti(negative=(3, 1))])
def test_words_and_a_share_need_somebody(recipe: Mti) -> None:
    with pytest.raises(ConfigError, match="MTI was given"):
        recipe.begin(context(reader=None))


def test_words_without_tokens_are_refused() -> None:
    class Mute(MadeUpReader):
        def encode(self, text: str) -> tuple[int, ...]:
            return ()

    with pytest.raises(RequestError, match="no tokens"):
        Mti().begin(context(reader=Mute(259)))


def test_tokens_that_the_model_does_not_have_are_refused() -> None:
    with pytest.raises(RequestError, match="vocabulary"):
        Mti(negative=(3, 259)).begin(context())


def test_an_engine_without_branches_refuses() -> None:
    with pytest.raises(CapabilityError) as refused:
        Mti().begin(context(capabilities=Capability.LOGITS))
    assert (refused.value.method, refused.value.missing) == ("mti", "BRANCH")


# --- The random gate -----------------------------------------------------------------------------


def opened(recipe: Mti, where: Context, n: int = 2000) -> list[bool]:
    session, row = contrasts(recipe.begin(where)), torch.zeros(8)
    return [bool(session.needs(Here(row, position=position))) for position in range(n)]


@pytest.mark.parametrize("share", [0.02, 0.08, 0.5, 0.97])
def test_the_random_gate_opens_at_its_share_of_positions(share: float) -> None:
    n, seen = 2000, opened(Mti(gate="random", share=share), context(8))
    assert abs(sum(seen) - n * share) < 4 * (n * share * (1 - share)) ** 0.5


def test_the_random_gate_of_share_one_is_always_open() -> None:
    assert all(opened(Mti(gate="random", share=1.0), context(8)))


def test_the_random_gate_is_drawn_by_seed_choice_and_position_and_by_nothing_else() -> None:
    recipe = Mti(gate="random", share=0.5)
    first = opened(recipe, context(8))
    assert (
        first == opened(recipe, context(8, seed=0)) == opened(replace(recipe, scale=3), context(8))
    )
    assert first != opened(recipe, context(8, seed=1))
    assert first != opened(recipe, context(8, choice=1))
    together = sum(a == b for a, b in zip(first, opened(recipe, context(8, seed=1)), strict=True))
    assert 850 < together < 1150


def test_the_random_gate_does_not_look_at_the_row() -> None:
    session, sure = (
        Mti(gate="random", share=0.5).begin(context(8)),
        torch.tensor([9.0, *[-9.0] * 7]),
    )
    by_row = [
        [bool(contrasts(session).needs(Here(row, position=n))) for n in range(50)]
        for row in (sure, torch.zeros(8))
    ]
    assert by_row[0] == by_row[1]


# --- Usage, settings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notes", "share"),
    [({}, None), ({"mti_gate_seen": 8}, 0.0), ({"mti_gate_seen": 8, "mti_guided": 2}, 0.25)],
)
def test_usage_is_the_share_of_positions_guided(
    notes: Mapping[str, float], share: float | None
) -> None:
    assert usage(notes) == share


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": float("nan")},
        {"share": 0},
        {"share": 1.5},
        {"tau": float("nan")},
        {"tau": 1.0, "share": 0.2},
        {"tau": 1.0, "gate": "random"},
        {"tau": 1.0, "gate": "always"},
        {"share": 0.2, "gate": "always"},
        {"gate": "closed"},
        {"branch": "twig"},
        {"negative": ""},
        {"negative": ()},
    ],
    ids=repr,
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Mti(**settings)


@pytest.mark.parametrize("recipe", ACTING, ids=repr)
def test_recipes_can_be_compared_hashed_and_sent_to_another_process(recipe: Recipe) -> None:
    copy = pickle.loads(pickle.dumps(recipe))
    assert copy == recipe
    assert hash(copy) == hash(recipe)
    assert "rude" not in repr(recipe)
    assert "OUTPUT" not in repr(recipe)


# --- On a model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2"])
@torch.inference_mode()
def test_a_guided_reply_is_what_the_formula_writes_by_hand(architecture: Any) -> None:
    model, prompt, negative = (
        tiny_model(architecture, seed=3, sharpness=1.5),
        (1, 2, 2, 7),
        (40, 41),
    )
    tau, omega = 4.3, 2.5

    def read(*ids: int) -> Tensor:
        scores: Tensor = model(torch.tensor([ids])).logits[0, -1]
        return scores.double()

    def by_hand(n: int) -> list[int]:
        reply: list[int] = []
        for _ in range(n):
            logp = read(*prompt, *reply).log_softmax(-1)
            if -float((logp.exp() * logp).sum()) > tau:
                other = read(*prompt, *reply, *negative).log_softmax(-1)
                logp = other + omega * (logp - other)
            reply.append(int(logp.argmax()))
        return reply

    def branch(key: BranchKey) -> Tensor:
        assert isinstance(key, Suffix)
        return read(*prompt, *reply, *key.ids).float()

    session: Session = Mti(tau=tau, scale=omega, negative=negative).begin(context())
    reply, notes = list[int](), Counter[str]()
    for position in range(24):
        row = read(*prompt, *reply).float()
        here = Here(row, position=position, branch=branch)
        reply.append(int(session.adjust(row, here).argmax()))
        notes.update({key: int(count) for key, count in here.notes.items()})
        session = session.advance(reply[-1])
    assert reply == by_hand(24)
    assert notes["mti_gate_seen"] == 24
    assert 0 < notes["mti_guided"] < 24
