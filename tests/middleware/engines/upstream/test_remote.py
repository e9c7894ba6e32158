"""The remote engine against real servers on loopback; nothing here is mocked."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from time import monotonic
from typing import Any

import pytest
from openai import AsyncOpenAI
from pydantic import SecretStr

from elision.contract import (
    Capability,
    Delta,
    Engine,
    Plan,
    Probing,
    Request,
    Sampling,
    Stage,
    Stateless,
    Usage,
    collect,
)
from elision.errors import (
    BusyError,
    CapabilityError,
    ConfigError,
    ElisionError,
    EngineError,
    NotFoundError,
    RequestError,
    UpstreamError,
    UpstreamTimeoutError,
)
from elision.middleware.engines.remote import RemoteEngine
from elision.middleware.engines.upstream.offers import Offers
from elision.testing.waiting import awaited_s

KEY = "sk-very-secret"
ASK = ({"role": "user", "content": "Who is Voldemort?"},)
PLAN = Plan(request=Request(messages=ASK))


class Exchange:
    """One request that arrived, and the means to answer it byte by byte."""

    def __init__(self, head: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        first, *rest = head.split("\r\n")
        self.line = first
        self.headers = dict(line.lower().split(": ", 1) for line in rest if line)
        self.head = head
        self.body = body
        self.writer = writer

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def start(
        self, status: int = 200, kind: str = "text/event-stream", **headers: str
    ) -> None:
        lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", "transfer-encoding: chunked"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.raw(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def send(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def answer(self, data: bytes, *, status: int = 200, **headers: str) -> None:
        await self.start(status, **headers)
        if data:
            await self.send(data)
        await self.end()


Handler = Callable[[Exchange], Awaitable[None]]


class Upstream:
    """A small HTTP/1.1 server that knows how many connections are open."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.seen: list[Exchange] = []
        self.open = 0
        self.opened = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.opened += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = [x for x in head.lower().split(b"\r\n") if b"content-length" in x]
                body = await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
                self.seen.append(Exchange(head.decode(), body, writer))
                answering = asyncio.ensure_future(self.handler(self.seen[-1]))
                gone = asyncio.ensure_future(_until_closed(reader))
                await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
                gone.cancel()
                if not answering.done():
                    answering.cancel()
                    return
                await answering
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def all_closed(self, within_s: float) -> bool:
        return await awaited_s(lambda: not self.open) < within_s


async def _until_closed(reader: asyncio.StreamReader) -> None:
    while not reader.at_eof() and reader.exception() is None:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


@asynccontextmanager
async def upstream(handler: Handler) -> AsyncIterator[Upstream]:
    up = Upstream(handler)
    server = await asyncio.start_server(up.serve, "127.0.0.1", 0)
    up.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield up
    finally:
        server.close()


@asynccontextmanager
async def engine_on(up: Upstream, **options: Any) -> AsyncIterator[RemoteEngine]:
    options = {"model": "up-model", "key": KEY, "retries": 0} | options
    engine = RemoteEngine(up.url, **options)
    try:
        yield engine
    finally:
        await engine.aclose()


def chunk(text: str = "", *, index: int = 0, finish: str | None = None) -> bytes:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
    event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "up-model"}
    return b"data: " + json.dumps(event | {"choices": [choice]}, ensure_ascii=False).encode()


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}'
DONE = b"data: [DONE]"
HELLO = b"\n\n".join(
    [chunk(), chunk("Né "), b": keep-alive", chunk("🙂!"), chunk(finish="stop"), USAGE, DONE, b""]
)


async def hello(exchange: Exchange) -> None:
    await exchange.answer(HELLO)


async def fault_of(engine: RemoteEngine, plan: Plan = PLAN) -> ElisionError:
    with pytest.raises(ElisionError) as caught:
        await collect(engine.stream(plan))
    return caught.value


# --- The request ---------------------------------------------------------------------------------


