"""A record's rows within one write: the record, its vector, its links, its entry in the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Row, bindparam, delete, insert, select, update

from elision.errors import RequestError
from elision.memory.lineage import ceiling, link, lower, unlink
from elision.memory.reading import chunks
from elision.memory.records import Stored, Trust
from elision.memory.rooms import Rooms, next_numbers
from elision.memory.schema import records, reembedded, spaces, vectors

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from elision.contract import Screen
    from elision.crypto.vault import Vault
    from elision.memory.bodies import Bodies, Place
    from elision.memory.drafts import Checked
    from elision.memory.journal import Journal
    from elision.memory.naming import Names

_FIGURES: Final = (
    records.c.rid, records.c.id, records.c.key, records.c.content, records.c.state,
    records.c.trust, records.c.version, records.c.expires_at,
)  # fmt: skip


# Made once: making a statement takes longer than running it.
_AT: Final = select(*_FIGURES).where(
    records.c.space == bindparam("space"), records.c.key.in_(bindparam("some", expanding=True))
)
_RECORD, _VECTOR = insert(records), insert(vectors)


@dataclass(frozen=True, slots=True)
class Parts:
    """What every write of a store works with; *identity* tells whose vectors it writes."""

    bodies: Bodies
    vault: Vault
    screen: Screen | None
    names: Names
    identity: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a record brings that was kept elsewhere before.

    Attributes:
        id: Its id; must be free.
        version: Its version.
        created_at: Seconds since 1970.
        updated_at: Likewise.
        expires_at: Likewise; None: never.
    """

    id: str
    version: int = 1
    created_at: float
    updated_at: float
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class New:
    """A draft on its way into a row.

    Attributes:
        item: It, checked.
        vector: Its vector's bytes.
        parents: Numbers and trust of what it was made from.
        about: Digests of whom it is about.
        origin: Where it was before.
    """

    item: Checked
    vector: bytes | None = field(repr=False)
    parents: Mapping[int, Trust]
    about: frozenset[str]
    origin: Origin | None = None

    @property
    def trust(self) -> Trust:
        """The draft's, or the least of its parents'."""
        return min((self.item.draft.trust, *self.parents.values()))


