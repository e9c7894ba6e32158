"""What a forward over so many rows takes, timed on the model itself."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch

from elision.middleware.engines.cache import full_cache
from elision.middleware.engines.ragged import Segment, score_trees
from elision.middleware.speculation.base import NOTHING, Draft
from elision.middleware.speculation.compaction import truncate

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


@dataclass(slots=True)
class ForwardTimer:
    """Times forwards over a root and a chain of proposed tokens; a `Timer`.

    Attributes:
        model: A tree-capable model.
    """

    model: PreTrainedModel
    _caches: dict[int, DynamicCache] = field(default_factory=dict)

    @torch.inference_mode()
    def __call__(self, n: int, n_context: int, /) -> float:
        """See `Timer.__call__`."""
        cache = self._cache(n_context)
        draft = Draft((0,) * (n - 1), tuple(range(n - 1)), (0.0,) * (n - 1))
        segment = Segment((0,) * n, draft, cache, n_context)
        start = time.perf_counter()
        score_trees(self.model, [segment])
        took = time.perf_counter() - start
        truncate(cache, n_context)
        return took

    def _cache(self, n_context: int) -> DynamicCache:
        """Return a cache that holds *n_context* tokens: zeros, for their price is the same."""
        if n_context not in self._caches:
            cache = full_cache(self.model.config)
            score_trees(self.model, [Segment((0,), NOTHING, cache, 0)])
            for layer in cast("list[Any]", cache.layers):
                keys, values = _zeros(layer, n_context - 1)
                layer.update(keys, values)
            self._caches[n_context] = cache
        return self._caches[n_context]


def _zeros(layer: Any, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    def of(states: torch.Tensor) -> torch.Tensor:
        return states.new_zeros((*states.shape[:-2], n, states.shape[-1]))

    return of(layer.keys), of(layer.values)
