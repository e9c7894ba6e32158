"""Scores: how likely an answer is, as the model knows it and as the guarded system would say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log
from typing import Final, Self

from elision.contract import Completion
from elision.errors import CapabilityError

FLOOR_NATS: Final = log(1e-10)
"""Stands for the log-probability of a token that the guard would not let through."""


@dataclass(frozen=True, slots=True)
class Score:
    """Log-probabilities of one answer, token by token, the end token included.

    Attributes:
        tokens: What each token writes; the end token writes nothing.
        plain: Under the model alone, in nats: what the weights still know.
        guarded: Under the chain at temperature 1 and without truncation: what the served system
            would say. A blocked token has `FLOOR_NATS`.
        n_floored: How many were blocked.
        applicable: Whether ``guarded`` means anything: False where the gate would refuse before
            the first token, so that every token is floored.

    Source:
        Our own (guard.md 3.2).
    """

    tokens: tuple[str, ...]
    plain: tuple[float, ...]
    guarded: tuple[float, ...]
    n_floored: int
    applicable: bool = True

    @classmethod
    def of(cls, completion: Completion, *, model: str) -> Self:
        """Read the reply to a request with an ``answer``.

        Raises:
            CapabilityError: If the engine wrote a reply instead of scoring the answer.
        """
        entries = completion.choices[0].logprobs if completion.choices else ()
        plain = tuple(entry.plain for entry in entries if entry.plain is not None)
        if not entries or len(plain) < len(entries):
            raise CapabilityError("score", engine=model, missing="LOGITS")
        guarded = [entry.logprob for entry in entries]
        return cls(
            tokens=tuple(entry.token for entry in entries),
            plain=plain,
            guarded=tuple(FLOOR_NATS if logp == -inf else logp for logp in guarded),
            n_floored=guarded.count(-inf),
            applicable=bool(completion.report.get("applicable", True)),
        )

    @property
    def loss(self) -> float:
        """Mean negative log-probability per token, guarded, in nats."""
        return _loss(self.guarded)

    @property
    def plain_loss(self) -> float:
        """The same under the model alone."""
        return _loss(self.plain)

    @property
    def probability(self) -> float:
        """``exp(-loss)``: the geometric mean of the tokens' probabilities."""
        return exp(-self.loss)


def _loss(logp: Sequence[float]) -> float:
    return -sum(logp) / len(logp)
