"""Erasures under way: what is still to be done, kept so that a killed process's job goes on."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import orjson
from sqlalchemy import insert, select, update

from elision.crypto.vault import Sealed
from elision.memory.erasure.needles import Needles
from elision.memory.erasure.receipts import Receipt
from elision.memory.erasure.selector import Criteria
from elision.memory.schema import erasures

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from elision.crypto.vault import Vault

State: TypeAlias = Literal["planned", "deleted", "swept", "verified", "pending"]
OPEN: Final = ("planned", "deleted", "swept", "pending")
_LISTS: Final = ("spaces", "rids", "ids", "kinds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An erasure, from the moment at which it was asked for to its receipt; a value.

    It holds ids, codes, figures and keyed digests only.

    Attributes:
        id: Its name, and its receipt's.
        state: The last step that is on the disk. ``pending`` stands after a sweep or a check
            that failed.
        at: When it was asked for, in seconds since 1970.
        actor: See `Receipt`, as for those that follow.
        reason: A code.
        selector: A digest.
        criteria: What is meant.
        counts: What was erased.
        erased: The records' numbers, each given once and never again.
        caches: What was dropped by now.
        untold: Kinds of caches that could not be told, of whatever process: only one that has
            them can tell them.
        keys_destroyed: Data keys that were retired by it.
        backups: Figures.
        too_short: Texts.
        needles: What the scan looks for, packed and sealed; base64.
    """

    id: str
    state: State
    at: float
    actor: str
    reason: str
    selector: str
    criteria: Criteria
    counts: dict[str, int] = field(default_factory=dict)
    erased: tuple[int, ...] = ()
    caches: int = 0
    untold: tuple[str, ...] = ()
    keys_destroyed: int = 0
    backups: dict[str, int] = field(default_factory=dict)
    too_short: int = 0
    needles: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def tenant(self) -> str:
        """Whose memory."""
        return self.criteria.tenant

    def with_needles(self, needles: Needles, vault: Vault) -> Job:
        """Return it with what to look for: sealed, so that the database alone tells nothing."""
        sealed = vault.seal(needles.pack(), tenant=self.tenant, target_id=self.id)
        parts = (b64encode(part).decode() for part in (sealed.body, sealed.wrapped))
        return replace(self, needles=(next(parts), next(parts)))

    def open_needles(self, vault: Vault) -> Needles:
        """Return what `with_needles` was given; none before."""
        key = needle_key(vault, self.tenant, self.id)
        if self.needles is None:
            return Needles(key)
        sealed = Sealed(*(b64decode(part) for part in self.needles))
        return Needles.unpack(key, vault.open(sealed, tenant=self.tenant, target_id=self.id))


def needle_key(vault: Vault, tenant: str, job_id: str) -> bytes:
    """Return the secret under which one job's needles are made."""
    return bytes.fromhex(vault.digest("erasure windows", tenant, job_id.encode()))


def add_job(connection: Connection, job: Job) -> None:
    """Write a new job."""
    row = {"id": job.id, "tenant": job.tenant, "at": job.at}
    connection.execute(insert(erasures).values(**row, state=job.state, job=_packed(job)))


def keep_job(connection: Connection, job: Job, receipt: Receipt | None = None) -> Receipt | None:
    """Write how far a job is, and its receipt; return the receipt that stands.

    Once it is verified there is nothing left to do: what another process has verified stays.
    """
    kept = replace(job, needles=None, erased=()) if job.state == "verified" else job
    values: dict[str, Any] = {"state": job.state, "job": _packed(kept)}
    if receipt is not None:
        values["receipt"] = orjson.dumps(receipt.to_body()).decode()
    going_on = update(erasures).where(erasures.c.id == job.id, erasures.c.state != "verified")
    if connection.execute(going_on.values(**values)).rowcount:
        return receipt
    return receipt_of(connection, job.id)


def job_of(connection: Connection, job_id: str) -> Job | None:
    """Return a job."""
    row = connection.execute(select(erasures).where(erasures.c.id == job_id)).one_or_none()
    return None if row is None else _unpacked(row)


def open_jobs(connection: Connection) -> tuple[str, ...]:
    """Return the ids of the jobs that are not done, oldest first."""
    query = select(erasures.c.id).where(erasures.c.state.in_(OPEN)).order_by(erasures.c.at)
    return tuple(connection.scalars(query))


def receipt_of(connection: Connection, job_id: str) -> Receipt | None:
    """Return the last receipt of a job."""
    body = connection.scalar(select(erasures.c.receipt).where(erasures.c.id == job_id))
    return None if body is None else Receipt.from_body(orjson.loads(body))


def receipts_of(connection: Connection, tenant: str) -> tuple[Receipt, ...]:
    """Return the receipts of *tenant*, oldest first."""
    query = select(erasures.c.receipt).where(
        erasures.c.tenant == tenant, erasures.c.receipt.is_not(None)
    )
    rows = connection.scalars(query.order_by(erasures.c.at, erasures.c.id))
    return tuple(Receipt.from_body(orjson.loads(row or "{}")) for row in rows)


def _packed(job: Job) -> str:
    body = asdict(job)
    del body["id"], body["state"], body["at"]
    return orjson.dumps(body).decode()


def _unpacked(row: Row[Any]) -> Job:
    body = orjson.loads(row.job)
    given = body.pop("criteria")
    lists = {name: _tuple(given[name]) for name in _LISTS}
    tuples = {name: _tuple(body[name]) for name in ("erased", "needles", "untold")}
    return Job(
        id=row.id, state=row.state, at=row.at, criteria=Criteria(**given | lists), **body | tuples
    )


def _tuple(value: list[Any] | None) -> tuple[Any, ...] | None:
    return None if value is None else tuple(value)
