"""A key-value cache that grows by doubling: a step writes its own keys and copies nothing else.

transformers' dynamic layer concatenates, so every step copies the whole prefix, in every layer.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

FIRST_TOKENS = 256
"""Tokens a layer has room for at least."""


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call] # its base registers itself
    """A dynamic layer whose keys and values are views of buffers with room to spare.

    Same tensors, same shapes ``(batch, heads, tokens, width)``, same cropping as `DynamicLayer`.
    """

    _rooms: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens; return those of all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        n_old = self.get_seq_length()
        n_all = n_old + key_states.shape[-2]
        keys, values = self._room_for(n_all, n_old, key_states, value_states)
        keys[..., n_old:n_all, :] = key_states
        values[..., n_old:n_all, :] = value_states
        self.keys, self.values = keys[..., :n_all, :], values[..., :n_all, :]
        return self.keys, self.values

    def _room_for(
        self, n_all: int, n_old: int, key_states: Tensor, value_states: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self._rooms is not None and self._rooms[0].shape[-2] >= n_all and self._lies_in_rooms():
            return self._rooms
        n_room = max(FIRST_TOKENS, 2 * n_all)
        keys, values = _like(key_states, n_room), _like(value_states, n_room)
        if n_old:
            keys[..., :n_old, :] = cast("Tensor", self.keys)
            values[..., :n_old, :] = cast("Tensor", self.values)
        self._rooms = keys, values
        return self._rooms

    def _lies_in_rooms(self) -> bool:
        """Return whether the keys still lie in the buffer; who sets them anew brings his own."""
        if self._rooms is None or not self.get_seq_length():
            return True
        return cast("Tensor", self.keys).data_ptr() == self._rooms[0].data_ptr()


def _like(states: Tensor, n_room: int) -> Tensor:
    return torch.empty(
        (*states.shape[:-2], n_room, states.shape[-1]), dtype=states.dtype, device=states.device
    )


def growing_cache(config: Any) -> DynamicCache:
    """Return an empty cache for a model of *config*; sliding layers stay transformers' own."""
    cache = DynamicCache(config=config)
    layers = cast("list[Any]", cache.layers)
    made = cast("Any", GrowingLayer)
    cache.layers = [made() if type(layer) is DynamicLayer else layer for layer in layers]
    return cache
