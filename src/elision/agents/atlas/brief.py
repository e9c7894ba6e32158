"""What passes between the roles: the brief that one is given, and the attempt it comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from elision.agents.atlas.lanes import Lane
from elision.agents.atlas.ledger import Allowance, Spent
from elision.agents.atlas.tools import Action


def _unheard(row: Spent) -> None:
    """Take a row where nobody keeps an account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """What a role is told beside the task.

    Attributes:
        lane: How closely it is supervised.
        advice: The block of entries from past runs, rendered; empty: the prompt is as without
            memory, to the byte.
        guidance: What the teacher said of earlier attempts, oldest first.
        plan: Steps to follow; None where there is no plan.
        n: Which attempt this is, from 1.
        step: Of a plan that is done step by step: the step that this attempt is for.
        done: What the steps before it came to, by their description.
        allowance: What may still be spent; to be asked before each call.
        spend: To be told of each call as it is made, so that a turn that is cut short is paid for
            too. A row told here and brought again at the turn's end counts once.
    """

    lane: Lane = Lane.AUTO
    advice: str = field(default="", repr=False)
    guidance: tuple[str, ...] = field(default=(), repr=False)
    plan: tuple[str, ...] | None = field(default=None, repr=False)
    n: int = 1
    step: str | None = field(default=None, repr=False)
    done: Mapping[str, str] = field(default_factory=dict, repr=False)
    allowance: Allowance = field(default_factory=Allowance, repr=False)
    spend: Callable[[Spent], None] = field(default=_unheard, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a student came to.

    Attributes:
        output: Its answer; empty where it has none.
        actions: What it did, in order.
        spent: What that cost.
    """

    output: str = field(repr=False)
    actions: tuple[Action, ...] = field(default=(), repr=False)
    spent: tuple[Spent, ...] = ()
