"""One row and its entropy.

All that shapes entropy works on a copy of the row with the best score moved to 0. There
H = log Z - E[x] with Z the normaliser, and a uniform row has E[x] = 0 exactly: no rounding noise
for Adam to amplify.
"""

from __future__ import annotations

from math import isfinite, log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FLOOR = -110.0  # e^-110 is 0 in float32: what lies here or lower has no mass and no gradient


def entropy(logits: Tensor) -> float:
    """Return the entropy of softmax(*logits*) in nats.

    Args:
        logits: Scores of one row, shape ``(V,)``, any float dtype; ``-inf`` contributes nothing.

    Returns:
        Nats in [0, ln V]; NaN for a row without a distribution (all ``-inf``, any NaN or inf).
    """
    row, best = logits.detach().float(), float(logits.amax())
    if not isfinite(best):
        return float("nan")
    scores, probs, spare = buffers(row, 3)
    move_to_zero(row, best, scores)
    return describe(scores, probs, spare)[0]


def buffers(row: Tensor, n: int) -> tuple[Tensor, ...]:
    """Return *n* rows to write into, shape ``(V,)`` each, their values undefined."""
    # One block: malloc maps and unmaps each row anew, whose page faults cost more than the sums.
    return row.new_empty((n, *row.shape)).unbind(0)


def move_to_zero(row: Tensor, best: float, scores: Tensor) -> None:
    """Write into *scores* the row with its best score at 0 and nothing below the floor."""
    import torch

    torch.sub(row, best, out=scores).clamp_(min=FLOOR)


def move_back(row: Tensor, best: float, scores: Tensor, spare: Tensor) -> Tensor:
    """Undo `move_to_zero`; what lay below its floor returns to where it was."""
    import torch

    torch.sub(row, best + FLOOR, out=spare).clamp_(max=0)
    return (scores + best).add_(spare)


def describe(scores: Tensor, probs: Tensor, weighted: Tensor) -> tuple[float, float]:
    """Write softmax(*scores*) into *probs*; return its entropy and the mean score under it.

    *weighted* becomes their product. Pairwise sums, and a division by what the softmax really sums
    to: a dot product's error, 1e-6, becomes 1e-3 in Adam's steps for tokens next to the mean.
    """
    import torch

    torch.softmax(scores, dim=-1, out=probs)
    mass = float(probs.sum())
    mean = float(torch.mul(probs, scores, out=weighted).sum()) / mass
    # The normaliser is read off the best token: a logsumexp would be a second pass of exp.
    return float(scores.amax()) - log(float(probs.amax()) / mass) - mean, mean
