"""Which of an upstream's headers a caller gets to see."""

from __future__ import annotations

import pytest

from elision.middleware.engines.upstream.relaying import _handed_on

JSON = b"application/json"


@pytest.mark.parametrize(
    "name",
    ["Set-Cookie", "X-Elision-Relayed", "x_elision_relayed", "X-Forget_Epoch", "X-Sendfile",
     "X-Sendfile-Type", "X-Accel-Redirect", "x_accel_redirect", "X-LIGHTTPD-send-file",
     "X-Reproxy-Url", "X-Hop", "x_hop", "Location", "Server"],
)  # fmt: skip
def test_what_is_not_for_the_caller_is_left_out(name: str) -> None:
    headers = ((b"Connection", b"close, X-Hop"), (name.encode(), b"1"))

    assert _handed_on(headers, JSON) == [(b"content-type", JSON)]


def test_limits_and_names_are_handed_on() -> None:
    headers = ((b"X-RateLimit-Remaining", b"3"), (b"OpenAI-Version", b"v"), (b"X-Request-Id", b"r"))

    assert _handed_on(headers, JSON)[1:] == [
        (b"x-ratelimit-remaining", b"3"), (b"openai-version", b"v"),
        (b"x-upstream-request-id", b"r"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "want"),
    [(b"Application/JSON; charset=utf-8", b"Application/JSON; charset=utf-8"),
     (b"text/html", JSON), (b"text/event-stream", JSON), (b"", JSON)],
)  # fmt: skip
def test_the_content_type_is_the_one_that_was_checked(said: bytes, want: bytes) -> None:
    assert _handed_on(((b"Content-Type", said),), JSON) == [(b"content-type", want)]
