"""Several choices where there is but one: vLLM refuses them when it does not draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from elision.contract import Delta, Request

_GREEDY = 1e-5
"""vLLM draws at no temperature below it."""


def n_alike(request: Request) -> int:
    """Return how many choices of *request* would be one and the same; 1 if it draws or searches."""
    temperature = request.sampling.temperature
    is_greedy = temperature is not None and temperature < _GREEDY
    return request.n if is_greedy and not request.extra.get("use_beam_search") else 1


def copied(delta: Delta, n: int) -> Iterator[Delta]:
    """Yield *delta*, of the one choice that was asked for, as that of *n* choices."""
    if delta.usage is not None or delta.report is not None:
        usage = delta.usage
        if usage is not None and n > 1:
            usage = replace(usage, completion_tokens=n * usage.completion_tokens)
        yield replace(delta, usage=usage) if n > 1 else delta
        return
    yield delta
    for choice in range(1, n):
        yield replace(delta, choice=choice)
