"""An investigator's desk: a read-only database to ask, and one answer to submit."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from elision.errors import RequestError
from elision.evaluation.atlas.excytin_data import Case, normal

MOST_STEPS: Final = 25
MOST_CHARS: Final = 100_000
"""Characters of an observation; a longer one is cut to `MOST_ROWS` rows, as in the benchmark."""
MOST_ROWS: Final = 15
MOST_ANSWERS: Final = 10
"""Values of one submission; with more, guessing would be an answer."""
STEP_DISCOUNT: Final = 0.4
"""Credit of the step before the last one of a solution, and of each step before relative to it."""
_MOST_OPS: Final = 2_000_000
_OPS: Final = 10_000
_READS: Final = {
    sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE,
}  # fmt: skip
_ACTION: Final = re.compile(r"\s*(execute|submit)\[(.*)\]\s*", re.DOTALL)
_QUOTED: Final = re.compile(r"`([^`]+)`")


class Desk(AbstractContextManager["Desk"]):
    """One question at one database; closed at the end of the episode.

    Nothing can be written and nothing else can be read: the file is opened with ``mode=ro``,
    ``query_only`` is on, an authorizer lets only reading through (no ATTACH, no PRAGMA, no
    ``load_extension``), and a statement ends after two million steps of SQLite's machine.

    Args:
        database: See `elision.evaluation.atlas.excytin_data.build`.
        case: What is asked.
        most_steps: Actions, submission included.
    """

    def __init__(self, database: Path, case: Case, *, most_steps: int = MOST_STEPS) -> None:
        self.case = case
        self.steps_left = most_steps
        self.reward: float | None = None
        self._connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
        self._connection.execute("PRAGMA query_only = 1")
        self._connection.set_authorizer(_authorise)
        self._ops = 0
        self._connection.set_progress_handler(self._is_too_long, _OPS)

    @property
    def done(self) -> bool:
        """Whether an answer was submitted or no step is left."""
        return self.reward is not None or self.steps_left <= 0

    def act(self, action: str) -> str:
        """Do ``execute[SQL]`` or ``submit[ANSWER]``; return what is seen.

        Raises:
            RequestError: If the episode is over.
        """
        if self.done:
            raise RequestError("the episode is over")
        self.steps_left -= 1
        if (match := _ACTION.fullmatch(action)) is None:
            return "error: an action is execute[SQL] or submit[ANSWER]"
        return self._execute(match[2]) if match[1] == "execute" else self._submit(match[2])

    def _execute(self, sql: str) -> str:
        self._ops = 0
        try:
            rows = self._connection.execute(sql).fetchall()
        except (sqlite3.Error, sqlite3.Warning) as exc:
            return f"error: {exc}"
        seen = _shown(rows)
        return seen if len(seen) <= MOST_CHARS else _shown(rows[:MOST_ROWS])

    def _submit(self, answer: str) -> str:
        self.reward = credit(self.case, answer)
        return "submitted"

    def _is_too_long(self) -> bool:
        self._ops += _OPS
        return self._ops > _MOST_OPS

    def close(self) -> None:
        """Let go of the database. Idempotent."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


def _authorise(action: int, one: str | None, two: str | None, *_: str | None) -> int:
    allowed = action in _READS and two != "load_extension"
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _shown(rows: Iterable[tuple[object, ...]]) -> str:
    return "\n".join(" | ".join(str(cell) for cell in row) for row in rows)


def credit(case: Case, submitted: str) -> float:
    r"""Return the credit of an answer, from 0 to 1; without any model.

    One value a line, at most `MOST_ANSWERS` of them, of which one must equal the golden answer:
    1. Otherwise the steps of the solution are walked backwards from the one before the last, and
    each whose quoted value was submitted earns :math:`.4, .16, .064 \dots`, at most 1 in all.

    Source:
        SecRL's step reward (MIT), there judged by a model; the comparison of values is ours.
    """
    lines = {value(line) for line in submitted.splitlines() if line.strip()}
    if not lines or len(lines) > MOST_ANSWERS:
        return 0.0
    if value(case.answer) in lines:
        return 1.0
    earned = sum(
        STEP_DISCOUNT**n
        for n, step in enumerate(reversed(case.solution[:-1]), start=1)
        if lines & {value(quoted) for quoted in _QUOTED.findall(step)}
    )
    return min(1.0, earned)


def value(text: str) -> str:
    """Return *text* as values are compared: see `normal`; no scheme, ``www.``, trailing slash."""
    bare = re.sub(r"^(?:https?://)?(?:www\.)?", "", normal(text).strip("`\"' "))
    return bare.rstrip("/")
