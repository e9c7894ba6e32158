"""Logit bias: a fixed number of nats on single tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING

from elision.contract import Context, Here, Stage, Stateless
from elision.errors import ConfigError, RequestError

if TYPE_CHECKING:
    from torch import Tensor


def add_bias(logits: Tensor, ids: Tensor, nats: Tensor) -> Tensor:
    """Add *nats* to the scores of *ids*.

    Args:
        logits: Scores of one row, shape ``(V,)``; not modified.
        ids: Distinct token ids below V, int64, shape ``(K,)``.
        nats: What each of them gains, shape ``(K,)``.

    Returns:
        New scores of the same shape and dtype; ``-inf`` stays ``-inf``.

    Source:
        OpenAI, Chat Completions API reference, ``logit_bias``.
    """
    return logits.index_add(0, ids, nats.to(logits.dtype))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitBias:
    """Make single tokens likelier or less likely by a fixed amount.

    Additive at every value. OpenAI says of -100 that it "should" ban a token: 100 nats put it at
    e^-100 of its odds, which no draw in float32 reaches; yet it stays in the row, so that a row
    whose every other token is forbidden still has a way on. A ban is a hard mask's business.

    Attributes:
        bias: Nats per token id, finite; copied, so a later change of the caller's has no effect.
    """

    bias: Mapping[int, float]
    stage = Stage.SOFT_BIAS
    rank = 0

    def __post_init__(self) -> None:
        wrong = sum(not isfinite(nats) for nats in self.bias.values())
        if wrong:
            raise ConfigError(f"{wrong} values of the logit bias are not finite")
        object.__setattr__(self, "bias", dict(self.bias))

    def __hash__(self) -> int:
        return hash(frozenset(self.bias.items()))

    def begin(self, context: Context) -> BiasSession:
        """Open a session for one choice.

        Raises:
            RequestError: If a token id lies outside the model's vocabulary.
        """
        for token in self.bias:
            if not 0 <= token < context.vocab_size:
                raise RequestError(
                    f"logit_bias names token {token}; the model's tokens are 0 to "
                    f"{context.vocab_size - 1}",
                    param="logit_bias",
                )
        return BiasSession(tuple((t, nats) for t, nats in self.bias.items() if nats))


@dataclass(frozen=True, slots=True)
class BiasSession(Stateless):
    """One choice's biases, ready to be added; the same at every position.

    Attributes:
        pairs: Token ids and their nats, none of them 0.
    """

    pairs: tuple[tuple[int, float], ...]
    _tensors: dict[object, tuple[Tensor, Tensor]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the biased scores; the same object if no bias is set."""
        if not self.pairs:
            return logits
        return add_bias(logits, *self._on(logits))

    def _on(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        device = logits.device
        if device not in self._tensors:
            import torch

            ids, nats = zip(*self.pairs, strict=True)
            self._tensors[device] = (
                torch.tensor(ids, device=device),
                torch.tensor(nats, device=device, dtype=torch.float32),
            )
        return self._tensors[device]
