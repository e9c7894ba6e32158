"""One write to a store: every row of it, and the journal by which indexes follow, or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select, update

from elision.errors import ConfigError, ConflictError, NotFoundError, RequestError
from elision.memory.drafts import Checked, admit, check_ttl, checked, content_digest, key_digest
from elision.memory.identity import encoder_of
from elision.memory.journal import Journal
from elision.memory.lineage import ceiling, parents_of, subject_digest
from elision.memory.naming import ID
from elision.memory.reading import Standing, standing
from elision.memory.records import Draft, Record, Scope, Stored, Trust
from elision.memory.rooms import Rooms
from elision.memory.rows import New, Origin, Parts, Rows
from elision.memory.schema import records, spaces

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from elision.memory.index.vectors import Vectors


class Keep(Enum):
    """Stands where None means something else than to keep what is there."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP


class Writing:
    """A transaction of the only writer; lives until it is committed.

    Whatever is wrong with a call is told before anything of it is written, so a caller may go on
    after a `RequestError`, `ConflictError` or `NotFoundError`.

    Attributes:
        connection: The transaction.
        now: Its time in seconds since 1970.
        rooms: The namespaces' rows.
        journal: What indexes must follow.
    """

    def __init__(self, connection: Connection, parts: Parts, *, now: float) -> None:
        self.connection = connection
        self.now = now
        self.journal = Journal()
        self.rooms = Rooms(connection, parts.bodies, parts.vault)
        self._parts = parts
        self._encoder_seen = False
        self._rows = Rows(connection, parts, self.rooms, self.journal, now=now)

    def put(
        self,
        scope: Scope,
        draft: Draft,
        vector: Vectors | None,
        *,
        origin: Origin | None = None,
    ) -> Stored:
        """Keep *draft*; see `Store.put`.

        Args:
            scope: Where.
            draft: What.
            vector: Its text's, shape ``(D,)``, from `Store.encoded`; None: found by key only.
            origin: Where it was kept elsewhere before. It is refused if its id or key is taken.
        """
        origins = None if origin is None else (origin,)
        [stored] = self.put_many(scope, (draft,), (vector,), origins=origins)
        return stored

    def put_many(
        self,
        scope: Scope,
        drafts: Sequence[Draft],
        rows: Sequence[Vectors | None],
        *,
        origins: Sequence[Origin] | None = None,
    ) -> tuple[Stored, ...]:
        """Keep *drafts* in their order, a later one of the same key after an earlier one."""
        new = self._checked(scope, drafts, rows, origins or (None,) * len(drafts))
        if any(one.vector is not None for one in new):
            self._check_encoder()
        place = self.rooms.enter(scope)
        stored: dict[int, Stored] = {}
        for run in _runs(new):
            done = self._rows.put(place, [new[index] for index in run])
            stored |= zip(run, done, strict=True)
        return tuple(stored[index] for index in range(len(new)))

    def change(
        self,
        tenant: str,
        id_: str,
        *,
        version: int | None = None,
        text: str | None = None,
        value: Mapping[str, Any] | None = None,
        state: str | None = None,
        trust: Trust | None = None,
        ttl_s: float | Keep | None = KEEP,
        vector: Vectors | None = None,
    ) -> Record:
        """Change what is given of a record and return it; see `Store.change`.

        Args:
            tenant: Whose.
            id_: Which.
            version: The version that must stand there; None: any.
            text: The new text; its *vector* must come with it.
            value: The new value.
            state: The new state.
            trust: The new trust; no more than its parents' comes of it.
            ttl_s: Seconds until it expires, from now on; None: never.
            vector: Of the new text.
        """
        now = self._standing(tenant, id_, version)
        old, kept = now.record, ttl_s is KEEP
        draft = Draft(
            text=old.text if text is None else text,
            value=old.value if value is None else value,
            key=old.key,
            kind=old.kind,
            state=old.state if state is None else state,
            trust=min(old.trust if trust is None else trust, ceiling(self.connection, now.rid)),
            ttl_s=now.ttl_s if ttl_s is KEEP else ttl_s,
        )
        item, place = self._renamed(now.rid, draft, old), self.rooms.of(now.rid)
        if text is not None:
            self._check_encoder()
            self._rows.embed(place, now.rid, _bytes(vector))
        expires_at = old.expires_at if kept else self._rows.expiry(draft.ttl_s)
        self._rows.rewrite(now.rid, item, draft.trust, expires_at, old.version + 1)
        if draft.trust < old.trust:
            self._rows.lower(tenant, now.rid)
        self.journal.note(tenant, [now.rid])
        return self._standing(tenant, id_, None).record

    def touch(self, scope: Scope, keys: Iterable[str], ttl_s: float | None) -> int:
        """Let records live longer; neither version nor time of change moves. See `Store.touch`."""
        check_ttl(ttl_s)
        place = self.rooms.find(scope)
        if place is None:
            return 0
        names = {key_digest(key, scope.tenant, self._parts.vault) for key in keys}
        rows = self._rows.at(place, sorted(names)).values()
        mortal = [row for row in rows if row.expires_at is not None]
        living = [row for row in mortal if not self._rows.is_over(row.expires_at)]
        for row in living:
            given = self._standing(scope.tenant, row.id, None).ttl_s if ttl_s is None else ttl_s
            change = update(records).where(records.c.rid == row.rid)
            later = row.expires_at if given is None else self.now + given
            self.connection.execute(change.values(expires_at=later))
        self.journal.note(scope.tenant, [row.rid for row in living])
        return len(living)

    def expire(self, moment: float) -> int:
        """Delete what has expired by *moment*, of all tenants, and return how much that was."""
        query = select(spaces.c.tenant, records.c.rid).join(records)
        over = self.connection.execute(query.where(records.c.expires_at <= moment)).all()
        return sum(
            self.remove(tenant, [rid for whose, rid in over if whose == tenant])
            for tenant in sorted({tenant for tenant, _ in over})
        )

    def remove(self, tenant: str, rids: Iterable[int]) -> int:
        """Delete those of *rids* that are *tenant*'s, with all that refers to them.

        Return how many there were. What was made from them stays: that is the business of erasing.
        """
        return self._rows.remove(tenant, rids)

    def rid_of(self, tenant: str, id_: str) -> int | None:
        """Return a record's number, expired or not; None if *tenant* has none of that id."""
        query = select(records.c.rid).join(spaces)
        query = query.where(records.c.id == id_, spaces.c.tenant == tenant)
        found: int | None = self.connection.scalar(query)
        return found

    def finish(self) -> None:
        """Write what is written last; `Store.writing` calls it."""
        self.journal.write(self.connection)

    # --- before anything is written --------------------------------------------------------------

    def _checked(
        self,
        scope: Scope,
        drafts: Sequence[Draft],
        rows: Sequence[Vectors | None],
        origins: Sequence[Origin | None],
    ) -> list[New]:
        parts, tenant = self._parts, scope.tenant
        named = {parent for draft in drafts for parent in draft.parents}
        known = parents_of(self.connection, tenant, named) if named else {}
        new = []
        for draft, row, origin in zip(drafts, rows, origins, strict=True):
            item = checked(draft, tenant, parts.vault)
            admit(parts.screen, scope, item.key, draft.text, dict(draft.value))
            about = {subject_digest(one, tenant, parts.vault) for one in draft.subjects}
            parents = dict(known[parent] for parent in draft.parents)
            new.append(New(item, _bytes(row), parents, frozenset(about), origin))
        if any(origins):
            self._check_free(scope, new)
        return new

    def _check_encoder(self) -> None:
        """Refuse vectors of an encoder whose place another has taken since the store was opened."""
        if self._parts.identity and not self._encoder_seen:
            known = encoder_of(self.connection)
            if known is not None and known != self._parts.identity:
                raise ConfigError(
                    f"the memory is encoded by {known!r} now, not {self._parts.identity!r}; open "
                    "it anew with that encoder"
                )
            self._encoder_seen = True

    def _check_free(self, scope: Scope, new: Sequence[New]) -> None:
        for one in new:
            if one.origin is None:
                continue
            if not ID.fullmatch(one.origin.id):
                raise RequestError("an id is 1 to 24 of a-z, 0-9, '_'", param="id")
            query = select(records.c.rid).where(records.c.id == one.origin.id)
            place = self.rooms.find(scope)
            taken = place is not None and self._rows.at(place, [one.item.key_digest])
            if taken or self.connection.scalar(query) is not None:
                raise ConflictError("a record of that id or key is there", code="record_exists")

    def _standing(self, tenant: str, id_: str, version: int | None) -> Standing:
        found = standing(self.connection, tenant, id_, self._parts.bodies)
        if found is None or self._rows.is_over(found.record.expires_at):
            raise NotFoundError("this tenant has no record of that id", code="record_not_found")
        if version is not None and version != found.record.version:
            raise ConflictError(
                f"the record stands at version {found.record.version}, not {version}; "
                "read it again",
                code="version_conflict",
            )
        return found

    def _renamed(self, rid: int, draft: Draft, old: Record) -> Checked:
        """Check a change; a record that is named by its content goes by the new one.

        Words that stay are not screened again: what is forbidden by now must still be movable.
        """
        parts, tenant = self._parts, old.scope.tenant
        if old.key == content_digest(old, tenant, parts.vault):
            draft = replace(draft, key=None)
        item = checked(draft, tenant, parts.vault)
        if item.key != old.key or (draft.text, draft.value) != (old.text, old.value):
            admit(parts.screen, old.scope, item.key, draft.text, dict(draft.value))
        if item.key != old.key and self._rows.at(self.rooms.of(rid), [item.key_digest]):
            raise ConflictError("the very same content is there", code="record_exists")
        return item


def _bytes(row: Vectors | None) -> bytes | None:
    from elision.memory.index.vectors import to_bytes

    return None if row is None else to_bytes(row)


def _runs(new: Iterable[New]) -> list[list[int]]:
    """Split drafts, by their places, into runs without a key twice; those of one key in order."""
    runs: list[list[int]] = []
    seen: dict[str, int] = {}
    for index, one in enumerate(new):
        turn = seen[one.item.key_digest] = seen.get(one.item.key_digest, -1) + 1
        if turn == len(runs):
            runs.append([])
        runs[turn].append(index)
    return runs
