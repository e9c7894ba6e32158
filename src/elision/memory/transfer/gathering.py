"""The lines of records as a store's rows tell them, in one read transaction."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import orjson
from sqlalchemy import select

from elision.errors import StoreError
from elision.memory.bodies import Place
from elision.memory.drafts import may_show
from elision.memory.reading import standing
from elision.memory.schema import evidence, lineage, moves, records, spaces, subjects, vectors
from elision.memory.transfer.lines import (
    AnyLine,
    ArmLine,
    EvidenceLine,
    MoveLine,
    RecordLine,
    actor_code,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

    from elision.memory.reading import Standing
    from elision.memory.store import Store

_READINGS: Final = 3
"""Of one batch, in a sealed store: each erasure may come in between."""


def gathered(store: Store, tenant: str, ids: Sequence[str], *, with_vectors: bool) -> list[AnyLine]:
    """Return what a bundle says of *tenant*'s records *ids*, in their order, all of one moment.

    What is gone, has expired or may not be read is left out. Read once more where a key was gone:
    an erasure may have sealed anew meanwhile what it left.

    Raises:
        StoreError: If the database fails, or something in it is damaged.
    """
    for _ in range(_READINGS - 1):
        try:
            return _read(store, tenant, ids, with_vectors=with_vectors)
        except StoreError:
            if store.bodies.keyring is None:
                raise
    return _read(store, tenant, ids, with_vectors=with_vectors)


def _read(store: Store, tenant: str, ids: Sequence[str], *, with_vectors: bool) -> list[AnyLine]:
    with store.reading() as connection:
        return [*_lines_of(store, connection, tenant, ids, with_vectors=with_vectors)]


def _lines_of(
    store: Store, connection: Connection, tenant: str, ids: Sequence[str], *, with_vectors: bool
) -> Iterator[AnyLine]:
    found = (standing(connection, tenant, id_, store.bodies) for id_ in ids)
    now = store.clock()
    live = {one.record.id: one for one in found if one is not None and _may_go(store, one, now)}
    parents = parents_of(connection, [*live])
    about, vector_of = _subjects(connection, live), {}
    if with_vectors:
        vector_of = _vectors(store, connection, live)
    learned = _learned(connection, live)
    for id_, one in live.items():
        yield _record(one, parents.get(id_, ()), about[one.rid], vector_of.get(one.rid))
        yield from learned[one.rid]


def _may_go(store: Store, one: Standing, now: float) -> bool:
    """Return whether it may still be read: since the ids were listed it may have changed."""
    record = one.record
    if record.expires_at is not None and record.expires_at <= now:
        return False
    words = (record.key, record.text, dict(record.value), list(record.scope.namespace))
    return may_show(store.screen, record.scope.tenant, *words)


def _record(
    one: Standing, parents: Iterable[str], about: Iterable[str], vector: bytes | None
) -> RecordLine:
    record = one.record
    return RecordLine(
        id=record.id,
        tenant=record.scope.tenant,
        namespace=record.scope.namespace,
        key=record.key,
        kind=record.kind,
        text=record.text,
        value=dict(record.value),
        state=record.state,
        trust=int(record.trust),
        version=record.version,
        created_at=record.created_at,
        updated_at=record.updated_at,
        expires_at=record.expires_at,
        ttl_s=one.ttl_s,
        parents=tuple(sorted(parents)),
        subjects=tuple(sorted(about)),
        vector=None if vector is None else base64.b64encode(vector).decode(),
    )


def parents_of(connection: Connection, ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the ids of what records were made from, by id."""
    child, parent = records.alias(), records.alias()
    query = (
        select(child.c.id, parent.c.id)
        .join(lineage, lineage.c.child == child.c.rid)
        .join(parent, parent.c.rid == lineage.c.parent)
        .where(child.c.id.in_(ids))
    )
    found = defaultdict[str, list[str]](list)
    for of, id_ in connection.execute(query):
        found[of].append(id_)
    return found


def _subjects(connection: Connection, live: Mapping[str, Standing]) -> dict[int, list[str]]:
    rids = [one.rid for one in live.values()]
    found = defaultdict[int, list[str]](list)
    for rid, digest in connection.execute(
        select(subjects.c.rid, subjects.c.subject).where(subjects.c.rid.in_(rids))
    ):
        found[rid].append(digest)
    return found


def _vectors(
    store: Store, connection: Connection, live: Mapping[str, Standing]
) -> dict[int, bytes]:
    tenants = {one.rid: one.record.scope.tenant for one in live.values()}
    query = (
        select(vectors.c.rid, vectors.c.data, spaces.c.id, spaces.c.key_id)
        .join(records, records.c.rid == vectors.c.rid)
        .join(spaces, spaces.c.id == records.c.space)
        .where(vectors.c.rid.in_(tenants))
    )
    return {
        rid: store.bodies.open(Place(tenants[rid], space, key_id), rid, "vector", bytes(data))
        for rid, data, space, key_id in connection.execute(query)
    }


def _learned(
    connection: Connection, live: Mapping[str, Standing]
) -> dict[int, list[EvidenceLine | MoveLine]]:
    """Return what was learned of records, by number: evidence by version and propensity, moves."""
    ids = {one.rid: id_ for id_, one in live.items()}
    found = defaultdict[int, list[EvidenceLine | MoveLine]](list)
    of = evidence.c
    query = select(evidence).where(of.rid.in_(ids)).order_by(of.rid, of.version, of.propensity)
    for row in connection.execute(query).mappings():
        rest = {name: row[name] for name in ("version", "propensity", "adopted", "adopted_ok")}
        line = EvidenceLine(
            record=ids[row["rid"]],
            applied=_arm(row, "applied"),
            withheld=_arm(row, "withheld"),
            **rest,
        )
        found[row["rid"]].append(line)
    told = select(moves).where(moves.c.rid.in_(ids)).order_by(moves.c.id)
    for row in connection.execute(told).mappings():
        found[row["rid"]].append(_move(ids[row["rid"]], row))
    return found


def _move(id_: str, row: RowMapping) -> MoveLine:
    rest = {name: row[name] for name in ("at", "source", "target", "reason")}
    figures = orjson.loads(row["figures"])
    return MoveLine(record=id_, actor=actor_code(row["actor"]), figures=figures, **rest)


def _arm(row: RowMapping, arm: str) -> ArmLine:
    return ArmLine(**{name: row[f"{arm}_{name}"] for name in ArmLine.model_fields})
