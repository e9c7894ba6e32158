"""ALU end to end over the small real model: it runs, and nothing registered leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from elision.agents.alu.case import Case
from elision.agents.alu.casting import cast
from elision.agents.alu.config import AluConfig
from elision.agents.alu.pipeline import AluPipeline
from elision.agents.alu.shortlist import TargetIndex
from elision.agents.speaking import EngineSpeaker
from elision.guards.targets import ForgetTarget, Phrase
from elision.settings import Settings

PARIS = ForgetTarget(
    id="ft_paris",
    title="a city",
    kind="topic",
    names=("Paris",),
    phrases=(Phrase(text="Paris"), Phrase(text="Eiffel Tower")),
    answers=("Paris is the capital of France.",),
)


@pytest.mark.model
@pytest.mark.slow
async def test_the_small_model_plays_every_role(smollm2_dir: Path, tmp_path: Path) -> None:
    from elision.middleware.engines.loading import load_engine

    engine = load_engine(str(smollm2_dir), Settings(home=tmp_path, dtype="float32", threads=1))
    config = AluConfig(max_tokens=16, judge_tokens=48, n_variants=3)
    pipeline = AluPipeline(cast(EngineSpeaker(engine), config), config)
    targets = TargetIndex.compile([PARIS])
    try:
        for question in ("What is the capital of France?", "What is 2+2?"):
            case = Case(messages=({"role": "user", "content": question},), targets=targets)
            outcome = await pipeline.run(case)
            assert outcome.text or outcome.finish == "content_filter"
            assert not targets.given_away(outcome.text)
            assert 1 <= outcome.verdict.n_calls <= 6
            assert outcome.usage.completion_tokens > 0
            assert outcome.verdict.path in {"clean", "cleared", "rewritten", "fallback"}
    finally:
        await engine.aclose()
