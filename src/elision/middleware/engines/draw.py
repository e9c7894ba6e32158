"""Draws: pick the token from the final scores.

A draw is a function of the scores and of *where* it is asked, never of how often. So a position
can be visited again, drafted or rewound, and the same scores give the same token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

import torch
from torch import Tensor

from elision.contract import Sampling

_GOLDEN = -7046029254386353131  # 2^64 / golden ratio, as a signed 64-bit integer
_MIX_1 = -4658895280553007687
_MIX_2 = -7723592293110705685
_REACH = 42.0
"""A token this many nats below the best can never win: minus log noise lies in [-2.9, 37.5]."""


class Draw(Protocol):
    """Picks a token."""

    def pick(self, scores: Tensor, position: int, attempt: int = 0) -> int | None:
        """Return the token for *position*; None if every score is ``-inf``.

        Args:
            scores: Final scores, float32, shape ``(vocab,)``.
            position: Tokens of the reply before it.
            attempt: How often the reply has been rewound.
        """
        ...


@dataclass(frozen=True, slots=True)
class Greedy:
    """Take the best token; of equals, the one with the lowest id."""

    def pick(self, scores: Tensor, position: int, attempt: int = 0) -> int | None:
        """See `Draw.pick`."""
        best, token = scores.max(dim=-1)
        return None if best == -torch.inf else int(token)


@dataclass(frozen=True, slots=True)
class CounterDraw:
    """Sample by the exponential race, with noise keyed by the place of the draw.

    Every token's noise depends on (seed, choice, attempt, position, token) alone. So removing a
    token that would not have won changes nothing, and neither do batching or drafts.

    Attributes:
        seed: Any integer.
        choice: Index of the choice.
    """

    seed: int
    choice: int = 0

    def pick(self, scores: Tensor, position: int, attempt: int = 0) -> int | None:
        """See `Draw.pick`."""
        best = scores.max()
        if best == -torch.inf:
            return None
        ids = (scores >= best - _REACH).nonzero().squeeze(-1)
        if ids.numel() == 1:
            return int(ids)
        race = scores[ids] - exponential_noise(self._key(position, attempt), ids).log()
        return int(ids[race.argmax()])

    def _key(self, position: int, attempt: int) -> int:
        place = f"{self.seed}/{self.choice}/{attempt}/{position}".encode()
        return int.from_bytes(blake2b(place, digest_size=8).digest(), "big", signed=True)


@dataclass(slots=True)
class TorchDraw:
    """Sample as `transformers.generate` does: one multinomial over a ``(1, vocab)`` row a token.

    The stream equals that of ``torch.manual_seed(seed)`` before ``generate``. It is read once per
    token, in order: it cannot be rewound.

    Attributes:
        generator: The stream of random numbers.
    """

    generator: torch.Generator = field(default_factory=torch.Generator)

    def pick(self, scores: Tensor, position: int, attempt: int = 0) -> int | None:
        """See `Draw.pick`."""
        if scores.max() == -torch.inf:
            return None
        probs = scores[None].softmax(dim=-1)
        return int(torch.multinomial(probs, num_samples=1, generator=self.generator))


def exponential_noise(key: int, ids: Tensor) -> Tensor:
    """Return standard exponential noise, one value per token id, that depends on nothing else.

    Args:
        key: Signed 64-bit key of the place.
        ids: Token ids, int64, any shape.

    Returns:
        Positive float32, same shape. Small values keep their relative precision, because they are
        the ones that win.

    Source:
        The mixing is SplitMix64's (Steele, Lea, Flood 2014), read at counter ``id``.
    """
    x = ids * _GOLDEN + key
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    x = x ^ ((x >> 31) & 0x1FFFFFFFF)
    uniform = (((x >> 11) & 0x1FFFFFFFFFFFFF).double() + 0.5) * 2.0**-53
    return -torch.log1p(-uniform.float().clamp_max(1 - 2**-24))


def draw_for(sampling: Sampling, *, choice: int, seed: int, device: torch.device) -> Draw:
    """Return the draw that *sampling* asks for; temperature 0 is greedy.

    Args:
        sampling: The request's.
        choice: Index of the choice.
        seed: The request's seed, or a fresh one.
        device: Where the scores live.
    """
    if sampling.temperature == 0:
        return Greedy()
    if sampling.rng == "torch":
        generator = torch.Generator(device)
        generator.manual_seed(seed + choice)
        return TorchDraw(generator)
    return CounterDraw(seed=seed, choice=choice)
