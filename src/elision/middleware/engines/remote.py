"""Any OpenAI-compatible server as an engine: text in, text out, and whatever else it is asked for.

Nothing here guards. An engine without scores is wrapped by the pipeline, which holds text back
until it can no longer grow into something that must not be said; so this engine hands on every
piece as it arrives, with everything that came with it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import aiohttp
from pydantic import SecretStr

from elision.contract import Capability, Delta, Lexicon, Plan
from elision.errors import CapabilityError, ConfigError
from elision.middleware.engines.upstream.addresses import checked_key, checked_url
from elision.middleware.engines.upstream.answers import (
    Asked,
    answered,
    drain,
    from_now,
    whole,
)
from elision.middleware.engines.upstream.bodies import LengthField, body_of, check
from elision.middleware.engines.upstream.offers import Offers
from elision.middleware.engines.upstream.opening import Opening
from elision.middleware.engines.upstream.pool import Pool, by
from elision.middleware.engines.upstream.probing import Probe, Probing
from elision.middleware.engines.upstream.questions import asker, model_ids
from elision.middleware.engines.upstream.ranking import ranking_of, tokens_of
from elision.middleware.engines.upstream.relaying import Relayed, relayed_body
from elision.middleware.engines.upstream.sse import Framer
from elision.middleware.engines.upstream.wire import ReplyReader

if TYPE_CHECKING:
    from elision.middleware.engines.upstream.looping import TokenLoop
    from elision.settings import Settings


class RemoteEngine:
    """Streams replies from an OpenAI-compatible server. Lives until `aclose`.

    One engine serves any number of requests and event loops. It asks the upstream for a stream
    every time. The key goes to the upstream's host only.

    Attributes:
        name: The model's alias, for reports and errors.
        model: The upstream's name for it.
        base_url: Where the routes hang, as in openai-python: usually ends in ``/v1``.
        trusted: Whether the upstream may be told what must not be said.
        capabilities: PASSES, and what the last `probe` saw.
        lexicon: None: it speaks text.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str,
        key: str | SecretStr | None = None,
        name: str | None = None,
        timeout_s: float = 60.0,
        connect_timeout_s: float = 5.0,
        length_field: LengthField = "max_tokens",
        retries: int = 2,
        probe: bool = True,
        private: bool = False,
        trusted: bool = False,
        tokenizer: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        """Describe the upstream; nothing is sent yet.

        Args:
            base_url: ``http`` or ``https``, without user, query or fragment. An address in digits
                and ``localhost`` are taken at their word.
            model: The upstream's name for the model.
            key: Bearer key for the upstream.
            name: Our name for it; the upstream's by default.
            timeout_s: Longest silence of the upstream in seconds.
            connect_timeout_s: Longest wait for a connection; 5 s as in openai-python.
            length_field: What the upstream calls the bound of a chat's reply; OpenAI's reasoning
                models take only the newer name, older servers only the other.
            retries: New tries of a request while nothing of it has been answered; see `answered`.
            probe: Whether `probe` asks what the upstream offers.
            private: Whether the host's name may lead to a private address, and the URL be a
                link-local one.
            trusted: See above.
            tokenizer: The upstream's tokenizer, for `loop`: alias, hub id or folder.
            settings: Cache and limits of `loop`; read when it is opened if None.

        Raises:
            ConfigError: If the address, the key or a time cannot be used.
        """
        if timeout_s <= 0 or connect_timeout_s <= 0:
            raise ConfigError(f"timeouts are {timeout_s} s and {connect_timeout_s} s, not positive")
        self.name = name or model
        self.model = model
        self.base_url = checked_url(base_url, private=private)
        self.trusted = trusted
        self.capabilities = Capability.PASSES
        self.lexicon: Lexicon | None = None
        self._key = checked_key(key)
        self._length_field: LengthField = length_field
        self._retries = retries
        self._pool = Pool(connect_s=connect_timeout_s, silence_s=timeout_s, private=private)
        self._probing = Probing(self._probe) if probe else None
        self._opening = Opening(self, tokenizer, settings)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, model={self.model!r})"

    @property
    def offers(self) -> Offers:
        """What the upstream was seen to do; nothing beyond text before a probe went well."""
        return self._seen or Offers()

    async def probe(self) -> Capability:
        """Ask the upstream once what it can do; see `Probing`. Some eight requests of one token."""
        if self._probing is not None:
            await self._probing.ask()
        self.capabilities = self.offers.capabilities
        return self.capabilities

    async def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        """Yield the reply piece by piece, as it arrives.

        Closing the iterator closes the upstream's connection at once, which tells it to stop.

        Args:
            plan: Its request is sent. Recipes need scores, so none may be left in it.

        Raises:
            BusyError: If the upstream asks to come back later; nothing has been yielded then.
            RequestError: If it, or this engine, cannot serve the request; likewise.
            NotFoundError: If it does not know the model; likewise.
            UpstreamTimeoutError: If it was silent for too long or the request's deadline passed.
            UpstreamError: If it failed, or sent what is no reply.
            EngineError: If this engine is closed.
        """
        request = plan.request
        for recipe in plan.recipes:
            raise CapabilityError(type(recipe).__name__, engine=self.name, missing="LOGITS")
        check(request, engine=self.name, offers=self._seen)
        body = body_of(request, model=self.model, length_field=self._length_field)
        route = "chat/completions" if request.kind == "chat" else "completions"
        deadline = from_now(request.timeout_s)
        reader, framer = ReplyReader(request), Framer()
        async with self._answer("POST", route, deadline, body=body) as response:
            if response.content_type == "application/json":
                for delta in reader.whole(await whole(response, deadline)):
                    yield delta
            while not reader.done and (chunk := await by(deadline, response.content.readany())):
                for data in framer.feed(chunk):
                    for delta in reader.read(data):
                        yield delta
            yield reader.last(engine=self.name)
            await drain(response)

    async def models(self, *, timeout_s: float | None = None) -> tuple[str, ...]:
        """Return the ids of the upstream's models: the cheapest sign that address and key fit.

        Args:
            timeout_s: Deadline in seconds; None waits as long as the upstream is not silent.

        Raises:
            UpstreamError: If it does not answer with a list of models.
            BusyError: If it asks to come back later.
            EngineError: If this engine is closed.
        """
        return await model_ids(self._answer, timeout_s)

    def relay(
        self,
        body: Mapping[str, Any],
        *,
        kind: Literal["chat", "text"],
        stream: bool,
        timeout_s: float | None,
        tenant: str | None = None,
    ) -> Relayed:
        """Return the upstream's answer to *body*, to be handed on as it comes; not asked for yet.

        Args:
            body: As a caller sent it; the model's name becomes the upstream's, ``elision`` stays.
            kind: Of *body*.
            stream: Whether it wants a stream.
            timeout_s: Deadline for the whole answer in seconds.
            tenant: Whose; what the upstream keeps of prompts is its own matter.
        """
        data = relayed_body(body, model=self.model)
        route = "chat/completions" if kind == "chat" else "completions"
        ask = partial(self._answer, "POST", route, body=data)
        return Relayed(ask, stream=stream, timeout_s=timeout_s)

    async def ask(self, method: str, route: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON of a good answer, None if it is none; raises as `stream`.

        Args:
            method: HTTP method.
            route: Behind the base URL, or behind the server's root if it begins with a slash.
            body: What to post.
        """
        return await asker(self._answer)(method, route, body)

    async def aclose(self) -> None:
        """End all requests and close every connection. Idempotent."""
        if self._probing is not None:
            await self._probing.aclose()
        await self._opening.aclose()
        await self._pool.aclose()

    async def loop(self) -> TokenLoop | None:
        """Return an engine that decodes the upstream token by token; opened once, closed with this.

        None without a tokenizer, or where the upstream does not tell its likeliest tokens.

        Raises:
            ConfigError: If the tokenizer cannot be loaded, or is not the upstream's.
            ElisionError: If the upstream cannot be asked.
        """
        return await self._opening.ask()

    async def next_scores(self, ids: Sequence[int], k: int) -> Sequence[tuple[int, float]]:
        """Return the *k* likeliest tokens behind *ids*, likeliest first, with log-probabilities.

        Raises:
            UpstreamError: If it does not tell them by their numbers.
            ElisionError: As `stream`.
        """
        generate = self.offers.generate
        return await ranking_of(self._answer, ids, k, model=self.model, generate=generate)

    async def tokens_of(self, text: str) -> tuple[int, ...] | None:
        """Return how the upstream splits *text*; None if it does not tell."""
        return await tokens_of(self._answer, text, model=self.model)

    async def leave(self) -> None:
        """Close what was opened on the running event loop."""
        await self._pool.leave()

    @property
    def _seen(self) -> Offers | None:
        return None if self._probing is None else self._probing.offers

    def _probe(self) -> Probe:
        ask = asker(self._answer)
        return Probe(ask, model=self.model, length_field=self._length_field)

    def _answer(
        self,
        method: str,
        route: str,
        deadline: float | None,
        *,
        body: bytes | None = None,
        retries: int | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Lend the upstream's answer, if it is a good one; see `answered`.

        Args:
            method: HTTP method.
            route: Behind the base URL; if it begins with a slash, behind the server's root.
            deadline: When the answer must have begun, on the running loop's clock.
            body: What to post.
            retries: New tries; None takes the engine's.
        """
        root = self.base_url.removesuffix("/v1") if route.startswith("/") else f"{self.base_url}/"
        asked = Asked(
            method=method,
            url=f"{root}{route}",
            headers=self._headers(),
            body=body,
            model=None if body is None else self.model,
            deadline=deadline,
            retries=self._retries if retries is None else retries,
        )
        return answered(self._pool, asked)

    def _headers(self) -> dict[str, str]:
        headers = {
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": "elision",
        }
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        return headers
