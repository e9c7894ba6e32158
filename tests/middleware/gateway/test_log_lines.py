"""Log lines: as text or JSON, with the request's id, at no level with a word of what was said."""

from __future__ import annotations

import io
import logging
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from structlog.contextvars import bound_contextvars

from elision.middleware.gateway.logs import JsonLines, TextLines, gateway_log
from elision.middleware.gateway.serve import log_to_stderr

PATH = "/v1/chat/completions"
PROMPT, REPLY, ARGUMENT = "Quetzalcoatl", "Ouagadougou", "Mergatroyd"
WORDS = (PROMPT, REPLY, ARGUMENT, "Zanzibar", "Nessuno")
CHAT: dict[str, Any] = {
    "model": "speaker",
    "messages": [
        {"role": "system", "content": "Zanzibar"},
        {"role": "user", "content": f"Where is {PROMPT}?"},
    ],
    "stop": ["Nessuno"],
    "user": "Nessuno",
    "elision": {"session": "Nessuno"},
}


@contextmanager
def listening() -> Iterator[list[logging.LogRecord]]:
    """Hear every record of every logger, at every level, as long as the block runs."""
    heard: list[logging.LogRecord] = []
    handler = logging.Handler(0)
    handler.emit = heard.append  # type: ignore[method-assign]
    names = ("", "elision", "uvicorn", "asyncio", "aiohttp", "sqlalchemy", "elision.gateway")
    loggers = [logging.getLogger(name) for name in names]
    before = [(one.level, one.propagate) for one in loggers]
    for one in loggers:
        one.addHandler(handler)
        one.setLevel(1)
        one.propagate = False
    try:
        yield heard
    finally:
        for one, (level, propagate) in zip(loggers, before, strict=True):
            one.removeHandler(handler)
            one.setLevel(level)
            one.propagate = propagate


def written(record: logging.LogRecord) -> list[str]:
    raw = f"{record.getMessage()} {record.args} {getattr(record, 'facts', None)}"
    return [raw, TextLines().format(record), JsonLines().format(record)]


def test_no_line_of_any_level_has_a_word_of_request_or_reply(served: Any) -> None:
    target = {"title": "Zanzibar", "phrases": ["Nessuno Zanzibar"]}
    bodies: list[Any] = [
        CHAT, CHAT | {"stream": True}, CHAT | {"n": 2, "logprobs": True, "top_logprobs": 2},
        CHAT | {"model": "Nessuno"}, CHAT | {"tools": PROMPT}, b'{"Quetzalcoatl": Nessuno',
        CHAT | {"stream": "Nessuno"}, CHAT | {"model": "speaker@agentic", "elision": {}},
    ]  # fmt: skip
    with listening() as heard, served(limits={"requests_per_minute": 14}) as server:
        server.engine.words = (REPLY, " ", ARGUMENT, " ", REPLY)
        server.ask("POST", "/v1/forget", target)
        server.ask("GET", f"/v1/forget/{PROMPT}?q=Nessuno", **{"x-request-id": "Nessuno?!"})
        for body in bodies:
            server.ask("POST", PATH, body)
        for error in (ValueError(f"{PROMPT} {REPLY}"), KeyError(ARGUMENT)):
            server.engine.error = error
            server.ask("POST", PATH, CHAT)
            server.ask("POST", PATH, CHAT | {"stream": True})
        server.engine.error, server.engine.pause_s = None, 0.05
        with server.open(CHAT | {"stream": True}) as line:
            line.recv(1)
            line.shutdown(socket.SHUT_RDWR)
        server.engine.pause_s = 0.0
        for _ in range(4):
            last = server.ask("POST", PATH, CHAT)
        server.settles(1, "elision_requests_total", route=PATH, status="client gone")

    assert last[0] == 429
    names = {record.name for record in heard}
    assert {"elision.gateway", "elision.audit"} <= names
    assert sum(record.name == "elision.gateway" for record in heard) > 15
    page = "\n".join(text for record in heard for text in written(record))
    assert [word for word in WORDS if word in page] == []


def test_every_line_of_a_request_carries_its_id(served: Any) -> None:
    lines: list[tuple[str, str, str]] = []
    handler = logging.Handler()
    text, json = TextLines(), JsonLines()
    # Written where it is logged, as a stream handler does.
    handler.emit = lambda r: lines.append((r.name, text.format(r), json.format(r)))  # type: ignore[method-assign]
    logger = logging.getLogger("elision")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with served() as server:
            for request_id in ("first", "second"):
                server.ask("POST", PATH, CHAT, x_request_id=request_id)
            server.ask("GET", "/healthz", x_request_id="third")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    told = [
        (name, orjson.loads(json_line).get("request_id"))
        for name, _, json_line in lines
        if name in ("elision.audit", "elision.gateway")
    ]
    assert told == [
        ("elision.audit", "first"), ("elision.gateway", "first"),
        ("elision.audit", "second"), ("elision.gateway", "second"),
        ("elision.gateway", "third"),
    ]  # fmt: skip
    assert [len(re.findall(r"\bid=", line)) for _, line, _ in lines] == [1] * 5


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_exception_is_told_by_type_and_place_not_by_what_it_says(
    log_format: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = [logging.getLogger(name) for name in ("elision", "uvicorn")]
    before = [(one.handlers[:], one.level, one.propagate) for one in ours]
    try:
        log_to_stderr(log_format)
        monkeypatch.setattr(sys, "stderr", told := io.StringIO())
        try:
            raise ValueError(PROMPT)
        except ValueError:
            logging.getLogger("uvicorn.error").exception("it broke")
    finally:
        for one, (handlers, level, propagates) in zip(ours, before, strict=True):
            one.handlers[:], one.propagate = handlers, propagates
            one.setLevel(level)

    assert "ValueError" in told.getvalue()
    assert "test_log_lines.py" in told.getvalue()
    assert "it broke" in told.getvalue()
    assert PROMPT not in told.getvalue()


def test_json_lines_are_objects_with_the_facts_apart(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "elision.gateway"), bound_contextvars(request_id="outer"):
        gateway_log.info("request", id="req_1", status=200, strange={1, 2})
        logging.getLogger("elision.gateway").warning("plain %d", 7)
    first, second = (orjson.loads(JsonLines().format(record)) for record in caplog.records)

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first.pop("time"))
    assert first == {
        "level": "info",
        "logger": "elision.gateway",
        "event": "request",
        "request_id": "req_1",
        "status": 200,
        "strange": "set",
    }
    assert (second["event"], second["level"]) == ("plain 7", "warning")
    assert caplog.records[0].getMessage().startswith("event='request' id='req_1' status=200")


def test_whatever_breaks_a_json_line_no_line_breaks_in_two() -> None:
    record = logging.makeLogRecord({"msg": "one\ntwo", "levelname": "INFO", "name": "x"})
    assert JsonLines().format(record).count("\n") == 0
