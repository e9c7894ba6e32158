"""What the roles must answer, and how strictly it is read."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from elision.agents.alu.roles import Leak
from elision.agents.speaking import understood

Model = TypeVar("Model", bound=BaseModel)
_BLANKS: Final = " \t\r\n"
_FENCED: Final = re.compile(r"[ \t\r\n]*```(?:json)?[ \t]*\r?\n(.*)```[ \t\r\n]*", re.DOTALL)
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

    White space and a code fence may stand around it. Prose may not, nor a second object: one of
    them may be quoted from what was to be judged. A key that stands there twice is an error: of
    two lists of findings, one would be passed over.
    """
    fenced = _FENCED.fullmatch(reply)
    body = (fenced[1] if fenced else reply).strip(_BLANKS)
    try:
        found = json.loads(body, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "the reply is not one JSON object and nothing else, with every key once"
    if not isinstance(found, dict):
        return "the reply is no JSON object"
    return understood(body, schema)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")