async def test_it_is_an_engine_that_hands_on_and_promises_nothing_unseen() -> None:
    engine = RemoteEngine("http://127.0.0.1:1/v1", model="m", name="alias")
    assert isinstance(engine, Engine)
    assert isinstance(engine, Probing)
    assert (engine.name, engine.capabilities, engine.lexicon) == ("alias", Capability.PASSES, None)
    assert (engine.offers, engine.trusted) == (Offers(), False)


async def test_a_chat_is_posted_as_openai_wants_it() -> None:
    async with upstream(hello) as up, engine_on(up) as engine:
        await collect(engine.stream(PLAN))
        (seen,) = up.seen
    assert seen.line == "POST /v1/chat/completions HTTP/1.1"
    assert seen.headers["authorization"] == f"bearer {KEY}"
    assert seen.headers["content-type"] == "application/json"
    assert (seen.json["model"], seen.json["messages"]) == ("up-model", list(ASK))
    assert (seen.json["stream"], seen.json["stream_options"]) == (True, {"include_usage": True})


async def test_a_raw_completion_goes_to_its_own_route() -> None:
    async def raw(exchange: Exchange) -> None:
        choice = {"index": 0, "text": " upon", "finish_reason": "length"}
        await exchange.answer(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())

    async with upstream(raw) as up, engine_on(up, key=None) as engine:
        reply = await collect(engine.stream(Plan(request=Request(kind="text", prompt="Once"))))
        (seen,) = up.seen
    assert (reply.text, reply.choices[0].finish) == (" upon", "length")
    assert seen.line == "POST /v1/completions HTTP/1.1"
    assert seen.json["prompt"] == "Once"
    assert "authorization" not in seen.headers


class NeedsScores(Stateless):
    stage = Stage.HARD_MASK

    def adjust(self, logits: Any, here: Any) -> Any:
        return logits


@pytest.mark.parametrize(
    "plan",
    [
        Plan(request=Request(messages=ASK, continue_final=True)),
        Plan(request=Request(kind="text", prompt=(1, 2))),
        Plan(request=Request(messages=ASK), recipes=(NeedsScores(),)),
    ],
)
async def test_what_it_cannot_do_is_refused_before_anything_is_sent(plan: Plan) -> None:
    async with upstream(hello) as up, engine_on(up) as engine:
        fault = await fault_of(engine, plan)
        assert up.seen == []
    assert isinstance(fault, CapabilityError)


# --- The reply -----------------------------------------------------------------------------------


async def test_a_reply_arrives_whole_with_its_usage() -> None:
    async with upstream(hello) as up, engine_on(up) as engine:
        reply = await collect(engine.stream(PLAN))
    assert (reply.text, reply.choices[0].finish) == ("Né 🙂!", "stop")
    assert reply.usage == Usage(prompt_tokens=9, completion_tokens=3)
    assert reply.report == {"engine": "up-model", "usage_from_upstream": True}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
async def test_a_stream_cut_into_single_bytes_reads_the_same(end: bytes) -> None:
    async def drip(exchange: Exchange) -> None:
        await exchange.start()
        for byte in HELLO.replace(b"\n", end):
            await exchange.send(bytes([byte]))
            await asyncio.sleep(0)
        await exchange.end()

    async with upstream(drip) as up, engine_on(up) as engine:
        assert (await collect(engine.stream(PLAN))).text == "Né 🙂!"


async def test_a_compressed_stream_is_read_all_the_same() -> None:
    async def zipped(exchange: Exchange) -> None:
        await exchange.answer(gzip.compress(HELLO), content_encoding="gzip")

    async with upstream(zipped) as up, engine_on(up) as engine:
        assert (await collect(engine.stream(PLAN))).text == "Né 🙂!"
        assert up.seen[0].headers["accept-encoding"] == "identity"


