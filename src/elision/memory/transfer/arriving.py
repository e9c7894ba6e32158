"""A record of a bundle on its way into a store: under which id and key, and what stands there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from sqlalchemy import select

from elision.errors import RequestError
from elision.memory.bodies import dumped
from elision.memory.drafts import Checked, admit, checked, content_digest, key_digest
from elision.memory.erasure.tombstones import buried, key_tombstone
from elision.memory.records import LONGEST_KEY, Draft, Scope, Trust
from elision.memory.rooms import Rooms
from elision.memory.schema import records, spaces
from elision.memory.transfer.report import Fate

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from elision.memory.store import Store
    from elision.memory.transfer.lines import RecordLine

OnConflict: TypeAlias = Literal["skip", "overwrite", "new_ids"]

_ID_DIGITS: Final = "0123456789abcdefghijklmnopqrstuv"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A record as it is to be kept.

    Attributes:
        id: Its id here.
        scope: Where.
        draft: It, without parents.
        line: Where it is read from.
    """

    id: str
    scope: Scope
    draft: Draft
    line: RecordLine


@dataclass(frozen=True, slots=True)
class Standing:
    """What is in an arrival's way; rows of ``records``.

    Attributes:
        arrival: It, with a key of its own if `OnConflict` is ``new_ids`` and its key is taken.
        item: It, checked.
        at_key: The record of its key.
        of_id: The record of its id.
        tenant_of_id: Whose that is.
    """

    arrival: Arrival
    item: Checked
    at_key: Row[Any] | None = field(repr=False)
    of_id: Row[Any] | None = field(repr=False)
    tenant_of_id: str | None

    def is_same(self) -> bool:
        """Return whether the very same record is there."""
        row, line = self.at_key, self.arrival.line
        return row is not None and (
            (row.id, row.content, row.state, row.trust, row.version)
            == (
                self.arrival.id,
                self.item.content,
                line.state,
                self.arrival.draft.trust,
                line.version,
            )
            and (row.created_at, row.updated_at, row.expires_at)
            == (line.created_at, line.updated_at, line.expires_at)
        )


@dataclass(frozen=True, slots=True)
class Terms:
    """How a bundle is taken in.

    Attributes:
        on_conflict: What happens where an id or a key is taken.
        revive: Whether what was erased may come back.
        most_trust: No record is trusted more.
        tenant: Whose the records become; None: whose they were.
        sha256: The bundle's sum, of which new ids are made.
    """

    on_conflict: OnConflict
    revive: bool
    most_trust: Trust
    tenant: str | None
    sha256: str

    def id_of(self, id_: str) -> str:
        """Return the id here; importing the same bundle again comes to the same."""
        if self.on_conflict != "new_ids":
            return id_
        digest = blake2b(f"{self.sha256}:{id_}".encode(), digest_size=16).digest()
        return "i_" + "".join(_ID_DIGITS[byte & 31] for byte in digest)

    def arrival(self, line: RecordLine) -> Arrival:
        """Return *line* as it is to be kept.

        Raises:
            RequestError: If its namespace is none.
        """
        draft = Draft(
            text=line.text,
            value=line.value,
            key=line.key,
            kind=line.kind,
            state=line.state,
            trust=Trust(min(line.trust, self.most_trust)),
            ttl_s=line.ttl_s,
        )
        scope = Scope(self.tenant or line.tenant, line.namespace)
        return Arrival(self.id_of(line.id), scope, draft, line)


def standing_of(store: Store, connection: Connection, terms: Terms, line: RecordLine) -> Standing:
    """Return what is in the way of *line*; what has expired is not.

    Raises:
        RequestError: If it cannot be kept as it is.
    """
    rooms = Rooms(connection, store.bodies, store.keys.vault)
    found = None
    for arrival in _keyed(terms.arrival(line), terms):
        item = checked(arrival.draft, arrival.scope.tenant, store.keys.vault)
        place = rooms.find(arrival.scope)
        at_key = None if place is None else _live(
            store, connection, (records.c.space == place.space) & (records.c.key == item.key_digest)
        )  # fmt: skip
        found = arrival, item, at_key
        if at_key is None or at_key.id == arrival.id:
            break
    assert found is not None, "there is one key at least"
    of_id = _live(store, connection, records.c.id == found[0].id)
    return Standing(*found, of_id, None if of_id is None else str(of_id.tenant))


def fate_of(store: Store, connection: Connection, terms: Terms, one: Standing) -> Fate:
    """Return what becomes of a record, whatever becomes of its parents."""
    line, arrival = one.arrival.line, one.arrival
    if line.expires_at is not None and line.expires_at <= store.clock():
        return Fate.EXPIRED
    if not terms.revive and _is_buried(store, connection, one):
        return Fate.BURIED
    if not _is_admitted(store, arrival):
        return Fate.SCREENED
    if one.tenant_of_id not in (None, arrival.scope.tenant):
        return Fate.FOREIGN
    if one.is_same():
        return Fate.SAME
    if one.at_key is None and one.of_id is None:
        return Fate.CREATED
    return Fate.REPLACED if terms.on_conflict == "overwrite" else Fate.SKIPPED


def space_digest(store: Store, scope: Scope) -> str:
    """Return the keyed digest of a namespace, as in ``spaces.digest``."""
    labels = dumped(list(scope.namespace))
    return store.keys.vault.digest("memory space", scope.tenant, labels)


def _keyed(arrival: Arrival, terms: Terms) -> Iterator[Arrival]:
    """Yield *arrival*, and with ``new_ids`` once more under a key that nobody else has."""
    yield arrival
    if terms.on_conflict == "new_ids":
        suffix = f"~{arrival.id}"
        key = arrival.line.key[: LONGEST_KEY - len(suffix)] + suffix
        yield replace(arrival, draft=replace(arrival.draft, key=key))


def _live(store: Store, connection: Connection, where: Any) -> Row[Any] | None:
    query = select(records, spaces.c.tenant).join(spaces).where(where)
    row = connection.execute(query).one_or_none()
    if row is None or row.expires_at is None or row.expires_at > store.clock():
        return row
    return None


def _is_buried(store: Store, connection: Connection, one: Standing) -> bool:
    """Return whether it was erased here, from whom it comes to or from whom it comes."""
    arrival = one.arrival
    tenants = {arrival.scope.tenant, arrival.line.tenant}
    return any(
        buried(connection, tenant, _tombstones(store, arrival, tenant)) for tenant in tenants
    )


def _tombstones(store: Store, arrival: Arrival, tenant: str) -> list[str]:
    """Return what *tenant*'s erasures leave of its content, its key and the key it had."""
    vault = store.keys.vault
    space = space_digest(store, Scope(tenant, arrival.scope.namespace))
    keys = {arrival.line.key, arrival.draft.key or arrival.line.key}
    return [
        content_digest(arrival.draft, tenant, vault),
        *(key_tombstone(vault, tenant, space, key_digest(key, tenant, vault)) for key in keys),
    ]


def _is_admitted(store: Store, arrival: Arrival) -> bool:
    draft = arrival.draft
    try:
        admit(store.screen, arrival.scope, draft.key or "", draft.text, dict(draft.value))
    except RequestError as exc:
        if exc.code != "screened":
            raise
        return False
    return True
