from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import UnbatchedClassifierFreeGuidanceLogitsProcessor

from elision.contract import BranchKey, Capability, Context, Here, OtherPrompt, Recipe, Stage
from elision.errors import CapabilityError, ConfigError
from elision.middleware.interventions.base import Chain, Contrasts
from elision.middleware.interventions.guidance import Guidance
from elision.middleware.interventions.mixing import mix
from elision.middleware.interventions.mti import MinimalIntervention
from elision.middleware.interventions.views import System, Tokens, Without
from elision.testing import byte_lexicon
from elision.testing.branches import made_up_branch, with_branches
from elision.testing.laws import awkward_rows, check_neutral
from elision.testing.models import tiny_model

from .mixer_laws import REPLY, check_promises, check_values

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "data" / "eminf_vectors.json").read_text()
)
INF = float("inf")
ACTING: list[Recipe] = [
    Guidance(),
    Guidance(scale=0),
    Guidance(scale=-2, other=Tokens((3, 1))),
    Guidance(scale=3, plausibility=0.1),
    Guidance(scale=1.5, other=System("be rude")),
    Guidance(scale=1.5, other=Without("its context")),
]
scores = st.floats(-40, 40, width=32)
rows = st.lists(st.one_of(st.just(-INF), scores), min_size=8, max_size=8).filter(
    lambda r: max(r) > -INF
)


def context(vocab_size: int = 259, prompt: tuple[int, ...] = (1, 2, 2, 7)) -> Context:
    return with_branches(Context(lexicon=byte_lexicon(), vocab_size=vocab_size, prompt_ids=prompt))


def guided(own: Tensor, other: Tensor, **settings: Any) -> Tensor:
    return (
        Guidance(**settings).begin(context(len(own))).adjust(own, Here(own, branch=lambda _: other))
    )


# --- Laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("some_masked", [False, True])
@pytest.mark.parametrize("recipe", ACTING, ids=repr)
def test_adjust_keeps_its_promises(recipe: Recipe, some_masked: bool) -> None:
    check_promises(recipe, context, some_masked=some_masked)


@pytest.mark.parametrize("recipe", ACTING, ids=repr)
def test_sessions_are_values(recipe: Recipe) -> None:
    check_values(recipe, context)


def test_at_scale_one_nothing_is_asked_and_nothing_is_done() -> None:
    check_neutral(Guidance(scale=1), context(), awkward_rows(259), tokens=REPLY)
    session = Guidance(scale=1).begin(context())
    assert session.branches == ()
    assert not Chain((session,)).branches
    assert isinstance(session, Contrasts)


def test_a_neutral_recipe_asks_nothing_of_the_engine() -> None:
    plain = Context(lexicon=byte_lexicon(), vocab_size=259)
    check_neutral(Guidance(scale=1), plain, awkward_rows(259))


@pytest.mark.parametrize("recipe", ACTING, ids=repr)
def test_recipes_can_be_compared_hashed_and_sent_to_another_process(recipe: Recipe) -> None:
    copy = pickle.loads(pickle.dumps(recipe))
    assert copy == recipe
    assert hash(copy) == hash(recipe)
    assert "rude" not in repr(recipe)


@given(own=rows, other=rows, scale=st.floats(-3, 3, width=32))
def test_the_sum_of_all_exponentials_is_that_of_the_raw_row(
    own: list[float], other: list[float], scale: float
) -> None:
    z = torch.tensor(own)
    out = guided(z, torch.tensor(other), scale=scale)
    assert float(out.double().logsumexp(-1)) == pytest.approx(
        float(z.double().logsumexp(-1)), abs=5e-5
    )


@given(own=rows, other=rows, scale=st.floats(-3, 3, width=32))
def test_a_prompt_that_says_the_same_guides_nowhere(
    own: list[float], other: list[float], scale: float
) -> None:
    z = torch.tensor(own)
    out = guided(z, z.clone(), scale=scale)
    assert torch.equal(out.isneginf(), z.isneginf())
    assert torch.allclose(out, z, atol=1e-4)


# --- Worked examples -----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", list(VECTORS["cfg"]["by_gamma"]))
def test_the_worked_examples_come_out(scale: str) -> None:
    known, own = VECTORS["cfg"]["by_gamma"][scale], torch.tensor(VECTORS["cfg"]["cond"])
    out = guided(own, torch.tensor(VECTORS["cfg"]["uncond"]), scale=float(scale))
    assert out.softmax(-1).tolist() == pytest.approx(known["p"], abs=1e-6)
    assert Here(out).entropy == pytest.approx(known["H"], abs=1e-6)
    stated = torch.tensor(known["scores"])  # not normalised: the same up to one number
    assert torch.allclose(out - out[0], stated - stated[0], atol=1e-5)


