"""How the pieces of a message become the message: joined in any grouping, as clients join them."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming._deltas import accumulate_delta

from elision.contract import Choice, Completion, Delta, Usage, collect, joined

TEXT = st.text(max_size=4)
INDEX = st.integers(0, 3)
CALL = st.fixed_dictionaries(
    {"index": INDEX},
    optional={
        "id": TEXT | st.none(),
        "type": st.just("function"),
        "function": st.fixed_dictionaries({}, optional={"name": TEXT, "arguments": TEXT}),
    },
)
DETAIL = st.fixed_dictionaries({"type": TEXT, "text": TEXT}, optional={"index": INDEX | st.none()})
PIECE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "refusal": TEXT | st.none(),
        "reasoning_content": TEXT | st.none(),
        "x_words": TEXT,
        "x_count": st.integers(0, 9) | st.none(),
        "x_seen": st.lists(st.integers(0, 9), max_size=2),
        "tool_calls": st.lists(CALL, max_size=3) | st.none(),
        "reasoning_details": st.lists(DETAIL, max_size=3),
        "audio": st.fixed_dictionaries(
            {}, optional={"id": TEXT, "data": TEXT, "expires_at": INDEX}
        ),
    },
)
PIECES = st.lists(PIECE, max_size=6)


def spelt(pieces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return reduce(joined, pieces, {})


def gathered(*deltas: Delta) -> Completion:
    async def stream() -> AsyncIterator[Delta]:
        for delta in deltas:
            yield delta

    return asyncio.run(collect(stream()))


# --- Laws ----------------------------------------------------------------------------------------


@given(PIECE, PIECE, PIECE)
def test_pieces_may_be_joined_in_any_grouping(
    a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]
) -> None:
    assert joined(joined(joined({}, a), b), c) == joined(joined({}, a), joined(b, c))


@given(PIECE)
def test_nothing_joined_to_a_message_changes_nothing(piece: dict[str, Any]) -> None:
    message = joined({}, piece)

    assert joined(message, {}) == message
    assert joined({}, message) == message


@given(PIECES)
def test_joining_leaves_what_it_joins_alone(pieces: list[dict[str, Any]]) -> None:
    before = copy.deepcopy(pieces)
    message: dict[str, Any] = {}
    for piece in pieces:
        earlier = copy.deepcopy(message)
        longer = joined(message, piece)
        assert message == earlier
        message = longer
    assert pieces == before


@given(PIECES)
def test_a_string_is_all_its_pieces_in_order(pieces: list[dict[str, Any]]) -> None:
    message = spelt(pieces)

    for key in ("refusal", "reasoning_content", "x_words"):
        assert (message.get(key) or "") == "".join(piece.get(key) or "" for piece in pieces)
    said = [piece.get("audio", {}).get("data", "") for piece in pieces]
    assert message.get("audio", {}).get("data", "") == "".join(said)


@given(PIECES)
def test_a_calls_arguments_are_all_fragments_of_its_index_in_order(
    pieces: list[dict[str, Any]],
) -> None:
    fragments = [call for piece in pieces for call in piece.get("tool_calls") or ()]
    calls = spelt(pieces).get("tool_calls") or []

    assert [call["index"] for call in calls] == list(dict.fromkeys(f["index"] for f in fragments))
    for call in calls:
        own = [f for f in fragments if f["index"] == call["index"]]
        for key in ("name", "arguments"):
            said = "".join(f.get("function", {}).get(key, "") for f in own)
            assert call.get("function", {}).get(key, "") == said
        ids = [f["id"] for f in own if f.get("id")]
        assert (call.get("id") or "") == (ids[-1] if ids else "")


@given(PIECES)
def test_entries_without_an_index_are_all_kept_in_order(pieces: list[dict[str, Any]]) -> None:
    message = spelt(pieces)

    def bare(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [entry for entry in entries if entry.get("index") is None]

    sent = [entry for piece in pieces for entry in piece.get("reasoning_details", ())]
    assert bare(message.get("reasoning_details", ())) == bare(sent)
    numbers = [number for piece in pieces for number in piece.get("x_seen", ())]
    assert message.get("x_seen", []) == numbers


@st.composite
def streams(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw pieces as OpenAI sends them: calls open in order, id and type said once."""
    pieces: list[dict[str, Any]] = []
    n_open = 0
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["refusal", "reasoning_content", "x", "opens", "goes on"]))
        if kind == "opens":
            function = {"name": draw(TEXT), "arguments": draw(TEXT)}
            call = {"index": n_open, "id": f"c{n_open}", "type": "function", "function": function}
            n_open += 1
        elif kind == "goes on" and n_open:
            index = draw(st.integers(0, n_open - 1))
            call = {"index": index, "function": {"arguments": draw(TEXT)}}
        else:
            pieces.append({kind: draw(TEXT)})
            continue
        pieces.append({"tool_calls": [call]})
    return pieces


