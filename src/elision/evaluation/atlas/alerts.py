"""The alert slice as a world: train on one incident, transfer to another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from elision.agents.atlas.student import Attempt
from elision.agents.atlas.task import Task
from elision.evaluation.atlas.excytin import Desk, credit
from elision.evaluation.atlas.excytin_data import DATABASE, Case, build, cases
from elision.evaluation.atlas.investigators import SKILLS, Investigator, Pupil
from elision.evaluation.atlas.skills import Skill, chance
from elision.evaluation.atlas.world import Move, Play


class AlertWorld:
    """Questions about security alerts; untagged, as they come.

    Args:
        data: Folder of the slice.
        work: An empty folder for the databases that are built.
        investigator: Who works; the pupil by default.
        trained: Incident whose questions are met in order.
        held_out: Incident for the transfer.
    """

    def __init__(
        self,
        data: Path,
        work: Path,
        *,
        investigator: Investigator | None = None,
        trained: int = 5,
        held_out: int = 55,
    ) -> None:
        self.name = "excytin_alert_slice"
        self.skills = SKILLS
        self._investigator: Investigator = investigator or Pupil()
        self._cases: dict[str, tuple[Case, Path]] = {}
        self.trained = self._tasks(data, work, trained)
        self.held_out = self._tasks(data, work, held_out)

    def _tasks(self, data: Path, work: Path, incident: int) -> tuple[Task, ...]:
        database = build(data / DATABASE, work / f"{incident}.db", incident=incident)
        found = cases(data, incident)
        self._cases |= {case.id: (case, database) for case in found}
        return tuple(Task(case.text, id=case.id) for case in found)

    def order(self, seed: int) -> Sequence[Task]:
        """Return the questions in the benchmark's order for seed 0, shuffled for every other."""
        if seed == 0:
            return self.trained
        return sorted(self.trained, key=lambda task: chance(str(seed), str(task.id)))

    def play(self, task: Task, skills: frozenset[str], seed: str) -> Play:
        """See `World.play`."""
        case, database = self._case(task)
        with Desk(database, case) as desk:
            moves = self._investigator.work(desk, skills, seed)
        told = tuple(Move(m.tool, {"text": m.argument}, m.seen, m.ok) for m in moves)
        output = moves[-1].argument if moves and moves[-1].tool == "submit" else ""
        return Play(output, told)

    def needs(self, task: Task) -> tuple[Skill, ...]:
        """Return all skills: every question takes a search, a choice and an answer."""
        del task
        return self.skills

    def grade(self, task: Task, attempt: Attempt) -> float:
        """See `credit`."""
        return credit(self._case(task)[0], attempt.output)

    def _case(self, task: Task) -> tuple[Case, Path]:
        assert task.id is not None, "tasks of a world have ids"
        return self._cases[task.id]
