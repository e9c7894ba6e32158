"""What can be set of ALU, with its default. Unknown keys are errors."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fallback: TypeAlias = Literal["natural_unknown", "deflect", "refuse", "minimal_redaction"]
Mode: TypeAlias = Literal["screened", "strict"]

_Count: TypeAlias = Annotated[int, Field(ge=1)]
_Rating: TypeAlias = Annotated[int, Field(ge=1, le=5)]
_Heat: TypeAlias = Annotated[float, Field(ge=0, le=2)]


class AluConfig(BaseModel):
    """How a reply is audited and rewritten.

    Attributes:
        mode: ``screened``: drafts to conversations that come near no target are compared with the
            register word by word only; ``strict``: also by meaning, which takes the encoder.
        shortlist: Most targets that agents are asked about, however many are registered.
        t_embedding: Cosine from which a question counts as one for a target.
        n_variants: Rewritings asked for, in one call (k of the paper's code).
        keep: How many of the best count (j).
        threshold: Their least mean rating.
        least: The least rating of each of them.
        confirm: Whether the critic rates a draft that the judge has cleared: one evasion shall not
            defeat both.
        composer: ``select`` takes the best variant as it is; ``merge`` writes a new text of the
            kept ones, which is audited again.
        fallback: What is said where no variant is good enough.
        n_facts: Different facts about one target that may be answered in one session.
        n_turns: Last turns of a conversation that the agents read.
        max_calls: Hard limit of calls for one reply.
        max_tokens: Most tokens of a draft whose request sets no limit.
        judge_tokens: Most tokens of a verdict, of the critic's too.
        deadline_s: From a request's beginning, where it has none of its own.
        temperature: Of the rewriting.
        judge_temperature: Of the judge's first try; the second is greedy.
        seed: Of requests that have none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    mode: Mode = "screened"
    shortlist: Annotated[int, Field(ge=1, le=8)] = 8
    t_embedding: Annotated[float, Field(ge=-1, le=1)] = 0.60
    n_variants: Annotated[int, Field(ge=1, le=16)] = 5
    keep: _Count = 3
    threshold: Annotated[float, Field(ge=1, le=5)] = 4.0
    least: _Rating = 4
    confirm: bool = True
    composer: Literal["select", "merge"] = "select"
    fallback: Fallback = "natural_unknown"
    n_facts: _Count = 3
    n_turns: _Count = 6
    max_calls: _Count = 8
    max_tokens: _Count = 1024
    judge_tokens: _Count = 768
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    temperature: _Heat = 0.7
    judge_temperature: _Heat = 0.2
    seed: int | None = None

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.keep > self.n_variants:
            raise ValueError("keep exceeds n_variants: fewer are written than would be kept")
        return self
