"""What the agent is asked to do, and what can be told of it without a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Final, TypeAlias

from elision.errors import RequestError
from elision.memory.records import Trust

Value: TypeAlias = str | float | bool
Facts: TypeAlias = Mapping[str, Value]

LONGEST_TASK: Final = 200_000
"""Characters of a task's text."""


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to do.

    Attributes:
        text: What is asked, in the asker's words; cues are matched on it.
        tags: What kind of task it is; for cues a tag is a fact that is True.
        facts: What is known of it; ``risk`` of ``high`` or ``critical`` forbids exploring.
        subjects: Ids of the persons it is about, for erasure.
        id: The caller's name for it; never stored.
        max_tokens: Most tokens for the whole episode, over all roles; None takes the config's.
        max_cost: Most cost likewise, in the currency of the prices.
        deadline_s: Seconds after which no further call is begun.
        trust: Of whoever asks; what is learned from the task is trusted no further.
        truth: The right answer, if it is known: for judges and for gates that keep it from being
            learned by heart; neither student nor teacher nor distiller is told.

    Raises:
        RequestError: If the text is empty or longer than `LONGEST_TASK`, or a limit is negative
            or not finite.
    """

    text: str = field(repr=False)
    tags: frozenset[str] = field(default=frozenset(), repr=False)
    facts: Facts = field(default_factory=dict, repr=False)
    subjects: frozenset[str] = field(default=frozenset(), repr=False)
    id: str | None = field(default=None, repr=False)
    max_tokens: int | None = None
    max_cost: float | None = None
    deadline_s: float | None = None
    trust: Trust = Trust.USER
    truth: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.text.strip() or len(self.text) > LONGEST_TASK:
            raise RequestError(
                f"a task has 1 to {LONGEST_TASK} characters, not only white space", param="task"
            )
        for name in ("max_tokens", "max_cost", "deadline_s"):
            limit = getattr(self, name)
            if limit is not None and not (isfinite(limit) and limit >= 0):
                raise RequestError(f"{name} is {limit}, not a finite number from 0 on", param=name)


Triage: TypeAlias = Callable[[Task], Facts]
"""Tells the facts of a task; pure, and no model is called."""

_SEEN: Final[Mapping[str, re.Pattern[str]]] = {
    "asks": re.compile(r"\?\s*\Z"),
    "has_code": re.compile(r"```|\b(?:def|class|SELECT|import|function)\s"),
    "has_date": re.compile(r"\b\d{4}-\d{2}-\d{2}\b"),
    "has_number": re.compile(r"\d"),
    "has_url": re.compile(r"\bhttps?://"),
}


def triage(task: Task) -> Facts:
    """Return what can be seen in a task without a model.

    ``n_words``; whether it asks (``asks``) and holds code, a date, a number or an address
    (``has_code``, ``has_date``, ``has_number``, ``has_url``); each tag as True; and the facts that
    came with it, which win.
    """
    seen: dict[str, Value] = {"n_words": float(len(task.text.split()))}
    seen |= {name: bool(pattern.search(task.text)) for name, pattern in _SEEN.items()}
    return {**seen, **dict.fromkeys(task.tags, True), **task.facts}
