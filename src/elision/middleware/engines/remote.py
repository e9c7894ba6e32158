"""Any OpenAI-compatible server as an engine: text in, text out.

Nothing here guards. An engine without scores is wrapped by the pipeline, which holds text back
until it can no longer grow into something that must not be said; so this engine hands on every
piece as it arrives, and nothing that is not text.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import SplitResult, urlsplit

import aiohttp
import orjson
from pydantic import SecretStr

from elision.contract import Capability, Delta, Lexicon, Plan, Request
from elision.errors import CapabilityError, ConfigError, UpstreamError
from elision.middleware.engines.upstream.errors import of_status, read_fault
from elision.middleware.engines.upstream.pool import Pool, by
from elision.middleware.engines.upstream.relaying import Relayed, relayed_body
from elision.middleware.engines.upstream.sse import Framer
from elision.middleware.engines.upstream.wire import LengthField, ReplyReader, body_of, check

_ERROR_BODY_BYTES = 64_000
_MODELS_BODY_BYTES = 8_000_000
_ERROR_BODY_S = 5.0
_GRACE_S = 0.05


class RemoteEngine:
    """Streams text from an OpenAI-compatible server. Lives until `aclose`.

    One engine serves any number of requests and event loops. It asks the upstream for a stream
    every time. The key goes to the upstream's host only: no redirect is followed.

    Attributes:
        name: The model's alias, for reports and errors.
        model: The upstream's name for it.
        base_url: Where the routes hang, as in openai-python: usually ends in ``/v1``.
        capabilities: None: what this upstream offers beyond text is not known.
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
    ) -> None:
        """Describe the upstream; nothing is sent yet.

        Args:
            base_url: ``http`` or ``https``, without user, query or fragment.
            model: The upstream's name for the model.
            key: Bearer key for the upstream.
            name: Our name for it; the upstream's by default.
            timeout_s: Longest silence of the upstream in seconds.
            connect_timeout_s: Longest wait for a connection; 5 s as in openai-python.
            length_field: What the upstream calls the reply's bound; OpenAI's reasoning models take
                only the newer name, older servers only the other.

        Raises:
            ConfigError: If the address, the key or a time cannot be used.
        """
        if timeout_s <= 0 or connect_timeout_s <= 0:
            raise ConfigError(f"timeouts are {timeout_s} s and {connect_timeout_s} s, not positive")
        self.name = name or model
        self.model = model
        self.base_url = _checked_url(base_url)
        self.capabilities = Capability.NONE
        self.lexicon: Lexicon | None = None
        self._key = _checked_key(key)
        self._length_field: LengthField = length_field
        self._pool = Pool(connect_s=connect_timeout_s, silence_s=timeout_s)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, model={self.model!r})"

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
            UpstreamError: If it failed, or sent something that is not text.
            EngineError: If this engine is closed.
        """
        request = plan.request
        for recipe in plan.recipes:
            raise CapabilityError(type(recipe).__name__, engine=self.name, missing="LOGITS")
        check(request, engine=self.name)
        body = body_of(request, model=self.model, length_field=self._length_field)
        route = "chat/completions" if request.kind == "chat" else "completions"
        deadline = _from_now(request.timeout_s)
        reader, framer = ReplyReader(request), Framer()
        async with self._answer("POST", route, deadline, body=body) as response:
            await _check_is_stream(response)
            while not reader.done and (chunk := await by(deadline, response.content.readany())):
                for data in framer.feed(chunk):
                    for delta in reader.read(data):
                        yield delta
            yield reader.last(engine=self.name)
            await _drain(response)

    async def models(self, *, timeout_s: float | None = None) -> tuple[str, ...]:
        """Return the ids of the upstream's models: the cheapest sign that address and key fit.

        Args:
            timeout_s: Deadline in seconds; None waits as long as the upstream is not silent.

        Raises:
            UpstreamError: If it does not answer with a list of models.
            BusyError: If it asks to come back later.
            EngineError: If this engine is closed.
        """
        deadline = _from_now(timeout_s)
        async with self._answer("GET", "models", deadline) as response:
            body = await _beginning(response, _MODELS_BODY_BYTES, deadline)
        try:
            return tuple(str(model["id"]) for model in orjson.loads(body)["data"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            failure = UpstreamError(f"the upstream's list of models, {len(body)} bytes, is none")
        raise failure

    def relay(self, request: Request, body: Mapping[str, Any], *, stream: bool) -> Relayed:
        """Return the upstream's answer to *body*, to be handed on as it comes; not asked for yet.

        Args:
            request: *body*, read.
            body: As a caller sent it; the model's name becomes the upstream's, and the ``elision``
                object stays here.
            stream: Whether it wants a stream.
        """
        data = relayed_body(body, model=self.model)
        route = "chat/completions" if request.kind == "chat" else "completions"
        ask = partial(self._answer, "POST", route, body=data)
        return Relayed(ask, stream=stream, timeout_s=request.timeout_s)

    async def aclose(self) -> None:
        """End all requests and close every connection. Idempotent."""
        await self._pool.aclose()

    @asynccontextmanager
    async def _answer(
        self, method: str, route: str, deadline: float | None, *, body: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Lend the upstream's answer, if it is a good one."""
        url = f"{self.base_url}/{route}"
        asked = self._pool.ask(method, url, headers=self._headers(), body=body, deadline=deadline)
        async with asked as response:
            if response.status != 200:
                said = await _error_body(response)
                model = None if body is None else self.model
                raise of_status(response.status, response.headers, said, model=model)
            yield response

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


async def _check_is_stream(response: aiohttp.ClientResponse) -> None:
    if response.content_type == "application/json":
        fault = read_fault(await _error_body(response))
        raise UpstreamError(f"the upstream answered with JSON instead of an event stream{fault}")


async def _error_body(response: aiohttp.ClientResponse) -> bytes:
    """Return the beginning of what an error says; what cannot be read adds nothing to it."""
    with suppress(UpstreamError):
        return await _beginning(response, _ERROR_BODY_BYTES, _from_now(_ERROR_BODY_S))
    return b""


async def _beginning(response: aiohttp.ClientResponse, limit: int, deadline: float | None) -> bytes:
    body = bytearray()
    while len(body) < limit and (chunk := await by(deadline, response.content.readany())):
        body += chunk
    return bytes(body)


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read the few bytes after the last event, so that the connection can serve again."""
    with suppress(UpstreamError):
        await _beginning(response, _ERROR_BODY_BYTES, _from_now(_GRACE_S))


def _from_now(seconds: float | None) -> float | None:
    return None if seconds is None else asyncio.get_running_loop().time() + seconds


def _split(url: str) -> SplitResult:
    """Return the parts of *url*; empty ones if its host or port is malformed."""
    try:
        parts = urlsplit(url)
        return parts if parts.port != 0 else urlsplit("")
    except ValueError:
        return urlsplit("")


def _checked_url(url: str) -> str:
    parts = _split(url)
    if parts.username is not None or parts.password is not None:
        raise ConfigError("base_url holds a user name or password; pass the key as key=")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("base_url must begin with http:// or https:// and name a host")
    if parts.query or parts.fragment:
        raise ConfigError("base_url holds a query or a fragment; leave it out")
    return url.rstrip("/")


def _checked_key(key: str | SecretStr | None) -> SecretStr | None:
    secret = key if isinstance(key, SecretStr) else SecretStr(key or "")
    text = secret.get_secret_value()
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ConfigError("the upstream's key holds spaces or characters beyond printable ASCII")
    return secret if text else None
