from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import UpstreamError
from elision.middleware.engines.upstream.sse import Framer

STREAM = (
    'data: {"a": "né 🙂"}\n\n: ping\n\nevent: message\ndata:b\ndata: c\n\ndata\n\nid: 1\n\n'
    "event: ping\ndata: pong\n\ndata: cut off"
).encode()
EVENTS = ['{"a": "né 🙂"}'.encode(), b"b\nc", b""]

values = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)
lines = st.one_of(
    values.map(lambda v: f"data: {v}"),
    values.map(lambda v: f"data:{v}"),
    values.map(lambda v: f": {v}"),
    values.map(lambda v: f"event: {v}"),
    st.sampled_from(["event: error", "event: message", "event: ping", "data: {}", "data: [DONE]"]),
    st.sampled_from(["data", "id: 7", "retry: 1", "", "", "database: x", " data: x"]),
)
ends = st.sampled_from(["\n", "\r\n", "\r"])


def oracle(stream: str) -> list[bytes]:
    """The specification's algorithm, on a whole text, and our rule for types: slow and obvious."""
    events: list[bytes] = []
    data: list[str] = []
    kind = ""
    whole = stream.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for line in whole.split("\n")[:-1]:
        name, _, value = line.partition(":")
        if not line:
            joined = "\n".join(data)
            if data and kind == "error":
                events.append(f'{{"error":{joined or chr(34) * 2}}}'.encode())
            elif data and (kind in ("", "message") or joined.startswith(("{", "[DONE]"))):
                events.append(joined.encode())
            data, kind = [], ""
        elif name == "data":
            data.append(value.removeprefix(" "))
        elif name == "event":
            kind = value.removeprefix(" ")
    return events


def fed(stream: bytes, cuts: list[int]) -> list[bytes]:
    framer, bounds = Framer(), [0, *sorted(cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(bounds)]
    return [event for piece in pieces for event in framer.feed(piece)]


def fed_again_and_again(framer: Framer, chunk: bytes, *, times: int) -> None:
    for _ in range(times):
        framer.feed(chunk)


@given(st.lists(st.tuples(lines, ends), max_size=12), st.booleans(), st.data())
def test_any_stream_cut_anywhere_reads_as_the_specification_says(
    parts: list[tuple[str, str]], mark: bool, data: st.DataObject
) -> None:
    text = ("\ufeff" if mark else "") + "".join(line + end for line, end in parts)
    stream = text.encode()
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    # A lone CR at the very end could still become a CRLF; both readings complete the same line.
    assert fed(stream, cuts) == oracle(text)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_single_cut_gives_the_same_events(end: bytes) -> None:
    stream = STREAM.replace(b"\n", end)
    for cut in range(len(stream) + 1):
        assert fed(stream, [cut]) == EVENTS


def test_one_byte_at_a_time_gives_the_same_events() -> None:
    assert fed(STREAM, list(range(len(STREAM)))) == EVENTS


def test_an_event_leaves_with_the_bytes_that_complete_it() -> None:
    framer = Framer()
    assert framer.feed(b"data: a\n") == []
    assert framer.feed(b"\n") == [b"a"]


def test_an_endless_line_ends_in_an_error_and_not_in_full_memory() -> None:
    framer = Framer(limit=100)
    with pytest.raises(UpstreamError, match="over 100 bytes"):
        fed_again_and_again(framer, b"0123456789", times=11)


def test_an_endless_event_of_short_lines_ends_in_an_error_too() -> None:
    framer = Framer(limit=100)
    with pytest.raises(UpstreamError):
        fed_again_and_again(framer, b"data: x\n", times=20)


def test_any_number_of_comments_and_blank_lines_is_fine() -> None:
    framer = Framer(limit=100)
    for _ in range(1000):
        assert framer.feed(b": keep-alive\n\n\n") == []
        assert framer.feed(b"event: ping\n") == []
