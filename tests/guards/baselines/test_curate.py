from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace

import pytest
import torch

from elision.contract import ALLOW, REFUSE, Context, Here, Plan, Request, Sampling, collect
from elision.errors import ConfigError, ElisionError, EngineError
from elision.guards.baselines.curate import CurateRefusal
from elision.guards.baselines.refusals import REFUSALS, refusal_for
from elision.guards.gate.assessment import CLOSED, Assessment, Level, Suspect
from elision.testing.laws import awkward_rows, check_adjust, check_neutral
from elision.testing.scripted import ScriptedEngine
from elision.testing.tokenizers import byte_lexicon

CONTEXT = Context(lexicon=byte_lexicon(), vocab_size=259)


def assessed(*scores: float, named: bool = False) -> Assessment:
    suspects = tuple(Suspect(str(n), score, named) for n, score in enumerate(scores))
    return Assessment(level=Level.OPEN, suspects=suspects, score=max(scores))


@pytest.mark.parametrize(("score", "refused"), [(0.79, False), (0.8, False), (0.81, True)])
def test_a_prompt_is_refused_above_the_threshold_and_not_at_it(score: float, refused: bool) -> None:
    session = CurateRefusal(assessment=assessed(0.1, score)).begin(CONTEXT)
    assert session.verdict == (REFUSE if refused else ALLOW)
    assert session.advance(65).finish().verdict == session.verdict


def test_a_closed_gate_is_no_refusal_however_it_came_to_be_closed() -> None:
    near = replace(CLOSED, score=0.85)
    assert CurateRefusal(assessment=CLOSED).begin(CONTEXT).verdict == ALLOW
    assert CurateRefusal(assessment=near, threshold=0.9).begin(CONTEXT).verdict == ALLOW
    assert CurateRefusal(assessment=near).begin(CONTEXT).verdict == REFUSE


def test_the_bonus_for_a_name_does_not_count() -> None:
    named = assessed(0.9, named=True)
    assert CurateRefusal(assessment=named, name_bonus=0.15).begin(CONTEXT).verdict == ALLOW
    assert CurateRefusal(assessment=named).begin(CONTEXT).verdict == REFUSE


def test_scores_are_left_alone() -> None:
    row = torch.randn(259)
    session = CurateRefusal(assessment=assessed(0.9)).begin(CONTEXT)
    assert session.adjust(row, Here(row)) is row
    check_adjust(CurateRefusal(assessment=CLOSED), CONTEXT, awkward_rows(259), tokens=(1, 2))
    check_neutral(CurateRefusal(assessment=CLOSED), CONTEXT, awkward_rows(259), tokens=(1, 2))


async def test_a_gate_that_answers_late_is_waited_for_and_one_that_breaks_ends_the_request() -> (
    None
):
    engine = ScriptedEngine({"moon": "It is round."})
    request = Request(
        messages=({"role": "user", "content": "moon"},), sampling=Sampling(temperature=0.0)
    )
    late: Future[Assessment] = Future()
    late.set_result(CLOSED)
    plan = Plan(request=request, recipes=(CurateRefusal(assessment=late),), pending=(late,))
    assert (await collect(engine.stream(plan))).text == "It is round."
    broken: Future[Assessment] = Future()
    broken.set_exception(EngineError("the encoder broke"))
    plan = Plan(request=request, recipes=(CurateRefusal(assessment=broken),))
    with pytest.raises(ElisionError):
        await collect(engine.stream(plan))
    await engine.aclose()


def test_a_threshold_that_is_no_cosine_is_refused() -> None:
    with pytest.raises(ConfigError):
        CurateRefusal(assessment=CLOSED, threshold=80)


def test_refusals_are_many_and_the_same_for_the_same_seed() -> None:
    assert len({*REFUSALS}) == len(REFUSALS) >= 20
    assert refusal_for(7) == refusal_for(7) == refusal_for("7")
    assert len({refusal_for(seed) for seed in range(400)}) == len(REFUSALS)
