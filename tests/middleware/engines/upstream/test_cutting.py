"""A stream that is handed on is cut between events only, and ends where it makes no sense."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import UpstreamError
from elision.middleware.engines.upstream.cutting import Cutter
from elision.middleware.engines.upstream.sse import Framer
from elision.testing.upstream_faults import event

FRAMINGS = ("lf", "crlf", "cr", "multi", "comments")
TEXTS = st.lists(st.text(max_size=6), max_size=3)
CUTS = st.lists(st.integers(1, 30), min_size=1, max_size=8)


def chunk(text: str = "", finish: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}


def stream(texts: list[str], framing: str, *, end: str = "data: [DONE]\n\n") -> bytes:
    said = b"".join(event(chunk(text), framing) for text in texts)
    return said + event(chunk(finish="stop"), framing) + end.encode()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        step = cuts[len(found) % len(cuts)]
        found.append(data[at : at + step])
        at += step
    return found


def fed(cutter: Cutter, chunks: list[bytes]) -> tuple[list[bytes], UpstreamError | None]:
    """Return what left, and what ended it."""
    out = []
    try:
        for data in chunks:
            if not cutter.done:
                out.append(cutter.feed(data))
        if not cutter.done:
            cutter.finish()
    except UpstreamError as exc:
        return out, exc
    return out, None


@given(TEXTS, st.sampled_from(FRAMINGS), CUTS)
def test_what_leaves_is_what_came_however_it_was_cut(
    texts: list[str], framing: str, cuts: list[int]
) -> None:
    data = stream(texts, framing)
    cutter = Cutter()
    out, error = fed(cutter, pieces(data, cuts))

    assert error is None
    assert cutter.done
    # An end of two bytes may be cut in two: what is left of it says nothing.
    assert b"".join(out).rstrip(b"\r\n") == data.rstrip(b"\r\n")


@given(TEXTS, st.sampled_from(FRAMINGS), CUTS)
def test_an_error_can_follow_every_piece(texts: list[str], framing: str, cuts: list[int]) -> None:
    cutter, left = Cutter(), b""
    for data in pieces(stream(texts, framing), cuts):
        left += b"" if cutter.done else cutter.feed(data)
        events = Framer().feed(left + b'data: {"error":1}\n\n')
        assert events[-1] == b'{"error":1}'
        assert all(one == b"[DONE]" or orjson.loads(one) for one in events)


@given(TEXTS, TEXTS, st.sampled_from(FRAMINGS), CUTS, st.sampled_from([
    b"data: <html>\n\n", b'data: {"a": "\xf0\x9f"}\n\n', b'data: {"a\n\n', b"data: [1]\n\n",
    b'data: {"choices": 1}\n\n', b'data: {"choices": [1]}\n\n',
    b'data: {"choices": [{"index": "0"}]}\n\n', b'data: {"error": {"message": "marlowe"}}\n\n',
    b'data: {"object": "error", "message": "marlowe"}\n\n',
]))  # fmt: skip
def test_what_is_no_chunk_ends_the_stream_behind_the_last_that_is_one(
    before: list[str], after: list[str], framing: str, cuts: list[int], fault: bytes
) -> None:
    good = b"".join(event(chunk(text), framing) for text in before)
    out, error = fed(Cutter(), pieces(good + fault + stream(after, framing), cuts))

    assert b"".join(out).rstrip(b"\r\n") == good.rstrip(b"\r\n")
    assert error is not None
    assert "marlowe" not in str(error)


@given(TEXTS, st.sampled_from(FRAMINGS), CUTS, st.integers(1, 20))
def test_a_stream_that_is_cut_off_is_told_from_one_that_ended(
    texts: list[str], framing: str, cuts: list[int], n_missing: int
) -> None:
    data = b"".join(event(chunk(text), framing) for text in [*texts, "last"])
    _, error = fed(Cutter(), pieces(data[: max(1, len(data) - n_missing)], cuts))

    assert error is not None
    assert error.retryable


def test_a_stream_without_its_last_line_has_ended_if_every_choice_has() -> None:
    two = event(chunk("a"), "lf") + event(chunk("b", index=1), "lf")
    ends = [event(chunk(finish="stop", index=index), "lf") for index in (0, 1)]

    assert fed(Cutter(), [two, *ends])[1] is None
    assert fed(Cutter(), [two, ends[0]])[1] is not None
    assert fed(Cutter(), [two, ends[0], b"data: [DONE]\n\n"])[1] is not None


def test_nothing_behind_the_last_event_leaves() -> None:
    data = stream(["a"], "lf")
    assert fed(Cutter(), [data + b'data: {"more": 1}\n\n'])[0] == [data]


@pytest.mark.parametrize("step", [7, 64])
def test_an_event_without_end_is_not_waited_for(step: int) -> None:
    cutter = Cutter(limit=100)
    good = event(chunk("a"), "lf")

    assert cutter.feed(good + b"data: ") == good
    for _ in range(94 // step):
        assert cutter.feed(b"x" * step) == b""
    with pytest.raises(UpstreamError, match="over 100 bytes"):
        cutter.feed(b"x" * step)


def test_the_usage_is_read_wherever_it_stands() -> None:
    cutter = Cutter()
    counts = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    fed(cutter, [event({"choices": [], "usage": counts}, "lf"), stream(["a"], "lf")])

    assert cutter.usage is not None
    assert (cutter.usage.prompt_tokens, cutter.usage.completion_tokens) == (7, 3)
