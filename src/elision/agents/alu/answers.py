"""What the roles must answer, and how strictly it is read."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from elision.agents.alu.roles import Leak
from elision.agents.speaking import objects, understood

Model = TypeVar("Model", bound=BaseModel)
_Rating = Annotated[StrictInt, Field(ge=1, le=5)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class FoundAt(_Answer):
    """One finding, as a judge writes it."""

    target: StrictStr
    kind: Leak
    quote: Annotated[StrictStr, Field(min_length=1, max_length=2_000)]
    confidence: Annotated[float, Field(ge=0, le=1, strict=True)] = 1.0


class Judged(_Answer):
    """What a judge answers."""

    findings: Annotated[list[FoundAt], Field(max_length=64)]


class Variants(_Answer):
    """What an eraser answers."""

    variants: Annotated[list[StrictStr], Field(min_length=1, max_length=16)]


class Rated(_Answer):
    """One rating, as a critic writes it."""

    variant: StrictInt
    leak: _Rating
    utility: _Rating
    reasons: str = ""


class Ratings(_Answer):
    """What a critic answers."""

    scores: Annotated[list[Rated], Field(max_length=64)]


class Composed(_Answer):
    """What a composer answers."""

    reply: Annotated[StrictStr, Field(min_length=1)]


def only(reply: str, schema: type[Model]) -> Model | str:
    """Return the one JSON object that a reply consists of, or what is wrong with it.

    Two objects are none: one of them may be quoted from what was to be judged.
    """
    if len(list(objects(reply))) > 1:
        return "there is more than one JSON object in the reply"
    return understood(reply, schema)
