"""What stands in the records that are to be erased: read once more, to know what to look for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import select

from elision.memory import schema as t
from elision.memory.bodies import Place
from elision.memory.drafts import texts
from elision.memory.erasure.closure import batches
from elision.memory.erasure.windows import SHORTEST, of_text, of_vector

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from elision.memory.bodies import Bodies


@dataclass(frozen=True, slots=True)
class Content:
    """What a person or a model wrote in one record, and what an encoder made of it.

    Attributes:
        rid: The record's number.
        version: Its version.
        texts: Text, key and each text in the value; not a key that was made of the content.
        vectors: Embeddings, as bytes.
    """

    rid: int
    version: int
    texts: frozenset[str] = field(repr=False)
    vectors: tuple[bytes, ...] = field(repr=False)

    def windows(self) -> frozenset[bytes]:
        """Return what to look for."""
        said = (of_text(text) for text in self.texts)
        return frozenset().union(*said, *map(of_vector, self.vectors))

    @property
    def too_short(self) -> int:
        """How many of its texts are not looked for in UTF-8."""
        return sum(len(text.encode()) < SHORTEST for text in self.texts)


def contents(connection: Connection, bodies: Bodies, rids: frozenset[int]) -> Iterator[Content]:
    """Yield what stands in *rids*, expired ones too, in order.

    Raises:
        StoreError: If what is sealed cannot be opened.
    """
    for some in batches(rids):
        embedded = _vectors(connection, bodies, some)
        for row in _rows(connection, some):
            body = bodies.open(_place(row), row.rid, "record", bytes(row.body))
            said = _said(orjson.loads(body), row.content)
            yield Content(row.rid, row.version, said, tuple(embedded.get(row.rid, ())))


def labels(connection: Connection, bodies: Bodies, spaces: Iterable[int]) -> frozenset[str]:
    """Return the labels of namespaces."""
    found = set[str]()
    for some in batches(frozenset(spaces)):
        for row in connection.execute(select(t.spaces).where(t.spaces.c.id.in_(some))):
            if row.body:
                found.update(bodies.namespace(Place(row.tenant, row.id, row.key_id), row.body))
    return frozenset(found)


def _rows(connection: Connection, rids: list[int]) -> Any:
    columns = (t.records.c.rid, t.records.c.version, t.records.c.content, t.records.c.body)
    query = select(*columns, t.spaces.c.id, t.spaces.c.tenant, t.spaces.c.key_id)
    query = query.join(t.spaces, t.spaces.c.id == t.records.c.space)
    return connection.execute(query.where(t.records.c.rid.in_(rids)).order_by(t.records.c.rid))


def _vectors(connection: Connection, bodies: Bodies, rids: list[int]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    for table in (t.vectors, t.reembedded):
        query = (
            select(table.c.rid, table.c.data, t.spaces.c.id, t.spaces.c.tenant, t.spaces.c.key_id)
            .join(t.records, t.records.c.rid == table.c.rid)
            .join(t.spaces, t.spaces.c.id == t.records.c.space)
        )
        for row in connection.execute(query.where(table.c.rid.in_(rids))):
            data = bodies.open(_place(row), row.rid, "vector", bytes(row.data))
            found.setdefault(row.rid, []).append(data)
    return found


def _place(row: Any) -> Place:
    return Place(row.tenant, row.id, row.key_id)


def _said(body: dict[str, Any], content: str) -> frozenset[str]:
    """Return the texts of a body; a key that is the content's digest stands in columns too."""
    return frozenset(texts([body["text"], body["value"]])) | ({body["key"]} - {content})
