"""Keys and values of earlier prompts: what two prompts begin with alike is read once.

A radix tree for each tenant and profile. A segment of it holds the keys and values of a run of
tokens, and the path to it holds those of all tokens before; so a system prompt that many chats
share is kept once, and a chat's next turn adds only what is new. What is taken is a copy: segments
are never written to, so requests cannot reach each other through them.

Source: Zheng et al. 2023, arXiv:2312.07104 (RadixAttention: the tree, and that leaves go first,
the one unused longest before the others). Ours: a tree per tenant and profile, epochs, copies in
place of paged slots.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Final, NoReturn

import numpy as np
from transformers import DynamicCache

from elision.contract import Epoch
from elision.middleware.engines.radix import (
    Ids,
    Segment,
    bytes_per_token,
    cut,
    follow,
    joined,
    layers_of,
    n_held,
    states_of,
)

PREFIX_BYTES: Final = 512 * 2**20
"""Room by default: some 11,000 tokens of SmolLM2-135M in fp32, 22,000 in bf16."""

FEWEST_TOKENS: Final = 16
"""Shorter prefixes are read anew: a forward takes hardly longer for so many tokens than for one."""


class PrefixCache:
    """Keys and values of what was read before, of one model. Any thread may call.

    What is computed on top of a taken prefix differs from a fresh reading in the last bits only,
    as it does between any two ways to cut a prompt into forwards.

    Args:
        limit_bytes: Most memory over all tenants. Of what it cannot hold, what was unused longest
            goes first; zero keeps nothing.
    """

    def __init__(self, limit_bytes: int = PREFIX_BYTES) -> None:
        self._limit = limit_bytes
        self._roots: dict[tuple[str, str], Segment] = {}
        # Whoever is used is followed by all above it, so the first in line is always a leaf.
        self._line: OrderedDict[Segment, None] = OrderedDict()
        self._n_bytes = 0
        self._epochs: dict[str, Epoch] = {}
        self._generations: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._lock = Lock()
        self._writing = Lock()

    def __repr__(self) -> str:
        return f"PrefixCache({len(self._line)} segments, {self._n_bytes} of {self._limit} bytes)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("what a prefix cache holds never leaves the process")

    def take(
        self, tenant: str, profile: str, epoch: Epoch, ids: Sequence[int]
    ) -> tuple[DynamicCache, int] | None:
        """Return keys and values of the longest prefix of *ids* that is kept, and its length.

        Args:
            tenant: Whose request it is.
            profile: What it is decoded under.
            epoch: The tenant's, as far as the request knows. A newer one than any before drops
                all that is kept for the tenant; an older one is given nothing.
            ids: The prompt.

        Returns:
            A cache of its own, which the request may write to, and how many tokens it holds: at
            most all but the last, whose scores are still wanted. None if fewer than
            `FEWEST_TOKENS` are kept.
        """
        with self._lock:
            self._follow_epoch(tenant, epoch)
            root = self._roots.get((tenant, profile)) if epoch == self._epochs[tenant] else None
            path = follow(root, np.array(ids[:-1], dtype=np.int32)) if root is not None else []
            n = sum(shared for _, shared in path)
            if n < FEWEST_TOKENS:
                self._counts["misses"] += 1
                return None
            self._counts.update(hits=1, tokens=n)
            self._use(path[-1][0])
            parts = [(segment.states, shared) for segment, shared in path]
        return joined(parts), n

    def generation(self, tenant: str) -> int:
        """Return how often *tenant* was erased; what `put` asks of a request's beginning."""
        with self._lock:
            return self._generations[tenant]

    def put(
        self,
        tenant: str,
        profile: str,
        epoch: Epoch,
        ids: Sequence[int],
        cache: DynamicCache,
        *,
        generation: int | None = None,
    ) -> bool:
        """Keep the keys and values of *ids*; return whether they are kept now.

        They are not if a layer of *cache* keeps less than all tokens (sliding windows), if they
        would not fit, if there are fewer than `FEWEST_TOKENS`, or if the tenant's targets have
        changed since.

        Args:
            tenant: See `take`.
            profile: See `take`.
            epoch: See `take`.
            ids: What *cache* was read from: the first slots belong to these tokens, in this order.
                Tokens for which it has no slot any more are left out.
            cache: Of one sequence. Copied from, as far as it is not kept already.
            generation: What `generation` said when the request began. If given, nothing is kept
                of a request that ran while its tenant was erased.
        """
        layers = layers_of(cache)
        array = np.array(ids[: n_held(layers)], dtype=np.int32)
        if len(array) < FEWEST_TOKENS:
            return False
        with self._writing:
            with self._lock:
                now = self._generations[tenant]
                self._follow_epoch(tenant, epoch)
                if not self._is_current(tenant, epoch, now if generation is None else generation):
                    return False
                place = self._place((tenant, profile), array, bytes_per_token(layers))
            if place is None:
                return False
            above, n_kept = place
            if n_kept == len(array):
                return True
            # Without the lock, for it takes a while. Only an erasure or a newer epoch can come
            # between: nobody else drops anything while this one is writing.
            states = cut(states_of(layers), n_kept, len(array))
            with self._lock:
                if not self._is_current(tenant, epoch, now):
                    return False
                self._add(Segment(array[n_kept:].copy(), states, above))
                return True

    def erase(self, tenant: str, *, texts: Sequence[str] | None = None) -> int:
        """Drop all of *tenant*'s segments and return how many there were. See `Erasable`.

        With *texts* all of them go as well: what is kept does not tell what its text held.
        """
        with self._lock:
            self._generations[tenant] += 1
            return self._drop(tenant)

    def stats(self) -> Mapping[str, float]:
        """Return gauges: bytes and segments kept; sums: hits, misses, tokens not read again."""
        with self._lock:
            return {
                "prefix_bytes": self._n_bytes,
                "prefix_segments": len(self._line),
                "prefix_hits": self._counts["hits"],
                "prefix_misses": self._counts["misses"],
                "prefix_tokens": self._counts["tokens"],
                "prefix_evictions": self._counts["evictions"],
            }

    # --- under the lock --------------------------------------------------------------------------

    def _follow_epoch(self, tenant: str, epoch: Epoch) -> None:
        """Drop what was decoded under older targets than those of *epoch*."""
        if epoch > self._epochs.get(tenant, epoch - 1):
            self._epochs[tenant] = epoch
            self._drop(tenant)

    def _is_current(self, tenant: str, epoch: Epoch, generation: int) -> bool:
        """Return whether nothing of *tenant* has changed since."""
        return (epoch, generation) == (self._epochs[tenant], self._generations[tenant])

    def _place(
        self, key: tuple[str, str], ids: Ids, n_bytes_each: int
    ) -> tuple[Segment, int] | None:
        """Make room for *ids*; return behind which segment, and how many of them lie before."""
        if len(ids) * n_bytes_each > self._limit:
            return None
        above = self._roots.setdefault(key, Segment(np.empty(0, np.int32), (), None))
        path = follow(above, ids)
        n = sum(shared for _, shared in path)
        if path:
            above, shared = path[-1]
            above = above if shared == len(above.ids) else above.split(shared)
            self._use(above)
        self._free((len(ids) - n) * n_bytes_each)
        return above, n

    def _add(self, segment: Segment) -> None:
        segment.attach()
        self._n_bytes += segment.n_bytes
        self._use(segment)

    def _free(self, n_bytes: int) -> None:
        """Drop what was unused longest, until there is room for *n_bytes* more."""
        while self._n_bytes + n_bytes > self._limit:
            leaf, _ = self._line.popitem(last=False)
            leaf.detach()
            self._n_bytes -= leaf.n_bytes
            self._counts["evictions"] += 1

    def _use(self, segment: Segment) -> None:
        """Send *segment* and all above it to the end of the line."""
        while segment.parent is not None:
            self._line[segment] = None
            self._line.move_to_end(segment)
            segment = segment.parent

    def _drop(self, tenant: str) -> int:
        dropped = [
            segment
            for key in [key for key in self._roots if key[0] == tenant]
            for segment in self._roots.pop(key).below()
        ]
        for segment in dropped:
            del self._line[segment]
            self._n_bytes -= segment.n_bytes
        return len(dropped)
