"""Puts and deletes of LangGraph, as one transaction of memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from elision.agents.keyed_records import rids_of
from elision.agents.langgraph_items import ITEM, PART, texts_of
from elision.memory.records import Draft, Record, Scope, Trust
from elision.memory.schema import lineage, records

if TYPE_CHECKING:
    from langgraph.store.base import PutOp

    from elision.memory.index.vectors import Vectors
    from elision.memory.store import Store
    from elision.memory.writing import Writing

MINUTE_S: Final = 60.0
"""Seconds of LangGraph's unit."""


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one item.

    Attributes:
        scope: Where it lies.
        key: Its name there.
        value: What it holds from now on; None: it goes.
        texts: What of it is embedded, each with a vector of its own.
        ttl_s: Seconds until it expires, counted anew whenever it is read.
    """

    scope: Scope
    key: str = field(repr=False)
    value: Mapping[str, Any] | None = field(repr=False)
    texts: tuple[str, ...] = field(default=(), repr=False)
    ttl_s: float | None = None


def changes(ops: Iterable[PutOp], root: Scope, fields: Sequence[str]) -> list[Change]:
    """Return what *ops* come to: of several on one item, the last one counts."""
    last = {(op.namespace, op.key): op for op in ops}
    return [
        Change(
            Scope(root.tenant, (*root.namespace, *op.namespace)),
            op.key,
            op.value,
            () if op.value is None else tuple(texts_of(op.value, op.index, fields)),
            None if op.ttl is None else op.ttl * MINUTE_S,
        )
        for op in last.values()
    ]


def apply(store: Store, wanted: Sequence[Change], trust: Trust) -> None:
    """Make all of *wanted*, which is of one tenant, so, or none of it.

    Raises:
        RequestError: If a value is no JSON, or a forget target forbids it (code ``screened``).
    """
    texts = [text for change in wanted for text in change.texts]
    rows = store.encoded(wanted[0].scope.tenant, texts) if texts else None
    vectors = iter([None] * len(texts) if rows is None else rows)
    with store.writing() as writing:
        for change in wanted:
            own = list(islice(vectors, len(change.texts)))
            if change.value is None:
                _delete(store, writing, change)
            else:
                _put(writing, change, own, trust)


def refresh(store: Store, found: Iterable[Record]) -> None:
    """Let items that expire live as long again as they were given; their parts with them."""
    mortal = [record for record in found if record.expires_at is not None]
    keys = defaultdict[Scope, list[str]](list)
    for record in (*mortal, *_parts_of(store, mortal)):
        keys[record.scope].append(record.key)
    for scope in keys:
        store.touch(scope, keys[scope])


def _parts_of(store: Store, items: Sequence[Record]) -> tuple[Record, ...]:
    if not items:
        return ()
    item = records.alias()
    query = select(records.c.id).join(lineage, lineage.c.child == records.c.rid)
    query = query.join(item, item.c.rid == lineage.c.parent).where(records.c.kind == PART)
    query = query.where(item.c.id.in_([one.id for one in items]))
    with store.database.reading() as connection:
        ids = connection.scalars(query).all()
    return store.find(items[0].scope.tenant, ids)


def _put(writing: Writing, change: Change, vectors: Sequence[Vectors | None], trust: Trust) -> None:
    """Keep an item; its only text is its own, each of several is a record made from it."""
    one = len(change.texts) == 1
    item = Draft(
        text=change.texts[0] if one else "",
        value=dict(change.value or {}),
        key=change.key,
        kind=ITEM,
        trust=trust,
        ttl_s=change.ttl_s,
    )
    stored = writing.put(change.scope, item, vectors[0] if one else None)
    _drop_parts(writing, change.scope.tenant, stored.id)
    if not one:
        parts = [_part(change, text, stored.id, trust) for text in change.texts]
        writing.put_many(change.scope, parts, vectors)


def _part(change: Change, text: str, item: str, trust: Trust) -> Draft:
    return Draft(
        text=text,
        value={"item": item},
        kind=PART,
        trust=trust,
        ttl_s=change.ttl_s,
        parents=(item,),
    )


def _delete(store: Store, writing: Writing, change: Change) -> None:
    for rid in rids_of(store, writing, change.scope, ITEM, [change.key]):
        writing.remove(change.scope.tenant, [rid, *_parts(writing, rid)])


def _drop_parts(writing: Writing, tenant: str, item: str) -> None:
    rid = writing.rid_of(tenant, item)
    assert rid is not None, "it was put in this transaction"
    writing.remove(tenant, _parts(writing, rid))


def _parts(writing: Writing, rid: int) -> Sequence[int]:
    query = select(records.c.rid).join(lineage, lineage.c.child == records.c.rid)
    query = query.where(lineage.c.parent == rid, records.c.kind == PART)
    return writing.connection.scalars(query).all()