@given(streams())
def test_what_openai_sends_is_joined_as_its_own_client_joins_it(
    pieces: list[dict[str, Any]],
) -> None:
    theirs: dict[Any, Any] = {}
    for piece in copy.deepcopy(pieces):
        theirs = accumulate_delta(theirs, piece)

    assert spelt(pieces) == theirs


@given(st.lists(st.tuples(INDEX, TEXT, PIECE, st.lists(INDEX, max_size=2)), max_size=10))
def test_a_collected_choice_is_all_its_deltas_whatever_stands_between(
    said: list[tuple[int, str, dict[str, Any], list[int]]],
) -> None:
    deltas = [Delta(choice=c, text=t, message=m, extra={"ids": i}) for c, t, m, i in said]
    ends = [Delta(choice=c, finish="stop") for c in {c for c, *_ in said}]
    done = gathered(*deltas, *ends, Delta(usage=Usage(), report={}))

    assert [choice.index for choice in done.choices] == sorted({c for c, *_ in said})
    for choice in done.choices:
        own = [row for row in said if row[0] == choice.index]
        assert choice.text == "".join(text for _, text, *_ in own)
        assert choice.message == spelt([message for _, _, message, _ in own])
        assert choice.extra == {"ids": [number for *_, ids in own for number in ids]}


# --- Examples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", ["c1", "", None])
def test_an_id_said_again_or_left_empty_stays(again: str | None) -> None:
    first = {"tool_calls": [{"index": 0, "id": "c1", "function": {"arguments": "{"}}]}
    then = {"tool_calls": [{"index": 0, "id": again, "function": {"arguments": "}"}}]}

    (call,) = joined(first, then)["tool_calls"]
    assert call == {"index": 0, "id": "c1", "function": {"arguments": "{}"}}


@pytest.mark.parametrize("index", ["0", [0], {"a": 1}, None, 1.5])
def test_an_index_that_is_no_number_matches_nothing(index: Any) -> None:
    piece = {"tool_calls": [{"index": index, "id": "a"}]}

    assert len(joined(piece, piece)["tool_calls"]) == 2


def test_a_field_that_changes_its_kind_is_the_newer_one() -> None:
    for old, new in (("a", 1), (1, "a"), ({"a": 1}, "b"), ("b", [1]), ([1], {"a": "b"})):
        assert joined({"x": old}, {"x": new}) == {"x": new}


def test_fields_of_the_reply_and_of_a_choice_stand_apart() -> None:
    done = gathered(
        Delta(text="a", extra={"stop_reason": None, "matched": 3}),
        Delta(finish="stop", extra={"stop_reason": 7, "matched": None}),
        Delta(usage=Usage(prompt_tokens=1), extra={"service_tier": "default"}, report={"n": 1}),
    )

    assert done.extra == {"service_tier": "default"}
    assert done.choices == (
        Choice(text="a", extra={"stop_reason": 7, "matched": 3}, finish="stop"),
    )


def test_a_choice_that_never_ended_is_none() -> None:
    done = gathered(Delta(text="a"), Delta(choice=1, text="b", finish="length"))

    assert [choice.index for choice in done.choices] == [1]
