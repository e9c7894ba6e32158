"""The local engine: a model of this process, decoded by our own loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from elision.contract import Capability, Delta, Lexicon, Plan
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.errand import Errand
from elision.middleware.engines.job import CAPABILITIES, Item
from elision.middleware.engines.jobs import job_for
from elision.middleware.engines.prefixes import PREFIX_BYTES, PrefixCache
from elision.middleware.engines.station import CurveMemo, Station
from elision.middleware.engines.worker import Worker

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from elision.middleware.forms.dialects import Dialect
    from elision.settings import Settings

T = TypeVar("T")


class LocalEngine:
    """Serves one model from one thread.

    Args:
        model: The model; the engine's thread alone may touch it from now on.
        memo: See `Station`.
        cross_request: See `Pools`.
        assistants: Other models that recipes may read beside this one, by name.
        prefix_bytes: Most memory for keys and values of earlier prompts; 0 keeps none.
        n_threads: Compute threads.
        max_streams: Choices decoded at a time; more wait.
        queue_limit: Requests that may wait; one more is refused.
        timeout_s: Deadline of requests that name none, in seconds.

    Raises:
        ConfigError: If an assistant has another vocabulary than the model.
    """

    capabilities: Capability = CAPABILITIES

    def __init__(
        self,
        model: CausalModel,
        *,
        memo: CurveMemo | None = None,
        cross_request: bool = True,
        assistants: Mapping[str, CausalModel] | None = None,
        prefix_bytes: int = PREFIX_BYTES,
        n_threads: int = 1,
        max_streams: int = 8,
        queue_limit: int = 32,
        timeout_s: float = 600.0,
    ) -> None:
        self.name = model.name
        self.lexicon: Lexicon | None = model.lexicon
        self._timeout_s = timeout_s
        self._station = Station(
            model,
            prefixes=PrefixCache(prefix_bytes),
            memo=memo,
            cross_request=cross_request,
            assistants={
                name: Station(assistant.beside(model), prefixes=PrefixCache(0))
                for name, assistant in (assistants or {}).items()
            },
        )
        self._worker = Worker(
            self._station,
            n_threads=n_threads,
            max_streams=max_streams,
            queue_limit=queue_limit,
        )

    @classmethod
    def wrap(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        settings: Settings,
        name: str = "local",
        assistants: Mapping[str, PreTrainedModel] | None = None,
    ) -> LocalEngine:
        """Serve a model that is already in memory, with as many threads as torch uses now.

        Args:
            model: Any causal language model of transformers.
            tokenizer: Its tokenizer, and that of *assistants*.
            settings: See `under`.
            name: What reports call it.
            assistants: See `LocalEngine`.

        Raises:
            ConfigError: If an assistant has more scores per position than the model, or fewer.
        """
        import torch

        beside = {
            key: CausalModel(assistant, tokenizer, name=key)
            for key, assistant in (assistants or {}).items()
        }
        return cls.under(
            settings,
            CausalModel(model, tokenizer, name=name),
            n_threads=settings.threads or torch.get_num_threads(),
            assistants=beside,
        )

    @classmethod
    def under(
        cls,
        settings: Settings,
        model: CausalModel,
        *,
        n_threads: int,
        memo: CurveMemo | None = None,
        assistants: Mapping[str, CausalModel] | None = None,
    ) -> LocalEngine:
        """Serve *model* within the limits of *settings*."""
        return cls(
            model,
            n_threads=n_threads,
            max_streams=settings.max_streams,
            queue_limit=settings.queue_limit,
            prefix_bytes=settings.prefix_cache_mb * 2**20,
            cross_request=settings.cross_request,
            memo=memo,
            assistants=assistants,
            timeout_s=settings.timeout_s,
        )

    async def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        """See `Engine.stream`."""
        loop = asyncio.get_running_loop()
        channel: asyncio.Queue[Item] = asyncio.Queue()

        def deliver(item: Item) -> None:
            try:
                loop.call_soon_threadsafe(channel.put_nowait, item)
            except RuntimeError:  # the loop is gone, and with it whoever waited
                job.cancelled = True

        timeout_s = plan.request.timeout_s or self._timeout_s
        job = job_for(plan, deliver, deadline=time.monotonic() + timeout_s)
        self._worker.submit(job)
        try:
            while (item := await channel.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self._worker.cancel(job)

    @property
    def dialect(self) -> Dialect:
        """How its model writes calls and thoughts."""
        return self._station.model.dialect

    def warm(self) -> None:
        """Find out now what would otherwise be found out while the first request waits."""
        self.borrow(lambda _: self._station.warm()).result()

    def borrow(self, work: Callable[[CausalModel], T]) -> Future[T]:
        """Have *work* done with the model on its thread, as one turn among the requests'.

        Raises:
            BusyError: If the queue is full.
            EngineError: If the engine is closed.
        """
        errand = Errand(work)
        self._worker.submit(errand)
        return errand.result

    def erase(self, tenant: str, *, texts: Sequence[str] | None = None) -> int:
        """Drop what earlier requests of *tenant* left, whatever *texts* say; see `Erasable`."""
        return self._station.erase(tenant)

    def stats(self) -> Mapping[str, float]:
        """Return gauges for metrics; see `Worker.stats`."""
        return self._worker.stats()

    async def aclose(self) -> None:
        """End all requests and free the model. Idempotent."""
        self._worker.close()
        await asyncio.to_thread(self._worker.join)
