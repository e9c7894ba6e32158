"""What is written of an episode while it runs, on threads, so that no loop waits for a disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from elision.agents.atlas.lanes import Decision
from elision.agents.atlas.ledger import Spent
from elision.agents.atlas.outcome import Outcome, Status
from elision.agents.atlas.remembering import Recalled, Recollection
from elision.agents.atlas.reward import Source
from elision.agents.atlas.supervising import Aids
from elision.agents.atlas.task import Facts, Task
from elision.errors import ConfigError, ElisionError, StoreError

if TYPE_CHECKING:
    from elision.memory.learning.drawing import Selection
    from elision.memory.learning.outcomes import Ending

_T = TypeVar("_T")
_ENDINGS: Final[dict[Status, Ending]] = {
    "passed": "succeeded",
    "failed": "failed",
    "unvalidated": "open",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """An episode that began.

    Attributes:
        recalled: What memory said; None where learning is off.
        teacher: What the teacher is shown.
        decision: The lane.
    """

    recalled: Recalled | None = field(repr=False)
    teacher: Selection | None = field(repr=False)
    decision: Decision

    @property
    def shown(self) -> tuple[str, ...]:
        """Ids of the entries that a role is shown."""
        told = (self.recalled and self.recalled.student, self.teacher)
        return tuple(entry.id for one in told if one for entry in one.entries)

    @property
    def aids(self) -> Aids:
        """What memory hands to the roles."""
        if self.recalled is None:
            return Aids()
        block = self.teacher.block if self.teacher else ""
        return Aids(
            student=self.recalled.student.block,
            teacher=block,
            plan=self.recalled.plan,
            plan_for_teacher=self.recalled.plan_for_teacher,
        )


class Recorder:
    """Keeps the record of one agent's episodes; without a memory it keeps none.

    Args:
        recollection: The agent's memory; None where learning is off: then nothing is touched.
    """

    def __init__(self, recollection: Recollection | None) -> None:
        self._recollection = recollection

    async def recall(self, task: Task, facts: Facts, tools: Collection[str]) -> Recalled | None:
        """See `Recollection.recall`; None without a memory."""
        if self._recollection is None:
            return None
        return await asyncio.to_thread(self._recollection.recall, task, facts, tools)

    async def teach(self, task: Task, facts: Facts, recalled: Recalled | None) -> Selection | None:
        """See `Recollection.teach`; None without a memory."""
        if self._recollection is None or recalled is None:
            return None
        return await asyncio.to_thread(self._recollection.teach, task, facts, recalled)

    async def begin(self, task: Task, begun: Begun) -> None:
        """See `Recollection.begin`."""
        if self._recollection is not None and begun.recalled is not None:
            begin = self._recollection.begin
            await _surely(partial(begin, task, begun.decision, begun.recalled, begun.teacher))

    async def end(self, outcome: Outcome, followed: Collection[str]) -> tuple[str, ...]:
        """Write down how an episode ended; where memory fails now, the answer still stands.

        Returns:
            What broke.
        """
        if self._recollection is None or outcome.episode is None:
            return ()
        end = partial(
            self._recollection.end,
            outcome.episode,
            _ENDINGS[outcome.status] if outcome.tried else "aborted",
            outcome.ledger.rows,
            tried=outcome.tried,
            adopted=followed,
            reward=outcome.reward,
        )
        try:
            await _surely(end)
        except StoreError:
            return ("memory:StoreError",)
        return ()

    async def abort(self, begun: Begun, spent: Iterable[Spent]) -> None:
        """Write down that an episode came to nothing; its reward stays unknown."""
        if self._recollection is None or begun.recalled is None:
            return
        episode = begun.recalled.episode
        try:
            await _surely(partial(self._recollection.end, episode, "aborted", spent))
        except ElisionError:  # never begun, or memory fails: a restart aborts what still runs
            _log.warning("the episode %s could not be aborted", episode)

    async def reward(self, episode: str, score: float, *, success: bool, by: Source) -> bool:
        """See `Episodes.reward`.

        Raises:
            ConfigError: If learning is ``off``: nobody keeps episodes.
        """
        if self._recollection is None:
            raise ConfigError("learning is off: there is no episode to reward")
        give, tenant = self._recollection.memory.episodes.reward, self._recollection.scope.tenant
        return await _surely(partial(give, tenant, episode, score, success=success, by=by))


async def _surely(work: Callable[[], _T]) -> _T:
    """Do *work* on a thread; a cancellation waits for its end: half of it would be a stale row."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
