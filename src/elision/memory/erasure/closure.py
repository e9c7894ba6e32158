"""What goes with what: from the records that are meant to all that was made from them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, and_, func, select, true

from elision.memory import schema as t

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection

    from elision.memory.erasure.selector import Criteria

_MOST: Final = 500
"""Values that one statement names."""
_OF_RECORDS: Final[Mapping[str, Column[Any]]] = {
    "records": t.records.c.rid,
    "vectors": t.vectors.c.rid,
    "lineage": t.lineage.c.child,
    "subjects": t.subjects.c.rid,
    "exposures": t.exposures.c.rid,
    "evidence": t.evidence.c.rid,
    "moves": t.moves.c.rid,
}
"""Tables whose rows go with a record, by the column that names it."""


def closure(connection: Connection, criteria: Criteria) -> frozenset[int]:
    """Return the records that *criteria* mean, and those with a parent among them, to the last.

    A record with *any* erased parent goes: what was said of a person cannot be told apart from
    what was made of it (atlas_memory.md 5.8).
    """
    found = set(meant(connection, criteria))
    new = found
    while new:
        new = _children(connection, new, criteria.tenant) - found
        found |= new
    return frozenset(found)


def emptied(connection: Connection, criteria: Criteria, rids: frozenset[int]) -> tuple[int, ...]:
    """Return the namespaces in which nothing is left once *rids* are gone.

    Those of *rids*; where all of a tenant or namespace is meant, those that were empty before too.
    """
    named = func.length(t.spaces.c.body) > 0  # one that has lost its labels stays for its figures
    query = (
        select(t.spaces.c.id, func.count(t.records.c.rid))
        .outerjoin(t.records, t.records.c.space == t.spaces.c.id)
        .where(t.spaces.c.tenant == criteria.tenant, named)
    )
    had: dict[int, int] = {
        row[0]: row[1] for row in connection.execute(query.group_by(t.spaces.c.id))
    }
    lost = per_space(connection, rids)
    wanted = set(had) if criteria.spaces is None else set(criteria.spaces)
    touched = set(lost) | (wanted if criteria.scope else set())
    return tuple(sorted(s for s in touched & set(had) if had[s] == lost.get(s, 0)))


def per_space(connection: Connection, rids: frozenset[int]) -> dict[int, int]:
    """Return how many of *rids* lie in which namespace."""
    lost: dict[int, int] = {}
    for some in batches(rids):
        query = select(t.records.c.space, func.count()).where(t.records.c.rid.in_(some))
        for space, n in connection.execute(query.group_by(t.records.c.space)):
            lost[space] = lost.get(space, 0) + n
    return lost


def within(connection: Connection, rids: frozenset[int], spaces: Collection[int]) -> frozenset[int]:
    """Return those of *rids* that lie in one of *spaces*."""
    found = set[int]()
    for some in batches(rids) if spaces else ():
        query = select(t.records.c.rid, t.records.c.space).where(t.records.c.rid.in_(some))
        found.update(rid for rid, space in connection.execute(query) if space in spaces)
    return frozenset(found)


def counts(connection: Connection, rids: frozenset[int], n_spaces: int) -> dict[str, int]:
    """Return how many rows of each table go, and how many episodes lose their words."""
    columns = {**_OF_RECORDS, "episodes": t.episodes.c.rid}
    found = {
        name: sum(
            connection.scalar(select(func.count()).where(column.in_(some))) or 0
            for some in batches(rids)
        )
        for name, column in columns.items()
    }
    return {**found, "spaces": n_spaces}


def batches(values: frozenset[int] | Sequence[int]) -> Iterator[list[int]]:
    """Yield *values* in order, a statement's worth at a time."""
    rest = iter(sorted(values))
    while some := list(islice(rest, _MOST)):
        yield some


def meant(connection: Connection, criteria: Criteria) -> Iterator[int]:
    """Yield the records that *criteria* mean by themselves."""
    for condition in _split(criteria):
        query = select(t.records.c.rid).join(t.spaces, t.spaces.c.id == t.records.c.space)
        yield from connection.scalars(query.where(_constant(criteria), condition))


def _constant(criteria: Criteria) -> ColumnElement[bool]:
    wanted: list[ColumnElement[bool]] = [t.spaces.c.tenant == criteria.tenant]
    if criteria.subject is not None:
        about = select(t.subjects.c.rid).where(t.subjects.c.subject == criteria.subject)
        wanted.append(t.records.c.rid.in_(about))
    if criteria.kinds is not None:
        wanted.append(t.records.c.kind.in_(criteria.kinds))
    if criteria.before is not None:
        wanted.append(t.records.c.updated_at <= criteria.before)
    return and_(*wanted)


def _split(criteria: Criteria) -> Iterator[ColumnElement[bool]]:
    """Yield conditions of few enough values, each combination of the lists' parts once."""
    lists = (
        (t.records.c.space, criteria.spaces),
        (t.records.c.id, criteria.ids),
        (t.records.c.rid, criteria.rids),
    )
    conditions: list[ColumnElement[bool]] = [true()]
    for column, values in lists:
        if values is not None:
            parts = [column.in_(values[at : at + _MOST]) for at in range(0, len(values), _MOST)]
            conditions = [and_(one, part) for one in conditions for part in parts]
    yield from conditions


def _children(connection: Connection, parents: set[int], tenant: str) -> set[int]:
    found = set[int]()
    for some in batches(frozenset(parents)):
        query = (
            select(t.lineage.c.child)
            .join(t.records, t.records.c.rid == t.lineage.c.child)
            .join(t.spaces, t.spaces.c.id == t.records.c.space)
            .where(t.lineage.c.parent.in_(some), t.spaces.c.tenant == tenant)
        )
        found.update(connection.scalars(query))
    return found
