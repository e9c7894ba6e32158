"""What lies in a ``body``: a record's words as JSON, in clear or sealed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import orjson
from sqlalchemy import bindparam, select, update

from elision.errors import RequestError, StoreError
from elision.memory.schema import records, reembedded, spaces, vectors

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    from elision.memory.records import Namespace
    from elision.memory.sealing import Keyring

Where: TypeAlias = Literal["record", "space", "vector"]
"""What is sealed; a sealed body opens as what it was sealed as only."""

LARGEST: Final = 8 << 20
"""Bytes of one body."""
_FORMAT: Final = 1
"""Version of the sealed form; it is part of the associated data."""
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Place:
    """A row of ``spaces``: a tenant's namespace, and the key of what lies in it.

    Attributes:
        tenant: Whose.
        space: The row's id.
        key_id: None in a store that is not sealed.
    """

    tenant: str
    space: int
    key_id: str | None


class Bodies:
    """Seals and opens what lies in a store; without a keyring, all passes in clear."""

    def __init__(self, keyring: Keyring | None) -> None:
        self.keyring = keyring

    def new_key(self, tenant: str) -> str | None:
        """Return the id of a new data key; None in a store that is not sealed."""
        return self.keyring.make(tenant) if self.keyring else None

    def seal(self, place: Place, rid: int, where: Where, plain: bytes) -> bytes:
        """Return *plain* as it is stored for record *rid*; 0 stands for the namespace itself."""
        if self.keyring is None or place.key_id is None:
            return plain
        bound = _bound(place, rid, where)
        return self.keyring.seal(plain, tenant=place.tenant, key_id=place.key_id, place=bound)

    def open(self, place: Place, rid: int, where: Where, data: bytes) -> bytes:
        """Return what `seal` was given.

        Raises:
            StoreError: If it was altered or moved, or the key is gone.
        """
        if place.key_id is None:
            return data
        if self.keyring is None:
            raise StoreError("what is stored is sealed, and there is no key")
        bound = _bound(place, rid, where)
        return self.keyring.open(data, tenant=place.tenant, key_id=place.key_id, place=bound)

    def can_open(self, place: Place) -> bool:
        """Return whether the key of what lies there is to be had."""
        return place.key_id is None or (self.keyring is not None and self.keyring.has(place.key_id))

    def namespace(self, place: Place, data: bytes) -> Namespace:
        """Return the namespace whose body *data* is."""
        return tuple(orjson.loads(self.open(place, 0, "space", data)))

    def reseal(self, connection: Connection, space: int) -> str | None:
        """Seal what lies in *space* under a new key; return the old one's id, to be destroyed.

        After the commit, and not before: until then only the old one opens what is on the disk.
        """
        row = connection.execute(select(spaces).where(spaces.c.id == space)).one_or_none()
        if row is None or row.key_id is None:
            return None
        old = Place(row.tenant, space, row.key_id)
        new = Place(row.tenant, space, self.new_key(row.tenant))
        body = self.seal(new, 0, "space", self.open(old, 0, "space", row.body)) if row.body else b""
        values = {"key_id": new.key_id, "body": body}
        connection.execute(update(spaces).where(spaces.c.id == space).values(**values))
        for table in (records, vectors, reembedded):
            self._reseal(connection, table, old, new)
        return old.key_id

    def _reseal(self, connection: Connection, table: Table, old: Place, new: Place) -> None:
        column = table.c.body if table is records else table.c.data
        where: Where = "record" if table is records else "vector"
        query = select(table.c.rid, column).order_by(table.c.rid).limit(_BATCH)
        if table is records:
            query = query.where(records.c.space == old.space)
        else:
            query = query.join(records, records.c.rid == table.c.rid)
            query = query.where(records.c.space == old.space)
        change = (
            update(table).where(table.c.rid == bindparam("at")).values({column: bindparam("to")})
        )
        last = 0
        while rows := connection.execute(query.where(table.c.rid > last)).all():
            last = rows[-1][0]
            done = [
                {"at": rid, "to": self.seal(new, rid, where, self.open(old, rid, where, data))}
                for rid, data in rows
            ]
            connection.execute(change, done)


def packed(key: str, text: str, value: Mapping[str, Any], ttl_s: float | None) -> bytes:
    """Return the JSON of a record's words, and of the time to live that it was given.

    Raises:
        RequestError: If they are no JSON or take more than `LARGEST` bytes.
    """
    body: dict[str, Any] = {"key": key, "text": text, "value": value}
    if ttl_s is not None:
        body["ttl_s"] = ttl_s
    data = dumped(body)
    if len(data) > LARGEST:
        raise RequestError(f"a record takes {len(data)} bytes; the most are {LARGEST}")
    return data


def dumped(value: Any) -> bytes:
    """Return *value* as JSON with sorted keys.

    Raises:
        RequestError: If it is no JSON: a lone surrogate, a whole number beyond 64 bits, an object
            of another kind.
    """
    try:
        return orjson.dumps(value, option=_STRICT)
    except TypeError as exc:
        raise RequestError(
            "text and value must be JSON: no lone surrogates, no numbers beyond 64 bits, texts as "
            "keys, nothing else within",
            param="value",
        ) from exc


_STRICT: Final = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)


def _bound(place: Place, rid: int, where: Where) -> bytes:
    """Return what a sealed body is bound to; a tenant's name holds no control character."""
    return f"{_FORMAT}\x1f{where}\x1f{place.space}\x1f{rid}\x1f{place.tenant}".encode()