async def test_choices_are_kept_apart() -> None:
    async def two(exchange: Exchange) -> None:
        events = [chunk("a", index=1), chunk("b"), chunk("c", index=1), chunk("d", finish="length")]
        await exchange.answer(b"\n\n".join([*events, chunk(index=1, finish="stop"), b""]))

    async with upstream(two) as up, engine_on(up) as engine:
        reply = await collect(engine.stream(Plan(request=Request(messages=ASK, n=2))))
        assert up.seen[0].json["n"] == 2
    assert [(c.text, c.finish) for c in reply.choices] == [("bd", "length"), ("ac", "stop")]


async def test_a_piece_is_handed_on_before_the_next_one_is_written() -> None:
    read = asyncio.Event()

    async def waiting(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.send(chunk("first") + b"\n\n")
        await read.wait()
        await exchange.send(chunk("last", finish="stop") + b"\n\n")
        await exchange.end()

    async with upstream(waiting) as up, engine_on(up) as engine, aclosing(engine.stream(PLAN)) as s:
        assert await asyncio.wait_for(anext(s), 5) == Delta(text="first")
        read.set()
        assert await anext(s) == Delta(text="last", finish="stop")


@pytest.mark.parametrize("n", [1, 3])
async def test_openais_own_client_reads_the_same_text_reasons_and_usage(n: int) -> None:
    pieces = [chunk(f"{w} ", index=i) for w in ("né", "🙂", "\u2028end") for i in range(n)]
    ends = [chunk(index=i, finish="length" if i else "stop") for i in range(n)]
    stream = b"\n\n".join([*pieces, *ends, USAGE, b"data: [DONE]", b""])
    ask: Any = {"model": "m", "messages": [dict(ASK[0])], "n": n, "stream": True}
    texts, reasons, usage = [""] * n, [""] * n, Usage()

    async def reply_to(exchange: Exchange) -> None:
        await exchange.answer(stream)

    async with upstream(reply_to) as up, engine_on(up) as engine:
        reply = await collect(engine.stream(Plan(request=Request(messages=ASK, n=n))))
        async with AsyncOpenAI(base_url=up.url, api_key=KEY, max_retries=0) as oracle:
            async for event in await oracle.chat.completions.create(**ask):
                for choice in event.choices:
                    texts[choice.index] += choice.delta.content or ""
                    reasons[choice.index] = choice.finish_reason or reasons[choice.index]
                if u := event.usage:
                    usage = Usage(
                        prompt_tokens=u.prompt_tokens, completion_tokens=u.completion_tokens
                    )
    assert [c.text for c in reply.choices] == texts
    assert [c.finish for c in reply.choices] == reasons
    assert reply.usage == usage


# --- Connections ---------------------------------------------------------------------------------


async def test_requests_that_were_read_out_share_a_connection() -> None:
    async with upstream(hello) as up, engine_on(up) as engine:
        for _ in range(3):
            await collect(engine.stream(PLAN))
        assert (len(up.seen), up.opened) == (3, 1)


async def test_many_streams_at_a_time_stay_apart() -> None:
    async def own_words(exchange: Exchange) -> None:
        await exchange.start()
        for word in exchange.json["user"]:
            await exchange.send(chunk(word) + b"\n\n")
            await asyncio.sleep(0.001)
        await exchange.send(chunk(finish="stop") + b"\n\n")
        await exchange.end()

    async with upstream(own_words) as up, engine_on(up) as engine:
        users = [f"<{i} of forty>" for i in range(40)]
        plans = [Plan(request=Request(messages=ASK, extra={"user": user})) for user in users]
        replies = await asyncio.gather(*(collect(engine.stream(plan)) for plan in plans))
    assert [reply.text for reply in replies] == users


async def endless(exchange: Exchange) -> None:
    await exchange.start()
    while True:
        await exchange.send(chunk("on and on ") + b"\n\n")
        await asyncio.sleep(0.01)


async def silent(exchange: Exchange) -> None:
    await asyncio.sleep(60)


async def falls_silent(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.send(chunk("so far") + b"\n\n")
    await asyncio.sleep(60)


@pytest.mark.parametrize("handler", [endless, falls_silent])
async def test_closing_the_iterator_closes_the_upstream_within_250_ms(handler: Handler) -> None:
    async with upstream(handler) as up, engine_on(up) as engine:
        async with aclosing(engine.stream(PLAN)) as stream:
            await anext(stream)
            assert up.open == 1
        assert await up.all_closed(within_s=0.25)


@pytest.mark.parametrize("handler", [endless, falls_silent, silent])
async def test_cancelling_the_reader_closes_the_upstream_within_250_ms(handler: Handler) -> None:
    async with upstream(handler) as up, engine_on(up) as engine:
        reading = asyncio.create_task(collect(engine.stream(PLAN)))
        await awaited_s(lambda: up.open == 1)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await up.all_closed(within_s=0.25)


async def test_a_reader_that_stops_reading_stops_the_writer() -> None:
    written = 0

    async def flood(exchange: Exchange) -> None:
        nonlocal written
        await exchange.start()
        while True:
            await exchange.send((chunk("flood " * 1000) + b"\n\n") * 10)
            written += 60_000

    async with upstream(flood) as up, engine_on(up) as engine, aclosing(engine.stream(PLAN)) as s:
        await anext(s)
        await asyncio.sleep(0.3)
        before = written
        await asyncio.sleep(0.2)
        assert written == before


@pytest.mark.parametrize("handler", [endless, falls_silent, silent])
async def test_closing_the_engine_ends_what_is_under_way_and_what_would_come(
    handler: Handler,
) -> None:
    async with upstream(handler) as up, engine_on(up) as engine:
        reading = asyncio.create_task(fault_of(engine))
        await awaited_s(lambda: up.open == 1)
        await engine.aclose()
        await engine.aclose()
        assert isinstance(await asyncio.wait_for(reading, 5), UpstreamError)
        assert await up.all_closed(within_s=0.25)
        assert isinstance(await fault_of(engine), EngineError)


def test_one_engine_serves_one_event_loop_after_another() -> None:
    engine = RemoteEngine("http://127.0.0.1:1/v1", model="m")

    async def once() -> str:
        async with upstream(hello) as up:
            engine.base_url = up.url
            return (await collect(engine.stream(PLAN))).text

    assert [asyncio.run(once()) for _ in range(3)] == ["Né 🙂!"] * 3
    asyncio.run(engine.aclose())


async def test_one_engine_serves_two_event_loops_at_a_time() -> None:
    async with upstream(hello) as up, engine_on(up) as engine:
        ready, leave = asyncio.Event(), asyncio.Event()
        here = asyncio.get_running_loop()

        async def elsewhere() -> str:
            text = (await collect(engine.stream(PLAN))).text
            here.call_soon_threadsafe(ready.set)
            while not leave.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            return text

        other = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
        await ready.wait()
        assert (await collect(engine.stream(PLAN))).text == "Né 🙂!"
        await engine.aclose()
        leave.set()
        assert await other == "Né 🙂!"


async def test_no_cookie_travels_from_one_request_to_the_next() -> None:
    async def baker(exchange: Exchange) -> None:
        await exchange.answer(HELLO, set_cookie="session=tenant-a; Path=/")

    async with upstream(baker) as up, engine_on(up) as engine:
        await collect(engine.stream(PLAN))
        await collect(engine.stream(PLAN))
        assert "cookie" not in up.seen[1].headers


# --- Failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "want"),
    [
        (400, RequestError),
        (401, UpstreamError),
        (404, NotFoundError),
        (429, BusyError),
        (500, UpstreamError),
        (504, UpstreamTimeoutError),
    ],
)
async def test_a_refusal_by_the_upstream_is_one_of_our_errors(
    status: int, want: type[ElisionError]
) -> None:
    async def refuse(exchange: Exchange) -> None:
        words = json.dumps({"error": {"message": "Who is Voldemort?", "code": "x"}}).encode()
        await exchange.answer(words, status=status, kind="application/json", retry_after="7")

    async with upstream(refuse) as up, engine_on(up) as engine:
        fault = await fault_of(engine)
    assert isinstance(fault, BusyError if status >= 500 else want)
    assert getattr(fault, "retry_after_s", 7.0) == 7.0
    assert "Voldemort" not in repr(fault)


async def test_a_refusal_whose_body_breaks_off_keeps_its_status() -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.start(401)
        await exchange.send(b'{"error":')
        exchange.writer.close()

    async with upstream(refuse) as up, engine_on(up) as engine:
        assert "status 401" in str(await fault_of(engine))


async def test_silence_before_the_answer_is_a_timeout() -> None:
    async with upstream(silent) as up, engine_on(up, timeout_s=0.2) as engine:
        assert isinstance(await fault_of(engine), UpstreamTimeoutError)
        assert await up.all_closed(within_s=0.25)


async def test_silence_within_the_answer_is_a_timeout_after_what_was_said() -> None:
    async with upstream(falls_silent) as up, engine_on(up, timeout_s=0.2) as engine:
        stream = engine.stream(PLAN)
        assert (await anext(stream)).text == "so far"
        with pytest.raises(UpstreamTimeoutError):
            await anext(stream)
        assert await up.all_closed(within_s=0.25)


@pytest.mark.parametrize("handler", [endless, silent])
async def test_the_deadline_of_a_request_holds_however_much_is_said(handler: Handler) -> None:
    async with upstream(handler) as up, engine_on(up) as engine:
        start = monotonic()
        fault = await fault_of(engine, Plan(request=Request(messages=ASK, timeout_s=0.3)))
        assert isinstance(fault, UpstreamTimeoutError)
        assert 0.25 < monotonic() - start < 2
        assert await up.all_closed(within_s=0.25)


async def broken_chunk(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.send(chunk("Voldemort") + b"\n\n")
    await exchange.raw(b"Voldemort is no chunk size\r\n")


async def broken_head(exchange: Exchange) -> None:
    await exchange.raw(b"HTTP/1.1 200 OK\r\nVoldemort\x00 no header\r\n\r\n")


async def broken_gzip(exchange: Exchange) -> None:
    await exchange.answer(b"Voldemort is not gzip", content_encoding="gzip")


async def hangs_up(exchange: Exchange) -> None:
    exchange.writer.close()


async def hangs_up_midway(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.send(chunk("Voldemort") + b"\n\n")
    exchange.writer.close()


async def resets(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.send(chunk("Voldemort") + b"\n\n")
    exchange.writer.transport.abort()


async def ends_early(exchange: Exchange) -> None:
    await exchange.answer(chunk("Voldemort") + b"\n\ndata: [DONE]\n\n")


async def half_a_character(exchange: Exchange) -> None:
    await exchange.answer(b'data: {"choices": [{"delta": {"content": "Voldemort \xf0\x9f"}}]}\n\n')


async def says_error(exchange: Exchange) -> None:
    await exchange.answer(chunk("so far") + b'\n\ndata: {"error": {"message": "Voldemort"}}\n\n')


async def says_error_as_its_type(exchange: Exchange) -> None:
    await exchange.answer(chunk("so far") + b'\n\nevent: error\ndata: {"message": "Voldemort"}\n\n')


async def says_error_in_json(exchange: Exchange) -> None:
    await exchange.answer(b'{"error": {"message": "Voldemort"}}', kind="application/json")


async def stray_words(exchange: Exchange) -> None:
    await exchange.answer(chunk("so far") + b"\n\ndata: Voldemort\n\n")


async def half_an_object(exchange: Exchange) -> None:
    await exchange.answer(b'{"choices": [{"message": {"content": "Vol', kind="application/json")


async def one_endless_line(exchange: Exchange) -> None:
    await exchange.start()
    while True:
        await exchange.send(b"data: Voldemort " * 4000)


BREAKDOWNS = [
    broken_chunk,
    broken_head,
    broken_gzip,
    hangs_up,
    hangs_up_midway,
    resets,
    ends_early,
    half_a_character,
    says_error,
    says_error_as_its_type,
    says_error_in_json,
    stray_words,
    half_an_object,
    one_endless_line,
]


def everything_about(error: BaseException) -> str:
    """Spell an error and all that hangs on it, as a careless log handler would."""
    told = f"{error}{error!r}{vars(error)}{error.args}"
    behind = error.__cause__ or error.__context__
    return told + (everything_about(behind) if behind else "")


@pytest.mark.parametrize("handler", BREAKDOWNS, ids=lambda handler: handler.__name__)
async def test_a_breakdown_ends_in_an_error_that_carries_no_text_and_no_key(
    handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with upstream(handler) as up, engine_on(up) as engine:
        fault = await fault_of(engine)
    told = everything_about(fault) + caplog.text
    assert isinstance(fault, UpstreamError)
    assert KEY not in told
    assert "Voldemort" not in told


async def test_nobody_listening_is_an_upstream_error_worth_a_retry() -> None:
    async with upstream(hello) as up:
        pass
    async with engine_on(up) as engine:
        fault = await fault_of(engine)
    assert isinstance(fault, UpstreamError)
    assert fault.retryable
    assert KEY not in everything_about(fault)


# --- The models ---------------------------------------------------------------------------------


async def test_the_probe_lists_the_upstreams_models() -> None:
    async def models(exchange: Exchange) -> None:
        listed = {"object": "list", "data": [{"id": "a"}, {"id": "b"}]}
        await exchange.answer(json.dumps(listed).encode(), kind="application/json")

    async with upstream(models) as up, engine_on(up) as engine:
        assert await engine.models() == ("a", "b")
        assert up.seen[0].line == "GET /v1/models HTTP/1.1"
        assert up.seen[0].headers["authorization"] == f"bearer {KEY}"


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data": 3}', b'{"data": [{}]}', b"<html>"])
async def test_a_probe_that_hears_no_list_says_so(body: bytes) -> None:
    async def models(exchange: Exchange) -> None:
        await exchange.answer(body or b" ", kind="application/json")

    async with upstream(models) as up, engine_on(up) as engine:
        with pytest.raises(UpstreamError, match="list of models"):
            await engine.models(timeout_s=5)


# --- Configuration -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host/v1",
        "ftp://host/v1",
        "http://",
        "http://[::1/v1",
        "http://host:port/v1",
        f"http://user:{KEY}@host/v1",
        f"http://h/?k={KEY}",
    ],
)
def test_an_address_that_cannot_be_used_is_told_at_once_and_not_quoted(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RemoteEngine(url, model="m")
    assert KEY not in repr(caught.value)


@pytest.mark.parametrize("key", [f"{KEY}\r\nx: y", f"{KEY} ", f"{KEY}é"])
def test_a_key_that_cannot_be_a_header_is_told_at_once_and_not_quoted(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RemoteEngine("http://host/v1", model="m", key=key)
    assert KEY not in repr(caught.value)


@pytest.mark.parametrize("times", [{"timeout_s": 0.0}, {"connect_timeout_s": -1.0}])
def test_times_are_positive(times: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        RemoteEngine("http://host/v1", model="m", **times)  # type: ignore[arg-type]


def test_the_key_is_shown_nowhere() -> None:
    engine = RemoteEngine("http://host/v1/", model="m", key=SecretStr(KEY))
    assert repr(engine) == "RemoteEngine('http://host/v1', model='m')"
    assert KEY not in str(vars(engine))


async def test_sampling_reaches_the_upstream() -> None:
    request = Request(messages=ASK, sampling=Sampling(temperature=0.0, seed=3), max_tokens=4)
    async with upstream(hello) as up, engine_on(up, length_field="max_completion_tokens") as engine:
        await collect(engine.stream(Plan(request=request)))
        sent = up.seen[0].json
    assert (sent["temperature"], sent["seed"], sent["max_completion_tokens"]) == (0, 3, 4)
