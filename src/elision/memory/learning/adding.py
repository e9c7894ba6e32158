"""How an entry comes into a playbook: as a new one, as a repetition, or in newer words."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from elision.errors import RequestError
from elision.memory.learning.entries import Entry, EntryDraft, to_record, value_of
from elision.memory.learning.likeness import repeats
from elision.memory.learning.states import Action, State, act
from elision.memory.lineage import link, parents_of, subject_digest
from elision.memory.records import LONGEST_LABEL, Scope, Trust, check_label
from elision.memory.schema import episodes, records, spaces

if TYPE_CHECKING:
    from elision.crypto.vault import Vault
    from elision.memory.index.vectors import Vectors
    from elision.memory.learning.moving import Mover
    from elision.memory.learning.shelf import Shelf
    from elision.memory.writing import Writing

_LIVING: Final = tuple(s for s in State if s not in {State.RETIRED, State.ERASED})
"""States in which an entry is found again by one that repeats it."""
_CODE: Final = re.compile(r"[a-z0-9_.-]{0,32}")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the words of an entry come from. Checked when made.

    Attributes:
        actor: Who wrote them: an id, never words of a task.
        parents: Ids of the records and episodes that they were made from; the entry is erased
            with any of them.
        trust: At most; that of the parents may be less.
        subjects: Ids of the persons that they are about, for erasure.
    """

    actor: str
    parents: tuple[str, ...] = ()
    trust: Trust = Trust.USER
    subjects: frozenset[str] = field(default=frozenset(), repr=False)

    def __post_init__(self) -> None:
        check_label(self.actor, "actor", most=LONGEST_LABEL)


def check_reason(reason: str) -> None:
    """Check why somebody moved an entry: it stands in clear, so it is a code and no words.

    Raises:
        RequestError: If it is none.
    """
    if not _CODE.fullmatch(reason):
        wanted = "at most 32 of a-z, 0-9, '_', '.', '-'"
        raise RequestError(f"a reason must be {wanted}", param="reason")


class Adder:
    """Adds to a playbook within one writing transaction.

    Args:
        writing: That transaction.
        shelf: The entries in it.
        mover: Moves them.
        vault: Makes digests of the persons' ids.
    """

    def __init__(self, writing: Writing, shelf: Shelf, mover: Mover, vault: Vault) -> None:
        self._writing = writing
        self._shelf = shelf
        self._mover = mover
        self._vault = vault

    def add(
        self,
        scope: Scope,
        draft: EntryDraft,
        vector: Vectors | None,
        origin: Provenance,
        *,
        quarantine: str = "",
    ) -> Entry:
        """Keep *draft*, or return the entry that it repeats; see `Playbook.add`."""
        among = (State.QUARANTINED,) if quarantine else _LIVING
        for older in self._shelf.of(scope, among):
            if repeats(draft, vector, older):
                demoted = older.state is State.DEMOTED
                return self.reword(older, draft, vector, origin) if demoted else older
        entry = self._put(scope, draft, vector, origin)
        if not quarantine:
            return entry
        return self._mover.act(entry, Action.QUARANTINE, actor=origin.actor, reason=quarantine)

    def reword(
        self, entry: Entry, draft: EntryDraft, vector: Vectors | None, origin: Provenance
    ) -> Entry:
        """Give *entry* other words, which are counted afresh; see `Playbook.revise`."""
        tenant = entry.scope.tenant
        transition = act(entry.state, Action.REVISE)
        known = parents_of(self._writing.connection, tenant, self._records(tenant, origin.parents))
        about = {subject_digest(one, tenant, self._vault) for one in origin.subjects}
        self._writing.change(
            tenant,
            entry.id,
            text=draft.text,
            value=value_of(draft, entry.version),
            trust=min(entry.trust, origin.trust, *(trust for _, trust in known.values())),
            vector=vector,
        )
        rid = self._writing.rid_of(tenant, entry.id)
        if rid is not None:
            link(self._writing.connection, rid, {parent for parent, _ in known.values()}, about)
        return self._mover.move(self._shelf.one(tenant, entry.id), transition, actor=origin.actor)

    def _put(
        self, scope: Scope, draft: EntryDraft, vector: Vectors | None, origin: Provenance
    ) -> Entry:
        record = to_record(
            draft,
            key=secrets.token_hex(16),
            trust=origin.trust,
            subjects=origin.subjects,
            parents=self._records(scope.tenant, origin.parents),
        )
        stored = self._writing.put(scope, record, vector)
        return self._shelf.one(scope.tenant, stored.id)

    def _records(self, tenant: str, parents: Iterable[str]) -> tuple[str, ...]:
        """Return the ids of records; an episode's, which has hyphens, stands for its record.

        Raises:
            RequestError: If an episode has no record: nothing was kept of it, or it was erased.
        """
        return tuple(self._record(tenant, one) if "-" in one else one for one in parents)

    def _record(self, tenant: str, episode: str) -> str:
        query = select(records.c.id).join(episodes, episodes.c.rid == records.c.rid)
        query = query.join(spaces, spaces.c.id == records.c.space)
        query = query.where(episodes.c.id == episode, spaces.c.tenant == tenant)
        found: str | None = self._writing.connection.scalar(query)
        if found is None:
            raise RequestError(
                "an episode that is a parent is not there; what was made from it may not be kept",
                param="parents",
                code="no_parent",
            )
        return found
