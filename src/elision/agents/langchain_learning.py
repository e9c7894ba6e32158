"""What an agent of LangChain remembers of its runs: each is an episode of ATLAS.

Nothing here ends a run: what breaks is counted by its place and class.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage

from elision.agents.atlas.brief import Attempt
from elision.agents.atlas.config import AtlasConfig
from elision.agents.atlas.experience import Experience, Figures
from elision.agents.atlas.lanes import Decision, Lane
from elision.agents.atlas.learning import Learner, Lesson
from elision.agents.atlas.ledger import Spent, Totals, priced
from elision.agents.atlas.outcome import Tried
from elision.agents.atlas.remembering import Recalled, Recollection, adopted
from elision.agents.atlas.reward import Reward
from elision.agents.atlas.rewarding import Checker
from elision.agents.atlas.task import LONGEST_TASK, Facts, Task, Triage, triage
from elision.agents.atlas.teacher import Validation
from elision.agents.atlas.tools import Action
from elision.errors import ElisionError
from elision.guards.phrases.recent import Recent
from elision.memory.records import LONGEST_LABEL, Scope

if TYPE_CHECKING:
    from elision.agents.atlas.distil import Distiller
    from elision.memory.memory import Memory

_T = TypeVar("_T")
_ALONE: Final = Decision(lane=Lane.AUTO, source="forced")
_RUNNING: Final = 1_024
"""Episodes that run at once in a process; of older ones it is not told what was followed."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that began.

    Attributes:
        task: What was asked.
        facts: What triage told.
        recalled: What memory said.
        scope: Whose, and which part.
    """

    task: Task = field(repr=False)
    facts: Facts = field(repr=False)
    recalled: Recalled = field(repr=False)
    scope: Scope


class Runs:
    """Recalls before a run, and learns from it behind the answer. Thread-safe.

    Args:
        memory: Where.
        config: Mode, budgets, seeds.
        reward: Compares what a run came to with the truth; None: rewards come later, if at all.
        distiller: Finds what is to be learned; None: what is known is weighed, nothing is added.
        triage: Tells the facts of tasks.
        experience: Figures of the last episodes.

    Attributes:
        counts: How often what broke.
    """

    def __init__(
        self,
        memory: Memory,
        config: AtlasConfig,
        *,
        reward: Checker | None = None,
        distiller: Distiller | None = None,
        triage: Triage = triage,
        experience: Experience | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._memory = memory
        self._config = config
        self._reward = reward
        self._distiller = distiller
        self._triage = triage
        self._experience = experience or Experience(config.distiller.daily_tokens)
        self._running: Recent[str, Begun] = Recent(entries=_RUNNING)
        self._behind = ThreadPoolExecutor(1, thread_name_prefix="elision-learning")
        self._learning: set[Future[None]] = set()

    def begin(
        self, messages: Sequence[AnyMessage], scope: Callable[[], Scope]
    ) -> tuple[str, str] | None:
        """Return a new episode's id and the advice for it; None where there is no episode."""
        asked = _asked(messages)
        if self._config.learning == "off" or asked is None:
            return None
        return self._spared("recall", lambda: self._begin(Task(asked), scope()), None)

    def _begin(self, task: Task, scope: Scope) -> tuple[str, str]:
        facts = self._triage(task)
        recollection = self._recollection(scope)
        recalled = recollection.recall(task, facts, ())
        recollection.begin(task, _ALONE, recalled, None)
        self._running.put(recalled.episode, Begun(task, facts, recalled, scope))
        return recalled.episode, recalled.student.block

    def end(self, episode: str, messages: Sequence[AnyMessage], scope: Callable[[], Scope]) -> None:
        """Write down what a run spent and came to, and learn from it behind the answer."""
        self._spared("learn", lambda: self._end(episode, scope(), messages), None)

    def _end(self, episode: str, scope: Scope, messages: Sequence[AnyMessage]) -> None:
        begun, rows = self._running.get(episode), _spent(messages)
        rows = list(priced(rows, self._config.prices))
        attempt = _attempt(messages, rows)
        reward = None if begun is None else self._rewarded(begun.task, attempt)
        tried = (Tried(Lane.AUTO, attempt, Validation(None)),)
        followed = adopted(begun.recalled.student.entries, tried) if begun else ()
        ending: Any = "open" if reward is None else "succeeded" if reward.success else "failed"
        self._recollection(scope).end(
            episode, ending, rows, tried=tried, adopted=followed, reward=reward
        )
        if begun is not None:
            self._learn(begun, tried, followed, reward, Totals.of(rows))

    def reward(self, tenant: str, episode: str, score: float, *, success: bool | None) -> bool:
        """Say what came of an earlier run; return whether that counts.

        Raises:
            NotFoundError: If the tenant has no such episode.
            RequestError: If it is no reward.
        """
        done = score >= self._config.success_from if success is None else success
        return self._memory.episodes.reward(tenant, episode, score, success=done, by="human")

    def settled(self) -> None:
        """Wait until what is learned behind the answers so far is learned."""
        for future in tuple(self._learning):
            future.exception()

    def close(self) -> None:
        """Wait for what is being learned; memory stays its owner's. Idempotent."""
        self._behind.shutdown()

    def _rewarded(self, task: Task, attempt: Attempt) -> Reward | None:
        if self._reward is None:
            return None
        checker = self._reward
        score = self._spared("reward", lambda: _waited(checker(task, attempt)), None)
        if score is None:
            return None
        if not 0 <= score <= 1:
            self.counts["reward_range"] += 1
            return None
        done = score >= self._config.success_from
        return Reward(score=float(score), success=done, source="checker")

    def _learn(
        self,
        begun: Begun,
        tried: tuple[Tried, ...],
        followed: tuple[str, ...],
        reward: Reward | None,
        spent: Totals,
    ) -> None:
        median = self._experience.median_tokens(begun.scope)
        figures = Figures(Lane.AUTO.value, spent.tokens, spent.cost)
        n_episode = self._experience.note(begun.scope, figures)
        if self._distiller is None or self._config.learning != "on":
            return
        lesson = Lesson(
            task=begun.task,
            facts=begun.facts,
            recalled=begun.recalled,
            tried=tried,
            adopted=followed,
            reward=reward,
            spent=spent,
            n_episode=n_episode,
            median_tokens=median,
        )
        learner = self._learner(begun.scope, self._distiller, tried)
        future = self._behind.submit(self._learned, learner, lesson)
        self._learning.add(future)
        future.add_done_callback(self._learning.discard)

    def _learned(self, learner: Learner, lesson: Lesson) -> None:
        self._spared("distil", lambda: asyncio.run(learner.learn(lesson)), None)

    def _learner(self, scope: Scope, distiller: Distiller, tried: Sequence[Tried]) -> Learner:
        called = {action.tool for one in tried for action in one.attempt.actions if action.tool}
        return Learner(
            self._recollection(scope),
            distiller,
            self._config,
            self._experience,
            self._triage,
            sorted(called),
        )

    def _recollection(self, scope: Scope) -> Recollection:
        return Recollection(self._memory, scope, self._config, self._experience)

    def _spared(self, place: str, work: Callable[[], _T], instead: _T) -> _T:
        """Return what *work* comes to; *instead* if it breaks, which is counted."""
        try:
            return work()
        # A run that cannot be remembered is answered all the same: whatever breaks is counted.
        except Exception as error:
            code = error.code if isinstance(error, ElisionError) and error.code else ""
            self.counts[f"{place}_{code or type(error).__name__}"] += 1
            _log.warning("a run's %s failed: %s", place, type(error).__name__)
            return instead


