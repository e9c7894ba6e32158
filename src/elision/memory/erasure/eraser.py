"""Erasure: a record and whatever was made from it, in every place, and a receipt of that."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from elision.contract import Erasable
from elision.errors import NotFoundError, StoreError
from elision.memory.erasure import backups, jobs, tombstones
from elision.memory.erasure.deleting import Gathered, criteria_of, delete
from elision.memory.erasure.issuing import issue
from elision.memory.erasure.plan import Plan, planned
from elision.memory.erasure.receipts import Receipt, verify_receipt
from elision.memory.erasure.selector import check_reason
from elision.memory.erasure.sweeping import drop_index, snapshot_folders, sweep
from elision.memory.erasure.telling import Told, tell
from elision.memory.erasure.verifying import (
    Findings,
    files_of,
    look_in_files,
    look_in_index,
    rows_left,
)
from elision.memory.identity import settle_retired

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from elision.memory.erasure.jobs import Job
    from elision.memory.erasure.selector import Selector
    from elision.memory.store import Store

_WAIT_S: Final = 10.0
_STANDS: Final = {"pending": ("pending", "swept", "verified"), "verified": ("verified",)}
"""States of a job that a receipt of each state agrees with; any other is of an older database."""


@dataclass(slots=True)
class _Run:
    """One go at a job: what is known while this process lives, and is never kept."""

    wait_s: float
    selector: Selector | None = None
    gathered: Gathered | None = field(default=None, repr=False)
    told: Told = field(default_factory=Told)
    unfinished: list[str] = field(default_factory=list)


class Eraser:
    """Erases from a store, its index and the caches around it; thread-safe.

    A job goes through ``planned``, ``deleted``, ``swept`` to ``verified``, or stays ``pending``.
    Each step is on the disk before the next begins and can be done again, so that a job which was
    cut short goes on with `resume`, in any process. Where another process has carried on with a
    job meanwhile, this one's index and caches are seen to all the same.

    1. ``planned``: what is meant is written down, as ids, codes and keyed digests.
    2. ``deleted``: in one transaction rows go, tombstones stay, namespaces without records lose
       their labels, and what shares a key with what went is sealed under a new one.
    3. ``swept``: old keys are destroyed, the tenant's index and its files dropped, caches told,
       backups written anew, the database rebuilt and its log emptied.
    4. ``verified``: no window of what went is in any file, no row and no vector is left.

    Args:
        store: What to erase from. Its encoder is told too.
        erasables: Caches elsewhere: key-value prefixes, Token Recycling, encoders.
        backups: Copies that `backup` did not make.
        folders: Further folders to be scanned; the database's files and the store's folder are
            in any case.
        on_state: Told each state once it is on the disk.
    """

    def __init__(
        self,
        store: Store,
        *,
        erasables: Iterable[Erasable] = (),
        backups: Iterable[Path] = (),
        folders: Iterable[Path] = (),
        on_state: Callable[[str], None] = lambda _state: None,
    ) -> None:
        self._store = store
        own = (store.encoder,) if isinstance(store.encoder, Erasable) else ()
        self._erasables = (*own, *erasables)
        self._backups = tuple(path.expanduser().absolute() for path in backups)
        self._folders = tuple(folders)
        self._on_state = on_state

    def plan(self, selector: Selector) -> Plan:
        """Return what erasing would take; nothing is changed.

        Raises:
            StoreError: If the database fails.
        """
        store = self._store
        with store.database.reading() as connection:
            return planned(connection, criteria_of(connection, store, selector))

    def erase(
        self, selector: Selector, *, reason: str, actor: str, wait_s: float = _WAIT_S
    ) -> Receipt:
        """Erase what *selector* means and all that was made from it.

        Args:
            selector: What.
            reason: A code, for the receipt: ``gdpr.17``, ``user_request``.
            actor: Who asks; an id.
            wait_s: How long readers that keep the log from being emptied are waited for; then
                the receipt says ``pending`` and `resume` finishes it.

        Raises:
            RequestError: If the reason is no code or the actor no label.
            StoreError: If the database or a key's file fails; the job goes on with `resume` if it
                was begun. Or if a cache of this process fails after another has verified it.
        """
        check_reason(reason, actor)
        store = self._store
        with store.database.reading() as connection:
            criteria = criteria_of(connection, store, selector)
        job = jobs.Job(
            id=f"er_{secrets.token_hex(12)}",
            state="planned",
            at=round(store.clock(), 3),
            actor="subject" if actor == selector.subject else actor,
            reason=reason,
            selector=selector.digest(store.keys.vault),
            criteria=criteria,
        )
        with store.database.writing() as connection:
            jobs.add_job(connection, job)
        self._on_state("planned")
        return self._carry_on(job, _Run(wait_s, selector))

    def resume(self, *, wait_s: float = 0.0) -> tuple[Receipt, ...]:
        """Finish jobs that were cut short or are pending; return their receipts.

        Raises:
            StoreError: If the database fails.
        """
        with self._store.database.reading() as connection:
            waiting = jobs.open_jobs(connection)
        return tuple(self._carry_on(self._job(one), _Run(wait_s)) for one in waiting)

    def receipts(self, tenant: str) -> tuple[Receipt, ...]:
        """Return the receipts of *tenant*'s erasures, oldest first."""
        with self._store.database.reading() as connection:
            return jobs.receipts_of(connection, tenant)

    def status(self, erasure_id: str) -> jobs.State:
        """Return how far an erasure is.

        Raises:
            NotFoundError: If there is none of that id.
        """
        return self._job(erasure_id).state

    def verify(self, receipt: Receipt) -> bool:
        """Return whether *receipt* is this store's, unaltered, and nothing has come back since.

        Content that was erased and stands in a record again, by whatever way, has come back; so
        it has where the database is older than the receipt.
        """
        if not verify_receipt(receipt, self._store.keys.signer.public_key()):
            return False
        with self._store.database.reading() as connection:
            known = jobs.job_of(connection, receipt.id)
            if known is None or known.state not in _STANDS[receipt.state]:
                return False
            return not tombstones.revived(connection, receipt.tenant, receipt.id)

    def backup(self, dest: Path) -> None:
        """Write a copy of what is live to *dest* and register it; erasing writes it anew.

        Raises:
            RequestError: If the store lies on a server.
            StoreError: If it cannot be written.
        """
        backups.back_up(self._store.database, dest)

    def forget_backup(self, dest: Path) -> None:
        """Take a backup that was deleted from the register: no erasure waits for it any more.

        Raises:
            RequestError: If it still exists.
        """
        with self._store.database.writing() as connection:
            backups.forget_missing(connection, dest)

    def _job(self, erasure_id: str) -> Job:
        with self._store.database.reading() as connection:
            job = jobs.job_of(connection, erasure_id)
        if job is None:
            raise NotFoundError("there is no erasure of that id", code="erasure_not_found")
        return job

    # --- the steps -------------------------------------------------------------------------------

    def _carry_on(self, job: Job, run: _Run) -> Receipt:
        if job.state == "planned":
            job = self._delete(job, run)
        if job.state == "verified":
            return self._follow(job, run)
        return self._verify(self._sweep(job, run), run)

    def _follow(self, job: Job, run: _Run) -> Receipt:
        """See to what another process, which has finished the job, could not reach."""
        drop_index(self._store, job.tenant)
        self._tell(job, run)
        with self._store.database.reading() as connection:
            return _standing(jobs.receipt_of(connection, job.id), run)

    def _delete(self, job: Job, run: _Run) -> Job:
        job, run.gathered = delete(self._store, job, run.selector)
        self._on_state(job.state)
        return job

    def _sweep(self, job: Job, run: _Run) -> Job:
        store = self._store
        drop_index(store, job.tenant)
        self._tell(job, run)
        self._destroy_keys()
        renewed = backups.renew(store.database, self._copies())
        if renewed["unreachable"]:
            run.unfinished.append("backups")
        if not sweep(store, wait_s=run.wait_s):
            run.unfinished.append("reader")
        job = replace(job, caches=job.caches + run.told.dropped, backups=renewed)
        with store.database.writing() as connection:
            job = _with_untold(connection, job, run)
            job = replace(job, state="pending" if run.unfinished or job.untold else "swept")
            jobs.keep_job(connection, job)
        self._on_state(job.state)
        return job

    def _tell(self, job: Job, run: _Run) -> None:
        """Have every cache drop it; one that is not known to be free of it drops the tenant's."""
        whole = run.gathered is None or (job.criteria.scope and job.criteria.spaces is None)
        texts = None if whole or run.gathered is None else sorted(run.gathered.texts)
        run.told = tell(self._erasables, job.tenant, texts)

    def _destroy_keys(self) -> bool:
        keyring = self._store.bodies.keyring
        if keyring is None:
            return True
        with self._store.database.writing() as connection:
            return settle_retired(connection, keyring)

    def _copies(self) -> tuple[Path, ...]:
        with self._store.database.reading() as connection:
            known = backups.registered(connection)
        return tuple(dict.fromkeys((*known, *self._backups)))

    def _verify(self, job: Job, run: _Run) -> Receipt:
        store = self._store
        findings = self._look(job, run)
        with store.database.writing() as connection:
            job = _with_untold(connection, job, run)
            caches = ("caches",) if job.untold else ()
            unfinished = tuple(dict.fromkeys((*caches, *run.unfinished, *findings.unfinished())))
            job = replace(job, state="pending" if unfinished else "verified")
            receipt = jobs.keep_job(connection, job, issue(store, job, findings, unfinished))
        self._on_state(job.state)
        return _standing(receipt, run)

    def _look(self, job: Job, run: _Run) -> Findings:
        store = self._store
        copies = (one for copy in self._copies() for one in (copy, *backups.beside(copy)))
        folders = (*snapshot_folders(store), *self._folders, *copies)
        files = files_of(store.database.path, folders)
        vectors: Sequence[bytes] = run.gathered.vectors if run.gathered else ()
        n_searched, n_indexed = look_in_index(store.partitions.at(job.tenant), job.erased, vectors)
        needles = job.open_needles(store.keys.vault)
        with store.database.reading() as connection:
            figures = look_in_files(connection, files, needles)
            n_rows = rows_left(connection, job.erased)
        figures |= {"too_short": job.too_short, "searched": n_searched}
        n_keys = 0 if self._destroy_keys() else 1
        return Findings(figures=figures, n_rows=n_rows, n_indexed=n_indexed, n_keys=n_keys)


def _with_untold(connection: Connection, job: Job, run: _Run) -> Job:
    """Return *job* with the caches that are untold now, those of other processes among them."""
    known = jobs.job_of(connection, job.id) or job
    return replace(job, untold=run.told.left(known.untold))


def _standing(receipt: Receipt | None, run: _Run) -> Receipt:
    """Return the receipt that the database has, unless it says more than is true here."""
    if receipt is None:
        raise StoreError("the erasure is not in the database any more; was it restored?")
    if receipt.state == "verified" and run.told.missed:
        raise StoreError(
            "another process has finished the erasure, but a cache of this one failed; end this "
            "process, and what its caches hold is gone with it"
        )
    return receipt
