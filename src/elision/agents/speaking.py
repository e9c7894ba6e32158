"""How a role speaks with a model; of what it hears, only what fits a schema is believed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ValidationError

from elision.contract import Engine, Message, Plan, Request, Sampling, Usage, collect, text_of
from elision.errors import ElisionError

LONGEST_REPLY: Final = 50_000
"""Characters of a reply that are looked through for JSON."""
_MOST_STARTS: Final = 64
"""Braces at which JSON is looked for: a reply of braces must not cost the square of its length."""

CHARS_PER_TOKEN: Final = 4
"""Of English text; where a backend counts no tokens, they are told from this, and marked so."""

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Said:
    """A reply and what it cost.

    Attributes:
        text: The reply.
        usage: Tokens read and written.
        estimated: Whether the backend told no usage, so that tokens were counted from the text.
        wall_ms: Milliseconds it took.
    """

    text: str = field(repr=False)
    usage: Usage = field(default_factory=Usage)
    estimated: bool = False
    wall_ms: float = 0.0


@runtime_checkable
class Speaker(Protocol):
    """A model that a role speaks with.

    Attributes:
        name: Of the model, for the ledger and its prices.
    """

    name: str

    async def say(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Said:
        """Return the reply to *messages*.

        Raises:
            ElisionError: If the model cannot answer.
        """
        ...


@runtime_checkable
class Guarded(Protocol):
    """A speaker whose replies are guarded as they stand.

    What is read out of JSON in them does not stand there: an escaped line break parts no
    words in the reply, and does in what it says. So that is asked about before it goes any further.
    """

    async def passes(self, text: str) -> bool:
        """Return whether *text* may leave."""
        ...


class EngineSpeaker:
    """Speaks through an engine, without recipes: what leaves for a user passes the pipeline later.

    Args:
        engine: Stays the caller's; it is not closed here.
        tenant: Whose caches apply.
        timeout_s: Deadline of one call in seconds; None takes the engine's.
    """

    def __init__(
        self, engine: Engine, *, tenant: str = "default", timeout_s: float | None = None
    ) -> None:
        self.name = engine.name
        self._engine = engine
        self._tenant = tenant
        self._timeout_s = timeout_s

    async def say(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Said:
        """See `Speaker.say`. Cancelled, it ends the engine's stream."""
        request = Request(
            model=self.name,
            messages=tuple(messages),
            max_tokens=max_tokens,
            sampling=Sampling(temperature=temperature, seed=seed),
            timeout_s=self._timeout_s,
        )
        plan = Plan(request=request, tenant=self._tenant, profile="atlas")
        return await heard(self._engine, plan)


async def heard(engine: Engine, plan: Plan) -> Said:
    """Return what *engine* says to *plan*, and what it cost; cancelled, it ends the stream."""
    begun = time.perf_counter()
    async with aclosing(engine.stream(plan)) as deltas:
        completion = await collect(deltas)
    wall_ms = (time.perf_counter() - begun) * 1e3
    return counted(completion.text, completion.usage, plan.request.messages, wall_ms)


def estimate(text: str) -> int:
    """Return how many tokens *text* has, roughly: a quarter of its characters, rounded up."""
    return -(-len(text) // CHARS_PER_TOKEN)


def counted(text: str, usage: Usage, messages: Sequence[Message], wall_ms: float) -> Said:
    """Return a reply with its usage; of a backend that told none, counted from the texts."""
    if usage.prompt_tokens:
        return Said(text, usage, wall_ms=wall_ms)
    told = Usage(
        prompt_tokens=sum(estimate(text_of(message)) for message in messages),
        completion_tokens=usage.completion_tokens or estimate(text),
        cached_tokens=usage.cached_tokens,
    )
    return Said(text, told, estimated=True, wall_ms=wall_ms)


async def ask(
    speaker: Speaker,
    messages: Sequence[Message],
    schema: type[Model],
    *,
    spend: Callable[[Said], None],
    max_tokens: int = 512,
    temperature: float = 0.0,
    seed: int | None = None,
    again: Callable[[], bool] = lambda: True,
) -> Model | None:
    """Return what a model answers in JSON, checked; None if it cannot.

    A malformed reply is asked for once more, with the fields at fault named. What is malformed
    again is worth nothing: no part of it is used. A model that breaks answers None too; only a
    cancellation passes.

    Args:
        speaker: Whom to ask.
        messages: The question; it says which JSON is wanted.
        schema: What the reply must be.
        spend: Told of every reply, the useless ones too.
        max_tokens: Most tokens of one reply.
        temperature: See `Sampling`.
        seed: See `Sampling`.
        again: Asked before the second try: whether there is budget for it.
    """
    asked = list(messages)
    for attempt in range(2):
        if attempt and not again():
            return None
        try:
            said = await speaker.say(
                asked, max_tokens=max_tokens, temperature=temperature, seed=seed
            )
        except (ElisionError, TimeoutError, OSError):
            return None
        spend(said)
        found = understood(said.text, schema)
        if not isinstance(found, str):
            return found
        asked = [*asked, _said(said.text), _mend(found)]
    return None


def understood(reply: str, schema: type[Model]) -> Model | str:
    """Return the first JSON object of *reply* that fits *schema*, or what is wrong with it.

    Prose and code fences around it are passed over. What is wrong is said in field names and rule
    codes only: it goes back to the model, and nothing of the reply is repeated.
    """
    fault = "there is no JSON object in the reply"
    for found in objects(reply):
        try:
            return schema.model_validate(found)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_context=False, include_input=False)
            fault = "; ".join(f"{_place(one['loc'])}: {one['type']}" for one in faults[:5])
    return fault


def objects(reply: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in *reply*, those inside another left out."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    text, at = reply[:LONGEST_REPLY], 0
    for _ in range(_MOST_STARTS):
        at = text.find("{", at)
        if at < 0:
            return
        try:
            found, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
        else:
            yield found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _place(loc: Sequence[int | str]) -> str:
    return ".".join(map(str, loc))[:80] or "the object"


def _said(text: str) -> Message:
    return {"role": "assistant", "content": text[:LONGEST_REPLY]}


def _mend(fault: str) -> Message:
    return {
        "role": "user",
        "content": f"That was not the JSON object asked for ({fault}). Reply with it alone.",
    }
