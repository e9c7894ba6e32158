"""One vLLM server of several: the remote engine, with orders, masks that it learns, and a proof."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final

import aiohttp
import orjson
from pydantic import SecretStr

from elision.contract import Delta, Masks, Plan, Request
from elision.errors import ConfigError, ElisionError, UpstreamError
from elision.middleware.engines.fleet.failover import is_broken_off, is_lost
from elision.middleware.engines.fleet.known import Proof, ReplicaHealth
from elision.middleware.engines.fleet.ordering import asked_with, wire
from elision.middleware.engines.fleet.proving import prove
from elision.middleware.engines.fleet.pushing import Pushing
from elision.middleware.engines.fleet.sharing import Shared
from elision.middleware.engines.fleet.telling import Telling
from elision.middleware.engines.plugin.orders import Order
from elision.middleware.engines.remote import RemoteEngine
from elision.middleware.engines.upstream.answers import from_now, whole
from elision.middleware.engines.upstream.probing import Probe
from elision.middleware.engines.upstream.questions import asker
from elision.middleware.engines.upstream.relaying import relayed_body

_AGAIN_S: Final = 5.0
"""After which a server that was unfit is tried again when somebody needs it."""
_ASK_S: Final = 60.0
_GREET_S: Final = 1.0  # behind the time for a connection: so what is gone is told from what is slow
_RETRIES: Final = 2
_MOST_DOUBTS: Final = 3


class Replica(RemoteEngine):
    """A vLLM server. Lives until `aclose`.

    Attributes:
        weight: Its share of the requests, relative to others'; 0 takes no new ones.
        secret: What orders are sealed with; None leaves them open.
        proof: What it was last seen to do; None: not tried since it was last in doubt.
        known: What it was last seen to do, in doubt or not; None: it was never tried.
        is_healthy: Whether it answered when it was last asked.
        n_open: Requests that it is working on for us.
        n_failed_proofs: How often it was found unfit.
        pushing: What it has learnt.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | SecretStr | None = None,
        weight: float = 1.0,
        model: str = "",
        secret: str | SecretStr | None = None,
        untested: bool = False,
        timeout_s: float = 60.0,
        connect_timeout_s: float = 5.0,
        retries: int = 0,
        private: bool = False,
    ) -> None:
        """Describe the server; nothing is sent yet.

        Args:
            base_url: See `RemoteEngine`; one server, not several behind one address.
            key: Bearer key for it.
            weight: See above.
            model: Its name for the model; empty takes what its engine says.
            secret: See above; None takes what its engine says.
            untested: Whether versions of vLLM will do that this was not tested with.
            timeout_s: See `RemoteEngine`.
            connect_timeout_s: See `RemoteEngine`.
            retries: See `RemoteEngine`; whoever has several asks the next instead.
            private: See `RemoteEngine`.

        Raises:
            ConfigError: If the address, the key, the weight or a time cannot be used.
        """
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"a replica's weight is {weight}; it must be 0 or more")
        super().__init__(
            base_url,
            model=model,
            key=key,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            retries=retries,
            private=private,
            trusted=True,
        )
        self.weight = weight
        self.secret = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        self.untested = untested
        self.proof: Proof | None = None
        self.known: Proof | None = None
        self.is_healthy = True
        self.n_open = self.n_failed_proofs = 0
        self.pushing = Pushing(self._push)
        self._shared = Shared()
        self._greet_s = connect_timeout_s + _GREET_S
        self._telling = Telling(self.base_url)
        self._n_doubts = 0
        self._unasked = "it has not been tried yet"

    @property
    def health(self) -> ReplicaHealth:
        """How it is now."""
        proof = self.proof or Proof(at=0.0, why=self._unasked)
        return ReplicaHealth(
            base_url=self.base_url,
            weight=self.weight,
            n_open=self.n_open,
            is_healthy=self.is_healthy,
            is_proved=self.is_proved,
            version=proof.version,
            why=proof.why,
        )

    @property
    def is_seen(self) -> bool:
        """Whether it was asked what it offers."""
        return self._seen is not None

    @property
    def is_proved(self) -> bool:
        """Whether what it was last seen to do is believed, and is enough."""
        return self.proof is not None and self.proof.acts

    def takes_bias(self, proof: Proof) -> bool:
        """Return whether it takes ``logit_bias``, as far as anybody knows: vLLM does, or drafts."""
        return (self._seen is None or self._seen.logit_bias) and not proof.speculates

    def join(
        self, name: str, model: str, *, secret: str | None, untested: bool, alone: bool
    ) -> None:
        """Take from its engine what it was not told itself; *alone* it tries again by itself."""
        self.name = name
        self.model = self.model or model
        self.secret = self.secret if self.secret is not None else secret
        self.untested = self.untested or untested
        self._retries = _RETRIES if alone else self._retries

    async def ask(self, method: str, route: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON of an answer; None if it is none. As `RemoteEngine.stream`, it raises."""
        data = await self._asked(method, route, body)
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            return None

    async def told(self, route: str) -> str:
        """Return the text of an answer; likewise."""
        return (await self._asked("GET", route, None)).decode("utf-8", "replace")

    async def proved(self, *, max_age_s: float) -> Proof:
        """Return what it does, as seen at most *max_age_s* seconds ago: else it is tried now.

        Everybody waits for one trial; that it is unfit counts for five seconds.

        Raises:
            ElisionError: If it cannot be asked.
        """
        proof = self.proof
        age = max_age_s if proof is None or proof.acts else min(_AGAIN_S, max_age_s)
        if proof is None or time.monotonic() - proof.at > age:
            proof = await self._shared.do("proof", self._prove)
        return proof

    async def meet(self, *, max_age_s: float) -> None:
        """Have it prove itself, then tell what it offers; raises as `proved`."""
        await self.proved(max_age_s=max_age_s)
        await self.probe()

    async def requires_order(self) -> bool:
        """Return whether it takes no request without an order; if nobody knows, as `proved`."""
        known = self.known or await self.proved(max_age_s=math.inf)
        return known.requires

    def doubt(self) -> None:
        """Believe nothing of it any more: the connection was lost, it may be another server now."""
        self._n_doubts += 1
        self.proof = None
        self.pushing.forget()

    async def greet(self) -> bool:
        """See whether it is there. Coming back, or going, it is in doubt; slow, it is not."""
        try:
            async with self._answer("GET", "/health", from_now(self._greet_s), retries=0):
                pass
        except ElisionError as exc:
            is_slow = isinstance(exc, TimeoutError) and not is_lost(exc)
            self.lost(exc, is_slow=is_slow)
        else:
            if not self.is_healthy:
                self._telling.here(self.proof)
            self.is_healthy = True
        return self.is_healthy

    def greeting(self) -> asyncio.Task[bool]:
        """Return a greeting that goes on whether or not anybody waits; one at a time."""
        return self._shared.begin("greet", self.greet)

    def lost(self, exc: ElisionError | None = None, *, is_slow: bool = False) -> None:
        """Take it for gone until it answers again, and doubt it unless it *is_slow* alone."""
        self.is_healthy = False
        self._telling.away(exc)
        if not is_slow:
            self.doubt()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count a request while it is open.

        A connection that is lost puts the server in doubt. An error that it answers with is that
        request's own; it is greeted, to see.
        """
        self.n_open += 1
        try:
            yield
        except UpstreamError as exc:
            if is_lost(exc):
                self.lost(exc)
            elif is_broken_off(exc):
                self.greeting()
            raise
        finally:
            self.n_open -= 1

    async def say(self, request: Request, plan: Plan) -> AsyncGenerator[Delta, None]:
        """Yield the reply to *request*, which says all that *plan* does; see `stream`."""
        bare = replace(plan, request=request, recipes=(), masks=None)
        async with aclosing(self.stream(bare)) as deltas:
            async for delta in deltas:
                yield delta

    @asynccontextmanager
    async def lent(
        self, body: Mapping[str, Any], route: str, deadline: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Lend the answer to *body*, a request as a caller sent it; see `RemoteEngine.relay`."""
        data = relayed_body(body, model=self.model)
        with self.busy():
            async with self._answer("POST", route, deadline, body=data) as response:
                yield response

    async def aclose(self) -> None:
        """See `RemoteEngine.aclose`."""
        await self._shared.aclose()
        await self.pushing.aclose()
        await super().aclose()

    async def _prove(self) -> Proof:
        for _ in range(_MOST_DOUBTS):
            n_doubts = self._n_doubts
            with self.busy():
                proof = await self._tried()
            if n_doubts == self._n_doubts:
                self.proof = self.known = proof
                self.is_healthy = True
                self.n_failed_proofs += not proof.acts
                self._telling.here(proof)
                return proof
        self._unasked = "its connection was lost whenever it was tried"
        self.n_failed_proofs += 1
        raise UpstreamError("a vLLM server was lost whenever it was tried", retryable=True)

    async def _tried(self) -> Proof:
        """Return what a trial shows. One that could not be made shows nothing: what was, stands."""
        try:
            return await prove(self, secret=self.secret, untested=self.untested)
        except ElisionError as exc:
            self._unasked = f"it could not be asked ({type(exc).__name__})"
            self.n_failed_proofs += 1
            raise

    async def _push(self, masks: Masks) -> None:
        order = Order(guard=masks.digest, learn=masks.body)
        body = {"model": self.model, "prompt": "1", "max_tokens": 1, "temperature": 0}
        with self.busy():
            await self.ask("POST", "completions", body | {"vllm_xargs": wire(order, self.secret)})

    def _probe(self) -> Probe:
        ask = asker(self._answer)
        if self.known is None or self.known.requires:
            ask = partial(asked_with, wire(Order(), self.secret), ask)
        return Probe(ask, model=self.model, length_field=self._length_field)

    async def _asked(self, method: str, route: str, body: Mapping[str, Any] | None) -> bytes:
        deadline = from_now(_ASK_S)
        data = None if body is None else orjson.dumps(body)
        async with self._answer(method, route, deadline, body=data, retries=0) as response:
            return await whole(response, deadline)
