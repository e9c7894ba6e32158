"""What is recycled, for whom: nothing crosses from one tenant or profile to another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Final, NoReturn

from elision.contract import Epoch, Plan
from elision.middleware.speculation.recycling import Pool, Recycler, Tally
from elision.middleware.speculation.spine import Spine
from elision.middleware.speculation.stats import RankStats

MOST_POOLS: Final = 64
"""Pools kept by default. One holds 48 bytes per token of the vocabulary, and 3 MB for pairs."""


class Pools:
    """The pools of one engine, by tenant and profile. See `Erasable`.

    Pools are opened on the engine's thread; any thread may erase and ask for gauges. A reply that
    is being written keeps the pool it was opened with, though others no longer get it.

    Args:
        vocab_size: Scores per row of the engine.
        k: Successors per row.
        limit: Most pools; the one that was opened longest ago goes first.
        cross_request: Whether a reply drafts from what earlier ones have shown. If not, only rates
            and the ledger are shared: the sizes and times of what is streamed then tell nothing
            about other requests of the tenant (arXiv:2411.01076).
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        k: int = 8,
        limit: int = MOST_POOLS,
        cross_request: bool = True,
    ) -> None:
        self._vocab_size = vocab_size
        self._k = k
        self._limit = limit
        self._cross_request = cross_request
        self._kept: OrderedDict[tuple[str, str], tuple[Epoch, Pool]] = OrderedDict()
        self._tally = Tally()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def open(
        self, plan: Plan, prompt_ids: Sequence[int], ends: frozenset[int] = frozenset()
    ) -> Recycler:
        """Return a drafter for one choice of *plan*.

        A plan of another epoch than its tenant's last finds none of the tenant's pools: what was
        said before a target was added, changed or taken back is not drafted from.

        Args:
            plan: Names tenant, profile and epoch.
            prompt_ids: The prompt.
            ends: Tokens never drafted: those that end a reply, and any that cannot come.
        """
        pool = self._pool(plan)
        shared = pool if self._cross_request else pool.without_rows()
        return Recycler(shared, Spine(prompt_ids), ends)

    def _pool(self, plan: Plan) -> Pool:
        key = plan.tenant, plan.profile
        with self._lock:
            if any(key[0] == plan.tenant and kept[0] != plan.epoch for key, kept in self._items()):
                self._drop(plan.tenant)
            found = self._kept.pop(key, None)
            pool = found[1] if found is not None else self._empty()
            self._kept[key] = plan.epoch, pool
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
        return pool

    def _items(self) -> list[tuple[tuple[str, str], tuple[Epoch, Pool]]]:
        return list(self._kept.items())

    def _empty(self) -> Pool:
        pool = Pool.empty(self._vocab_size, self._k)
        pool.tally = self._tally
        return pool

    def _drop(self, tenant: str) -> int:
        own = [key for key in self._kept if key[0] == tenant]
        for key in own:
            del self._kept[key]
        return len(own)

    def erase(self, tenant: str, *, texts: Sequence[str] | None = None) -> int:
        """Drop every pool of *tenant*, whatever *texts* say; return how many."""
        with self._lock:
            return self._drop(tenant)

    def stats(self) -> Mapping[str, float]:
        """Return gauges: pools, their bytes and credit, counts of drafting, hits by rank.

        ``draft_hits_rank_R`` is the share of tokens that stood at rank R of the row of the token
        before them, over the pools that are kept.
        """
        with self._lock:
            pools = [pool for _, pool in self._kept.values()]
        gauges = {
            "recycle_pools": float(len(pools)),
            "recycle_bytes": float(sum(pool.nbytes for pool in pools)),
            "draft_steps": float(self._tally.steps),
            "draft_visited": float(self._tally.visited),
            "draft_scored": float(self._tally.scored),
            "draft_credit_s": sum(pool.ledger.credit for pool in pools),
        }
        return gauges | _hits([pool.blend.single for pool in pools], self._k)

    def __repr__(self) -> str:
        return f"Pools(n={len(self)}, limit={self._limit}, cross_request={self._cross_request})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("what is recycled is never copied nor persisted")


def _hits(stats: Sequence[RankStats], k: int) -> dict[str, float]:
    trials = sum(one.n_trials for one in stats)
    sums = [sum(one.by_rank()[rank] * one.n_trials for one in stats) for rank in range(k)]
    return {f"draft_hits_rank_{rank}": sum_ / max(1, trials) for rank, sum_ in enumerate(sums)}
