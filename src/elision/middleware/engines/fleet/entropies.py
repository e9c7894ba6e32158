"""How hesitant a server's model is along a text, as far as its likeliest tokens tell.

The rest of a row's mass is known, what it is made of is not: it lies between as few tokens as can
hold it, each as likely as the last one told, and all the others alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from elision.errors import CapabilityError, RequestError
from elision.middleware.engines.hesitation import SAMPLE

MOST_TOLD: Final = (1024, 512, 256, 100, 20)
"""Alternatives that are asked for, until the server takes it: ``--max-logprobs``, 20 by default."""
TOLERANCE: Final = 0.6
"""How far the bounds of the share of positions, that a threshold stands for, may lie apart, in
parts of that share. At 512 alternatives they lie 0.5 apart for 8 % (SmolLM2-135M); a reply's own
share differs by more."""
NEARER: Final = 0.3
"""Where between its bounds an entropy is taken to lie: a row's tail falls off, so it is nearer to
the lower one. Measured with all tokens told (SmolLM2-135M): 0.17 to 0.33."""

_VOCABULARY: Final = 2**18
"""No model in use has more tokens; a larger bound only widens what is not known."""
_NOWHERE: Final = -9000.0


class Asked(Protocol):
    """A server that is asked."""

    @property
    def model(self) -> str:
        """Its name for its model."""
        ...

    async def ask(self, method: str, route: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return an answer's JSON; raise what a refusal means."""
        ...


@dataclass(frozen=True, slots=True)
class Entropies:
    """Bounds of the entropies at a text's positions, in nats, each in rising order."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def exceeded(self, share: float) -> float | None:
        """Return the entropy that *share* of the positions exceed; None if it is not known.

        See `NEARER` for where between its bounds it is taken to be, and `TOLERANCE` for how well
        the share must be known.
        """
        low, high = quantile(self.lower, 1 - share), quantile(self.upper, 1 - share)
        tau = low + NEARER * (high - low)
        least, most = (_share_above(tau, bound) for bound in (self.lower, self.upper))
        is_known = most - least <= TOLERANCE * share or high - low < 1e-3
        return tau if is_known else None


async def entropies_of(server: Asked, xargs: Mapping[str, str]) -> Entropies:
    """Return the entropies of *server*'s model along `SAMPLE`.

    Args:
        server: Whom to ask.
        xargs: An order that does nothing, for servers that take no request without one.

    Raises:
        CapabilityError: If it does not tell log-probabilities of a prompt.
        ElisionError: If it cannot be asked.
    """
    body = {"model": server.model, "prompt": SAMPLE, "max_tokens": 1, "temperature": 0}
    for k in MOST_TOLD:
        asked = body | {"prompt_logprobs": k, "vllm_xargs": dict(xargs)}
        try:
            return read_entropies(await server.ask("POST", "completions", asked))
        except RequestError:
            continue
    raise unknown("the server's")


def read_entropies(reply: Any) -> Entropies:
    """Return the bounds that vLLM's ``prompt_logprobs`` give.

    Raises:
        CapabilityError: If there are none.
    """
    try:
        rows = [row for row in reply["choices"][0]["prompt_logprobs"] if row]
        told = [[float(one["logprob"]) for one in row.values()] for row in rows]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        told = []
    found = [entropy_bounds(row) for row in told]
    if not found:
        raise unknown("the server's")
    return Entropies(tuple(sorted(low for low, _ in found)), tuple(sorted(up for _, up in found)))


def entropy_bounds(logps: Iterable[float]) -> tuple[float, float]:
    """Return bounds of a row's entropy in nats, of which only some log-probabilities are known.

    The least likely of *logps* may be a prompt's own token, told beside the likeliest: that only
    widens the bounds.
    """
    known = [logp for logp in logps if logp > _NOWHERE]
    entropy = -sum(math.exp(logp) * logp for logp in known)
    rest = max(0.0, 1.0 - sum(map(math.exp, known)))
    if rest < 1e-9 or not known:
        return entropy, entropy
    others = max(1, _VOCABULARY - len(known))
    cap = sorted(known)[1 if len(known) > 1 else 0]
    least = rest * -min(cap, 0.0)
    most = rest * math.log(others / rest)
    return entropy + min(least, most), entropy + most


def quantile(rising: Sequence[float], share: float) -> float:
    """Return the value below which *share* of *rising* lie, linear between two of them."""
    at = share * (len(rising) - 1)
    low = math.floor(at)
    high = min(low + 1, len(rising) - 1)
    return rising[low] + (at - low) * (rising[high] - rising[low])


def unknown(engine: str) -> CapabilityError:
    """Return the error of a threshold that cannot be told by its share."""
    return CapabilityError(
        "mti by share",
        engine=engine,
        missing="the model's entropies (give tau in nats, or start vLLM with --max-logprobs 512)",
    )


def _share_above(value: float, rising: Sequence[float]) -> float:
    return sum(one > value for one in rising) / len(rising)
