"""Records of a bundle into a store's rows, within one write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import delete, insert, select, update

from elision.memory.lineage import ceiling, link, lower
from elision.memory.rows import Origin
from elision.memory.schema import evidence, exposures, moves, records
from elision.memory.transfer.report import Fate

if TYPE_CHECKING:
    from elision.memory.index.vectors import Vectors
    from elision.memory.transfer.arriving import Arrival, Standing
    from elision.memory.transfer.bundle import Entry
    from elision.memory.writing import Writing


class Kinship:
    """Which records of a bundle stand for which here, and which still wait for a parent."""

    def __init__(self) -> None:
        self.here: dict[str, str] = {}
        self._waiting: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)

    def wait(self, parent: str, tenant: str, child: str) -> None:
        """Remember that *child* (its id here) was made from *parent* (its id in the bundle)."""
        self._waiting[parent].add((tenant, child))

    def join(self, writing: Writing, parent: str, rid: int) -> None:
        """Link what waits for *parent*, which is record *rid* here."""
        for tenant, child in sorted(self._waiting.pop(parent, ())):
            of = writing.rid_of(tenant, child)
            if of is not None and of != rid:
                link(writing.connection, of, [rid], ())
                writing.journal.note(tenant, lower(writing.connection, [rid]))


def place(writing: Writing, one: Standing, parents: Sequence[str], vector: Vectors | None) -> int:
    """Keep a record as its bundle has it, in place of what is in its way; return its number.

    Args:
        writing: The transaction.
        one: The record and what stands in its way.
        parents: Ids here.
        vector: Its text's.
    """
    arrival, tenant = one.arrival, one.arrival.scope.tenant
    draft = replace(arrival.draft, parents=tuple(parents))
    _clear(writing, one)
    if one.at_key is None:
        writing.put(arrival.scope, draft, vector, origin=_origin(arrival))
        rid = writing.rid_of(tenant, arrival.id)
        assert rid is not None, "it was put in this transaction"
        return rid
    rid = int(one.at_key.rid)
    writing.put(arrival.scope, draft, vector)
    trust = min(draft.trust, ceiling(writing.connection, rid))
    line = arrival.line
    row = update(records).where(records.c.rid == rid)
    values: dict[str, Any] = {"id": arrival.id, "version": line.version, "trust": int(trust)}
    values |= {"created_at": line.created_at, "updated_at": line.updated_at}
    writing.connection.execute(row.values(**values, expires_at=line.expires_at))
    writing.journal.note(tenant, [rid, *lower(writing.connection, [rid])])
    return rid


def learn(writing: Writing, rid: int, entry: Entry) -> None:
    """Set evidence and moves of record *rid* to those of the bundle.

    The episodes it met here are no part of that evidence: a later reward has nothing to correct.
    """
    for table in (evidence, exposures, moves):
        writing.connection.execute(delete(table).where(table.c.rid == rid))
    told = [
        {
            "rid": rid,
            **one.model_dump(include={"version", "propensity", "adopted", "adopted_ok"}),
            **{f"applied_{name}": value for name, value in one.applied.model_dump().items()},
            **{f"withheld_{name}": value for name, value in one.withheld.model_dump().items()},
        }
        for one in entry.evidence
    ]
    if told:
        writing.connection.execute(insert(evidence), told)
    moved = [
        one.model_dump(exclude={"line", "record", "figures"})
        | {"rid": rid, "figures": orjson.dumps(one.figures, option=orjson.OPT_SORT_KEYS).decode()}
        for one in entry.moves
    ]
    if moved:
        writing.connection.execute(insert(moves), moved)


def stands_for(one: Standing, fate: Fate) -> str | None:
    """Return the id of the record that is here for one of a bundle, once its fate is done."""
    if fate in (Fate.CREATED, Fate.REPLACED, Fate.SAME):
        return one.arrival.id
    row = one.at_key if one.at_key is not None else one.of_id
    return str(row.id) if fate is Fate.SKIPPED and row is not None else None


def _origin(arrival: Arrival) -> Origin:
    line = arrival.line
    return Origin(
        id=arrival.id,
        version=line.version,
        created_at=line.created_at,
        updated_at=line.updated_at,
        expires_at=line.expires_at,
    )


def _clear(writing: Writing, one: Standing) -> None:
    """Remove what has the id or the key and is not to be replaced where it is."""
    arrival, kept = one.arrival, None if one.at_key is None else one.at_key.rid
    by_id = select(records.c.rid).where(records.c.id == arrival.id)
    found = set(writing.connection.scalars(by_id))
    room = writing.rooms.find(arrival.scope)
    if room is not None:
        by_key = select(records.c.rid).where(
            records.c.space == room.space, records.c.key == one.item.key_digest
        )
        found |= set(writing.connection.scalars(by_key))
    writing.remove(arrival.scope.tenant, sorted(found - {kept}))
