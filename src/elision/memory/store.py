"""The store: what is remembered, in SQL; every index is derived from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from elision.memory.answering import Answering
from elision.memory.drafts import check_draft
from elision.memory.records import Draft, Record, Scope, Stored, Trust
from elision.memory.writing import KEEP, Keep

if TYPE_CHECKING:
    from elision.memory.index.vectors import Vectors


class Store(Answering):
    """What is remembered for all tenants, in one database; see `Opened` for how to open one.

    Thread-safe, and any number of processes may share a database. A write is on the disk when its
    call returns, all of it or nothing. Reading sees every write that any process has made by then;
    what has expired is never among it, nor what the screen lets nobody read.

    Every method raises `StoreError` if the database fails, never with words of a record in it.
    """

    @classmethod
    def open(cls, home: Path, **options: Any) -> Self:
        """Open ``memory.db`` in *home*; takes `Opened`'s options too."""
        return cls(home / "memory.db", **options)

    def put(self, scope: Scope, draft: Draft) -> Stored:
        """Keep *draft* in the namespace of *scope*; concurrent calls share one commit.

        What has its key is replaced, with its links; the very same content keeps both links and
        trust, and gains new ones.

        Raises:
            RequestError: If it cannot be kept as it is, a parent is not there, or the screen
                refuses it (``code="screened"``).
            ConfigError: If the store has vectors and was opened without an encoder.
        """
        [vector] = self._vectors(scope.tenant, (draft,))
        return self._commits.commit(lambda writing: writing.put(scope, draft, vector))

    def put_many(self, scope: Scope, drafts: Sequence[Draft]) -> tuple[Stored, ...]:
        """Keep *drafts*, all or none; see `put`."""
        drafts = tuple(drafts)
        found = self._vectors(scope.tenant, drafts)
        with self.writing() as writing:
            return writing.put_many(scope, drafts, found)

    def change(
        self,
        tenant: str,
        id_: str,
        *,
        version: int | None = None,
        text: str | None = None,
        value: Mapping[str, Any] | None = None,
        state: str | None = None,
        trust: Trust | None = None,
        ttl_s: float | Keep | None = KEEP,
    ) -> Record:
        """Change what is given of a record and return it as it is since; see `Writing.change`.

        Raises:
            NotFoundError: If *tenant* has no record of that id.
            ConflictError: If it stands at another version (``code="version_conflict"``), or is
                named by a content that is there already.
            RequestError: As `put`.
        """
        vector = None
        if text is not None:
            [vector] = self._vectors(tenant, (Draft(text=text),))
        with self.writing() as writing:
            return writing.change(
                tenant, id_, version=version, text=text, value=value, state=state, trust=trust,
                ttl_s=ttl_s, vector=vector,
            )  # fmt: skip

    def remove(self, tenant: str, ids: Iterable[str]) -> int:
        """Delete records and return how many there were; what was made from them stays.

        Raises:
            StoreError: If the database fails.
        """
        with self.writing() as writing:
            rids = [writing.rid_of(tenant, id_) for id_ in dict.fromkeys(ids)]
            return writing.remove(tenant, [rid for rid in rids if rid is not None])

    def touch(self, scope: Scope, keys: Iterable[str], ttl_s: float | None = None) -> int:
        """Let records live longer, from now on; return how many there were.

        Args:
            scope: Exactly where.
            keys: Which; those that never expire stay so.
            ttl_s: Seconds; None: as many as each was given when it was put.
        """
        with self.writing() as writing:
            return writing.touch(scope, keys, ttl_s)

    def sweep(self, now: float | None = None) -> int:
        """Delete what has expired and return how much that was.

        No trace is left in the database, which is rebuilt for that, nor in saved indexes; backups
        and logs are not looked into, and there is no receipt: that is the business of erasing.

        Args:
            now: Seconds since 1970; None: the clock's.

        Raises:
            StoreError: If the database fails; or if readers are in the way of rebuilding it: then
                the records are gone, and traces stay until the next sweep or erasure that finds
                something.
        """
        with self.writing() as writing:
            n_removed = writing.expire(writing.now if now is None else now)
        if n_removed:
            self._unlink_snapshots(writing.journal.touched)
            self.database.sweep(free_pages=True)
        return n_removed

    def reembed(self, *, batch: int = 256, progress: Callable[[int], None] | None = None) -> int:
        """Let the encoder take another's place; see `elision.memory.reembedding.reembed`."""
        from elision.memory.reembedding import reembed

        return reembed(self, batch=batch, progress=progress)

    def _unlink_snapshots(self, tenants: Iterable[str]) -> None:
        """Unlink saved indexes; what is in memory of them follows the journal as ever."""
        from elision.memory.erasure.sweeping import snapshot_folders
        from elision.memory.index.snapshot import Snapshots

        for folder in snapshot_folders(self):
            for tenant in tenants:
                Snapshots(folder).unlink(tenant)

    def _vectors(self, tenant: str, drafts: Sequence[Draft]) -> list[Vectors | None]:
        """Check *drafts* and return the vector of each; None for one without a text."""
        for draft in drafts:
            check_draft(draft)
        words = [draft.text for draft in drafts if draft.text]
        rows = self.encoded(tenant, words) if words else None
        found = iter(() if rows is None else rows)
        return [next(found, None) if draft.text else None for draft in drafts]
