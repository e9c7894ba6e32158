from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import (
    BusyError,
    ContextLengthError,
    ElisionError,
    NotFoundError,
    RequestError,
    UpstreamError,
    UpstreamTimeoutError,
)
from elision.middleware.engines.upstream.errors import (
    in_stream,
    of_status,
    of_transport,
    read_fault,
    retry_after_s,
)

SAID = "Voldemort lives at Privet Drive"


def openai(**fields: Any) -> bytes:
    return json.dumps({"error": {"message": SAID, "type": "x", "param": None, **fields}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "want", "code"),
    [
        (400, openai(code="invalid_value"), RequestError, "invalid_value"),
        (400, openai(code="context_length_exceeded"), ContextLengthError, None),
        (400, b'{"object":"error","message":"maximum context length is 8"}', ContextLengthError, 0),
        (400, b'{"error":{"type":"exceed_context_size_error","code":400,"message":"the context '
              b'size"}}', ContextLengthError, 0),
        (413, b"too big", RequestError, None),
        (422, b'{"detail":[{"type":"missing","msg":"x"}]}', RequestError, None),
        (401, b'{"error":"Unauthorized"}', UpstreamError, "upstream_failed"),
        (403, openai(code="denied"), UpstreamError, "upstream_failed"),
        (402, b"", UpstreamError, "upstream_failed"),
        (404, b'{"error":{"type":"NotFoundError","code":404}}', NotFoundError, "model_not_found"),
        (405, b"", UpstreamError, "upstream_failed"),
        (408, b"", UpstreamTimeoutError, "upstream_timeout"),
        (429, b"slow down", BusyError, "rate_limit_exceeded"),
        (429, openai(code="insufficient_quota"), UpstreamError, "upstream_failed"),
        (500, b"<html>", UpstreamError, "upstream_failed"),
        (503, b"\xff\xfe", UpstreamError, "upstream_failed"),
        (504, b"", UpstreamTimeoutError, "upstream_timeout"),
        (302, b"", UpstreamError, "upstream_failed"),
        (204, b"", UpstreamError, "upstream_failed"),
    ],
)  # fmt: skip
def test_each_status_becomes_one_of_our_errors(
    status: int, body: bytes, want: type[ElisionError], code: str | int | None
) -> None:
    error = of_status(status, {}, body, model="m")
    assert type(error) is want
    assert code == 0 or error.code == (code or want.code)


@pytest.mark.parametrize("said", ["Voldemort_Riddle", "Voldemort", "messages.Voldemort", "4711081"])
def test_an_identifier_that_is_not_known_is_not_passed_on(said: str) -> None:
    for status in (400, 404, 429, 500):
        error = of_status(status, {}, openai(type=said, code=said, param=said), model="m")
        assert said not in f"{error}{error!r}{vars(error)}"


@pytest.mark.parametrize(
    ("said", "is_field"),
    [("messages[0].content", True), ("messages.[2].tool_calls[10].function.arguments", True),
     ("body.messages.0.role", True), ("tools[0].function.parameters", True), ("", False),
     ("messages[0].content Voldemort", False), ("messages[47110815]", False), ("[0]x", False),
     ("messages..content", False), ("tools[0].Voldemort", False)],
)  # fmt: skip
def test_the_field_at_fault_is_named_if_it_is_one(said: str, is_field: bool) -> None:
    assert read_fault(openai(param=said)).param == (said if is_field else None)


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_of_ours_is_not_the_callers_fault(status: int) -> None:
    error = of_status(status, {}, b'{"error":"Unauthorized"}', model="m")
    assert error.status == 502
    assert "check the upstream key" in str(error)


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(408, True), (409, True), (429, True), (500, True), (501, False), (503, True), (405, False)],
)
def test_only_what_may_pass_is_worth_a_retry(status: int, retryable: bool) -> None:
    assert of_status(status, {}, b"").retryable is retryable


@given(st.integers(300, 599), st.sampled_from(["message", "type", "code", "param", "detail"]))
def test_no_status_and_no_field_passes_the_upstreams_words_on(status: int, field: str) -> None:
    bodies = (
        json.dumps({"error": {field: SAID}}).encode(),
        json.dumps({field: SAID}).encode(),
        json.dumps({"error": SAID}).encode(),
        json.dumps([{"error": {field: SAID}}]).encode(),
        SAID.encode(),
    )
    for body in bodies:
        error = of_status(status, {}, body, model="m")
        assert "Voldemort" not in f"{error}{error!r}{vars(error)}"


def test_an_error_in_the_stream_keeps_its_type_and_code_only() -> None:
    error = in_stream({"error": {"message": SAID, "type": "server_error", "code": 500}})
    assert str(error) == "the upstream broke off with an error, type 'server_error', code '500'"


def test_the_fault_of_a_list_of_errors_is_that_of_the_first() -> None:
    assert read_fault(b'[{"error": {"code": 429, "type": "a"}}, 3]').code == "429"


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: (
    st.lists(inner) | st.dictionaries(st.sampled_from(["error", "detail", "type", "code"]), inner)
)))  # fmt: skip
def test_any_json_has_a_fault(value: Any) -> None:
    assert isinstance(str(read_fault(json.dumps(value).encode())), str)


def test_errors_nested_without_end_are_read_only_so_deep() -> None:
    read_fault(b'{"error":' * 900 + b"1" + b"}" * 900)


@pytest.mark.parametrize(
    ("headers", "want"),
    [
        ({}, None),
        ({"Retry-After": "2"}, 2.0),
        ({"retry-after": "2.5"}, 2.5),
        ({"Retry-After-Ms": "250", "Retry-After": "2"}, 0.25),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "1e9"}, 3600.0),
        ({"retry-after": "inf"}, 3600.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 01 Jan 99999999999999999999 00:00:00 GMT"}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 -0000"}, 0.0),
    ],
)
def test_the_wait_is_read_as_openai_reads_it(headers: dict[str, str], want: float | None) -> None:
    assert retry_after_s(headers) == want


def test_a_wait_may_be_given_as_a_date() -> None:
    wait_s = retry_after_s({"retry-after": format_datetime(datetime.now(UTC) + timedelta(0, 60))})
    assert wait_s is not None
    assert 55 < wait_s <= 60


@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_wait_that_the_upstream_names_is_kept(status: int) -> None:
    error = of_status(status, {"Retry-After": "7"}, b"")
    assert isinstance(error, BusyError)
    assert error.retry_after_s == 7.0


def test_every_error_of_the_http_client_is_one_that_we_catch() -> None:
    members = vars(aiohttp.client_exceptions).values()
    errors = [e for e in members if isinstance(e, type) and issubclass(e, Exception)]
    caught = aiohttp.ClientError | OSError
    strays = {e for e in errors if not issubclass(e, caught)}
    assert strays == {aiohttp.WSMessageTypeError}  # websockets only


def test_a_timeout_is_told_from_a_failure() -> None:
    assert isinstance(of_transport(aiohttp.SocketTimeoutError()), UpstreamTimeoutError)
    assert isinstance(of_transport(aiohttp.ConnectionTimeoutError()), UpstreamTimeoutError)
    assert type(of_transport(aiohttp.ServerDisconnectedError())) is UpstreamError


def test_a_parser_that_quotes_the_answer_is_not_kept_as_the_cause() -> None:
    error = of_transport(aiohttp.ClientPayloadError(SAID))
    assert error.__cause__ is None
    assert "Voldemort" not in str(error)
