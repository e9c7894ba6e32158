"""The vLLM engine with a server of its own, which it starts, watches and ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, Self

from elision.contract import Capability, Delta, Plan
from elision.middleware.engines.fleet.launching import Launch
from elision.middleware.engines.fleet.replica import Replica
from elision.middleware.engines.fleet.supervising import Supervised
from elision.middleware.engines.vllm import VllmEngine

if TYPE_CHECKING:
    from elision.middleware.engines.upstream.relaying import Relayed
    from elision.middleware.models.progress import Progress
    from elision.settings import Settings

_log = logging.getLogger(__name__)


class OwnVllmEngine(VllmEngine):
    """One model on a vLLM of this process. Lives until `aclose`, which ends the server too.

    While the server is being started again requests are refused (503, with the time to come back),
    and what the one before was seen to do is not believed of the next.

    Attributes:
        supervised: The server.
    """

    def __init__(self, supervised: Supervised, settings: Settings) -> None:
        """Describe it; nothing is sent yet.

        Args:
            supervised: A server that was started; this engine's from now on.
            settings: How often it must prove itself, and how long it may be silent.
        """
        launch = supervised.launch
        replica = Replica(
            f"{launch.root}/v1", key=launch.key, timeout_s=settings.upstream_timeout_s
        )
        super().__init__(
            [replica],
            name=launch.model,
            prove_every_s=settings.vllm_prove_s,
            untested=settings.vllm_untested,
            secret=launch.secret,
        )
        self.supervised = supervised
        self._n_believed = supervised.n_starts

    @classmethod
    def start(cls, settings: Settings, *, progress: Progress | None = None) -> Self:
        """Start a vLLM for the model that *settings* name, and wait until it answers.

        Raises:
            ConfigError: If vLLM is not to be had, or a setting cannot be used.
            EngineError: If it ends or does not answer in time; with the end of its log.
            NotFoundError: If there is no such model.
            PullError: If it cannot be fetched.
        """
        launch = Launch.of(settings, progress=progress)
        log = settings.home / "logs" / "vllm.log"
        supervised = Supervised.start(
            launch, log=log, start_s=settings.vllm_start_s, progress=progress
        )
        _log.info("vLLM answers on %s; its log is %s", launch.root, log)
        return cls(supervised, settings)

    async def probe(self) -> Capability:
        """See `VllmEngine.probe`; while the server is away, what was seen last."""
        if self.supervised.state != "up":
            return self.capabilities
        self._check_same()
        return await super().probe()

    async def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        """See `VllmEngine.stream`.

        Raises:
            BusyError: If the server is not up (status 503), or is busy.
            ElisionError: Else as there.
        """
        self._check_same()
        async with aclosing(super().stream(plan)) as deltas:
            async for delta in deltas:
                yield delta

    def relay(
        self,
        body: Mapping[str, Any],
        *,
        kind: Literal["chat", "text"],
        stream: bool,
        timeout_s: float | None,
        tenant: str | None = None,
    ) -> Relayed:
        """See `VllmEngine.relay`.

        Raises:
            BusyError: If the server is not up (status 503).
            RequestError: If *body* speaks to the plug-in itself.
        """
        self._check_same()
        return super().relay(body, kind=kind, stream=stream, timeout_s=timeout_s, tenant=tenant)

    def stats(self) -> Mapping[str, float]:
        """See `VllmEngine.stats`; and how often the server was started."""
        return {**super().stats(), "server_starts": self.supervised.n_starts}

    async def aclose(self) -> None:
        """End all requests, then the server. Idempotent."""
        await super().aclose()
        await asyncio.to_thread(self.supervised.stop)

    def _check_same(self) -> None:
        self.supervised.check()
        if self._n_believed != self.supervised.n_starts:
            for replica in self.replicas:
                replica.doubt()
            self._n_believed = self.supervised.n_starts
