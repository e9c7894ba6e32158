"""The engine's thread: the only one that calls the model.

Jobs wait in a bounded queue, are admitted while there is room, and advance in turn, one step each,
so that no stream starves another. The event loop only hands jobs in and takes pieces out.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch

from elision.errors import BusyError, ElisionError, EngineError
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.errand import Errand
from elision.middleware.engines.sequence import Job
from elision.middleware.speculation.base import Drafter

Work: TypeAlias = "Job | Errand[Any]"

_log = logging.getLogger(__name__)


class Worker(threading.Thread):
    """Runs jobs until it is closed. Starts with its construction.

    Args:
        model: Touched by this thread only.
        drafter: Proposes tokens.
        n_threads: Compute threads of torch.
        max_streams: Choices decoded at a time.
        queue_limit: Jobs that may wait.
    """

    def __init__(
        self,
        model: CausalModel,
        drafter: Drafter,
        *,
        n_threads: int,
        max_streams: int,
        queue_limit: int,
    ) -> None:
        super().__init__(name=f"elision-engine-{model.name}", daemon=True)
        self._model = model
        self._drafter = drafter
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
        }

    def run(self) -> None:
        """Admit, step, drop; until closed."""
        torch.set_num_threads(self._n_threads)
        with torch.inference_mode():
            while self._admit():
                for job in tuple(self._active):
                    self._step(job)
                self._active = [job for job in self._active if not job.over]
        for job in (*self._active, *self._waiting):
            self._fail(job, EngineError("the engine was closed"))
        self._active = []

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

    def _step(self, job: Work) -> None:
        if job.cancelled:
            return
        self._n_steps += 1
        try:
            job.step(self._model, self._drafter)
        except ElisionError as exc:
            self._fail(job, exc)
        except Exception as exc:
            # The thread serves every request: one that breaks ends alone, and closed.
            _log.error("a request broke in the engine: %s", type(exc).__name__)
            failure = EngineError(f"the engine broke on this request ({type(exc).__name__})")
            failure.__cause__ = exc
            self._fail(job, failure)
        else:
            if job.over:
                job.deliver(None)

    def _fail(self, job: Work, exc: Exception) -> None:
        job.cancelled = True
        job.deliver(exc)
