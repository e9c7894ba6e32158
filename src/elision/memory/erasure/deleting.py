"""The one transaction of an erasure: rows go, tombstones stay, keys are renewed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from elision.memory import schema as t
from elision.memory.bodies import Place
from elision.memory.erasure import jobs
from elision.memory.erasure.closure import batches, meant, per_space, within
from elision.memory.erasure.contents import Content, contents, labels
from elision.memory.erasure.needles import Needles
from elision.memory.erasure.plan import Plan, planned
from elision.memory.erasure.selector import Criteria
from elision.memory.erasure.tombstones import bury
from elision.memory.erasure.windows import of_text
from elision.memory.lineage import subject_digest

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from elision.memory.erasure.jobs import Job
    from elision.memory.erasure.selector import Selector
    from elision.memory.records import Namespace
    from elision.memory.store import Store
    from elision.memory.writing import Writing


@dataclass(frozen=True, slots=True)
class Gathered:
    """What went, as long as this process needs it: never kept.

    Attributes:
        texts: Every text.
        vectors: Every embedding's bytes.
        needles: What to look for.
        too_short: Texts that are not looked for in UTF-8.
        versions: Which version of which record was read.
    """

    texts: frozenset[str] = field(repr=False)
    vectors: tuple[bytes, ...] = field(repr=False)
    needles: Needles = field(repr=False)
    too_short: int
    versions: frozenset[tuple[int, int]] = field(repr=False)


def criteria_of(connection: Connection, store: Store, selector: Selector) -> Criteria:
    """Return what *selector* means in the database as it stands."""
    tenant = selector.tenant
    about, age = selector.subject, selector.older_than_s
    criteria = Criteria(
        tenant=tenant,
        spaces=_spaces(connection, store, selector),
        ids=selector.ids,
        subject=None if about is None else subject_digest(about, tenant, store.keys.vault),
        kinds=selector.kinds,
        before=None if age is None else store.clock() - age,
        scope=selector.is_scope,
    )
    if selector.matching is None:
        return criteria
    return replace(criteria, rids=_chosen(connection, store, selector, criteria))


def delete(store: Store, job: Job, selector: Selector | None) -> tuple[Job, Gathered | None]:
    """Delete what *job* means, if that was not done before; return it as it stands then.

    What there is to read is read before the transaction; within it only what has changed since.

    Args:
        store: From which.
        job: Planned.
        selector: What was asked for, if that is known still: then it is looked up anew, so that
            what was written since the plan goes as well.

    Returns:
        The job, and what went; None if another process did it.
    """
    with store.database.reading() as connection:
        before = _gather(connection, store, job, planned(connection, job.criteria).rids)
    with store.writing() as writing:
        connection = writing.connection
        job = jobs.job_of(connection, job.id) or job
        if job.state != "planned":
            return job, None
        if selector is not None:
            job = replace(job, criteria=criteria_of(connection, store, selector))
        plan = planned(connection, job.criteria)
        gathered = _gather(connection, store, job, plan.rids, before, plan.spaces)
        job = _take(writing, store, job, plan, gathered)
        jobs.keep_job(connection, job)
    return job, gathered


def _take(writing: Writing, store: Store, job: Job, plan: Plan, gathered: Gathered) -> Job:
    connection, vault = writing.connection, store.keys.vault
    bury(connection, vault, plan.rids, receipt=job.id, at=job.at)
    shared = set(per_space(connection, plan.rids)) - set(plan.spaces)
    _blank_decisions(connection, plan.rids)
    writing.remove(job.tenant, sorted(plan.rids))
    for space in sorted(shared):
        writing.rooms.reseal(space)
    writing.rooms.leave(plan.spaces)
    done = replace(
        job,
        state="deleted",
        counts=dict(plan.counts),
        erased=tuple(sorted(plan.rids)),
        keys_destroyed=len(writing.rooms.retired),
        too_short=gathered.too_short,
    )
    return done.with_needles(gathered.needles, vault)


def _blank_decisions(connection: Connection, rids: frozenset[int]) -> None:
    """Have the episodes told in *rids* keep no code that a caller has chosen for them."""
    for some in batches(rids):
        told = update(t.episodes).where(t.episodes.c.rid.in_(some))
        connection.execute(told.values(decision="{}"))


def _gather(
    connection: Connection,
    store: Store,
    job: Job,
    rids: frozenset[int],
    before: Gathered | None = None,
    spaces: Iterable[int] = (),
) -> Gathered:
    """Read what stands in *rids* and, of namespaces that go, their labels."""
    known = before.versions if before else frozenset()
    versions = _versions(connection, rids)
    unread = frozenset(rid for rid, _ in versions - known)
    said = [*contents(connection, store.bodies, unread)]
    named = labels(connection, store.bodies, spaces)
    key = jobs.needle_key(store.keys.vault, job.tenant, job.id)
    windows = frozenset().union(*map(of_text, named), *map(Content.windows, said))
    new = Gathered(
        texts=named.union(*(content.texts for content in said)),
        vectors=tuple(vector for content in said for vector in content.vectors),
        needles=Needles(key, windows),
        too_short=sum(content.too_short for content in said),
        versions=versions,
    )
    return new if before is None else _merged(before, new)


def _merged(before: Gathered, new: Gathered) -> Gathered:
    return Gathered(
        texts=before.texts | new.texts,
        vectors=before.vectors + new.vectors,
        needles=before.needles + new.needles,
        too_short=before.too_short + new.too_short,
        versions=before.versions | new.versions,
    )


def _versions(connection: Connection, rids: frozenset[int]) -> frozenset[tuple[int, int]]:
    query = select(t.records.c.rid, t.records.c.version)
    rows = (connection.execute(query.where(t.records.c.rid.in_(b))) for b in batches(rids))
    return frozenset((rid, version) for some in rows for rid, version in some)


def _spaces(connection: Connection, store: Store, selector: Selector) -> tuple[int, ...] | None:
    wanted = selector.namespace
    if not wanted:
        return None
    named = _named(connection, store, selector.tenant)
    return tuple(space for space, labels in named if labels[: len(wanted)] == wanted)


def _named(connection: Connection, store: Store, tenant: str) -> Iterator[tuple[int, Namespace]]:
    for row in connection.execute(select(t.spaces).where(t.spaces.c.tenant == tenant)):
        if row.body:
            place = Place(tenant, row.id, row.key_id)
            yield row.id, store.bodies.namespace(place, bytes(row.body))


def _chosen(
    connection: Connection, store: Store, selector: Selector, criteria: Criteria
) -> tuple[int, ...]:
    """Return the records that the matcher chooses among those that *criteria* mean."""
    matches = selector.matching or (lambda _text: False)
    named = _named(connection, store, selector.tenant)
    spaces = {space for space, labels in named if any(map(matches, labels))}
    rids = frozenset(meant(connection, criteria))
    by_label = within(connection, rids, spaces)
    said = contents(connection, store.bodies, rids - by_label)
    return tuple(sorted(by_label | {one.rid for one in said if any(map(matches, one.texts))}))
