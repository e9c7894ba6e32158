"""The receipt of a job: what it did, what a check of it found, and what no erasure covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elision.memory.erasure.receipts import LIMITS, POSTGRES_CLEAR, POSTGRES_SEALED, Receipt, iso

if TYPE_CHECKING:
    from elision.memory.erasure.jobs import Job
    from elision.memory.erasure.verifying import Findings
    from elision.memory.store import Store


def issue(store: Store, job: Job, findings: Findings, unfinished: tuple[str, ...]) -> Receipt:
    """Return the signed receipt of *job* as it stands.

    Args:
        store: From which was erased; its key signs.
        job: Swept.
        findings: Of the check after that.
        unfinished: Codes of what stands in the way; see `Receipt`.
    """
    receipt = Receipt(
        id=job.id,
        tenant=job.tenant,
        at=iso(job.at),
        issued_at=iso(store.clock()),
        actor=job.actor,
        reason=job.reason,
        selector=job.selector,
        state="pending" if unfinished else "verified",
        unfinished=unfinished,
        counts=job.counts,
        caches=job.caches,
        keys_destroyed=job.keys_destroyed,
        scan=findings.figures,
        backups=job.backups,
        limits=_limits(store),
    )
    return receipt.signed(store.keys.signer)


def _limits(store: Store) -> tuple[str, ...]:
    if store.database.folder is not None:
        return LIMITS
    return (*LIMITS, POSTGRES_SEALED if store.sealed else POSTGRES_CLEAR)
