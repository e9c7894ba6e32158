"""What a record was made from and whom it is about; trust flows down it and never up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from elision.errors import RequestError
from elision.memory.reading import chunks
from elision.memory.records import Trust
from elision.memory.schema import lineage, records, spaces, subjects

if TYPE_CHECKING:
    from sqlalchemy import Connection

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
    """Add parents and subjects (digests) to a record; return whether any was new to it."""
    known = set(connection.scalars(select(lineage.c.parent).where(lineage.c.child == rid)))
    named = set(connection.scalars(select(subjects.c.subject).where(subjects.c.rid == rid)))
    new = [{"child": rid, "parent": parent} for parent in sorted(set(parents) - known)]
    new_about = [{"rid": rid, "subject": subject} for subject in sorted(set(about) - named)]
    if new:
        connection.execute(insert(lineage), new)
    if new_about:
        connection.execute(insert(subjects), new_about)
    return bool(new or new_about)


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
