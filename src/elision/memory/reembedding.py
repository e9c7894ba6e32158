"""Another encoder takes an older one's place: every text is read anew, then all vectors change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, insert, select

from elision.errors import ConfigError
from elision.memory.bodies import Place
from elision.memory.identity import name_of
from elision.memory.index.vectors import to_bytes, unit
from elision.memory.journal import get_meta, put_meta
from elision.memory.reading import WHOLE, record_of, spelt
from elision.memory.schema import records, reembedded, spaces, vectors

if TYPE_CHECKING:
    from elision.encoders.protocol import Encoder
    from elision.memory.opening import Opened
    from elision.memory.writing import Writing

BATCH: Final = 256
_LEFT: Final = (
    f"{WHOLE} LEFT JOIN reembedded n ON n.rid = r.rid "
    "WHERE n.rid IS NULL AND r.rid > ? ORDER BY r.rid LIMIT ?"
)


def reembed(
    store: Opened, *, batch: int = BATCH, progress: Callable[[int], None] | None = None
) -> int:
    """Encode every text with the store's encoder, and only then let its vectors count.

    Until then searches by the old encoder go on. Cut short, it goes on where it was; what is
    written meanwhile is encoded too. Other processes must open the store anew afterwards.

    Args:
        store: Opened with the new encoder and ``reembedding=True``.
        batch: Texts per transaction.
        progress: Called with the number of texts encoded since the last call.

    Returns:
        How many vectors the store has now.

    Raises:
        ConfigError: If the store has no encoder.
    """
    if store.encoder is None:
        raise ConfigError("there is nothing to encode with; open the store with an encoder")
    _begin(store, name_of(store.encoder))
    last = 0
    while rows := store.database.rows(_LEFT, (last, batch)):
        last = rows[-1][0]
        found = [*_encoded(store, store.encoder, rows)]
        with store.writing() as writing:
            n_kept = _keep(store, writing, found)
        if progress is not None:
            progress(n_kept)
    n_vectors = _switch(store, store.encoder)
    store.partitions.identity = store.identity
    return n_vectors


def _begin(store: Opened, name: str) -> None:
    """Start anew, unless it was this encoder's vectors that were being made."""
    with store.writing() as writing:
        if get_meta(writing.connection, "reembedding") != name:
            writing.connection.execute(delete(reembedded))
            put_meta(writing.connection, "reembedding", name)


def _encoded(
    store: Opened, encoder: Encoder, rows: Sequence[Any]
) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, version and vector of every row of `WHOLE` that has a text."""
    kept = [(row[0], record_of(row, store.bodies)) for row in rows]
    for tenant in sorted({record.scope.tenant for _, record in kept}):
        mine = [(n, one) for n, one in kept if one.scope.tenant == tenant and one.text]
        if mine:
            texts = [record.text for _, record in mine]
            found = unit(encoder.embed(texts, tenant=tenant).result(), dim=encoder.dim)
            for (rid, record), vector in zip(mine, found, strict=True):
                yield rid, record.version, to_bytes(vector)


def _keep(store: Opened, writing: Writing, found: Sequence[tuple[int, int, bytes]]) -> int:
    """Keep those vectors whose records are still as they were read."""
    query = select(records.c.rid, records.c.version, spaces.c.tenant, spaces.c.id, spaces.c.key_id)
    query = query.join(spaces).where(records.c.rid.in_([rid for rid, _, _ in found]))
    there = {row[0]: row for row in writing.connection.execute(query)}
    rows = [
        {"rid": rid, "data": store.bodies.seal(Place(*there[rid][2:]), rid, "vector", data)}
        for rid, version, data in found
        if rid in there and there[rid][1] == version
    ]
    if rows:
        writing.connection.execute(insert(reembedded), rows)
    return len(rows)


def _switch(store: Opened, encoder: Encoder) -> int:
    """Encode what was written meanwhile, and put the new vectors in the place of the old."""
    with store.writing() as writing:
        connection, last = writing.connection, 0
        left = spelt(connection, _LEFT)
        while rows := connection.exec_driver_sql(left, (last, BATCH)).all():
            last = rows[-1][0]
            _keep(store, writing, [*_encoded(store, encoder, rows)])
        connection.execute(delete(vectors))
        new = select(reembedded.c.rid, reembedded.c.data)
        made = connection.execute(insert(vectors).from_select(["rid", "data"], new))
        connection.execute(delete(reembedded))
        put_meta(connection, "encoder", name_of(encoder))
        put_meta(connection, "reembedding", "")
        writing.journal.begin_anew(connection.scalars(select(spaces.c.tenant).distinct()))
    return made.rowcount
