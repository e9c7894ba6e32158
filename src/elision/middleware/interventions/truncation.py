"""Truncation: keep the head of the distribution, send the rest to -inf.

The kept sets are those of the Hugging Face warpers. Kept sets are short, so each rule looks at the
best tokens first and falls back to the full rule where those do not tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING

from elision.contract import Here, Stage, Stateless
from elision.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

_OUT = float("-inf")
_HEAD = 1024
_LONG_HEAD = 8192
_FOLD = 8


def best_tokens(row: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the *k* best scores and their ids, best first, exactly as ``topk`` would.

    Folded into columns of eight, the row has its best *k* in the *k* columns with the best maxima:
    only those are searched, in a fifth of ``topk``'s time.

    Args:
        row: Scores, shape ``(V,)``, without NaN.
        k: How many, at most V.

    Returns:
        Scores and ids, shape ``(k,)`` each; which of several equal ones comes last is open.
    """
    import torch

    width = row.shape[0] // _FOLD
    if width < 2 * k:
        scores, ids = row.topk(k)
        return scores, ids
    folded = row[: width * _FOLD].view(_FOLD, width)
    columns = folded.amax(dim=0).topk(k, sorted=False).indices
    rows = torch.arange(_FOLD, device=row.device)[:, None] * width
    left_over = torch.arange(width * _FOLD, row.shape[0], device=row.device)
    ids = torch.cat(((rows + columns).flatten(), left_over))
    scores, at = row[ids].topk(k)
    return scores, ids[at]


def _keep_only(row: Tensor, ids: Tensor) -> Tensor:
    # Not masked_fill: a branch per score makes that twenty times slower on a CPU.
    return row.new_full(row.shape, _OUT).scatter_(0, ids, row[ids])


def _keep_first(row: Tensor, scores: Tensor, ids: Tensor, n: int) -> Tensor:
    """Keep the first *n* of more than *n* best tokens."""
    return row if scores[n] == _OUT else _keep_only(row, ids[:n])


def _without(row: Tensor, gone: Tensor) -> Tensor:
    return row.masked_fill(gone, _OUT) if bool((gone & (row > _OUT)).any()) else row


def keep_from(row: Tensor, least: float) -> Tensor:
    """Keep the scores of *least* and more, ties included.

    Args:
        row: Scores, shape ``(V,)``; not modified.
        least: The least score kept; NaN and ``-inf`` keep everything.

    Returns:
        Scores of the same shape and dtype; the same object if none goes.
    """
    if isnan(least) or least == _OUT:
        return row
    scores, ids = best_tokens(row, min(_HEAD, row.shape[0]))
    n = int((scores >= least).sum())
    return _keep_first(row, scores, ids, n) if n < len(ids) else _without(row, row < least)


def keep_top_k(row: Tensor, k: int) -> Tensor:
    """Keep the *k* best tokens, and whoever ties with the last of them.

    Args:
        row: Scores, shape ``(V,)``; not modified.
        k: How many; 0, V and more keep all.

    Returns:
        Scores of the same shape and dtype; the same object if none goes.

    Source:
        Fan et al. 2018, arXiv:1805.04833; ties as in ``TopKLogitsWarper`` of transformers 5.23.
    """
    if not 0 < k < row.shape[0]:
        return row
    scores, ids = best_tokens(row, k + 1)
    if scores[k] == scores[k - 1]:
        return keep_from(row, float(scores[k]))
    return _keep_first(row, scores, ids, k)


def keep_top_p(row: Tensor, p: float) -> Tensor:
    r"""Keep the smallest set of best tokens whose mass reaches *p*.

    A token is kept if the mass of it and of all below it exceeds :math:`1 - p`. Of equal scores at
    the edge those with the highest ids are kept, as a stable sort leaves them; transformers' sort
    is not stable on a CPU, so there its choice among equals is chance. How many is the same.

    Args:
        row: Scores, shape ``(V,)``; not modified.
        p: Mass in (0, 1]; 1 keeps all.

    Returns:
        Scores of the same shape and dtype; the same object if none goes.

    Source:
        Holtzman et al. 2019, arXiv:1904.09751; as ``TopPLogitsWarper`` of transformers 5.23.
    """
    import torch

    if p >= 1:
        return row
    probs = row.float().softmax(dim=-1)
    total = float(probs.sum(dtype=torch.float64))
    if isnan(total):
        return row
    for size in (_HEAD, _LONG_HEAD):
        if size < row.shape[0] and (kept := _keep_nucleus(row, probs, total, p, size)) is not None:
            return kept
    return _keep_top_p_sorted(row, p)


