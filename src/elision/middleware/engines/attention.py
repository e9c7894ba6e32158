"""Attention whose rows do not depend on one another, for few rows on a CPU.

A token's result is the same to the last bit whether it is computed alone or as a node of a tree:
so drafted text is plain text, in half precision too. Usual kernels round by the number of rows and
by where keys happen to lie. Here

- heads that share keys are stacked as more rows, and never fewer than `LEAST_ROWS`: below that,
  matrix libraries take other kernels;
- keys outside of a row's path weigh exactly nothing, and a path's slots rise with its positions, so
  a sum that runs over the slots one by one adds the same numbers in the same order;
- such sums are matrix products, `CHUNK` keys at a time: longer ones are cut in parts whose lengths
  depend on the total. Chunks are counted in positions, from zero on;
- weights are summed up in double precision, where the order does not show after rounding.

Everything is computed in single precision, whatever the model's format is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

if TYPE_CHECKING:
    from elision.middleware.speculation.base import Draft

MAX_ROWS: Final = 32
"""Most tokens of one sequence; beyond, usual kernels are faster."""
LEAST_ROWS: Final = 4
"""Fewest rows of a product: fewer are padded."""
LEAST_SLOTS: Final = 64
"""Fewest keys that scores are computed with, for the same reason."""
CHUNK: Final = 128
"""Keys per product. With the rows that stand behind the last full chunk it must stay below 186,
from where on MKL cuts a sum in two (measured, AVX-512)."""


_MARK: Final = "_elision_rows_are_independent"
_FORMATS: Final = (torch.float32, torch.bfloat16)


def is_usual(model: Any) -> bool:
    """Return whether *model* lies where this pays, and attends as this does."""
    function = model.config.get_text_config()._attn_implementation
    suitable = model.device.type == "cpu" and model.dtype in _FORMATS
    return suitable and function == "sdpa" and not model.training


def set_independent_(model: Any, *, on: bool = True) -> None:
    """Have the engine's forwards of *model* attend by `attend`; its own forwards stay as they are.

    Args:
        model: One that nobody else uses and that `can_be_independent`.
        on: Whether to.
    """
    setattr(model, _MARK, on)


def is_independent(model: Any) -> bool:
    """Return whether *model* was so set, and still is where and how it was."""
    return getattr(model, _MARK, False) and is_usual(model)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one sequence's rows may look at; the same for every layer of a kind.

    Attributes:
        n_past: Slots before the root's.
        hidden: Added to the scores of the last slots, shape ``(rows, slots)``; None if all is seen.
        late: For the slots behind the last full chunk: 1 where the position lies beyond the chunk
            that follows it, else 0; None if it does nowhere.
    """

    n_past: int
    hidden: Tensor | None
    late: Tensor | None

    @classmethod
    def of(cls, n_past: int, draft: Draft, mask: Tensor | None, n_shared: int) -> Seen:
        """Return what *mask* lets the nodes of *draft* see.

        Args:
            n_past: Slots before the root's, every one a position of its own from 0 on.
            draft: The tree.
            mask: As `tree_masks` makes it; None if every node sees everything.
            n_shared: Heads that share keys.
        """
        return cls(n_past, _hidden(mask, n_past, n_shared), _late(n_past, draft))


def _hidden(mask: Tensor | None, n_past: int, n_shared: int) -> Tensor | None:
    """Return *mask* for every stacked row, less the slots in front that all rows see."""
    if mask is None:
        return None
    rows = mask[0, 0].float()
    if not rows[:, :n_past].any():
        rows = rows[:, n_past:]
    return rows.repeat(n_shared, 1) if rows.any() else None


def _late(n_past: int, draft: Draft) -> Tensor | None:
    """Return which slots behind the last full chunk have positions beyond the chunk after it."""
    start, depths = n_past // CHUNK * CHUNK, draft.depths
    end = start + CHUNK
    if n_past + max(depths) < end:
        return None
    late = [0.0] * (n_past - start) + [float(n_past + depth >= end) for depth in depths]
    return torch.tensor(late)


def attend(
    query: Tensor, keys: Tensor, values: Tensor, seen: Seen, scale: float | None = None
) -> Tensor:
    """Return softmax(QK)V, each row computed as if it were alone.

    Args:
        query: Of the last tokens of one sequence, shape ``(1, heads, n, width)``, n ≤ `MAX_ROWS`.
        keys: Of all its tokens, shape ``(1, key heads, slots, width)``.
        values: Likewise.
        seen: Who sees whom.
        scale: What scores are multiplied by; None for one over the root of the width.

    Returns:
        What each token has read, shape ``(1, n, heads, width)``, of the format of *query*.
    """
    n_heads, n, width = query.shape[1:]
    n_rows = n_heads // keys.shape[1] * n
    rows = query.reshape(-1, n_rows, width).float() * (width**-0.5 if scale is None else scale)
    if n_rows < LEAST_ROWS:
        rows = torch.constant_pad_nd(rows, (0, 0, 0, LEAST_ROWS - n_rows))
    weights = _scores(rows, keys[0].float())
    if seen.hidden is not None:
        weights[:, :n_rows, -seen.hidden.shape[1] :] += seen.hidden
    weights.sub_(weights.amax(-1, keepdim=True)).exp_()
    total = weights.sum(-1, keepdim=True, dtype=torch.float64).float()
    read = _read(weights, values[0].float(), seen).div_(total)
    return read[:, :n_rows].to(query.dtype).reshape(1, n_heads, n, -1).transpose(1, 2)


def _scores(rows: Tensor, keys: Tensor) -> Tensor:
    """Return every row times every key."""
    n_slots = keys.shape[1]
    if n_slots >= LEAST_SLOTS:
        return torch.bmm(rows, keys.transpose(1, 2))
    keys = torch.constant_pad_nd(keys, (0, 0, 0, LEAST_SLOTS - n_slots))
    return torch.bmm(rows, keys.transpose(1, 2))[..., :n_slots].contiguous()


def _read(weights: Tensor, values: Tensor, seen: Seen) -> Tensor:
    """Return ``weights @ values``, summed up in the order of positions."""
    parts = _parts(weights, values, seen)
    read = torch.bmm(*next(parts))
    for part in parts:
        read.baddbmm_(*part)
    return read


def _parts(weights: Tensor, values: Tensor, seen: Seen) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield weights and values chunk by chunk; a chunk with drafted slots goes by positions."""
    full = seen.n_past // CHUNK * CHUNK
    for start in range(0, full, CHUNK):
        yield weights.narrow(2, start, CHUNK), values.narrow(1, start, CHUNK)
    last, behind = weights[..., full:], values[:, full:]
    if seen.late is None:
        yield last, behind
    else:
        late = last * seen.late
        yield last - late, behind
        yield late, behind
