"""What a draft must pass before it may become a candidate; every draft is judged by itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from elision.agents.atlas.scan import NOTHING, Allowed, Code, scan
from elision.agents.atlas.specific import is_of_one_case, leaks
from elision.contract import Screen
from elision.memory.learning.cues import read
from elision.memory.learning.entries import Entry, EntryDraft
from elision.memory.learning.likeness import repeats
from elision.memory.learning.predicates import Facts

if TYPE_CHECKING:
    from elision.memory.index.vectors import Vectors

BROAD: Final = 0.6
"""Share of the recent tasks that a cue must stay below (atlas_memory.md 2.10)."""
RECENT: Final = 50
"""Tasks of the scope that are asked for it."""
FEWEST: Final = 10
"""Recent tasks below which no share is believed: of one task every cue fires on all."""
CONCISE: Final = 420
"""Characters from which a draft's rubric falls; twice as many are worth nothing."""


class Gate(StrEnum):
    """Why a draft is refused."""

    HANDLE = "handle"
    """It names a tool that there is not, or names none where its arguments need one."""
    ORIGIN = "origin"
    """Its cue does not fire on the task that it came from."""
    BROAD = "broad"
    """Its cue fires on too many of the recent tasks."""
    SPECIFIC = "specific"
    """It names what belongs to one case only."""
    LEAK = "leak"
    """It gives the answer away."""
    DUPLICATE = "duplicate"
    """An entry says so already, whatever became of that one."""
    SECRET = "secret"  # noqa: S105 -- a code
    """It holds a secret or personal data."""
    FORGOTTEN = "forgotten"
    """It holds what somebody asked to be forgotten."""


@dataclass(frozen=True, slots=True)
class Passed:
    """It may become a candidate.

    Attributes:
        rubric: 0 to 1; ranks drafts where only some may stay, decides nothing else.
    """

    rubric: float


@dataclass(frozen=True, slots=True)
class Quarantined:
    """It may be kept for somebody to look at, and is not shown to a model before.

    Attributes:
        codes: What the write scan found.
        rubric: As in `Passed`.
    """

    codes: tuple[Code, ...]
    rubric: float


@dataclass(frozen=True, slots=True)
class Refused:
    """It is not kept.

    Attributes:
        reasons: All of them, in the order of `Gate`; no word of the draft.
    """

    reasons: tuple[Gate, ...]


Ruling: TypeAlias = Passed | Quarantined | Refused


@dataclass(frozen=True, slots=True)
class Seen:
    """A task as cues saw it.

    Attributes:
        text: Task, steps and observations.
        facts: What triage told.
        vector: Of the task's text, length 1; None if unknown: no semantic cue fires then.
    """

    text: str = field(repr=False)
    facts: Facts = field(default_factory=dict, repr=False)
    vector: Vectors | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateContext:
    """What a draft is judged against.

    Attributes:
        tenant: Whose forget targets count.
        task: What was asked, word for word.
        origin: The episode that the draft came from.
        recent: Tasks of the scope, of which the last `RECENT` count.
        tools: Names of the agent's tools.
        answers: Ground truths of the task, as far as known.
        existing: Entries of the scope in any state: what was demoted is not to come back.
        domain_facts: Whether dates, identifiers, files and addresses may be learned.
        allowed: What the write scan lets pass.
        screen: Asks the forget targets; None asks nobody.
    """

    tenant: str
    task: str = field(repr=False)
    origin: Seen
    recent: Sequence[Seen] = field(default=(), repr=False)
    tools: Collection[str] = field(default=(), repr=False)
    answers: tuple[str, ...] = field(default=(), repr=False)
    existing: Sequence[Entry] = field(default=(), repr=False)
    domain_facts: bool = False
    allowed: Allowed = NOTHING
    screen: Screen | None = None


def gate(draft: EntryDraft, context: GateContext, vector: Vectors | None = None) -> Ruling:
    """Return what becomes of *draft*: its schema and lengths it passed by being made.

    Args:
        draft: What is to be advised.
        context: What it is judged against.
        vector: Of the draft's text, length 1; without it a semantic cue does not fire on its own
            origin, and only the very same words are a duplicate.
    """
    told = words_of(draft)
    codes = scan(told, tenant=context.tenant, screen=context.screen, allowed=context.allowed)
    failed = {*_failed(draft, told, context, vector), *_closed(codes)}
    if failed:
        return Refused(tuple(reason for reason in Gate if reason in failed))
    mark = rubric(draft, general=not is_of_one_case(told), tools=context.tools)
    return Quarantined(codes, mark) if codes else Passed(mark)


def words_of(draft: EntryDraft) -> str:
    """Return all that *draft* says, a line each: its texts, its cue, its tool and arguments."""
    texts = (draft.imperative, draft.effect, draft.limits, draft.body, draft.cue.pattern)
    return "\n".join(filter(None, (*texts, draft.handle, *_strings(draft.args))))


def rubric(draft: EntryDraft, *, general: bool, tools: Collection[str]) -> float:
    """Return how good a learning entry *draft* looks, 0 to 1; for display and ranking only.

    Source:
        Arc-Computer/atlas-sdk, playbook_entries.py: 0.4 actionable + 0.3 general + 0.2 hookable
        (regex 1, predicate 0.6, keyword 0.4) + 0.1 concise. Ours: a semantic cue counts as a
        keyword; without tools nothing needs a handle.
    """
    hookable = {"regex": 1.0, "predicate": 0.6}.get(draft.cue.type, 0.4)
    n = len(draft.imperative + draft.effect + draft.limits + draft.cue.pattern)
    concise = min(1.0, max(0.0, 1 - (n - CONCISE) / CONCISE))
    actionable = draft.handle in tools if tools else True
    return 0.4 * actionable + 0.3 * general + 0.2 * hookable + 0.1 * concise


def _failed(
    draft: EntryDraft, told: str, context: GateContext, vector: Vectors | None
) -> Iterator[Gate]:
    if draft.handle is not None and draft.handle not in context.tools:
        yield Gate.HANDLE
    if not _fires(draft, context.origin, vector):
        yield Gate.ORIGIN
    if _is_broad(draft, context.recent[-RECENT:], vector):
        yield Gate.BROAD
    if not context.domain_facts and is_of_one_case(told):
        yield Gate.SPECIFIC
    if any(leaks(told, answer, context.task) for answer in context.answers):
        yield Gate.LEAK
    if any(repeats(draft, vector, entry) for entry in context.existing):
        yield Gate.DUPLICATE


def _closed(codes: Collection[Code]) -> Iterator[Gate]:
    """Yield the findings that nobody may approve: even in quarantine they would be kept."""
    if Code.SECRET in codes or Code.PERSONAL in codes:
        yield Gate.SECRET
    if Code.FORGOTTEN in codes:
        yield Gate.FORGOTTEN


def _fires(draft: EntryDraft, seen: Seen, vector: Vectors | None) -> bool:
    similarity = None
    if draft.cue.type == "semantic" and vector is not None and seen.vector is not None:
        similarity = float(vector @ seen.vector)
    return draft.cue.matches(read(seen.text), seen.facts, similarity)


def _is_broad(draft: EntryDraft, recent: Sequence[Seen], vector: Vectors | None) -> bool:
    if len(recent) < FEWEST:
        return False
    return sum(_fires(draft, seen, vector) for seen in recent) >= BROAD * len(recent)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