class Rows:
    """Writes rows in one transaction; checks nothing that a caller could get wrong.

    Args:
        connection: The transaction.
        parts: The store's.
        rooms: Where they lie.
        journal: Where every change is noted.
        now: The transaction's time.
    """

    def __init__(
        self, connection: Connection, parts: Parts, rooms: Rooms, journal: Journal, *, now: float
    ) -> None:
        self._connection = connection
        self._parts = parts
        self._rooms = rooms
        self._journal = journal
        self._now = now

    def put(self, place: Place, new: Sequence[New]) -> list[Stored]:
        """Keep drafts of different keys in one namespace."""
        old = self.at(place, [one.item.key_digest for one in new])
        dead = [row.rid for row in old.values() if self.is_over(row.expires_at)]
        self.remove(place.tenant, dead)
        keys = {key: row for key, row in old.items() if row.rid not in dead}
        made = iter(self._insert(place, [one for one in new if one.item.key_digest not in keys]))
        return [
            next(made) if (row := keys.get(one.item.key_digest)) is None
            else self._replace(place, row, one)
            for one in new
        ]  # fmt: skip

    def at(self, place: Place, keys: Sequence[str]) -> dict[str, Row[Any]]:
        """Return the figures of the records of these keys (digests), by key, the expired too."""
        found = dict[str, Row[Any]]()
        for some in chunks(keys):
            found |= {
                row.key: row
                for row in self._connection.execute(_AT, {"space": place.space, "some": some})
            }
        return found

    def rewrite(
        self, rid: int, item: Checked, trust: Trust, expires_at: float | None, version: int
    ) -> None:
        """Set all that can change of a record but its vector and its links."""
        body = self._parts.bodies.seal(self._rooms.of(rid), rid, "record", item.plain)
        values = {
            "key": item.key_digest, "content": item.content, "body": body,
            "kind": item.draft.kind, "state": item.draft.state, "trust": int(trust),
            "version": version, "updated_at": self._now, "expires_at": expires_at,
        }  # fmt: skip
        self._connection.execute(update(records).where(records.c.rid == rid).values(**values))

    def embed(self, place: Place, rid: int, data: bytes | None) -> None:
        """Set a vector; one that another encoder has made meanwhile is no longer right."""
        for table in (vectors, reembedded):
            self._connection.execute(delete(table).where(table.c.rid == rid))
        if data is not None:
            sealed = self._parts.bodies.seal(place, rid, "vector", data)
            self._connection.execute(insert(vectors).values(rid=rid, data=sealed))

    def remove(self, tenant: str, rids: Iterable[int]) -> int:
        """Delete those of *rids* that are *tenant*'s, with all that refers to them."""
        n_removed = 0
        for some in chunks(sorted(set(rids))):
            mine = select(records.c.rid).join(spaces)
            mine = mine.where(records.c.rid.in_(some), spaces.c.tenant == tenant)
            found = list(self._connection.scalars(mine))
            self._connection.execute(delete(records).where(records.c.rid.in_(found)))
            self._journal.note(tenant, found, gone=True)
            n_removed += len(found)
        return n_removed

    def lower(self, tenant: str, rid: int) -> None:
        """Lower the trust of what was made from *rid* to its own."""
        self._journal.note(tenant, lower(self._connection, [rid]))

    def is_over(self, expires_at: float | None) -> bool:
        """Return whether a record that expires then is gone by now."""
        return expires_at is not None and expires_at <= self._now

    def _insert(self, place: Place, new: Sequence[New]) -> list[Stored]:
        if not new:
            return []
        bodies, rids = self._parts.bodies, next_numbers(self._connection, records.c.rid, len(new))
        rows = [self._row(place, rid, one) for rid, one in zip(rids, new, strict=True)]
        self._connection.execute(_RECORD, rows)
        found = [
            {"rid": rid, "data": bodies.seal(place, rid, "vector", one.vector)}
            for rid, one in zip(rids, new, strict=True)
            if one.vector is not None
        ]
        if found:
            self._connection.execute(_VECTOR, found)
        for rid, one in zip(rids, new, strict=True):
            if one.parents or one.about:
                link(self._connection, rid, one.parents, one.about)
        self._journal.note(place.tenant, rids)
        return [Stored(row["id"], row["version"], "created") for row in rows]

    def _row(self, place: Place, rid: int, one: New) -> dict[str, Any]:
        draft, now = one.item.draft, self._now
        origin = one.origin or Origin(
            id=self._parts.names.new(now), created_at=now, updated_at=now,
            expires_at=self.expiry(draft.ttl_s),
        )  # fmt: skip
        return {
            "rid": rid,
            "id": origin.id,
            "space": place.space,
            "key": one.item.key_digest,
            "content": one.item.content,
            "kind": draft.kind,
            "state": draft.state,
            "trust": int(one.trust),
            "version": origin.version,
            "created_at": origin.created_at,
            "updated_at": origin.updated_at,
            "expires_at": origin.expires_at,
            "body": self._parts.bodies.seal(place, rid, "record", one.item.plain),
        }

    def expiry(self, ttl_s: float | None) -> float | None:
        """Return when what lives *ttl_s* from now on is over."""
        return None if ttl_s is None else self._now + ttl_s

    def _replace(self, place: Place, old: Row[Any], one: New) -> Stored:
        """Put *one* in the place of *old*; the very same content keeps its links and its trust."""
        draft, same = one.item.draft, old.content == one.item.content
        if old.rid in one.parents:
            raise RequestError("a record cannot be its own parent", param="parents")
        if not same:
            unlink(self._connection, old.rid)
        linked = link(self._connection, old.rid, one.parents, one.about)
        trust = one.trust
        if same:
            trust = min(max(draft.trust, Trust(old.trust)), ceiling(self._connection, old.rid))
        stays = same and not linked and trust == old.trust and draft.state == old.state
        if stays and draft.ttl_s is None and old.expires_at is None:
            return Stored(old.id, old.version, "same")
        if not (same and self._has_vector(old.rid)):
            self.embed(place, old.rid, one.vector)
        self.rewrite(old.rid, one.item, trust, self.expiry(draft.ttl_s), old.version + 1)
        if trust < old.trust:
            self.lower(place.tenant, old.rid)
        self._journal.note(place.tenant, [old.rid])
        return Stored(old.id, old.version + 1, "replaced")

    def _has_vector(self, rid: int) -> bool:
        query = select(vectors.c.rid).where(vectors.c.rid == rid)
        return self._connection.scalar(query) is not None
