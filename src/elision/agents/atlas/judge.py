"""Judges: several samples of one model, and an arbiter where they disagree or doubt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from statistics import median, pstdev
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from elision.agents.atlas.digest import Digest, digest, fenced
from elision.agents.atlas.judging import STANCES, About, Sample, messages
from elision.agents.atlas.ledger import Allowance, Role, Spent, spent_on
from elision.agents.atlas.reward import Principle, Reward
from elision.agents.atlas.student import Attempt
from elision.agents.atlas.task import Task
from elision.agents.speaking import Said, Speaker, ask
from elision.contract import Message

ENDLESS: Final = Allowance()
"""Without limit."""


class JudgeConfig(BaseModel):
    """How judges are asked.

    Attributes:
        temperatures: Of each sample. Where one comes twice, its samples take different stances:
            for a backend that knows no temperature, ``(0, 0, 0)``.
        score_std_threshold: Population standard deviation of the scores above which an arbiter
            is asked. A standard deviation, not a variance.
        uncertainty_threshold: Told uncertainty above which one is asked.
        n_least: Valid samples below which one is asked.
        success_from: Score that counts as success.
        max_tokens: Most tokens of one reply.
        seed: Of the first sample; the next ones count on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    temperatures: Annotated[
        tuple[Annotated[float, Field(ge=0, le=2)], ...], Field(min_length=1)
    ] = (
        0.2,
        0.5,
        0.8,
    )
    score_std_threshold: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    uncertainty_threshold: Annotated[float, Field(ge=0, le=1)] = 0.3
    n_least: Annotated[int, Field(ge=1)] = 2
    success_from: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_tokens: Annotated[int, Field(ge=1)] = 512
    seed: int = 0


USUAL: Final = JudgeConfig()


class Judge:
    """Scores what an agent did, where nothing can be checked.

    Its words are an opinion: `Reward.source` says so in every report. It reads a digest, never a
    prompt, and the ground truth where there is one.

    Args:
        speaker: The model that is sampled.
        arbiter: A stronger one, asked where the samples disagree, doubt, or are too few; None: the
            median stands, and the reward says how sure it is.
        config: See `JudgeConfig`.
    """

    def __init__(
        self,
        speaker: Speaker,
        arbiter: Speaker | None = None,
        config: JudgeConfig = USUAL,
    ) -> None:
        self.speaker = speaker
        self.arbiter = arbiter
        self.config = config

    async def score(
        self,
        task: Task,
        attempts: Sequence[Attempt],
        *,
        truth: str | None = None,
        lane: str = "auto",
        plan: Sequence[str] = (),
        guidance: Sequence[str] = (),
        about: About = "outcome",
        allowance: Allowance = ENDLESS,
        spend: Callable[[Spent], None] = lambda row: None,
    ) -> Reward | None:
        """Return how good the last attempt's outcome is; None if no judge said anything valid.

        Args:
            task: What was asked.
            attempts: At least one, in order.
            truth: The right answer, if it is known.
            lane: How closely the student was supervised.
            plan: The plan that was followed.
            guidance: What the teacher said.
            about: ``guidance``: how much the guidance bettered the last attempt, for which both
                attempts could not be checked; see `elision.agents.atlas.reward.teaching`.
            allowance: What may be spent; asked before every call.
            spend: Told of every call.
        """
        read = digest(task, attempts, lane=lane, plan=plan, guidance=guidance, truth=truth)
        return await self.judge(read, about=about, allowance=allowance, spend=spend)

    async def judge(
        self,
        read: Digest,
        *,
        about: About = "outcome",
        allowance: Allowance = ENDLESS,
        spend: Callable[[Spent], None] = lambda row: None,
    ) -> Reward | None:
        """Return how good *read* is; see `score`."""
        rows: list[Spent] = []

        def note(row: Spent) -> None:
            rows.append(row)
            spend(row)

        n, share = len(self.config.temperatures), allowance.shared(len(self.config.temperatures))
        asked = [self._sample(read, about, at, share, note) for at in range(n)]
        samples = [one for one in await asyncio.gather(*asked) if one is not None]
        left = allowance.after(rows)
        if self.arbiter is None or not left.open or not self.must_escalate(samples):
            return self._settled(samples, "judge", self.speaker.name, escalated=False)
        final = await self._arbitrate(self.arbiter, read, about, samples, left, note)
        if final is None:
            return self._settled(samples, "judge", self.speaker.name, escalated=True)
        arbiter = self.arbiter.name
        return self._settled([final], "arbiter", arbiter, escalated=True, of=samples)

    def must_escalate(self, samples: Sequence[Sample]) -> bool:
        """Return whether *samples* are too few, too far apart or too unsure to stand."""
        config = self.config
        return (
            len(samples) < config.n_least
            or pstdev(one.score for one in samples) > config.score_std_threshold
            or max(one.uncertainty for one in samples) > config.uncertainty_threshold
        )

    async def _sample(
        self,
        read: Digest,
        about: About,
        at: int,
        allowance: Allowance,
        note: Callable[[Spent], None],
    ) -> Sample | None:
        temperatures = self.config.temperatures
        repeated = temperatures.count(temperatures[at]) > 1
        stance = STANCES[at % len(STANCES)] if repeated else ""
        asked = messages(read, about, stance)
        return await self._ask(self.speaker, "judge", asked, temperatures[at], at, allowance, note)

    async def _arbitrate(
        self,
        arbiter: Speaker,
        read: Digest,
        about: About,
        samples: Sequence[Sample],
        allowance: Allowance,
        note: Callable[[Spent], None],
    ) -> Sample | None:
        before = "\n".join(
            f"score {one.score:.2f}, uncertainty {one.uncertainty:.2f}: {one.rationale}"
            for one in samples
        )
        stance = "Earlier judges did not agree or were unsure:\n" + fenced(
            "judges", before or "none"
        )
        asked = messages(read, about, stance)
        n = len(self.config.temperatures)
        return await self._ask(arbiter, "arbiter", asked, 0.0, n, allowance, note)

    async def _ask(
        self,
        speaker: Speaker,
        role: Role,
        asked: Sequence[Message],
        temperature: float,
        at: int,
        allowance: Allowance,
        note: Callable[[Spent], None],
    ) -> Sample | None:
        if not allowance.open:
            return None
        rows: list[Spent] = []

        def spend(said: Said) -> None:
            rows.append(spent_on(role, speaker.name, said))
            note(rows[-1])

        return await ask(
            speaker,
            asked,
            Sample,
            spend=spend,
            max_tokens=allowance.reply(self.config.max_tokens),
            temperature=temperature,
            seed=self.config.seed + at,
            again=lambda: allowance.after(rows).open,
        )

    def _settled(
        self,
        samples: Sequence[Sample],
        source: Literal["judge", "arbiter"],
        model: str,
        *,
        escalated: bool,
        of: Sequence[Sample] | None = None,
    ) -> Reward | None:
        """Return the median of *samples*, with the words of the one nearest to it."""
        if not samples:
            return None
        score = median(one.score for one in samples)
        nearest = min(samples, key=lambda one: (abs(one.score - score), one.uncertainty))
        scores = tuple(one.score for one in (samples if of is None else of))
        return Reward(
            score=score,
            success=score >= self.config.success_from,
            source=source,
            samples=scores,
            std=pstdev(scores) if scores else 0.0,
            uncertainty=max(one.uncertainty for one in samples),
            escalated=escalated,
            principles=tuple(Principle(p.name, p.weight) for p in nearest.principles),
            rationale=nearest.rationale,
            model=model,
        )
