"""What a record was made from and whom it is about; trust flows down it and never up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, exists, func, insert, select, update

from elision.errors import RequestError
from elision.memory.reading import MOST, chunks
from elision.memory.records import Trust
from elision.memory.schema import lineage, records, spaces, subjects

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from elision.crypto.vault import Vault


def subject_digest(subject: str, tenant: str, vault: Vault) -> str:
    """Return the keyed digest by which a person's records are found."""
    return vault.digest("memory subject", tenant, subject.encode())


def parents_of(
    connection: Connection, tenant: str, ids: Collection[str]
) -> dict[str, tuple[int, Trust]]:
    """Return number and trust of those records of *tenant*.

    Raises:
        RequestError: If one of them is not there.
    """
    found = dict[str, tuple[int, Trust]]()
    for some in chunks(sorted(ids)):
        query = select(records.c.id, records.c.rid, records.c.trust).join(spaces)
        query = query.where(records.c.id.in_(some), spaces.c.tenant == tenant)
        rows = connection.execute(query)
        found |= {id_: (rid, Trust(trust)) for id_, rid, trust in rows}
    if missing := len(set(ids)) - len(found):
        raise RequestError(
            f"{missing} of {len(set(ids))} parents are not there", param="parents", code="no_parent"
        )
    return found


def link(connection: Connection, rid: int, parents: Iterable[int], about: Iterable[str]) -> bool:
    """Add parents and subjects (digests) to a record; return whether any was new to it.

    It is about whom its parents are about, and whatever was made from it is too: said of each, so
    that a person is still found there when a record between is replaced or gone.
    """
    known = set(connection.scalars(select(lineage.c.parent).where(lineage.c.child == rid)))
    new = [{"child": rid, "parent": parent} for parent in sorted(set(parents) - known)]
    if new:
        connection.execute(insert(lineage), new)
    named = set(connection.scalars(select(subjects.c.subject).where(subjects.c.rid == rid)))
    new_about = [{"rid": rid, "subject": subject} for subject in sorted(set(about) - named)]
    if new_about:
        connection.execute(insert(subjects), new_about)
    inherited = _inherit(connection, lineage.c.child == rid) if new else set()
    waiting = {rid} if new_about or inherited else set()
    while waiting:
        some = [waiting.pop() for _ in range(min(MOST, len(waiting)))]
        waiting |= _inherit(connection, lineage.c.parent.in_(some))
    return bool(new or new_about or inherited)


def _inherit(connection: Connection, which: ColumnElement[bool]) -> set[int]:
    """Have children of the links that are meant be about whom their parents are about.

    Return to whom that was new; so it ends, in a circle too.
    """
    own = subjects.alias("own")
    there = exists().where(own.c.rid == lineage.c.child, own.c.subject == subjects.c.subject)
    query = select(lineage.c.child, subjects.c.subject).distinct()
    query = query.join(subjects, subjects.c.rid == lineage.c.parent).where(which, ~there)
    new = [{"rid": child, "subject": subject} for child, subject in connection.execute(query)]
    if new:
        connection.execute(insert(subjects), new)
    return {row["rid"] for row in new}


def unlink(connection: Connection, rid: int) -> None:
    """Take a record's parents and subjects from it."""
    connection.execute(delete(lineage).where(lineage.c.child == rid))
    connection.execute(delete(subjects).where(subjects.c.rid == rid))


def ceiling(connection: Connection, rid: int) -> Trust:
    """Return the least trust among a record's parents: it may have no more."""
    least = select(func.min(records.c.trust)).join(lineage, lineage.c.parent == records.c.rid)
    found = connection.scalar(least.where(lineage.c.child == rid))
    return Trust.OPERATOR if found is None else Trust(found)


def lower(connection: Connection, rids: Sequence[int]) -> list[int]:
    """Lower the trust of whatever was made from *rids* to theirs; return who was lowered.

    Trust only falls on the way, so this ends, in a circle too.
    """
    lowered, waiting = list[int](), list(rids)
    parent, child = records.alias("parent"), records.alias("child")
    query = (
        select(child.c.rid, func.min(parent.c.trust).label("least"))
        .join(lineage, lineage.c.child == child.c.rid)
        .join(parent, parent.c.rid == lineage.c.parent)
        .group_by(child.c.rid, child.c.trust)
        .having(func.min(parent.c.trust) < child.c.trust)
    )
    change = update(records).where(records.c.rid == bindparam("at"))
    change = change.values(trust=bindparam("to"))
    while waiting:
        found = list[Mapping[str, Any]]()
        for some in chunks(waiting):
            rows = connection.execute(query.where(parent.c.rid.in_(some)))
            found += [{"at": rid, "to": least} for rid, least in rows]
        if found:
            connection.execute(change, found)
        waiting = [row["at"] for row in found]
        lowered += waiting
    return lowered
