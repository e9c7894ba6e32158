"""The k best tokens of many rows at once, and how probable the model thought them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

BLOCK: Final = 64
"""Neighbouring scores of which only the best is looked at first."""

_SCORES_AT_A_TIME: Final = 1 << 22
_OUT: Final = float("-inf")


def top_k(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the *k* best tokens of every row, best first, and their probabilities.

    Exact and deterministic: equal scores come in the order of their ids. The probability is that
    of the whole row's softmax at temperature 1.

    Args:
        logits: Scores, shape ``(n, V)``, any float type and device; not modified.
        k: Tokens per row; may exceed V.

    Returns:
        Ids, int32, and probabilities, float32, shape ``(n, k)`` each, on the device of *logits*.
        Where a row has fewer than *k* scores above ``-inf``, the rest are id -1, probability 0;
        where a NaN or an infinite score leaves no softmax, probabilities are 0.
    """
    ids, probs = [], []
    for scores, best in _portions(logits, k):
        ids.append(_named(scores, best, k))
        probs.append(_fit(scores.softmax(-1).gather(1, best).nan_to_num(0.0), k, 0.0))
    return torch.cat(ids), torch.cat(probs)


def top_ids(logits: Tensor, k: int) -> Tensor:
    """Return the ids of `top_k` alone; less than half the work."""
    return torch.cat([_named(scores, best, k) for scores, best in _portions(logits, k)])


def _portions(logits: Tensor, k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield rows as float32, so many that they fit a cache, and their best ids."""
    n_rows = max(1, _SCORES_AT_A_TIME // logits.shape[1])
    for rows in torch.split(logits, n_rows):
        scores = rows.float()
        yield scores, _best(scores, min(k, scores.shape[1]))


def _named(scores: Tensor, best: Tensor, k: int) -> Tensor:
    out = scores.gather(1, best) == _OUT
    return _fit(best.to(torch.int32).masked_fill(out, -1), k, -1)


def _fit(columns: Tensor, k: int, filler: float) -> Tensor:
    missing = k - columns.shape[1]
    return torch.nn.functional.pad(columns, (0, missing), value=filler) if missing else columns


def _best(scores: Tensor, k: int) -> Tensor:
    """Return the ids of the *k* best, shape ``(n, k)``.

    They lie in the *k* blocks with the best maxima, and in what is left over behind the last
    block. A block holds lower ids than the next, so this is as true of equal scores.
    """
    n, width = scores.shape
    n_blocks = width // BLOCK
    if n_blocks < 2 * k:
        return _first(scores, torch.arange(width, device=scores.device), k)
    blocks = scores[:, : n_blocks * BLOCK].view(n, n_blocks, BLOCK).amax(2)
    chosen = _first(blocks, torch.arange(n_blocks, device=scores.device), k)
    within = torch.arange(BLOCK, device=scores.device)
    left_over = torch.arange(n_blocks * BLOCK, width, device=scores.device).expand(n, -1)
    ids = torch.cat(((chosen[:, :, None] * BLOCK + within).flatten(1), left_over), 1)
    return _first(scores.gather(1, ids), ids, k)


def _first(scores: Tensor, ids: Tensor, k: int) -> Tensor:
    """Return the *k* of *ids* with the best scores, equal ones by id; shape ``(n, k)``.

    A float's bits, read as an integer, keep its order once those below zero are turned over; with
    the id in the lower half no two keys are equal.
    """
    bits = (scores + 0.0).view(torch.int32)  # so that -0 is 0
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    keys = (bits.long() << 32) - ids
    return -keys.topk(k).values & 0xFFFFFFFF
