"""The playbook: what agents learned, where each entry of it stands, and which apply to a task."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from elision.errors import ConflictError
from elision.memory.learning.adding import Adder, Provenance, check_reason
from elision.memory.learning.attribution import Effect, summarise
from elision.memory.learning.cues import read
from elision.memory.learning.exposures import Tally, tallies
from elision.memory.learning.lifecycle import Policy, rest
from elision.memory.learning.moving import ITSELF, Move, Mover, read_moves
from elision.memory.learning.packing import value
from elision.memory.learning.shelf import Shelf
from elision.memory.learning.states import SHOWN, Action, State
from elision.memory.records import LONGEST_LABEL, Scope, Trust, check_label
from elision.memory.schema import episodes, records

if TYPE_CHECKING:
    from elision.memory.index.vectors import Vectors
    from elision.memory.learning.entries import Audience, Entry, EntryDraft
    from elision.memory.learning.evidence import Evidence
    from elision.memory.learning.predicates import Facts
    from elision.memory.store import Store
    from elision.memory.writing import Writing

FLOOR: Final[Mapping[str, Trust]] = {
    "student": Trust.TOOL,
    "teacher": Trust.USER,
    "judge": Trust.USER,
}
"""The least trust of what each audience is shown (atlas_memory.md 2.9)."""
_DAY_S: Final = 86_400.0


class Playbook:
    """Learning entries in a store; thread-safe, and safe among processes.

    Every change is one transaction of the only writer, and is decided on what stands in it.

    Attributes:
        policy: The thresholds of the lifecycle.
    """

    def __init__(self, store: Store, *, policy: Policy | None = None) -> None:
        self._store = store
        self.policy = policy or Policy()

    # --- what somebody does ----------------------------------------------------------------------

    def add(
        self,
        scope: Scope,
        draft: EntryDraft,
        *,
        actor: str,
        parents: Sequence[str] = (),
        trust: Trust = Trust.USER,
        subjects: Iterable[str] = (),
        quarantine: str = "",
    ) -> Entry:
        """Keep *draft* as a candidate.

        One that repeats an entry of the scope is not kept twice. The older one stays as it is, for
        its words are what the evidence measured; only a demoted one takes the newer words and is
        tried anew. One under quarantine stays there, however often it comes again.

        Args:
            scope: Where, exactly.
            draft: What.
            actor: Who wrote it: an id, never words of a task.
            parents: Ids of the records and episodes that it was made from.
            trust: At most; that of the parents may be less.
            subjects: Ids of the persons that it is about, for erasure.
            quarantine: Why it may not be shown before somebody approves it, as a code; ``""``: it
                may be admitted.

        Returns:
            The entry, or the older one that it repeats.

        Raises:
            RequestError: If it may not be remembered (``code="screened"``), or something that it
                was made from is gone (``code="no_parent"``).
        """
        check_reason(quarantine)
        origin = Provenance(actor, tuple(parents), trust, frozenset(subjects))
        vector = self._encoded(scope.tenant, draft)
        with self._moving() as (writing, shelf, mover):
            adder = Adder(writing, shelf, mover, self._store.keys.vault)
            return adder.add(scope, draft, vector, origin, quarantine=quarantine)

    def revise(
        self,
        tenant: str,
        id_: str,
        draft: EntryDraft,
        *,
        actor: str,
        parents: Sequence[str] = (),
        trust: Trust = Trust.USER,
        subjects: Iterable[str] = (),
    ) -> Entry:
        """Give an entry that is shown or demoted other words: a new version, provisional again.

        What it was made from before stays among its parents, and its trust never rises.

        Raises:
            ConflictError: If its state does not allow it.
            NotFoundError: If *tenant* has no such entry.
            RequestError: As `add`.
        """
        origin = Provenance(actor, tuple(parents), trust, frozenset(subjects))
        vector = self._encoded(tenant, draft)
        with self._moving() as (writing, shelf, mover):
            adder = Adder(writing, shelf, mover, self._store.keys.vault)
            return adder.reword(shelf.one(tenant, id_), draft, vector, origin)

    def act(self, tenant: str, id_: str, action: Action, *, actor: str, reason: str = "") -> Entry:
        """Do *action* to an entry; where room is short, others retire.

        Args:
            tenant: Whose.
            id_: Which.
            action: What. Erasing is not for the playbook: `Eraser` does it, with a receipt.
            actor: Who asks for it.
            reason: Why, as a code; ``""``: the action's name.

        Raises:
            ConflictError: If the entry's state does not allow it.
            NotFoundError: If *tenant* has no such entry.
        """
        check_reason(reason)
        check_label(actor, "actor", most=LONGEST_LABEL)
        if action is Action.ERASE:
            raise ConflictError("an entry is erased by the eraser, which gives a receipt")
        with self._moving() as (_, shelf, mover):
            return mover.act(shelf.one(tenant, id_), action, actor=actor, reason=reason)

    def admit(self, tenant: str, id_: str, *, actor: str) -> Entry:
        """Let a candidate be tried; see `act`."""
        return self.act(tenant, id_, Action.ADMIT, actor=actor)

    def rest(self, scope: Scope) -> tuple[Entry, ...]:
        """Retire the demoted entries to which nothing happened for long enough; return them."""
        with self._moving() as (writing, shelf, mover):
            retired = []
            for entry in shelf.of(scope, (State.DEMOTED,)):
                days = (writing.now - entry.updated_at) / _DAY_S
                n_since = _episodes_since(writing, entry)
                move = rest(entry.state, days=days, episodes=n_since, policy=self.policy)
                if move is not None:
                    retired.append(mover.move(entry, move, actor=ITSELF))
            return tuple(retired)

    def learn(self, writing: Writing, tenant: str, versions: Mapping[str, int]) -> None:
        """Let evidence that changed in *writing* move its entries; see `Mover.learn`."""
        shelf = Shelf(writing.connection, self._store)
        Mover(writing, shelf, self.policy).learn(tenant, versions)

    # --- what is asked of it ---------------------------------------------------------------------

    def get(self, tenant: str, id_: str) -> Entry:
        """Return an entry in whatever state.

        Raises:
            NotFoundError: If *tenant* has no such entry.
        """
        with self._reading() as shelf:
            return shelf.one(tenant, id_)

    def entries(
        self,
        scope: Scope,
        *,
        states: Collection[State] = SHOWN,
        audience: Audience | None = None,
    ) -> tuple[Entry, ...]:
        """Return the entries of exactly *scope* in *states*, oldest first."""
        with self._reading() as shelf:
            found = shelf.of(scope, states)
        return tuple(entry for entry in found if audience in (None, entry.audience))

    def eligible(
        self,
        scope: Scope,
        task_text: str,
        facts: Facts,
        *,
        audience: Audience = "student",
        least_trust: Trust | None = None,
        vector: Vectors | None = None,
    ) -> tuple[Entry, ...]:
        """Return the entries whose cue fires on a task, oldest first.

        Args:
            scope: Where, exactly.
            task_text: Task, step and observations; never a prompt, never an earlier block.
            facts: What triage found.
            audience: Who is to see them.
            least_trust: The floor; None: `FLOOR` of the audience.
            vector: Of the task, length 1; None: encoded if a cue needs it.
        """
        floor = FLOOR[audience] if least_trust is None else least_trust
        shown = self.entries(scope, audience=audience)
        trusted = [entry for entry in shown if entry.scope == scope and entry.trust >= floor]
        if vector is None and any(entry.cue.type == "semantic" for entry in trusted):
            rows = self._store.encoded(scope.tenant, [task_text])
            vector = None if rows is None else rows[0]
        reading = read(task_text)
        return tuple(
            entry
            for entry in trusted
            if entry.cue.matches(reading, facts, _similarity(vector, entry.vector))
        )

    def values(self, entries: Iterable[Entry]) -> dict[str, float]:
        """Return what showing each of *entries* is worth, by id; see `packing.value`."""
        return {id_: _value(tally) for id_, tally in self.tallies(entries).items()}

    def tallies(self, entries: Iterable[Entry]) -> dict[str, Tally]:
        """Return what is known of each of *entries* in its version, by id."""
        with self._store.reading() as connection:
            return tallies(connection, {entry.id: entry.version for entry in entries})

    def evidence(self, tenant: str, id_: str) -> Evidence:
        """Return what the episodes said about an entry's version.

        Raises:
            NotFoundError: If *tenant* has no such entry.
        """
        return self.tallies([self.get(tenant, id_)])[id_].evidence

    def effect(self, tenant: str, id_: str) -> Effect | None:
        """Return what an entry is worth, or None while an arm is empty.

        Raises:
            NotFoundError: If *tenant* has no such entry.
        """
        return summarise(self.evidence(tenant, id_))

    def moves(self, tenant: str, id_: str) -> tuple[Move, ...]:
        """Return the moves of an entry, oldest first.

        Raises:
            NotFoundError: If *tenant* has no such entry.
        """
        with self._store.reading() as connection:
            return read_moves(connection, Shelf(connection, self._store).one(tenant, id_))

    def secret(self, tenant: str) -> bytes:
        """Return what signs the blocks shown to *tenant*; the same as long as the store's key."""
        return bytes.fromhex(self._store.keys.vault.digest("advice block", tenant, b""))

    # --- transactions ----------------------------------------------------------------------------

    @contextmanager
    def _moving(self) -> Iterator[tuple[Writing, Shelf, Mover]]:
        with self._store.writing() as writing:
            shelf = Shelf(writing.connection, self._store)
            yield writing, shelf, Mover(writing, shelf, self.policy)

    @contextmanager
    def _reading(self) -> Iterator[Shelf]:
        with self._store.reading() as connection:
            yield Shelf(connection, self._store)

    def _encoded(self, tenant: str, draft: EntryDraft) -> Vectors | None:
        rows = self._store.encoded(tenant, [draft.text])
        return None if rows is None else rows[0]


def _similarity(task: Vectors | None, entry: Vectors | None) -> float | None:
    return None if task is None or entry is None else float(task @ entry)


def _value(tally: Tally) -> float:
    effect = summarise(tally.evidence)
    return value(
        n_adopted=tally.adopted,
        n_adopted_ok=tally.adopted_ok,
        post_mean=None if effect is None else effect.belief.mean,
        n_applied=tally.n_applied,
        n_withheld=tally.n_withheld,
    )


def _episodes_since(writing: Writing, entry: Entry) -> int:
    space = select(records.c.space).where(records.c.id == entry.id).scalar_subquery()
    query = select(func.count()).select_from(episodes)
    query = query.where(episodes.c.space == space, episodes.c.started_at > entry.updated_at)
    return writing.connection.scalar(query) or 0