def _keep_nucleus(row: Tensor, probs: Tensor, total: float, p: float, size: int) -> Tensor | None:
    """Apply top-p by the best *size* tokens; None if they do not tell for certain."""
    scores, ids = best_tokens(row, size)
    mass = probs[ids].double()
    upwards = total + mass - mass.cumsum(0)
    # Sorted or not, a float32 softmax sums in another order: near the edge only the sort knows.
    doubt = 2e-6 * (1 - p) + 2e-7
    n = max(1, int((upwards > 1 - p).sum()))
    if n == size or bool(((upwards - (1 - p)).abs() <= doubt).any()):
        return None
    edge = scores[n - 1]
    if scores[n] != edge:
        return _keep_first(row, scores, ids, n)
    return None if scores[-1] == edge else _keep_only(row, _settle_tie(scores, ids, n))


def _settle_tie(scores: Tensor, ids: Tensor, n: int) -> Tensor:
    """Return the ids of the best *n*; of those equal to the last, the highest."""
    edge = scores[n - 1]
    above = ids[scores > edge]
    tied = ids[scores == edge].sort(descending=True).values
    return above.new_tensor([*above.tolist(), *tied[: n - len(above)].tolist()])


def _keep_top_p_sorted(row: Tensor, p: float) -> Tensor:
    scores, ids = row.sort(stable=True)
    gone = scores.float().softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    gone[-1] = False
    return _without(row, gone.scatter(0, ids, gone))


def keep_min_p(row: Tensor, p: float) -> Tensor:
    """Keep the tokens at least *p* times as likely as the best one.

    Args:
        row: Scores after temperature, shape ``(V,)``; not modified.
        p: Share of the best token's probability, in [0, 1]; 0 keeps all.

    Returns:
        Scores of the same shape and dtype; the same object if none goes.

    Source:
        Nguyen et al. 2024, arXiv:2407.01082; as ``MinPLogitsWarper`` of transformers 5.23.
    """
    if p <= 0:
        return row
    probs = row.float().softmax(dim=-1)
    least = p * probs.amax()
    if row.shape[0] > _HEAD:
        scores, ids = best_tokens(row, _HEAD)
        mass = probs[ids]
        # A vectorised exp may be out of order in its last bit: leave the edge to the full rule.
        if mass[-1] < least * (1 - 1e-5):
            return _keep_first(row, scores, ids, int((mass >= least).sum()))
    return _without(row, probs < least)


def keep_top_n_sigma(row: Tensor, n: float) -> Tensor:
    r"""Keep the scores within *n* standard deviations of the best.

    Computes :math:`z_j \ge \max z - n\,\sigma` with :math:`\sigma` the unbiased deviation of the
    finite scores. The set does not depend on a temperature applied before.

    Args:
        row: Scores, shape ``(V,)``; not modified.
        n: Deviations; 0 keeps all.

    Returns:
        Scores of the same shape and dtype; the same object if none goes, or fewer than 2 are there.

    Source:
        Tang et al. 2024, arXiv:2411.07641; ours: only finite scores count (else -inf gives NaN).
    """
    if n <= 0:
        return row
    z = row.float() if row.amin() > _OUT else row[row > _OUT].float()
    if len(z) < 2:
        return row
    away = z - z.mean()
    sigma = (float(away.dot(away)) / (len(z) - 1)) ** 0.5
    return keep_from(row, float(z.amax()) - n * sigma)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopNSigma(Stateless):
    """Keep scores near the best one, measured in deviations of the row. Stateless.

    Attributes:
        n: See `keep_top_n_sigma`; 0 is neutral.
    """

    n: float
    stage = Stage.TRUNCATION
    rank = 0

    def __post_init__(self) -> None:
        if not self.n >= 0:
            raise ConfigError(f"top-n-sigma is {self.n}; it must be 0 or more")

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the truncated scores; the same object if none goes."""
        return keep_top_n_sigma(logits, self.n)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK(Stateless):
    """Keep a fixed number of best tokens. Stateless.

    Attributes:
        k: See `keep_top_k`; 0 is neutral.
    """

    k: int
    stage = Stage.TRUNCATION
    rank = 10

    def __post_init__(self) -> None:
        if self.k < 0:
            raise ConfigError(f"top-k is {self.k}; it must be 0 or more")

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the truncated scores; the same object if none goes."""
        return keep_top_k(logits, self.k)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopP(Stateless):
    """Keep the nucleus: the best tokens that hold a given mass. Stateless.

    Attributes:
        p: See `keep_top_p`; 1 is neutral.
    """

    p: float
    stage = Stage.TRUNCATION
    rank = 20

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise ConfigError(f"top-p is {self.p}; it must be in (0, 1]")

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the truncated scores; the same object if none goes."""
        return keep_top_p(logits, self.p)


@dataclass(frozen=True, slots=True, kw_only=True)
class MinP(Stateless):
    """Keep tokens that are not too much less likely than the best. Stateless.

    Attributes:
        p: See `keep_min_p`; 0 is neutral.
    """

    p: float
    stage = Stage.TRUNCATION
    rank = 30

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ConfigError(f"min-p is {self.p}; it must be in [0, 1]")

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the truncated scores; the same object if none goes."""
        return keep_min_p(logits, self.p)
