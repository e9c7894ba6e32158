"""A real, small model in every role: does the orchestration hold, whatever it says?

Figures are reported as they are. A model of 135 million parameters cannot teach or judge itself;
what is asked is that none of its replies, malformed as most are, ends an episode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from elision.agents.atlas.atlas import Atlas
from elision.agents.atlas.config import AtlasConfig
from elision.agents.atlas.distil import SpeakerDistiller
from elision.agents.atlas.judge import Judge, JudgeConfig
from elision.agents.atlas.lanes import LANES, Lane
from elision.agents.atlas.student import Attempt, SpeakerStudent
from elision.agents.atlas.task import Task
from elision.agents.atlas.teacher import SpeakerTeacher
from elision.agents.atlas.tools import Tool
from elision.agents.speaking import Speaker
from elision.memory.memory import Memory
from elision.memory.records import Scope

N_TASKS: Final = 20
MOST_TOKENS: Final = 48
"""Tokens of a reply of the student; other roles have twice as many."""
QUESTIONS: Final = (
    ("What is the capital of France?", "paris"), ("What is the capital of Italy?", "rome"),
    ("What is 2 + 3?", "5"), ("What is 7 + 6?", "13"),
    ("Which colour do blue and yellow make?", "green"),
    ("How many legs has a spider?", "8"), ("What is the opposite of hot?", "cold"),
    ("What is the capital of Japan?", "tokyo"), ("What is 10 - 4?", "6"),
    ("What do bees make?", "honey"),
    ("Which planet do we live on?", "earth"), ("What is 3 times 4?", "12"),
    ("What is frozen water called?", "ice"), ("How many days has a week?", "7"),
    ("What is the capital of Germany?", "berlin"), ("Which animal says moo?", "cow"),
    ("What is 9 + 8?", "17"), ("What colour is snow?", "white"), ("What is half of 10?", "5"),
    ("Which month comes after May?", "june"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LaneFigures:
    """What came of a lane's episodes.

    Attributes:
        n: Episodes.
        errors: Classes of the errors that ended one, with how often; empty is the goal.
        statuses: How often each status came out.
        n_faults: Roles that broke without ending an episode.
        tokens: Of all roles, summed.
    """

    n: int
    errors: Mapping[str, int]
    statuses: Mapping[str, int]
    n_faults: int
    tokens: int


class _Sum(BaseModel):
    a: float
    b: float


def _add(terms: _Sum) -> str:
    return f"{terms.a + terms.b:g}"


ADD: Final = Tool("add", "Adds two numbers.", _Sum, _add)


async def all_lanes(
    speaker: Speaker, home: Path, *, n_tasks: int = N_TASKS
) -> Mapping[Lane, LaneFigures]:
    """Run *n_tasks* questions in turns through all lanes, with one model in every role.

    Every fifth has no checker, so that the judge is asked; every other may use a tool.

    Args:
        speaker: The model.
        home: An empty folder for the memory.
        n_tasks: At most `N_TASKS`.
    """
    found: dict[Lane, LaneFigures] = {}
    with Memory.open(home, snapshots=False) as memory:
        for lane in LANES:
            numbers = range(lane.rank, n_tasks, len(LANES))
            found[lane] = await _lane(speaker, memory, lane, numbers)
    return found


async def _lane(speaker: Speaker, memory: Memory, lane: Lane, numbers: range) -> LaneFigures:
    errors: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    n_faults = tokens = 0
    for n in numbers:
        question, answer = QUESTIONS[n]
        atlas = _atlas(speaker, memory, lane, None if n % 5 == 4 else answer, tools=n % 2 == 1)
        try:
            outcome = await atlas.run(Task(question, tags=frozenset({"question"})))
            await atlas.aclose()
        # Whatever gets here is what the figure counts.
        except Exception as error:
            errors[type(error).__name__] += 1
            continue
        statuses[outcome.status] += 1
        n_faults += len(outcome.faults)
        tokens += outcome.ledger.total.tokens
    return LaneFigures(len(numbers), errors, statuses, n_faults, tokens)


def _atlas(
    speaker: Speaker, memory: Memory, lane: Lane, answer: str | None, *, tools: bool
) -> Atlas:
    def check(task: Task, attempt: Attempt) -> float | None:
        del task
        return None if answer is None else float(answer in attempt.output.casefold())

    most = 2 * MOST_TOKENS
    return Atlas(
        SpeakerStudent(speaker, [ADD] if tools else [], most_steps=2, max_tokens=MOST_TOKENS),
        memory,
        teacher=SpeakerTeacher(speaker, max_tokens=most),
        judge=Judge(speaker, config=JudgeConfig(max_tokens=most)),
        distiller=SpeakerDistiller(speaker, max_tokens=most),
        checker=check,
        scope=Scope("bench", ("small-model",)),
        config=AtlasConfig(forced_lane=lane),
    )
