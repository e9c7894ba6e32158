"""What stays in a cache of the tokens that a step has tried: those on the path of the walk.

Keys are cached with their position already turned into them, so a row may move to any slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import (
    BaseQuantizedLayer,
    DummyLayer,
    DynamicIndexedLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionCacheLayerMixin,
    StaticIndexedLayer,
    StaticLayer,
    StaticSlidingWindowLayer,
)

from elision.errors import ConfigError

_Kind: TypeAlias = Literal["dynamic", "static", "empty"]

_FORGETFUL: Final = (
    DynamicSlidingWindowLayer,
    DynamicIndexedLayer,
    BaseQuantizedLayer,
    LinearAttentionCacheLayerMixin,
    StaticSlidingWindowLayer,
    StaticIndexedLayer,
)
"""Layers whose state is more, or less, than the keys and values of all tokens."""


def can_compact(cache: Cache) -> bool:
    """Return whether every layer of *cache* holds keys and values of all tokens, or nothing."""
    return not any(isinstance(layer, _FORGETFUL) for layer in cache.layers)


@torch.inference_mode()
def compact(cache: Cache, path: Sequence[int], n: int) -> None:
    """Keep of the last *n* tokens of *cache* those on *path*, in place.

    Afterwards the cache is as if it had read the path alone. Nothing before the *n* tokens is
    touched or copied; keys and values stay where they lie.

    Args:
        cache: Of full-length layers: dynamic ones of any make, or static ones.
        path: Nodes of the draft, each after its parent, so rising; empty to keep none.
        n: Nodes that the last forward scored, the root included.

    Raises:
        ConfigError: If a layer of the cache cannot be compacted, see `can_compact`.
    """
    kept = list(path)
    assert all(a < b for a, b in zip([-1, *kept], [*kept, n], strict=True)), "path must rise"
    n_still = next((i for i, node in enumerate(kept) if node != i), len(kept))
    sources: dict[tuple[torch.device, int], Tensor] = {}
    for layer, kind in _layers(cache):
        n_past = int(layer.get_seq_length()) - n
        if n_still < len(kept):
            where = layer.keys.device, n_past
            if where not in sources:
                slots = [n_past + node for node in kept[n_still:]]
                sources[where] = torch.tensor(slots, device=layer.keys.device)
            _move(layer, sources[where], n_past + n_still)
        _truncate(layer, kind, n_past + len(kept))


def truncate(cache: Cache, n: int) -> None:
    """Keep the first *n* tokens of every layer of *cache*, in place; layers may differ in length.

    Raises:
        ConfigError: If a layer of the cache cannot be cropped, see `can_compact`.
    """
    with torch.inference_mode():
        for layer, kind in _layers(cache):
            _truncate(layer, kind, n)


@contextmanager
def tree_slots(cache: Cache, n_past: int) -> Iterator[None]:
    """Take back, on any exception, what was added to *cache* behind its first *n_past* tokens."""
    try:
        yield
    except BaseException:
        truncate(cache, n_past)
        raise


def _move(layer: Any, sources: Tensor, target: int) -> None:
    """Write the rows in the slots *sources* into those from *target* on."""
    # index_select copies first, so source and target may overlap.
    for states in (layer.keys, layer.values):
        rows = states.index_select(-2, sources)
        states.narrow(-2, target, rows.shape[-2]).copy_(rows)


def _truncate(layer: Any, kind: _Kind, n: int) -> None:
    if kind == "static":
        layer.cumulative_length.clamp_(max=n)
    elif layer.keys.numel() and layer.keys.shape[-2] > n:
        layer.keys = layer.keys.narrow(-2, 0, n)
        layer.values = layer.values.narrow(-2, 0, n)


def _layers(cache: Cache) -> Iterator[tuple[Any, _Kind]]:
    """Yield the layers that hold something, each with its kind."""
    layers: list[Any] = list(cache.layers)
    kinds: dict[type, _Kind] = {made: _kind(made) for made in {type(layer) for layer in layers}}
    for layer in layers:
        kind = kinds[type(layer)]
        if kind != "empty" and layer.is_initialized:
            yield layer, kind


def _kind(layer: type) -> _Kind:
    if issubclass(layer, DummyLayer):
        return "empty"
    if not issubclass(layer, _FORGETFUL):
        if issubclass(layer, DynamicLayer):
            return "dynamic"
        if issubclass(layer, StaticLayer):
            return "static"
    raise ConfigError(f"a cache of {layer.__name__} cannot be compacted; use a full-length cache")
