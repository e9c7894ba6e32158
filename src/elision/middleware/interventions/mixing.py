"""One equation under every mixer: a weighted sum of log-probabilities, of one's own and others'.

Classifier-free guidance, context-aware decoding, minimal test-time intervention, contrastive
decoding and logit difference differ in where the other rows come from and in their weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log
from typing import TYPE_CHECKING, TypeAlias

from elision.errors import ConfigError

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
        terms: The other rows.
        anchor: What the result's logsumexp is, in nats. With that of the model's raw row, penalties
            that read a score's sign and size keep their meaning.
        plausibility: Tokens of less than this share of the best token's probability in *own* are
            dropped; 0 drops none.

    Returns:
        Scores, float32. The same object as *own* where it has no finite score, or where the mixture
        overflows.

    Source:
        Sanchez et al. 2024, arXiv:2306.17806, eq. 7, for two rows; the plausibility mask is that of
        Li et al. 2023, arXiv:2210.15097, eq. 2. Ours: the rules for ``-inf``, the renormalisation.
    """
    row = own.detach().float()
    if not isfinite(best := float(row.amax())):
        return own
    kept = row > -float("inf")
    if plausibility:
        kept &= row >= best + log(plausibility)
    mixed = row.log_softmax(-1).mul_(weight)
    for share, other in terms:
        if share and (logp := _filled(other)) is not None:
            mixed.add_(logp, alpha=share)
    mixed.masked_fill_(~kept, -float("inf"))
    total = float(mixed.logsumexp(-1))
    return mixed.add_(anchor - total) if isfinite(total) else own


def _filled(row: Tensor) -> Tensor | None:
    """Return log-probabilities with the least finite one for ``-inf``; None if all are that."""
    logp = row.detach().float().log_softmax(-1)
    if bool(logp.isfinite().all()):
        return logp
    finite = logp[logp.isfinite()]
    return logp.nan_to_num_(neginf=float(finite.amin())) if finite.numel() else None


def check_weight(name: str, value: float) -> None:
    """Raise `ConfigError` unless *value* is finite and within ±100."""
    if not (isfinite(value) and abs(value) <= 100):
        raise ConfigError(f"{name} is {value}; it must lie between -100 and 100")


def check_plausibility(value: float) -> None:
    """Raise `ConfigError` unless *value* is in [0, 1]."""
    if not 0 <= value <= 1:
        raise ConfigError(f"plausibility is {value}; it must be in [0, 1]")