def test_a_plausibility_mask_keeps_junk_from_being_lifted() -> None:
    known = VECTORS["cfg_junk"]
    own, other = torch.tensor(known["cond"]), torch.tensor(known["uncond"])
    lifted = guided(own, other, scale=3.0)
    assert lifted.softmax(-1).tolist() == pytest.approx(known["gamma3_p"], abs=1e-6)
    kept = guided(own, other, scale=3.0, plausibility=0.1)
    assert kept.softmax(-1).tolist() == pytest.approx(known["gamma3_p_alpha0.1"], abs=1e-6)


def test_a_mask_alone_reads_no_branch() -> None:
    own = torch.tensor(VECTORS["cfg_junk"]["cond"])
    session = Guidance(scale=1, plausibility=0.1).begin(context(len(own)))
    assert session.branches == ()
    out = session.adjust(own, Here(own))
    assert out.isneginf().tolist() == [False, False, True, True]
    assert torch.allclose(out[:2].softmax(-1), own[:2].softmax(-1))


def test_what_the_prompt_forbids_stays_forbidden_what_only_the_other_forbids_does_not_win() -> None:
    own = torch.tensor([2.0, 1.0, -INF, -3.0])
    other = torch.tensor([1.0, 1.5, 3.0, -INF])
    out = guided(own, other, scale=1.5)
    assert out[2] == -INF
    filled = torch.tensor([1.0, 1.5, 3.0, 1.0])
    assert torch.equal(out, guided(own, filled, scale=1.5))
    assert int(out.argmax()) == 0


def test_behind_another_mixer_the_anchor_is_still_the_raw_row() -> None:
    raw, other = torch.tensor([2.0, 1.0, 0.0, -1.0]), torch.tensor([1.0, 1.5, 0.0, -0.5])
    here = Here(raw, branch=lambda _: other)
    out = Guidance(scale=1.5).begin(context(4)).adjust(raw - 7, here)
    assert float(out.logsumexp(-1)) == pytest.approx(float(raw.logsumexp(-1)), abs=1e-6)
    assert torch.allclose(out, mix(raw, 1.5, [(-0.5, other)], anchor=here.logsumexp), atol=1e-5)


# --- Branches ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "ids"),
    [
        (Guidance(), (7,)),
        (Guidance(other=Tokens((3, 1))), (3, 1)),
        (Guidance(other=System("be rude")), tuple(b"be rude")),
    ],
)
def test_the_other_prompt_is_asked_for_with_every_row(
    recipe: Guidance, ids: tuple[int, ...]
) -> None:
    session, read = recipe.begin(context()), list[BranchKey]()
    row, made_up = awkward_rows(259)[0], made_up_branch(259)

    def branch(key: BranchKey) -> Tensor:
        read.append(key)
        return made_up(key)

    here = Here(row, branch=branch)
    assert Chain((session,)).branches == {OtherPrompt(ids): True}
    assert session.needs(here) == (OtherPrompt(ids),)
    session.adjust(row, here)
    assert read == [OtherPrompt(ids)]
    assert here.notes == {"cfg_guided": 1}


def test_an_engine_without_branches_refuses() -> None:
    unable = replace(context(), capabilities=Capability.LOGITS)
    with pytest.raises(CapabilityError) as refused:
        Guidance().begin(unable)
    assert (refused.value.method, refused.value.missing) == ("cfg", "BRANCH")


def test_guidance_comes_behind_mti_both_among_the_mixers() -> None:
    assert Guidance().stage == MinimalIntervention().stage == Stage.MIXER
    assert MinimalIntervention().rank < Guidance().rank


@pytest.mark.parametrize(
    "settings", [{"scale": float("nan")}, {"scale": 101}, {"plausibility": 1.5}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Guidance(**settings)


# --- Parity with transformers --------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2"])
@torch.inference_mode()
def test_transformers_says_the_same_at_every_step(architecture: Any) -> None:
    model, prompt, scale = tiny_model(architecture, seed=3), (11, 42, 7, 99), 1.5
    theirs = UnbatchedClassifierFreeGuidanceLogitsProcessor(scale, model)
    session, reply = Guidance(scale=scale).begin(context(prompt=prompt)), list[int]()

    def read(ids: tuple[int, ...]) -> Tensor:
        scores: Tensor = model(torch.tensor([[*ids, *reply]])).logits[0, -1]
        return scores.float()

    def branch(key: BranchKey) -> Tensor:
        assert isinstance(key, OtherPrompt)
        return read(key.ids)

    for _ in range(12):
        row = read(prompt)
        out = session.adjust(row, Here(row, position=len(reply), branch=branch))
        wanted = theirs(torch.tensor([[*prompt, *reply]]), row[None])[0]
        assert torch.allclose(out.log_softmax(-1), wanted.log_softmax(-1), atol=1e-4)
        reply.append(int(out.argmax()))
    assert len(set(reply)) > 3
