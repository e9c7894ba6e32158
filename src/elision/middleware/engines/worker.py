"""The engine's thread: the only one that calls the model.

Jobs wait in a bounded queue and are admitted while there is room. In every turn each does a step of
its own (a chunk of its prompt), then one round advances all choices that are being decoded; so no
stream starves another. The event loop only hands jobs in and takes pieces out.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch

from elision.errors import BusyError, ElisionError, EngineError
from elision.middleware.engines.errand import Errand
from elision.middleware.engines.job import Job
from elision.middleware.engines.station import Station

Work: TypeAlias = "Job | Errand[Any]"

_log = logging.getLogger(__name__)


class Worker(threading.Thread):
    """Runs jobs until it is closed. Starts with its construction.

    Args:
        station: Model and belongings; touched by this thread only.
        n_threads: Compute threads of torch.
        max_streams: Choices decoded at a time.
        queue_limit: Jobs that may wait.
    """

    def __init__(
        self,
        station: Station,
        *,
        n_threads: int,
        max_streams: int,
        queue_limit: int,
    ) -> None:
        super().__init__(name=f"elision-engine-{station.model.name}", daemon=True)
        self._station = station
        self._round = station.round()
        self._n_threads = n_threads
        self._max_streams = max_streams
        self._queue_limit = queue_limit
        self._wake = threading.Condition()
        self._waiting: deque[Work] = deque()
        self._active: list[Work] = []
        self._closed = False
        self._n_steps = 0
        self.start()

    def submit(self, job: Work) -> None:
        """Put *job* in the queue.

        Raises:
            BusyError: If the queue is full.
            EngineError: If the engine is closed.
        """
        with self._wake:
            if self._closed:
                raise EngineError("the engine is closed")
            has_room = not self._waiting and self._fits(job)
            if not has_room and len(self._waiting) >= self._queue_limit:
                raise BusyError(
                    f"{len(self._waiting)} requests are waiting already; try again in a moment",
                    retry_after_s=1.0,
                )
            self._waiting.append(job)
            self._wake.notify()

    def cancel(self, job: Work) -> None:
        """Drop *job* before its next step. Idempotent."""
        with self._wake:
            job.cancelled = True
            self._wake.notify()

    def close(self) -> None:
        """End every job and the thread. Idempotent."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    def stats(self) -> Mapping[str, float]:
        """Return gauges: active choices, waiting jobs, cached tokens, steps done."""
        active = tuple(self._active)
        return {
            "active_sequences": sum(job.n_choices for job in active),
            "waiting_requests": len(self._waiting),
            "cached_tokens": sum(job.cached_tokens for job in active),
            "steps": self._n_steps,
            **self._round.stats(),
            **self._station.stats(),
        }

    def run(self) -> None:
        """Admit, step, drop; until closed."""
        torch.set_num_threads(self._n_threads)
        with torch.inference_mode():
            while self._admit():
                for work in tuple(self._active):
                    self._step(work)
                self._decode()
                self._active = [job for job in self._active if not job.over]
        for job in (*self._active, *self._waiting):
            self._fail(job, EngineError("the engine was closed"))
        self._active = []
        self._station.close()

    def _admit(self) -> bool:
        """Wait for work and let jobs in while there is room; return False once closed."""
        with self._wake:
            self._wake.wait_for(lambda: self._closed or self._active or self._waiting)
            while self._waiting and self._fits(self._waiting[0]):
                self._active.append(self._waiting.popleft())
            self._waiting = deque(job for job in self._waiting if not job.cancelled)
            return not self._closed

    def _fits(self, job: Work) -> bool:
        """Return whether *job* may start now; one that is too wide for the engine runs alone."""
        n_active = sum(active.n_choices for active in self._active)
        return n_active == 0 or n_active + job.n_choices <= self._max_streams

    def _step(self, work: Work) -> None:
        if work.cancelled:
            return
        self._n_steps += 1
        try:
            work.step(self._station)
        except Exception as exc:  # the thread serves every request
            self._break(work, exc)
        else:
            self._end(work)

    def _decode(self) -> None:
        """Advance every choice that is being decoded, then settle what has ended."""
        jobs = [j for j in self._active if isinstance(j, Job) and j.live and not j.cancelled]
        if not jobs:
            return
        owner = {id(sequence): job for job in jobs for sequence in job.live}
        try:
            failures = self._round.step([s for job in jobs for s in job.live])
        except Exception as exc:  # none of them may wait for a thread that is gone
            for job in jobs:
                self._break(job, exc)
            return
        for sequence, why in failures:
            self._break(owner[id(sequence)], why)
        for job in jobs:
            if not job.cancelled:
                self._settle(job)

    def _settle(self, job: Job) -> None:
        try:
            job.settle(self._station)
        except Exception as exc:  # keeping what it leaves, telling its sums: its own affair
            self._break(job, exc)
        else:
            self._end(job)

    def _end(self, work: Work) -> None:
        if work.over and not work.cancelled:
            work.deliver(None)

    def _break(self, work: Work, exc: Exception) -> None:
        """End a request that broke, alone; what broke is told by its type, never by its words."""
        if work.cancelled:
            return
        if not isinstance(exc, ElisionError):
            _log.error("a request broke in the engine: %s", type(exc).__name__)
            failure = EngineError(f"the engine broke on this request ({type(exc).__name__})")
            failure.__cause__ = exc
            exc = failure
        self._fail(work, exc)

    def _fail(self, job: Work, exc: Exception) -> None:
        job.cancelled = True
        job.deliver(exc)
