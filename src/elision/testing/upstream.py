"""A server on loopback that speaks OpenAI's wire: what it says, offers and breaks is scripted.

Everything between it and what is tested is real: sockets, HTTP, events, disconnects. Over a
`ScriptedEngine` its tokens, prefill and log-probabilities are real too.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from elision.errors import ElisionError
from elision.testing.upstream_dialects import DIALECTS
from elision.testing.upstream_faults import (
    BEFORE,
    WITHIN,
    envelope,
    event,
    fail_before,
    fail_within,
)
from elision.testing.upstream_line import Exchange, Line
from elision.testing.upstream_plugin import (
    VLLM_ROUTES,
    ScriptedPlugin,
    prompt_logprobs,
    tokenized,
    told_by_vllm,
)
from elision.testing.upstream_speech import Decoding, Reply, Said, Script, Source
from elision.testing.upstream_wire import Route, Writer

if TYPE_CHECKING:
    from elision.middleware.engines.local import LocalEngine

Fault: TypeAlias = "str | Callable[[Mapping[str, Any]], str | None] | None"

_ROUTES: dict[str, Route] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text",
    "/inference/v1/generate": "generate",
}


class ScriptedUpstream:
    """An OpenAI-compatible server on 127.0.0.1, for ``async with`` or, on its own thread, ``with``.

    Args:
        reply: A text, its pieces (texts, or deltas such as ``{"tool_calls": [...]}``), a function
            of the body that returns either; or a local engine, whose model then decodes.
        dialect: A key of `DIALECTS`.
        model: The one model's name.
        key: Bearer key wanted on ``/v1``; None takes any.
        every: Characters per piece of a text that is one string.
        delay_s: Before each step.
        cut: Bytes per write; 0 writes each event whole.
        framing: How events are framed; see `upstream_faults.event`.
        fault: One of ``refused``, ``json-instead-of-stream``, `BEFORE`, `WITHIN`, a status in
            digits; or a function of the body that returns one or None.
        fault_after: Steps before a fault of `WITHIN`.
        n_faults: Requests that fail before the rest goes well; None: all.
        location: Where the fault ``redirect`` leads.
        plugin: What a vLLM over a model has been given; None leaves it as it comes.

    Attributes:
        url: The base URL, once it is open: ends in ``/v1``.
        seen: Every request, in order.
        n_open: Requests to write that are being answered.
        n_lines: Connections that are open.
        n_steps: Steps said so far, over all requests.
    """

    def __init__(
        self,
        reply: Reply | LocalEngine,
        *,
        dialect: str = "openai",
        model: str = "scripted",
        key: str | None = None,
        every: int = 4,
        delay_s: float = 0.0,
        cut: int = 0,
        framing: str = "lf",
        fault: Fault = None,
        fault_after: int = 1,
        n_faults: int | None = None,
        location: str = "",
        plugin: ScriptedPlugin | None = None,
    ) -> None:
        self.dialect = DIALECTS[dialect]
        self.url = ""
        self.seen: list[Exchange] = []
        self.n_open = self.n_steps = 0
        self.key = key
        self.delay_s, self.cut, self.framing = delay_s, cut, framing
        self.fault, self.fault_after, self.n_faults = fault, fault_after, n_faults
        self.location = location
        self._model = model
        self._source = _source(reply, every)
        self.plugin = plugin
        if plugin is not None and isinstance(self._source, Decoding):
            self.dialect = replace(self.dialect, raw=plugin.raw)
            plugin.load(self._source.model)
        self._lines: set[Line] = set()
        self._server: asyncio.Server | None = None
        self._thread: _Thread | None = None

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The bodies of all requests to write, in order; those of a probe are among them."""
        return [one.json for one in self.seen if one.path in _ROUTES and one.method == "POST"]

    @property
    def n_lines(self) -> int:
        """Connections that are open."""
        return len(self._lines)

    def line(self) -> Line:
        """Return the protocol of one connection, for servers at an address of your own."""
        return Line(self._answer, self._lines)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self.line, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._server = server
        if self.fault == "refused":
            server.close()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for line in tuple(self._lines):
            line.transport.abort()
        while self._lines:  # noqa: ASYNC110 - the transports tell it in the loop's next round
            await asyncio.sleep(0)

    def __enter__(self) -> Self:
        self._thread = _Thread(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._thread is not None
        self._thread.end()

    async def _answer(self, exchange: Exchange) -> None:
        self.seen.append(exchange)
        path = exchange.path.partition("?")[0]
        vllm = self.dialect.generate
        if not self._lets_in(exchange, path):
            await exchange.answer(401, self._envelope(401, "wrong key"))
        elif path == "/v1/models":
            await exchange.answer(200, self._models())
        elif vllm and path in VLLM_ROUTES:
            await exchange.answer(200, told_by_vllm(path, self.plugin))
        elif vllm and path == "/tokenize" and isinstance(self._source, Decoding):
            await exchange.answer(200, tokenized(self._source.model, exchange.json))
        elif path in _ROUTES and exchange.method == "POST" and (vllm or path[:4] == "/v1/"):
            await self._write(exchange, _ROUTES[path])
        else:
            await exchange.answer(404, {"detail": "Not Found"})

    def _lets_in(self, exchange: Exchange, path: str) -> bool:
        if self.key is None or not path.startswith(("/v1", "/inference")):
            return True
        return exchange.headers.get("authorization") == f"Bearer {self.key}"

    def _models(self) -> dict[str, Any]:
        model = {"id": self._model, "object": "model", "created": 1, "owned_by": self.dialect.owner}
        limit: dict[str, Any] = {}
        if self.dialect.name == "vllm" and isinstance(self._source, Decoding):
            limit = {"max_model_len": self._source.model.n_context}
        return {"object": "list", "data": [model | limit]}

    def _envelope(self, status: int, words: str, param: str | None = None) -> Any:
        return envelope(status, words, owner=self.dialect.owner, param=param)

    async def _write(self, exchange: Exchange, route: Route) -> None:
        body = exchange.json
        fault = self._fault_of(body)
        self.n_open += 1
        try:
            if fault in BEFORE or (fault or "").isdigit():
                owner = self.dialect.owner
                await fail_before(exchange, str(fault), owner=owner, location=self.location)
            elif body.get("model", self._model) != self._model:
                await exchange.answer(404, self._envelope(404, "no such model", "model"))
            else:
                await self._speak(exchange, route, body, fault)
        finally:
            self.n_open -= 1

    def _fault_of(self, body: Mapping[str, Any]) -> str | None:
        fault = self.fault(body) if callable(self.fault) else self.fault
        if fault is None or self.n_faults == 0:
            return None
        if self.n_faults is not None:
            self.n_faults -= 1
        return fault

    async def _speak(
        self, exchange: Exchange, route: Route, body: dict[str, Any], fault: str | None
    ) -> None:
        try:
            ask = self.dialect.ask(_flat(body, route), chat=route == "chat")
            if self.plugin is not None:
                ask = self.plugin.taken(ask)
            speech = self._source.open(ask)
        except ElisionError as exc:
            await exchange.answer(400, self._envelope(400, str(exc), exc.param))
            return
        writer = Writer(route, self.dialect, ask, speech, model=self._model)
        if body.get("stream") and fault != "json-instead-of-stream":
            await self._stream(exchange, writer, speech.said, body, fault)
            return
        await asyncio.sleep(self.delay_s)
        reply = writer.whole(speech.said)
        if isinstance(self._source, Decoding) and ask.body.get("prompt_logprobs"):
            n_top, ids = ask.body["prompt_logprobs"], speech.prompt_ids or ()
            reply["choices"][0]["prompt_logprobs"] = prompt_logprobs(self._source.model, ids, n_top)
        await exchange.answer(200, reply)

    async def _stream(
        self,
        exchange: Exchange,
        writer: Writer,
        said: Iterable[Said],
        body: Mapping[str, Any],
        fault: str | None,
    ) -> None:
        await exchange.start()
        for n, step in enumerate(_without_end(said) if fault in WITHIN else said):
            if fault in WITHIN and fault != "endless" and n == self.fault_after:
                break
            await asyncio.sleep(self.delay_s)
            self.n_steps += 1
            for chunk in writer.chunks(step):
                await self._send(exchange, event(chunk, self.framing))
        if fault in WITHIN:
            await fail_within(exchange, str(fault))
        elif (body.get("stream_options") or {}).get("include_usage"):
            await self._send(exchange, event(writer.last(), self.framing))
        await self._send(exchange, b"data: [DONE]\n\n")
        await exchange.end()

    async def _send(self, exchange: Exchange, data: bytes) -> None:
        for at in range(0, len(data), self.cut or len(data)):
            await exchange.send(data[at : at + (self.cut or len(data))])


class _Thread:
    """Keeps a server open on a loop of its own."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._loop = asyncio.new_event_loop()
        self._upstream = upstream
        self._loop.run_until_complete(upstream.__aenter__())
        self._runs = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runs.start()

    def end(self) -> None:
        asyncio.run_coroutine_threadsafe(self._upstream.__aexit__(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._runs.join(10)
        self._loop.close()


def _source(reply: Any, every: int) -> Source:
    station = getattr(reply, "_station", None)
    return Script(reply, every=every) if station is None else Decoding(station.model)


def _without_end(said: Iterable[Said]) -> Iterable[Said]:
    """Yield what is said again and again, its end left out."""
    steps = [step for step in said if step.finish is None]
    while steps:
        yield from steps


def _flat(body: Mapping[str, Any], route: Route) -> dict[str, Any]:
    """Return the body of vLLM's own route as that of a completion."""
    if route != "generate":
        return dict(body)
    sampling = body.get("sampling_params", {})
    xargs = {"vllm_xargs": sampling["extra_args"]} if "extra_args" in sampling else {}
    return {**sampling, **xargs, "prompt": body["token_ids"]}
