"""Runs walks side by side: what several of them wait for at a time is fetched together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from elision.errors import EngineError
from elision.middleware.engines.branches import Followed, Host, Waiting, fetch

if TYPE_CHECKING:
    from elision.middleware.speculation.base import Draft
    from elision.middleware.speculation.walk import Answers, Walk, Walking

Outcome: TypeAlias = "Walk | Exception"


@dataclass(frozen=True, slots=True)
class Turn:
    """A walk about to be run.

    Attributes:
        sequence: Whose it is.
        draft: What was scored for it.
        walking: The walk.
    """

    sequence: Followed
    draft: Draft
    walking: Walking


def run(turns: Sequence[Turn], home: Host | None) -> list[Outcome]:
    """Run every walk to its end; return what each came to, or what broke it.

    Args:
        turns: The walks, each of another sequence.
        home: What scores the sequences themselves; None where no walk needs other scores.
    """
    outcomes: dict[int, Outcome] = {}
    ready: dict[int, Answers | None] = dict.fromkeys(range(len(turns)))
    while ready:
        asks = {i: ask for i, answers in ready.items() if (ask := _go(turns, i, answers, outcomes))}
        if asks:
            _fetch(list(asks.values()), home)
        ready = {i: ask.answers for i, ask in asks.items() if ask.failure is None}
        for i, ask in asks.items():
            if ask.failure is not None:
                turns[i].walking.close()
                outcomes[i] = ask.failure
    return [outcomes[i] for i in range(len(turns))]


def _go(
    turns: Sequence[Turn], i: int, answers: Answers | None, outcomes: dict[int, Outcome]
) -> Waiting | None:
    """Let walk *i* go on; return what it waits for, or enter what it came to."""
    turn = turns[i]
    try:
        # A generator that has just been made takes None alone, which the type does not say.
        need = turn.walking.send(answers) if answers is not None else next(turn.walking)
    except StopIteration as end:
        outcomes[i] = end.value
    except Exception as exc:  # a recipe that breaks ends its request alone
        outcomes[i] = exc
    else:
        return Waiting(turn.sequence, turn.draft, need)
    return None


def _fetch(asks: list[Waiting], home: Host | None) -> None:
    if home is None:
        for ask in asks:
            ask.failure = EngineError("a recipe needs a branch where none can be run")
    else:
        fetch(asks, home)
