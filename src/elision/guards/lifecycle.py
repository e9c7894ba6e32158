"""The life of a target: its states, what may be done in each, and what the clock does by itself.

::

    draft ── preview ─▶ previewed ── submit ─▶ pending_approval ── approve ─▶ scheduled ─▶ active
                                                                                          │  ▲
    active | suspended ── clock ─▶ expired ──┐                             suspend│  │resume
    any before that ── revoke ─▶ revoked ────┴─ purge ─▶ purged                   ▼  │
                                                                                suspended

Where nobody has to approve, `submit` goes where `approve` goes. A target whose ``effective_at``
lies ahead is scheduled instead of active, and the clock starts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from elision.errors import ConflictError
from elision.guards.targets import State

Operation: TypeAlias = Literal[
    "preview", "submit", "approve", "activate", "suspend", "resume", "extend", "revoke", "purge",
    "start", "expire",
]  # fmt: skip
"""What can be done to a target; only the clock does `start` and `expire`."""

CLOCK = "clock"
"""The actor of `start` and `expire`."""

_UNFINISHED: tuple[State, ...] = (
    "draft", "previewed", "pending_approval", "scheduled", "active", "suspended",
)  # fmt: skip

_ROWS: dict[Operation, dict[State, State]] = {
    "preview": {"draft": "previewed", "previewed": "previewed"},
    "submit": {"draft": "pending_approval", "previewed": "pending_approval"},
    "approve": {"pending_approval": "active"},
    "activate": {"draft": "active", "previewed": "active", "scheduled": "active"},
    "suspend": {"active": "suspended"},
    "resume": {"suspended": "active"},
    "extend": {state: state for state in _UNFINISHED},
    "revoke": dict.fromkeys((*_UNFINISHED, "revoked"), "revoked"),
    "purge": dict.fromkeys(("expired", "revoked", "purged"), "purged"),
    "start": {"scheduled": "active"},
    "expire": {"active": "expired", "suspended": "expired"},
}

TABLE: Mapping[tuple[State, Operation], State] = MappingProxyType(
    {(state, operation): then for operation, row in _ROWS.items() for state, then in row.items()}
)
"""Every legal pair and the state that it leads to; a pair that is missing is a conflict.

Where it says ``active``, a target whose ``effective_at`` lies ahead becomes ``scheduled``, unless
the operation is `activate`.
"""


def after(state: State, operation: Operation) -> State:
    """Return the state that *operation* leads to from *state*.

    Raises:
        ConflictError: If it is not possible in this state.
    """
    then = TABLE.get((state, operation))
    if then is None:
        raise ConflictError(
            f"a target in state {state!r} has no operation {operation!r}; "
            f"possible now: {', '.join(possible(state)) or 'nothing'}"
        )
    return then


def possible(state: State) -> tuple[Operation, ...]:
    """Return what a person may do to a target in *state*, in the order of `Operation`."""
    everything: tuple[Operation, ...] = get_args(Operation)
    return tuple(o for o in everything if (state, o) in TABLE and o not in ("start", "expire"))


def changes_nothing(state: State, operation: Operation) -> bool:
    """Return whether *operation* is already done: revoking the revoked, purging the purged."""
    return operation in ("revoke", "purge") and TABLE.get((state, operation)) == state


def in_force(effective_at: float | None, now: float) -> State:
    """Return the state of a target that nothing but its time holds back."""
    return "scheduled" if effective_at is not None and effective_at > now else "active"


def due_at(state: State, *, effective_at: float | None, expires_at: float | None) -> float | None:
    """Return when the clock next changes such a target, in seconds since 1970; None: never."""
    if state == "scheduled":
        return effective_at
    return expires_at if state in ("active", "suspended") else None


def overdue(
    state: State, *, effective_at: float | None, expires_at: float | None, now: float
) -> Iterator[tuple[Operation, State]]:
    """Yield, in order, what the clock has to do to such a target by *now*, and where it leads."""
    if state == "scheduled" and (effective_at or 0) <= now:
        yield "start", (state := after(state, "start"))
    if state in ("active", "suspended") and expires_at is not None and expires_at <= now:
        yield "expire", after(state, "expire")
