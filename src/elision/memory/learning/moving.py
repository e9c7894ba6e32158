"""Moves of entries between states: asked for by somebody, by evidence, or because room is short."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import Connection, insert, select

from elision.errors import RequestError
from elision.memory.learning.attribution import Effect, summarise
from elision.memory.learning.entries import Entry, value_of
from elision.memory.learning.exposures import Tally, last_met, tallies
from elision.memory.learning.lifecycle import Policy, step
from elision.memory.learning.states import Action, Standing, State, Transition, act, surplus
from elision.memory.schema import moves, records

if TYPE_CHECKING:
    from elision.memory.learning.shelf import Shelf
    from elision.memory.writing import Writing

ROOM: Final[Mapping[State, int]] = {State.PROVISIONAL: 20, State.ACTIVE: 200}
"""Entries of a scope in these states (atlas_memory.md 2.7); proven ones take of the active's."""
ITSELF: Final = "lifecycle"
"""Who acted where nobody did."""
NO_ROOM: Final = "no_room"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One move that an entry made.

    Attributes:
        at: Seconds since 1970.
        source: The state it left.
        target: The state it entered.
        reason: A code.
        actor: Who asked for it; `ITSELF`: nobody.
        figures: What it rests on, where evidence asked for it; see `figures_of`.
    """

    at: float
    source: State
    target: State
    reason: str
    actor: str
    figures: Mapping[str, float | None]


def figures_of(effect: Effect | None) -> dict[str, float | None]:
    """Return what a decision rests on, as numbers: contrasts, their 90 % interval, beliefs."""
    if effect is None:
        return {}
    low, high = effect.reward.interval
    return {
        "n_least": effect.n_least,
        "delta": effect.reward.delta,
        "low": low,
        "high": high,
        "mean": effect.belief.mean,
        "p_up": effect.belief.p_up,
        "p_down": effect.belief.p_down,
        "z": effect.score.z,
        "tokens": None if effect.tokens is None else effect.tokens.delta,
        "cost": None if effect.cost is None else effect.cost.delta,
    }


def read_moves(connection: Connection, entry: Entry) -> tuple[Move, ...]:
    """Return the moves of an entry, oldest first."""
    query = select(moves).join(records, records.c.rid == moves.c.rid)
    query = query.where(records.c.id == entry.id).order_by(moves.c.id)
    return tuple(
        Move(
            at=row.at,
            source=State(row.source),
            target=State(row.target),
            reason=row.reason,
            actor=row.actor,
            figures=orjson.loads(row.figures),
        )
        for row in connection.execute(query)
    )


class Mover:
    """Moves entries within one writing transaction.

    Args:
        writing: That transaction.
        shelf: The entries in it.
        policy: The thresholds.
    """

    def __init__(self, writing: Writing, shelf: Shelf, policy: Policy) -> None:
        self._writing = writing
        self._shelf = shelf
        self._policy = policy

    def act(self, entry: Entry, action: Action, *, actor: str, reason: str = "") -> Entry:
        """Do *action* to *entry*; what then has no room retires.

        Raises:
            ConflictError: If its state does not allow it.
        """
        return self.move(entry, act(entry.state, action), actor=actor, reason=reason)

    def learn(self, tenant: str, versions: Mapping[str, int]) -> None:
        """Let evidence move entries, as far as it carries them.

        Args:
            tenant: Whose.
            versions: By id, those whose evidence changed; one with newer words stays.
        """
        standing = [e for e in self._shelf.find(tenant, versions) if e.version == versions[e.id]]
        known = tallies(self._writing.connection, {entry.id: entry.version for entry in standing})
        for entry in standing:
            self._follow(entry, known[entry.id])

    def _follow(self, entry: Entry, tally: Tally) -> None:
        # One that is promoted may be proven at once; no evidence leads in a circle.
        while transition := step(entry.state, tally.evidence, policy=self._policy):
            try:
                entry = self.move(entry, transition, actor=ITSELF)
            except RequestError as exc:
                # Forbidden since it was written: it is not shown, and erasing is not our business.
                if exc.code != "screened":
                    raise
                return

    def move(self, entry: Entry, transition: Transition, *, actor: str, reason: str = "") -> Entry:
        """Make one move and write it down; return the entry as it then stands."""
        value = value_of(entry, entry.version + 1) if transition.afresh else None
        tenant, target = entry.scope.tenant, transition.target.value
        self._writing.change(tenant, entry.id, state=target, value=value)
        self._note(entry, transition, actor, reason or transition.reason.value)
        if transition.target in ROOM:
            self._make_room(entry, transition.target)
        return self._shelf.one(tenant, entry.id)

    def _note(self, entry: Entry, transition: Transition, actor: str, reason: str) -> None:
        row: dict[str, Any] = {
            "rid": self._writing.rid_of(entry.scope.tenant, entry.id),
            "at": self._writing.now,
            "source": transition.source.value,
            "target": transition.target.value,
            "reason": reason,
            "actor": actor,
            "figures": orjson.dumps(figures_of(transition.effect)).decode(),
        }
        self._writing.connection.execute(insert(moves), row)

    def _make_room(self, newest: Entry, state: State) -> None:
        entries = {entry.id: entry for entry in self._shelf.of(newest.scope, (state,))}
        room = ROOM[state]
        if state is State.ACTIVE:
            room = max(1, room - len(self._shelf.of(newest.scope, (State.PROVEN,))))
        if len(entries) <= room:
            return
        standings = self.standings(entries.values())
        for id_ in surplus(state, standings, room=room):
            self.move(entries[id_], act(state, Action.RETIRE), actor=ITSELF, reason=NO_ROOM)

    def standings(self, entries: Iterable[Entry]) -> tuple[Standing, ...]:
        """Return who goes first when room is short; see `surplus`.

        Worth is per character of the line: a store knows no tokenizer.
        """
        by_id = {entry.id: entry for entry in entries}
        connection = self._writing.connection
        known = tallies(connection, {entry.id: entry.version for entry in by_id.values()})
        met = last_met(connection, by_id)
        return tuple(
            Standing(
                entry=id_,
                matched=max(met.get(id_, 0.0), entry.updated_at),
                worth=_mean(known[id_]) / len(entry.line),
                n=known[id_].n_applied + known[id_].n_withheld,
            )
            for id_, entry in by_id.items()
        )


def _mean(tally: Tally) -> float:
    effect = summarise(tally.evidence)
    return 0.0 if effect is None else effect.belief.mean
