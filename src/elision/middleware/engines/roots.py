"""Attention of lone tokens, several sequences in one go.

Where nothing is drafted a forward holds one token of every sequence, and attention request by
request is many small operations. Here the keys of sequences of about the same length lie side by
side, short ones filled up, and each operation serves all of them. A token gets the bits that
`attention.attend` gives it alone: what is filled up weighs exactly nothing, and behind a
sequence's end every product adds zero. Where a processor's products round otherwise for some
shapes, as on an Intel one with a single key head and one key left over, the last bits may differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from elision.middleware.engines.attention import CHUNK, LEAST_ROWS, LEAST_SLOTS

if TYPE_CHECKING:
    from elision.middleware.engines.part import Part


def alike(parts: Iterable[tuple[Part, int]]) -> Iterator[list[Part]]:
    """Yield which of *parts* attend together, each given with its number of slots.

    None is filled up to more than about twice its length.
    """
    groups: dict[int, list[Part]] = {}
    for part, n_slots in parts:
        groups.setdefault((-(-n_slots // CHUNK)).bit_length(), []).append(part)
    yield from groups.values()


class Roots:
    """Lone tokens that attend together. Lives for a forward; every layer uses the same room.

    Args:
        starts: Where each token stands on the row.
        layers: Of one layer of the model, each sequence's keys and values, the new ones included.
    """

    def __init__(self, starts: Sequence[int], layers: Sequence[Any]) -> None:
        lengths = [int(layer.keys.shape[2]) for layer in layers]
        self.at = torch.tensor(starts)
        self._lengths = lengths
        self._n_slots = max(LEAST_SLOTS, *lengths)
        self._hidden = _hidden(lengths, self._n_slots)
        self._rooms: tuple[Tensor, Tensor] | None = None
        self._views: tuple[list[Tensor], list[Tensor]] = [], []

    def attend(self, query: Tensor, layers: Sequence[Any], scale: float | None) -> Tensor:
        """Return softmax(QK)V, each row computed as if it were alone.

        Args:
            query: Of all tokens on the row, shape ``(1, heads, T, width)``.
            layers: Keys and values of each sequence, in the order of the tokens.
            scale: What scores are multiplied by; None for one over the root of the width.

        Returns:
            What each token has read, shape ``(B, heads, width)``, of the format of *query*.
        """
        keys, values = self._gathered(layers)
        n_heads, width = query.shape[1], query.shape[3]
        n_shared = n_heads * len(layers) // keys.shape[0]
        rows = query[0].index_select(1, self.at).transpose(0, 1).float()
        rows = (rows * (width**-0.5 if scale is None else scale)).reshape(-1, n_shared, width)
        if n_shared < LEAST_ROWS:
            rows = torch.constant_pad_nd(rows, (0, 0, 0, LEAST_ROWS - n_shared))
        weights = torch.bmm(rows, keys.transpose(1, 2))
        if self._hidden is not None:
            weights.view(len(layers), -1, self._n_slots).add_(self._hidden)
        weights.sub_(weights.amax(-1, keepdim=True)).exp_()
        total = weights.sum(-1, keepdim=True, dtype=torch.float64).float()
        read = _read(weights, values).div_(total)
        return read[:, :n_shared].to(query.dtype).reshape(len(layers), n_heads, -1)

    def _gathered(self, layers: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Return all keys and values in single precision, shape ``(B * key heads, slots, width)``.

        They lie in the same room for every layer; zeros behind a sequence's end are written once.
        """
        if self._rooms is None:
            self._rooms = self._room(layers[0].keys), self._room(layers[0].values)
            keys, values = self._rooms
            self._views = self._cut(keys), self._cut(values)
        for views, name in zip(self._views, ("keys", "values"), strict=True):
            cast("Any", torch)._foreach_copy_(views, [getattr(layer, name)[0] for layer in layers])
        keys, values = self._rooms
        return keys.flatten(0, 1), values.flatten(0, 1)

    def _room(self, states: Tensor) -> Tensor:
        _, n_heads, _, width = states.shape
        return torch.zeros(len(self._lengths), n_heads, self._n_slots, width)

    def _cut(self, room: Tensor) -> list[Tensor]:
        return [room[i, :, :length] for i, length in enumerate(self._lengths)]


def _hidden(lengths: Sequence[int], n_slots: int) -> Tensor | None:
    """Return what is added to the scores of slots behind a sequence's end, ``(B, 1, slots)``."""
    if min(lengths) == n_slots:
        return None
    behind = torch.arange(n_slots) >= torch.tensor(lengths)[:, None]
    return torch.zeros(behind.shape).masked_fill_(behind, -torch.inf)[:, None]


def _read(weights: Tensor, values: Tensor) -> Tensor:
    """Return ``weights @ values``, summed up in the order of positions."""
    read = torch.bmm(weights[..., :CHUNK], values[:, :CHUNK])
    for start in range(CHUNK, values.shape[1], CHUNK):
        end = start + CHUNK
        read.baddbmm_(weights[..., start:end], values[:, start:end])
    return read
