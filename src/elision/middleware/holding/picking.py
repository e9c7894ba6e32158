"""Picks what stands at a place where something must not: one of what an upstream says it could."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from math import exp, inf, log
from typing import TYPE_CHECKING, Final

from elision.guards.phrases.normal import N
from elision.middleware.holding.probe import Probe

if TYPE_CHECKING:
    from elision.contract import Alternative, Sampling
    from elision.middleware.holding.layers import Layers

_TEMPLATE: Final = re.compile(r"<\|.*\|>|</?s>|<(?:bos|eos|pad|unk|end_of_turn)>|\[/?INST\]")
"""Names of tokens that write no text: an upstream would read them back as text."""


def suitable(
    alternatives: Sequence[Alternative],
    layers: Layers,
    *,
    before: str,
    refused: str,
    tried: frozenset[str],
) -> tuple[Alternative, ...]:
    """Return those of *alternatives* that may stand behind *before*.

    Not those that are no text, were tried there, complete what must not be said, or are the
    beginning of what was *refused*.

    Args:
        alternatives: The likeliest tokens of the place.
        layers: What guards the request.
        before: What stands before the place.
        refused: What was written there.
        tried: Texts that were tried there.
    """
    probe, wrong = Probe(layers, before=before), N(refused)
    return tuple(
        one
        for one in alternatives
        if (text := text_of(one))
        and text not in tried
        and not (N(text) and wrong.startswith(N(text)))
        and probe.allows(text)
    )


def text_of(alternative: Alternative) -> str:
    """Return what it writes; nothing if that is no text by itself."""
    try:
        text = alternative.data.decode()
    except UnicodeDecodeError:
        return ""
    return "" if _TEMPLATE.fullmatch(text.strip()) else text


def pick(
    alternatives: Sequence[Alternative], sampling: Sampling, *, seed: int, attempt: int
) -> Alternative | None:
    """Return one of *alternatives*, drawn as *sampling* says; None if there are none.

    Temperature, then top-k, min-p and the nucleus, over what is there: what an upstream does not
    tell cannot be drawn. The draw is a function of its place, as in `CounterDraw`.

    Args:
        alternatives: Candidates; log-probabilities before temperature.
        sampling: The request's.
        seed: Of the reply.
        attempt: How often it has gone back.
    """
    ranked = sorted(alternatives, key=lambda one: (-one.logprob, one.data))
    temperature = 1.0 if sampling.temperature is None else sampling.temperature
    if not ranked or temperature == 0:
        return ranked[0] if ranked else None
    scores = [one.logprob / temperature for one in ranked]
    best = scores[0]
    weights = [exp(score - best) if best > -inf else 1.0 for score in scores]
    kept = _kept(weights, sampling)

    def race(place: int) -> float:
        return -log(_uniform(seed, attempt, ranked[place].data)) / max(weights[place], 1e-300)

    return ranked[min(range(kept), key=race)]


def _kept(weights: Sequence[float], sampling: Sampling) -> int:
    """Return how many of the best candidates are drawn from; one at least."""
    n = min(sampling.top_k or len(weights), len(weights))
    if sampling.min_p:
        n = min(n, sum(weight >= sampling.min_p for weight in weights))
    if sampling.top_p is not None and sampling.top_p < 1:
        limit, mass = sampling.top_p * sum(weights[:n]), 0.0
        for place, weight in enumerate(weights[:n]):
            mass += weight
            if mass >= limit:
                return place + 1
    return max(1, n)


def _uniform(seed: int, attempt: int, data: bytes) -> float:
    """Return a number in (0, 1) that depends on nothing else."""
    digest = blake2b(b"%d/%d/" % (seed, attempt) + data, digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 0.5) * 2.0**-64
