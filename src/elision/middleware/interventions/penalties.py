"""Penalties on tokens that were already written: frequency, presence, repetition."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Protocol

from elision.contract import Context, Here, Stage, Stateless
from elision.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

_FIRST_CAPACITY = 64


def penalise_frequency(
    logits: Tensor, written: Tensor, *, frequency: float, presence: float
) -> Tensor:
    r"""Lower the scores of tokens that the reply holds already.

    Computes :math:`z_j - f\,c_j - q\,[c_j > 0]` with :math:`c_j` how often token :math:`j` was
    written, :math:`f` the frequency and :math:`q` the presence penalty.

    Args:
        logits: Scores of one row, shape ``(V,)``; not modified.
        written: The reply's tokens in any order, repeats included, int64, shape ``(T,)``.
        frequency: Nats per occurrence; below 0 it rewards.
        presence: Nats for having occurred at all; likewise.

    Returns:
        New scores of the same shape and dtype; ``-inf`` stays ``-inf``.

    Source:
        OpenAI, "Frequency and presence penalties" (API guide): sampled tokens only, not the prompt.
    """
    # Counting first keeps a token's hundredth occurrence exact: counts are whole numbers.
    counts = logits.new_zeros(logits.shape).index_add_(0, written, logits.new_ones(written.shape))
    out = logits.sub(counts, alpha=frequency)
    return out.scatter_(0, written, out[written] - presence)


def penalise_repetition(logits: Tensor, seen: Tensor, *, penalty: float) -> Tensor:
    r"""Move the scores of tokens seen before away from a yes.

    Computes :math:`z_j / \theta` where :math:`z_j \ge 0`, :math:`z_j \theta` where it is negative,
    once per token however often it was seen.

    Args:
        logits: Scores of one row, shape ``(V,)``; not modified.
        seen: Tokens of prompt and reply, repeats allowed, int64, shape ``(T,)``.
        penalty: Above 0; above 1 discourages, below 1 encourages.

    Returns:
        New scores of the same shape and dtype; ``-inf`` stays ``-inf``.

    Source:
        Keskar et al. 2019, arXiv:1909.05858, in the form of transformers 5.23
        (``RepetitionPenaltyLogitsProcessor``).
    """
    score = logits[seen]
    return logits.scatter(0, seen, (score / penalty).where(score >= 0, score * penalty))


class _Tape:
    """Tokens in an array that only grows; several histories read their own part of it."""

    __slots__ = ("ids", "written")

    def __init__(self, ids: array[int], written: int) -> None:
        self.ids = ids
        self.written = written

    def copy(self, length: int) -> _Tape:
        room = max(_FIRST_CAPACITY, 2 * length) - length
        return _Tape(self.ids[:length] + array("q", bytes(8 * room)), length)


@dataclass(frozen=True, slots=True)
class History:
    """Tokens so far, as a value: `append` gives a longer history and leaves this one alone.

    Histories of one choice share a tape: the newest writes behind its end, which no other reads;
    whoever finds that place taken copies first. So a token costs O(1), a branch O(n) once.
    """

    _tape: _Tape = field(repr=False)
    length: int = 0

    @classmethod
    def of(cls, tokens: Iterable[int]) -> History:
        """Return the history that holds *tokens*."""
        ids = array("q", tokens)
        return cls(_Tape(ids, len(ids)), len(ids))

    def append(self, token: int) -> History:
        """Return this history with *token* behind it."""
        tape, end = self._tape, self.length
        if tape.written != end or end == len(tape.ids):
            tape = tape.copy(end)
        tape.ids[end] = token
        tape.written = end + 1
        return History(tape, end + 1)

    def ids_for(self, logits: Tensor) -> Tensor:
        """Return the tokens on the device of *logits*, int64, shape ``(length,)``; read only."""
        import torch

        if not self.length:
            return torch.empty(0, dtype=torch.int64, device=logits.device)
        ids = torch.frombuffer(self._tape.ids, dtype=torch.int64, count=self.length)
        return ids.to(logits.device)


class _Penalise(Protocol):
    def __call__(self, logits: Tensor, ids: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class PenaltySession(Stateless):
    """One choice's tokens so far, and what is done to their scores.

    Attributes:
        history: The tokens that count.
    """

    history: History
    _penalise: _Penalise | None = field(repr=False)

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the penalised scores; the same object while no token counts."""
        if self._penalise is None or not self.history.length:
            return logits
        return self._penalise(logits, self.history.ids_for(logits))

    def advance(self, token: int) -> PenaltySession:
        """Return the session after *token*."""
        if self._penalise is None:
            return self
        return PenaltySession(self.history.append(token), self._penalise)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequencyPresence:
    """Discourage what the reply has said already, OpenAI's way.

    Attributes:
        frequency: See `penalise_frequency`.
        presence: Likewise.
    """

    frequency: float = 0.0
    presence: float = 0.0
    stage = Stage.PENALTY
    rank = 10

    def __post_init__(self) -> None:
        if not (isfinite(self.frequency) and isfinite(self.presence)):
            raise ConfigError(
                f"the penalties are {self.frequency} and {self.presence}; they must be finite"
            )

    def begin(self, context: Context) -> PenaltySession:
        """Open a session for one choice; the prompt does not count."""
        act = partial(penalise_frequency, frequency=self.frequency, presence=self.presence)
        return PenaltySession(History.of(()), act if self.frequency or self.presence else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """Discourage what prompt and reply have said already, CTRL's way.

    Acts on the model's own scores: behind a mixer that hands out log-probabilities (never
    positive) it would always multiply. Mixers here keep the raw normaliser for that reason.

    Attributes:
        penalty: See `penalise_repetition`; 1 is neutral.
    """

    penalty: float
    stage = Stage.PENALTY
    rank = 0

    def __post_init__(self) -> None:
        if not (isfinite(self.penalty) and self.penalty > 0):
            raise ConfigError(f"repetition penalty is {self.penalty}; it must be above 0")

    def begin(self, context: Context) -> PenaltySession:
        """Open a session for one choice; ids that the model does not score are left out."""
        known = (t for t in context.prompt_ids if 0 <= t < context.vocab_size)
        act = partial(penalise_repetition, penalty=self.penalty)
        return PenaltySession(History.of(dict.fromkeys(known)), act if self.penalty != 1 else None)
