"""The states of a learning entry, and what somebody may do to one in each of them.

::

    candidate ──admit──> provisional ──helps, or no worse and cheaper──> active ──proves──> proven
                              │                                            │                  │
                              └───────────────── harms, or does nothing ───┴──────────────────┘
                                                         v
                                                      demoted ──30 days or 200 episodes──> retired

    any ──quarantine──> quarantined ──approve──> provisional          any ──erase──> erased
    demoted ──restore──> active (counted afresh)      a shown or demoted one ──revise──> provisional
    provisional, active or demoted ──retire──> retired (room is short: see `surplus`)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from elision.errors import ConflictError
from elision.memory.learning.attribution import Effect


class State(StrEnum):
    """Where an entry stands; only the three middle ones are ever shown."""

    CANDIDATE = "candidate"
    PROVISIONAL = "provisional"
    ACTIVE = "active"
    PROVEN = "proven"
    DEMOTED = "demoted"
    RETIRED = "retired"
    QUARANTINED = "quarantined"
    ERASED = "erased"


class Reason(StrEnum):
    """Why an entry moved by itself."""

    HELPS = "helps"
    CHEAPER = "cheaper"
    PROVEN = "proven"
    HARMS = "harms"
    NEUTRAL = "neutral"
    UNCHANGED = "unchanged"


class Action(StrEnum):
    """What somebody or a gate may do to an entry."""

    ADMIT = "admit"
    DEMOTE = "demote"
    RESTORE = "restore"
    REVISE = "revise"
    RETIRE = "retire"
    QUARANTINE = "quarantine"
    APPROVE = "approve"
    ERASE = "erase"


SHOWN: Final = (State.PROVISIONAL, State.ACTIVE, State.PROVEN)
"""The states in which an entry is drawn for."""

_ACTIONS: Final[dict[Action, tuple[tuple[State, ...], State]]] = {
    Action.ADMIT: ((State.CANDIDATE,), State.PROVISIONAL),
    Action.DEMOTE: (SHOWN, State.DEMOTED),
    Action.RESTORE: ((State.DEMOTED,), State.ACTIVE),
    Action.REVISE: ((*SHOWN, State.DEMOTED), State.PROVISIONAL),
    Action.RETIRE: ((State.PROVISIONAL, State.ACTIVE, State.DEMOTED), State.RETIRED),
    Action.QUARANTINE: (
        tuple(s for s in State if s not in {State.QUARANTINED, State.ERASED}),
        State.QUARANTINED,
    ),
    Action.APPROVE: ((State.QUARANTINED,), State.PROVISIONAL),
    Action.ERASE: (tuple(s for s in State if s is not State.ERASED), State.ERASED),
}
_AFRESH: Final = frozenset({Action.RESTORE, Action.REVISE})


@dataclass(frozen=True, slots=True)
class Transition:
    """One move of one entry.

    Attributes:
        source: The state it leaves.
        target: The state it enters.
        reason: Why.
        effect: The figures behind it, if figures were.
        afresh: Whether its evidence starts again from nothing.
    """

    source: State
    target: State
    reason: Reason | Action
    effect: Effect | None = None
    afresh: bool = False


def act(state: State, action: Action) -> Transition:
    """Return the move that *action* makes from *state*.

    A restored or revised entry is counted afresh: on its old evidence it would be demoted again
    at once. A revised one is provisional (the spec has active): nothing is known of a new text.

    Raises:
        ConflictError: If that state does not allow it.
    """
    sources, target = _ACTIONS[action]
    if state not in sources:
        raise ConflictError(f"an entry that is {state.value} cannot {action.value}")
    return Transition(state, target, action, afresh=action in _AFRESH)


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides who goes first when room is short.

    Attributes:
        entry: The entry's id.
        matched: When it was last eligible, in any clock; for provisional entries.
        worth: Posterior mean of its effect per token of its text; for active and proven ones.
        n: Its episodes.
    """

    entry: str
    matched: float
    worth: float
    n: int


def surplus(state: State, entries: Iterable[Standing], *, room: int) -> tuple[str, ...]:
    """Return the ids of the entries that must go so that *room* remain, first to go first.

    Provisional ones go by how long they were not matched; others by worth, then by how little
    is known of them. The spec has room for 20 provisional and 200 active entries of a scope.
    """

    def place(one: Standing) -> tuple[float, float, str]:
        if state is State.PROVISIONAL:
            return one.matched, 0.0, one.entry
        return one.worth, one.n, one.entry

    ordered = sorted(entries, key=place)
    return tuple(one.entry for one in ordered[: max(0, len(ordered) - room)])
