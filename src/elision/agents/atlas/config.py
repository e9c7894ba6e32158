"""What can be set of an agent's orchestration, with its default. Unknown keys are errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from elision.agents.atlas.lanes import Lane
from elision.agents.atlas.ledger import Price
from elision.agents.atlas.prompts import AdviceRole
from elision.agents.atlas.quota import DAILY_TOKENS
from elision.memory.learning.packing import MOST_TOKENS

Learning: TypeAlias = Literal["on", "frozen", "shadow", "off"]
_Share: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Count: TypeAlias = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Thresholds(_Part):
    """Confidence from which a lane is taken; below ``coach`` it is ``escalate``."""

    auto: _Share = 0.85
    paired: _Share = 0.65
    coach: _Share = 0.35

    @model_validator(mode="after")
    def _fall(self) -> Self:
        if not self.auto >= self.paired >= self.coach:
            raise ValueError("thresholds must fall: auto, paired, coach")
        return self


class Help(_Part):
    """What a success counts for at each lane: under help it says less about doing without."""

    auto: _Share = 1.0
    paired: _Share = 0.9
    coach: _Share = 0.8
    escalate: _Share = 0.7

    def at(self, lane: Lane) -> float:
        """Return the factor of *lane*."""
        return {
            Lane.AUTO: self.auto,
            Lane.PAIRED: self.paired,
            Lane.COACH: self.coach,
            Lane.ESCALATE: self.escalate,
        }[lane]


class RouterConfig(_Part):
    """How a lane is chosen; see `Router`.

    Attributes:
        k: Most similar past episodes that are asked.
        tau: Cosine up to which an episode says nothing, below 1.
        half_life_days: Age at which one counts half.
        prior: Pseudo-counts of success and of failure, each.
        quantile: Of the posterior that is taken for the confidence.
        least_n_eff: Effective episodes below which nothing is known.
        least_weight: Sum of their weights, likewise.
        cold_start_lane: The lane where nothing is known.
        thresholds: See `Thresholds`.
        help: See `Help`.
        explore: Probability of one lane lower than chosen.
        most: The lane of most supervision that may be taken.
        least: By tag, the lane of least supervision that may be.
        success_value: What a success is worth, in the currency of the prices: the lane of least
            expected loss is taken then. None: lanes by confidence.
        probe_weight: Power to which a probe's odds are taken.
        probe_rows: Past episodes that a probe is told.
    """

    k: _Count = 64
    tau: Annotated[float, Field(ge=-1, lt=1)] = 0.35
    half_life_days: _Positive = 30.0
    prior: _Positive = 0.5
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.2
    least_n_eff: Annotated[float, Field(ge=0)] = 3.0
    least_weight: Annotated[float, Field(ge=0)] = 1.0
    cold_start_lane: Lane = Lane.PAIRED
    thresholds: Thresholds = Thresholds()
    help: Help = Help()
    explore: _Share = 0.05
    most: Lane = Lane.ESCALATE
    least: Mapping[str, Lane] = Field(default_factory=dict)
    success_value: _Positive | None = None
    probe_weight: _Share = 0.5
    probe_rows: Annotated[int, Field(ge=0, le=50)] = 10


class TurnConfig(_Part):
    """How long a role may take.

    Attributes:
        timeout_s: Deadline of one turn in seconds: an attempt, a validation; None: none.
    """

    timeout_s: _Positive | None = 120.0


class RoleConfig(TurnConfig):
    """How a role speaks.

    Attributes:
        max_tokens: Most tokens of one reply.
        temperature: See `Sampling`.
    """

    max_tokens: _Count = 512
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0


class StudentConfig(RoleConfig):
    """How the student speaks, where Atlas makes it of an engine or a speaker.

    Attributes:
        most_steps: Most tool calls of one attempt.
    """

    timeout_s: _Positive | None = None
    most_steps: _Count = 8


class TeacherConfig(RoleConfig):
    """How the teacher speaks, where Atlas makes it; its deadline holds for every teacher.

    Attributes:
        sentences: Most sentences of guidance for an attempt.
    """

    sentences: _Count = 2


class ProbeConfig(RoleConfig):
    """How the probe speaks, where there is one."""

    max_tokens: _Count = 128
    timeout_s: _Positive | None = 15.0


class AdviceConfig(_Part):
    """What of the playbook enters a prompt, and where.

    Attributes:
        max_tokens: Most tokens of all entries' lines.
        n_context: The student's context in tokens, of which advice takes 5 % at most; None:
            unknown, only `max_tokens` holds.
        role: ``system``: at the end of the system message. ``user``: a message of its own.
        seed: Of the coins that withhold entries.
    """

    max_tokens: Annotated[int, Field(ge=0)] = MOST_TOKENS
    n_context: _Count | None = None
    role: AdviceRole = "system"
    seed: int = 0


class DistillerConfig(TurnConfig):
    """When and how much is learned from episodes.

    Attributes:
        daily_tokens: Most tokens that a scope may spend on distilling in a day.
        domain_facts: Whether dates, identifiers, files and addresses may be learned.
    """

    daily_tokens: Annotated[int, Field(ge=0)] = DAILY_TOKENS
    domain_facts: bool = False


class AtlasConfig(_Part):
    """How episodes run.

    Attributes:
        learning: ``on``; ``frozen``: advice is shown and nothing is learned; ``shadow``: matched
            and noted, nothing shown; ``off``: memory is not touched.
        forced_lane: Taken whatever the past says.
        max_retries: Attempts after the first.
        auto_escalate: Whether a retry is supervised one lane closer than what failed.
        success_from: Reward from which an episode counts as a success.
        max_tokens: Most tokens of an episode over all roles, where a task does not say.
        max_cost: Likewise in the currency of the prices.
        deadline_s: Likewise in seconds.
        side_by_side: Most steps of one level that run at once.
        router: See `RouterConfig`.
        advice: See `AdviceConfig`.
        student: See `StudentConfig`.
        teacher: See `TeacherConfig`.
        probe: See `ProbeConfig`.
        judge: See `TurnConfig`.
        distiller: See `DistillerConfig`.
        prices: By model name; a model without one costs nothing.
    """

    learning: Learning = "on"
    forced_lane: Lane | None = None
    max_retries: Annotated[int, Field(ge=0, le=4)] = 1
    auto_escalate: bool = True
    success_from: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    max_cost: Annotated[float, Field(ge=0)] | None = None
    deadline_s: Annotated[float, Field(ge=0)] | None = None
    side_by_side: _Count = 4
    router: RouterConfig = RouterConfig()
    advice: AdviceConfig = AdviceConfig()
    student: StudentConfig = StudentConfig()
    teacher: TeacherConfig = TeacherConfig()
    probe: ProbeConfig = ProbeConfig()
    judge: TurnConfig = TurnConfig()
    distiller: DistillerConfig = DistillerConfig()
    prices: Mapping[str, Price] = Field(default_factory=dict)
