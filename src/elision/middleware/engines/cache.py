"""A key-value cache that grows by doubling: a step writes its own keys and copies nothing else.

transformers' dynamic layer concatenates, so every step copies the whole prefix, in every layer.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

FIRST_TOKENS = 256
"""Tokens a layer has room for at least."""


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call] # its base registers itself
    """A dynamic layer whose keys and values are views of buffers with room to spare.

    Same tensors, same shapes ``(batch, heads, tokens, width)``, same cropping as `DynamicLayer`.
    """

    _rooms: tuple[Tensor, Tensor] | None = None
    _handed: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens; return those of all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        n_new, n_old = key_states.shape[-2], self.get_seq_length()
        keys, values = self._room_for(n_old + n_new, n_old, key_states, value_states)
        keys.narrow(-2, n_old, n_new).copy_(key_states)
        values.narrow(-2, n_old, n_new).copy_(value_states)
        self.keys = self._handed = keys.narrow(-2, 0, n_old + n_new)
        self.values = values.narrow(-2, 0, n_old + n_new)
        return self.keys, self.values

    def _room_for(
        self, n_all: int, n_old: int, key_states: Tensor, value_states: Tensor
    ) -> tuple[Tensor, Tensor]:
        rooms = self._rooms
        if rooms is not None and rooms[0].shape[-2] >= n_all and self._lies_in(rooms[0], n_old):
            return rooms
        n_room = max(FIRST_TOKENS, 2 * n_all)
        keys, values = _like(key_states, n_room), _like(value_states, n_room)
        if n_old:
            keys.narrow(-2, 0, n_old).copy_(cast("Tensor", self.keys))
            values.narrow(-2, 0, n_old).copy_(cast("Tensor", self.values))
        self._rooms = keys, values
        return self._rooms

    def _lies_in(self, room: Tensor, n_old: int) -> bool:
        """Return whether the keys lie in *room* still; who sets them anew brings his own."""
        if self.keys is self._handed or not n_old:
            return True
        return cast("Tensor", self.keys).data_ptr() == room.data_ptr()


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


def full_cache(config: Any) -> DynamicCache:
    """Return an empty cache for a model of *config* that keeps every token in every layer.

    So it can be cut and compacted anywhere, and windows are the masks' affair: they cost memory
    only. Layers that keep no keys, or more than keys and values, stay transformers' own.
    """
    cache = DynamicCache(config=config)
    layers = cast("list[Any]", cache.layers)
    made, kept = cast("Any", GrowingLayer), (DynamicLayer, DynamicSlidingWindowLayer)
    cache.layers = [made() if type(layer) in kept else layer for layer in layers]
    return cache


def is_whole(cache: Any) -> bool:
    """Return whether every layer of *cache* keeps every token, and can be cut anywhere."""
    return all(isinstance(layer, GrowingLayer) for layer in cache.layers)
