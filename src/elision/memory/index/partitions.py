"""The partitions that are in memory: as new as the store, and no more of them than allowed."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock, RLock
from typing import TYPE_CHECKING, Final

from elision.memory.index.index import IVF_FROM

if TYPE_CHECKING:
    from elision.memory.index.partition import Partition, Source
    from elision.memory.index.snapshot import Snapshots

MOST_OPEN: Final = 64
"""Tenants whose vectors are in memory at once."""


class _Slot:
    """A tenant's place; lives until it is pushed out."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.partition: Partition | None = None
        self.saved_at: int | None = None
        """The generation of the snapshot that lies on disk."""


class Partitions:
    """One partition per tenant, made when it is first asked for. Any thread may call.

    Args:
        source: Where rows come from.
        folder: Where snapshots are kept; None: nowhere.
        ivf_from: See `VectorIndex`.
        most: Tenants in memory; the one not asked for the longest goes first.
        identity: What must be the same for a snapshot to be of this store: its encoder, for one.
    """

    def __init__(
        self,
        source: Source,
        *,
        folder: Path | None = None,
        ivf_from: int = IVF_FROM,
        most: int = MOST_OPEN,
        identity: str = "",
    ) -> None:
        self.identity = identity
        self._source = source
        self._folder = folder
        self._ivf_from = ivf_from
        self._most = most
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._lock = Lock()

    def at(self, tenant: str) -> Partition:
        """Return the tenant's partition as new as the source.

        It is caught up with, loaded from its snapshot, or made from the source's rows.

        Raises:
            StoreError: If the source fails or a stored vector is damaged.
            MissingExtraError: If numpy or faiss is not installed.
        """
        slot, pushed = self._slot(tenant)
        for other, one in pushed:
            self._save(other, one)
        generation, partition = self._source.generation(tenant), slot.partition
        if partition is not None and partition.generation == generation:
            return partition
        with slot.lock:
            return self._current(tenant, slot)

    def forget(self, tenant: str) -> int:
        """Drop the tenant's partition and unlink its snapshot; return how many files there were."""
        with self._lock:
            slot = self._slots.setdefault(tenant, _Slot())
        with slot.lock:
            slot.partition = slot.saved_at = None
            with self._lock:
                self._slots.pop(tenant, None)
            snapshots = self._snapshots()
            return 0 if snapshots is None else snapshots.unlink(tenant)

    def save(self) -> int:
        """Write the snapshots that are older than their partitions; return how many were written.

        A disk that is full, or not to be written, is no error: the snapshot is then missing.
        """
        with self._lock:
            slots = [*self._slots.items()]
        return sum(self._save(tenant, slot) for tenant, slot in slots)

    def close(self) -> None:
        """Save, and let go of everything; the source must still be open."""
        self.save()
        with self._lock:
            self._slots.clear()

    def _slot(self, tenant: str) -> tuple[_Slot, list[tuple[str, _Slot]]]:
        with self._lock:
            slot = self._slots.setdefault(tenant, _Slot())
            self._slots.move_to_end(tenant)
            n_over = max(0, len(self._slots) - self._most)
            return slot, [self._slots.popitem(last=False) for _ in range(n_over)]

    def _current(self, tenant: str, slot: _Slot) -> Partition:
        from elision.memory.index.partition import rebuilt

        partition, slot.partition = slot.partition, None  # until what follows has succeeded
        if partition is not None and not self._caught_up(tenant, partition):
            partition = None
        if partition is None:
            partition = self._loaded(tenant, slot)
        slot.partition = partition or rebuilt(self._source, tenant, ivf_from=self._ivf_from)
        return slot.partition

    def _caught_up(self, tenant: str, partition: Partition) -> bool:
        if self._source.generation(tenant) == partition.generation:
            return True  # another thread was quicker
        changed = self._source.since(tenant, partition.generation)
        if changed is None:
            return False
        partition.apply(*changed)
        return True

    def _loaded(self, tenant: str, slot: _Slot) -> Partition | None:
        from elision.memory.index.partition import values_of

        snapshots, generation = self._snapshots(), self._source.generation(tenant)
        if snapshots is None:
            return None
        values = values_of(self._source, tenant)
        moment = generation, self._source.stamp(tenant, generation)
        found = snapshots.load(tenant, moment, values, ivf_from=self._ivf_from)
        slot.saved_at = None if found is None else generation
        return found

    def _save(self, tenant: str, slot: _Slot) -> bool:
        """Write the tenant's snapshot, if it is to be kept and there is none as new.

        It is brought up to date before, and unlinked if something changed meanwhile: what another
        process erased must not come back in a file.
        """
        snapshots = self._snapshots()
        with slot.lock:
            if snapshots is None or slot.partition is None:
                return False
            partition = self._current(tenant, slot)
            if not len(partition):
                snapshots.unlink(tenant)
                return False
            if slot.saved_at == partition.generation:
                return False
            stamp = self._source.stamp(tenant, partition.generation)
            if not snapshots.save(tenant, partition, stamp=stamp):
                return False
            if self._source.generation(tenant) != partition.generation:
                snapshots.unlink(tenant)
                return False
            slot.saved_at = partition.generation
            return True

    def _snapshots(self) -> Snapshots | None:
        if self._folder is None:
            return None
        from elision.memory.index.snapshot import Snapshots

        return Snapshots(self._folder, identity=self.identity)
