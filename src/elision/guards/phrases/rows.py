"""The phrase mask over many rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from elision.guards.phrases.mask import MIN_MASS, NOTICEABLE, is_little, lost_mass
from elision.guards.phrases.product import Blocked

if TYPE_CHECKING:
    from torch import Tensor


def forbid_rows_(
    logits: Tensor,
    rows: Sequence[int],
    blocked: Sequence[Blocked],
    *,
    min_mass: float = MIN_MASS,
) -> tuple[float, ...]:
    """Set the scores of blocked tokens to ``-inf`` in some rows, as `forbid` does in one.

    Args:
        logits: Scores, shape ``(R, V)``, any device; those rows of it are overwritten.
        rows: Which; each once.
        blocked: What must not be chosen in each of them.
        min_mass: See `forbid`.

    Returns:
        For each of *rows* the probability that was blocked; 0 where that is not noticeable.
    """
    import torch

    found = [_scored(one, logits.shape[-1]) for one in blocked]
    acting = [n for n, ids in enumerate(found) if len(ids)]
    if not acting:
        return (0.0,) * len(rows)
    sizes, there = [len(found[n]) for n in acting], [rows[n] for n in acting]
    owner = torch.arange(len(acting)).repeat_interleave(torch.tensor(sizes))
    ids = torch.cat([found[n] for n in acting])
    # A copy to a device, and one back, cost more there than all that is done in between.
    owner, line, ids = torch.stack([owner, torch.tensor(there)[owner], ids]).to(logits.device)
    hits = logits[line, ids]
    logits[line, ids] = -inf
    tops = hits.new_full((len(acting),), -inf).scatter_reduce_(0, owner, hits, "amax")
    shares = [0.0] * len(rows)
    told = torch.stack([tops, best_scores(logits, there)]).tolist()
    for n, size, top, best, hit in zip(acting, sizes, *told, torch.split(hits, sizes), strict=True):
        if top != -inf and not is_little(top, size, best):
            shares[n] = _judged(hit, logits[rows[n]], min_mass)
    return tuple(shares)


def best_scores(logits: Tensor, rows: Sequence[int]) -> Tensor:
    """Return the best score of some of *logits*' rows, shape ``(len(rows),)``, on its device."""
    import torch

    if logits.device.type == "cpu" and 5 * len(rows) < 4 * len(logits):
        return torch.stack([logits[row].amax() for row in rows])
    return logits.amax(-1).index_select(0, torch.tensor(rows, device=logits.device))


def _scored(blocked: Blocked, n_scores: int) -> Tensor:
    """Return the blocked ids that a row of *n_scores* has."""
    return blocked.ids if blocked.top < n_scores else blocked.ids[blocked.ids < n_scores]


def _judged(hit: Tensor, row: Tensor, min_mass: float) -> float:
    """Return the noticeable share that scores had which *row* lacks; empty it if little is left."""
    mass = lost_mass(hit, row)
    if 1 - mass < min_mass:
        row.fill_(-inf)
    return mass if mass >= NOTICEABLE else 0.0
