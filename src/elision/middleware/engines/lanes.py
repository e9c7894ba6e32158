"""Long prompts are read by several threads, a stretch each, every one a layer behind the last.

A stretch needs of the stretch before it the keys and values of a layer, no more, and they are
there as soon as that layer has appended them. So two forwards can run at once, the second a layer
behind. Each computes with as many threads as decoding does: the bits are those of one stretch
after the other, whatever else the machine does. And nobody waits in lockstep: where the other
cores are busy, threads that want to run take turns, and reading takes as long as it would have.
Two compute threads in one forward meet after every operation instead, and spin until they do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from elision.errors import EngineError
from elision.middleware.engines.causal import PREFILL_CHUNK, CausalModel

if TYPE_CHECKING:
    from transformers import DynamicCache

MOST: Final = 8
"""Most lanes; Python runs one thread at a time, and a layer's forward has a share of it."""
LEAST_TOKENS: Final = 48
"""Shorter stretches are not worth a forward of their own: its weights are read for each."""
_ROUND: Final = 16
"""Stretches are multiples of so many tokens, as matrix kernels like them."""


def n_lanes(n_threads: int) -> int:
    """Return how many forwards of *n_threads* each the processors of this process can run."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return max(1, min(MOST, n_cores // n_threads))


def stretches(tokens: tuple[int, ...], n: int) -> list[tuple[int, ...]]:
    """Return the first stretches of *tokens*, at most *n* and about alike, to read at once.

    None is longer than `PREFILL_CHUNK`; what is left over is for the next turn.
    """
    n = min(n, max(1, len(tokens) // LEAST_TOKENS))
    size = PREFILL_CHUNK
    if n > 1:
        turns = -(-len(tokens) // (n * PREFILL_CHUNK))
        size = -(-len(tokens) // (n * turns * _ROUND)) * _ROUND
    found = [tokens[start : start + size] for start in range(0, len(tokens), size)][:n]
    # A lone token is scored as a root is, which takes the cache for its own.
    return found[:-1] if len(found) > 1 and len(found[-1]) == 1 else found


class Lanes:
    """Threads that read beside the engine's own. Lives as long as the engine's thread.

    Args:
        n: How many forwards run at once, that of the engine's thread included.
        n_threads: Compute threads of each.
    """

    def __init__(self, n: int, n_threads: int) -> None:
        self.n = n
        self._n_threads = n_threads
        self._pool: ThreadPoolExecutor | None = None

    def read(
        self, model: CausalModel, parts: Sequence[tuple[int, ...]], cache: DynamicCache
    ) -> Tensor:
        """Append *parts*, in this order, to *cache*; return the scores behind the last token.

        They are, to the last bit, those of `CausalModel.score` for one part after the other. If a
        forward fails the cache is of no use any more.

        Args:
            model: One that `agrees`.
            parts: At most `n`, of two tokens or more where there are several.
            cache: Every layer keeps all tokens.

        Returns:
            Scores, shape ``(vocab,)``.
        """
        if len(parts) == 1:
            return model.score(parts[0], cache)
        n_past, before = int(cache.get_seq_length()), _Progress.done()
        staggered = list[tuple[tuple[int, ...], _Stretch]]()
        for part in parts:
            stretch = _Stretch(cache, n_past, before)
            staggered.append((part, stretch))
            n_past, before = n_past + len(part), stretch.progress
        first, *others = staggered
        futures: list[Future[Tensor]] = []
        try:
            # One by one into the list: those that were started are waited for, whatever follows.
            futures.extend(self._threads().submit(_read, model, *other) for other in others)
            _read(model, *first)
        except BaseException:  # a thread that was not started must not be waited for
            for _, stretch in staggered:
                stretch.progress.fail()
            raise
        finally:
            wait(futures)
        return [future.result() for future in futures][-1]

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(
                self.n - 1,
                thread_name_prefix="elision-lane",
                initializer=torch.set_num_threads,
                initargs=(self._n_threads,),
            )
        return self._pool


def agrees(model: CausalModel, lanes: Lanes) -> bool:
    """Return whether *lanes* read with *model* as one thread does, to the last bit.

    Tried on a handful of tokens, four forwards: a model may hold state of its own. Never raises.
    """
    try:
        ids = [token % model.vocab_size for token in range(1, 11)]
        parts = tuple(ids[:5]), tuple(ids[5:])
        ours, usual = model.new_cache(full=True), model.new_cache(full=True)
        with torch.inference_mode():
            got = lanes.read(model, parts, ours)
            want = [model.score(part, usual) for part in parts][-1]
        return torch.equal(got, want) and _same(ours, usual)
    except Exception:  # whatever breaks inside a model that nobody has tried means no
        return False


def _same(cache: Any, other: Any) -> bool:
    pairs = zip(cache.layers, other.layers, strict=True)
    return all(torch.equal(a.keys, b.keys) and torch.equal(a.values, b.values) for a, b in pairs)


class _Progress:
    """How many layers of a stretch have appended their keys and values."""

    def __init__(self) -> None:
        self._n_layers = 0.0
        self._failed = False
        self._changed = threading.Condition()

    @classmethod
    def done(cls) -> _Progress:
        """Return that of what was read before."""
        progress = cls()
        progress._n_layers = float("inf")
        return progress

    def reach(self, n_layers: int) -> None:
        with self._changed:
            self._n_layers = n_layers
            self._changed.notify()

    def fail(self) -> None:
        with self._changed:
            self._failed = True
            self._changed.notify()

    def wait(self, n_layers: int) -> None:
        """Return once *n_layers* have.

        Raises:
            EngineError: If they never will.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._failed or self._n_layers >= n_layers)
            if self._n_layers < n_layers:
                raise EngineError("the stretch of the prompt before this one could not be read")


class _Stretch(Cache):
    """A cache as one stretch's forward sees it: all before it is there, nothing behind it."""

    def __init__(self, cache: DynamicCache, n_past: int, before: _Progress) -> None:
        super().__init__(layers=cache.layers)
        self.progress = _Progress()
        self._n_past = n_past
        self._before = before

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the states once those of the stretch before are there."""
        self._before.wait(layer_idx + 1)
        states = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        self.progress.reach(layer_idx + 1)
        return states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many tokens lie before the stretch."""
        return self._n_past

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Return how many tokens there are with the stretch's, from which on."""
        return self._n_past + query_length, 0


@torch.inference_mode()
def _read(model: CausalModel, part: tuple[int, ...], stretch: _Stretch) -> Tensor:
    try:
        return model.score(part, stretch)  # type: ignore[arg-type] # it stands in for one
    except BaseException:
        stretch.progress.fail()
        raise
