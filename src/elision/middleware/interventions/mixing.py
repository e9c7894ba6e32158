"""One equation under every mixer: a weighted sum of log-probabilities, of one's own and others'.

Classifier-free guidance, context-aware decoding, minimal test-time intervention, contrastive
decoding and logit difference differ in where the other rows come from and in their weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, log
from typing import TYPE_CHECKING, TypeAlias

from elision.contract import BranchKey, Capability, Context, Here, Stateless
from elision.errors import CapabilityError, ConfigError, EngineError
from elision.middleware.interventions.base import Contrasts

if TYPE_CHECKING:
    from torch import Tensor

Term: TypeAlias = "tuple[float, Tensor]"
"""The weight of a row, and its scores, shape ``(vocab,)``."""


def mix(
    own: Tensor, weight: float, terms: Sequence[Term], *, anchor: float, plausibility: float = 0.0
) -> Tensor:
    r"""Return :math:`w \log p + \sum_k w_k \log p_k`, renormalised and moved to *anchor*.

    A token at ``-inf`` in *own* stays there. Where another row has ``-inf`` and *own* does not, the
    other's least finite log-probability stands in: subtracting minus infinity would make the token
    certain. A row without a finite score contributes nothing.

    Args:
        own: The scores to change, shape ``(vocab,)``, any float type; not modified.
        weight: Of *own*.
        terms: The other rows; those of weight 0 are not looked at.
        anchor: What the result's logsumexp is, in nats. With that of the model's raw row, penalties
            that read a score's sign and size keep their meaning.
        plausibility: Tokens of less than this share of the best token's probability in *own* are
            dropped; 0 drops none.

    Returns:
        Scores, float32. The same object as *own* where it has no finite score, or where the mixture
        overflows.

    Raises:
        EngineError: If another row is of another length, or holds NaN or ``+inf``.

    Source:
        Sanchez et al. 2024, arXiv:2306.17806, eq. 7, for two rows; the plausibility mask is that of
        Li et al. 2023, arXiv:2210.15097, eq. 2. Ours: the rules for ``-inf``, the renormalisation.
    """
    row = own.detach().float()
    least, best = _range(row)
    if not isfinite(best):
        return own
    # Each row's normaliser is one number for all tokens: the renormalisation takes it out again.
    mixed = (row - best).mul_(weight)
    for share, other in terms:
        if share:
            _add(mixed, other, share)
    if plausibility or least == -inf:
        mixed.masked_fill_(_implausible(row, best, plausibility), -inf)
    shift = anchor - float(mixed.logsumexp(-1))
    return mixed.add_(shift) if isfinite(shift) else own


def _range(row: Tensor) -> tuple[float, float]:
    """Return the least and the greatest score; NaN for both if one is NaN."""
    least, best = row.aminmax()
    return float(least), float(best)


def _add(mixed: Tensor, other: Tensor, share: float) -> None:
    """Add *share* times the scores of *other*, relative to its best one, to *mixed*."""
    if other.shape != mixed.shape:
        raise EngineError(
            f"a branch has scores of shape {tuple(other.shape)}, not {tuple(mixed.shape)}; "
            "only models of one vocabulary can be mixed"
        )
    row = other.detach().float()
    least, best = _range(row)
    if best == -inf:
        return
    if not isfinite(best):
        raise EngineError("a branch has scores that are not numbers")
    if least == -inf:
        row = row.nan_to_num(neginf=float(row[row > -inf].amin()))
    mixed.add_(row - best, alpha=share)


def _implausible(row: Tensor, best: float, plausibility: float) -> Tensor:
    return row < best + log(plausibility) if plausibility else row == -inf


class Always(Stateless):
    """Mixin for sessions that read all of their branches at every position."""

    __slots__ = ()

    always: bool = True

    def needs(self: Contrasts, here: Here) -> tuple[BranchKey, ...]:
        """See `Contrasts.needs`."""
        return self.branches


@dataclass(frozen=True, slots=True)
class Other:
    """One other row of a mixture.

    Attributes:
        key: Where it comes from.
        weight: What its log-probabilities are multiplied by.
        temperature: What its scores are divided by before that.
    """

    key: BranchKey = field(repr=False)
    weight: float
    temperature: float = 1.0

    def row(self, here: Here) -> Tensor:
        """Return its scores at *here*, shape ``(vocab,)``."""
        row = here.branch(self.key)
        return row if self.temperature == 1 else row.detach().float() / self.temperature


@dataclass(frozen=True, slots=True)
class Mixture(Always):
    """One choice's mixture: the same rows in the same weights at every position.

    The session of every mixer that acts everywhere. Without other rows, at weight 1 and without a
    plausibility mask it is neutral.

    Attributes:
        note: Noted as 1 wherever it acts.
        weight: Of the row that comes in.
        others: The other rows.
        plausibility: See `mix`.
    """

    note: str
    weight: float = 1.0
    others: tuple[Other, ...] = ()
    plausibility: float = 0.0

    @property
    def branches(self) -> tuple[BranchKey, ...]:
        """See `Contrasts.branches`."""
        return tuple(dict.fromkeys(other.key for other in self.others))

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the mixture, with the logsumexp of the raw row; the same object if neutral."""
        if self.weight == 1 and not self.others and not self.plausibility:
            return logits
        terms = [(other.weight, other.row(here)) for other in self.others]
        mixed = mix(
            logits, self.weight, terms, anchor=here.logsumexp, plausibility=self.plausibility
        )
        if mixed is not logits:
            here.note(self.note, 1)
        return mixed


def check_branches(method: str, context: Context) -> None:
    """Raise `CapabilityError` unless the engine can give *method* other scores."""
    if Capability.BRANCH not in context.capabilities:
        raise CapabilityError(method, engine="this engine", missing="BRANCH")


def check_weight(name: str, value: float) -> None:
    """Raise `ConfigError` unless *value* is finite and within ±100."""
    if not (isfinite(value) and abs(value) <= 100):
        raise ConfigError(f"{name} is {value}; it must lie between -100 and 100")


def check_plausibility(value: float) -> None:
    """Raise `ConfigError` unless *value* is in [0, 1]."""
    if not 0 <= value <= 1:
        raise ConfigError(f"plausibility is {value}; it must be in [0, 1]")