def _waited(value: Any) -> Any:
    """Return *value*, awaited on a thread of its own if it is to be: a loop may run on this one."""
    if not inspect.isawaitable(value):
        return value

    async def wait() -> Any:
        return await value

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, wait()).result()


def run_of(messages: Sequence[AnyMessage]) -> Sequence[AnyMessage]:
    """Return the messages of the last run: from the last that a human wrote."""
    starts = [n for n, message in enumerate(messages) if isinstance(message, HumanMessage)]
    return messages[starts[-1] :] if starts else ()


def _asked(messages: Sequence[AnyMessage]) -> str | None:
    run = run_of(messages)
    text = str(run[0].text).strip() if run else ""
    return text[:LONGEST_TASK] or None


def _attempt(messages: Sequence[AnyMessage], spent: Sequence[Spent]) -> Attempt:
    run = run_of(messages)
    said = [str(message.text) for message in run if isinstance(message, AIMessage)]
    return Attempt(said[-1] if said else "", tuple(_actions(run)), tuple(spent))


def _actions(run: Sequence[AnyMessage]) -> Iterator[Action]:
    came_back = {one.tool_call_id: one for one in run if isinstance(one, ToolMessage)}
    calls = (
        call for message in run if isinstance(message, AIMessage) for call in message.tool_calls
    )
    for step, call in enumerate(calls, 1):
        result = came_back.get(call["id"] or "")
        yield Action(
            step,
            call["name"],
            call["args"],
            ok=result is not None and result.status != "error",
            observation="" if result is None else str(result.text),
        )


def _spent(messages: Sequence[AnyMessage]) -> list[Spent]:
    return [_row(message) for message in run_of(messages) if isinstance(message, AIMessage)]


def _row(message: AIMessage) -> Spent:
    used = message.usage_metadata
    name = str(message.response_metadata.get("model_name") or "model")[:LONGEST_LABEL]
    if used is None:
        return Spent(role="student", model=name, estimated=True)
    cached = used.get("input_token_details", {}).get("cache_read", 0)
    return Spent(
        role="student",
        model=name,
        tokens_in=used["input_tokens"],
        tokens_cached=min(cached, used["input_tokens"]),
        tokens_out=used["output_tokens"],
    )
