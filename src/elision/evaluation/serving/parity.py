"""Whether an engine elsewhere writes what the local one writes, token for token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from elision.contract import Request, Sampling, TokenLogprob, collect
from elision.middleware.pipeline import Pipeline

if TYPE_CHECKING:
    from elision.contract import Completion

MARGIN: Final = 1e-4
"""Nats below which two tokens count as equally good: rounding decides between them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One prompt, answered by both.

    Attributes:
        is_equal: Whether the texts are the same.
        margin: Of texts that differ: by how many nats the other's token lost here, where they
            part; 0 where they are equal.
        n_tokens: Tokens of the local reply.
    """

    is_equal: bool
    margin: float = 0.0
    n_tokens: int = 0

    @property
    def agrees(self) -> bool:
        """Whether the texts are the same but for rounding."""
        return self.is_equal or self.margin < MARGIN


async def compared(
    here: Pipeline,
    there: Pipeline,
    prompts: Sequence[str],
    *,
    profile: str,
    n_tokens: int,
    options: dict[str, Any] | None = None,
    from_second: bool = False,
) -> AsyncIterator[Compared]:
    """Yield, prompt by prompt, how what *there* writes compares to what *here* writes; greedy.

    Args:
        here: A pipeline over a local engine in float32.
        there: A pipeline over the engine that is compared, with the same register and profiles.
        prompts: Questions.
        profile: Of both.
        n_tokens: Most tokens per reply.
        options: The request's ``elision`` object.
        from_second: Whether the first token is *there*'s, and counts for nothing.
    """
    for prompt in prompts:
        request = Request(
            messages=({"role": "user", "content": prompt},),
            sampling=Sampling(temperature=0.0),
            max_tokens=n_tokens,
            options=options or {},
        )
        if from_second:
            request = replace(request, logprobs=0)
        text = (other := await _reply(there, request, profile)).text
        if from_second:
            first = other.choices[0].logprobs[0].token
            request, text = _behind(request, first), text.removeprefix(first)
        own = await _reply(here, request, profile)
        is_equal = own.text == text
        margin = 0.0 if is_equal else await _margin(here, request, profile, own, text)
        yield Compared(is_equal=is_equal, margin=margin, n_tokens=own.usage.completion_tokens)


def _behind(request: Request, first: str) -> Request:
    """Return *request* with the beginning of its reply given."""
    begun = {"role": "assistant", "content": first}
    return replace(
        request,
        messages=(*request.messages, begun),
        continue_final=True,
        max_tokens=None if request.max_tokens is None else request.max_tokens - 1,
    )


async def _reply(pipeline: Pipeline, request: Request, profile: str) -> Completion:
    return await collect(pipeline.run(request, profile=profile))


async def _margin(
    here: Pipeline, request: Request, profile: str, own: Completion, other: str
) -> float:
    """Return how much likelier, here, the own token is where *other* parts from it, in nats."""
    scored = [
        await _reply(here, replace(request, answer=text, max_tokens=None), profile)
        for text in (own.text, other)
    ]
    mine, theirs = (one.choices[0].logprobs for one in scored)
    return _parting(mine, theirs)


def _parting(mine: Sequence[TokenLogprob], theirs: Sequence[TokenLogprob]) -> float:
    for own, other in zip(mine, theirs, strict=False):
        if own.data != other.data:
            return own.logprob - other.logprob
    return 0.0
