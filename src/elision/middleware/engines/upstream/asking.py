"""Rows of scores from an upstream: several questions at a time, asked from the engine's thread.

The engine's thread computes nothing here: it waits. The questions run on an event loop of their
own, so whoever leaves can have his called off while the others' go on.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeAlias

from elision.errors import EngineError, UpstreamTimeoutError

Ids: TypeAlias = tuple[int, ...]
Scores: TypeAlias = Sequence[tuple[int, float]]
"""The likeliest next tokens with their log-probabilities, in any order."""

NextScores: TypeAlias = Callable[[Sequence[int], int], Awaitable[Scores]]
"""Given a sequence of ids and k, returns the scores of the k likeliest next tokens."""

KEPT_ROWS: Final = 64
"""Rows that a request keeps: a rewind goes back a few tokens, and what is known is not asked for
again. At 8,000 tokens of context they take about 4 MB."""

MOST_AT_ONCE: Final = 32
"""Questions on their way at a time; more wait."""


@dataclass(eq=False)
class Ticket:
    """One request's dealings with the upstream. Lives as long as the request.

    Copies of a cache share it, so it is never copied.

    Attributes:
        deadline: On the monotonic clock, in seconds; None has none.
        n_calls: Questions that were asked.
        missing_mass: Largest probability, over the rows, that no known token has.
    """

    deadline: float | None = None
    n_calls: int = 0
    missing_mass: float = 0.0
    _dropped: threading.Event = field(default_factory=threading.Event, repr=False)
    _known: OrderedDict[Ids, Scores] = field(default_factory=OrderedDict, repr=False)
    _running: set[asyncio.Task[Scores]] = field(default_factory=set, repr=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    async def scores(self, ids: Ids, ask: Callable[[Ids], Coroutine[Any, Any, Scores]]) -> Scores:
        """Return the scores behind *ids*, asked for or known; none if nobody waits any more.

        Raises:
            UpstreamTimeoutError: If the deadline passed.
        """
        if self._dropped.is_set() or ids in self._known:
            return self._known.get(ids, ())
        task = asyncio.ensure_future(ask(ids))
        self._running.add(task)
        self.n_calls += 1
        try:
            async with asyncio.timeout_at(self.deadline):
                found = await task
        except TimeoutError:
            raise UpstreamTimeoutError("the deadline passed while the upstream was asked") from None
        except asyncio.CancelledError:
            if not self._dropped.is_set():
                raise
            return ()
        finally:
            self._running.discard(task)
            task.cancel()
        self._keep(ids, found)
        return found

    def drop(self) -> None:
        """Say that nobody waits any more: nothing is asked from now on. Any thread."""
        self._dropped.set()

    def call_off(self) -> None:
        """Call off what is on its way. On the loop of the questions only."""
        for task in self._running:
            task.cancel()

    def _keep(self, ids: Ids, found: Scores) -> None:
        mass = math.fsum(math.exp(logp) for _, logp in found)
        self.missing_mass = max(self.missing_mass, 1.0 - mass)
        self._known[ids] = found
        while len(self._known) > KEPT_ROWS:
            self._known.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: the scores behind *ids*, for the request of *ticket*."""

    ids: Ids = field(repr=False)
    ticket: Ticket


class Asker:
    """Asks an upstream for rows. Lives until `close`; its thread starts with the first question.

    Args:
        scores: Asks for one row; called on the asker's own event loop.
        k: Tokens wanted per row.
        leave: Lets go of what `scores` holds on that loop; called on it, at the end.
    """

    def __init__(
        self, scores: NextScores, *, k: int, leave: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self.k = k
        self._scores = scores
        self._leave = leave
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._end = asyncio.Event()
        self._lock = threading.Lock()
        self._loop: Future[asyncio.AbstractEventLoop] | None = None
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def ask(self, questions: Sequence[Question]) -> list[Scores]:
        """Return the rows of *questions*, which are asked side by side.

        Nothing for those whose request was dropped. What was answered before another question
        failed is kept, for when it is asked again.

        Raises:
            ElisionError: If a question failed: the first that did.
            EngineError: If the asker is closed.
        """
        asked = asyncio.run_coroutine_threadsafe(self._all(questions), self._running())
        try:
            found = asked.result()
        except CancelledError:
            raise EngineError("the engine was closed") from None
        for scores in found:
            if isinstance(scores, BaseException):
                raise scores
        return [scores for scores in found if not isinstance(scores, BaseException)]

    def drop(self, ticket: Ticket) -> None:
        """Call off what is asked for *ticket*, now and from now on. Any thread; idempotent."""
        ticket.drop()
        with self._lock:
            if self._loop is not None and not self._is_closed:
                self._loop.result().call_soon_threadsafe(ticket.call_off)

    def close(self) -> None:
        """Call off everything and end the thread. Idempotent."""
        with self._lock:
            is_first, self._is_closed = not self._is_closed, True
            if is_first and self._loop is not None:
                self._loop.result().call_soon_threadsafe(self._end.set)

    def join(self) -> None:
        """Wait for the thread to end."""
        if self._thread is not None:
            self._thread.join()

    async def _all(self, questions: Sequence[Question]) -> list[Scores | BaseException]:
        asked = (question.ticket.scores(question.ids, self._one) for question in questions)
        return await asyncio.gather(*asked, return_exceptions=True)

    async def _one(self, ids: Ids) -> Scores:
        async with self._room:
            return await self._scores(ids, self.k)

    # --- the thread ------------------------------------------------------------------------------

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._is_closed:
                raise EngineError("the engine is closed")
            if self._loop is None:
                self._loop = Future()
                self._thread = threading.Thread(
                    target=lambda: asyncio.run(self._serve()), name="elision-asker", daemon=True
                )
                self._thread.start()
            return self._loop.result()

    async def _serve(self) -> None:
        assert self._loop is not None
        self._loop.set_result(asyncio.get_running_loop())
        await self._end.wait()
        asked = asyncio.all_tasks() - {asyncio.current_task()}
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        if self._leave is not None:
            await self._leave()
