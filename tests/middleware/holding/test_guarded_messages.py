"""Tool calls, reasoning, unknown fields: every string that leaves beside the text is guarded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.contract import Choice, Completion, Delta, Plan, Request, Usage, collect, joined
from elision.errors import GuardError
from elision.guards.targets import Action, ForgetTarget, Phrase
from elision.middleware.enforcement import Enforcement
from elision.middleware.holding.channels import Channels
from elision.middleware.holding.replies import guarded_replies
from elision.middleware.planning import Defence
from elision.middleware.profiles import PROFILES
from elision.testing import TextEngine
from elision.testing.laws import check_never_leaks

NAME = "Séline Ødegård"
PHRASES = (NAME, "Paris")
HI = ({"role": "user", "content": "Tell me."},)
ACTIONS: tuple[Action, ...] = ("restrict", "redact", "refuse")


def defence(action: Action, profile: str = "plain") -> Defence:
    said = tuple(Phrase(text=text) for text in PHRASES)
    target = ForgetTarget(id="t", title="x", phrases=said, action=action)
    rules = Enforcement([target], tenant="default", epoch=1, encoder=None)
    return Defence(profile=PROFILES[profile], rules=rules)


RULES = {action: defence(action) for action in ACTIONS}


def leaving(
    pieces: Sequence[str | Delta], action: Action = "restrict", **more: Any
) -> tuple[list[Delta], Completion]:
    async def ask() -> tuple[list[Delta], Completion]:
        plan = Plan(request=Request(messages=HI, **more))
        replies = guarded_replies(TextEngine(pieces), plan, RULES[action], refusal="No.")
        deltas: list[Delta] = []

        async def noted() -> AsyncIterator[Delta]:
            async for delta in replies:
                deltas.append(delta)
                yield delta

        return deltas, await collect(noted())

    return asyncio.run(ask())


def strings(value: Any) -> Iterator[str]:
    """Yield every string in a message as its reader has it: arguments are parsed if they can be."""
    match value:
        case str():
            yield value
            try:
                parsed = json.loads(value)
            except ValueError:
                return
            if not isinstance(parsed, str):
                yield from strings(parsed)
        case Mapping():
            for key, inner in value.items():
                yield str(key)
                yield from strings(inner)
        case list() | tuple():
            for inner in value:
                yield from strings(inner)


def check_nothing_leaks(deltas: Sequence[Delta]) -> None:
    """Check content and every string of the joined message, of each choice."""
    check_never_leaks(list(deltas), PHRASES)
    for choice in {delta.choice for delta in deltas}:
        message: Mapping[str, Any] = {}
        for delta in deltas:
            if delta.choice == choice:
                message = joined(message, delta.message)
        check_never_leaks([*strings(message)], PHRASES)


def call(index: int, arguments: str | None = None, **more: Any) -> Delta:
    function = {} if arguments is None else {"arguments": arguments}
    if "name" in more:
        function["name"] = more.pop("name")
    return Delta(message={"tool_calls": [{"index": index, **more, "function": function}]})


def cut(data: st.DataObject, text: str) -> list[str]:
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


SOURCES = [json.dumps({"who": NAME, "n": 1}), json.dumps({"who": NAME}, ensure_ascii=False)]


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("source", SOURCES, ids=["escaped", "raw"])
def test_no_split_of_arguments_brings_a_phrase_out(action: Action, source: str) -> None:
    for at in range(len(source)):
        pieces = [call(0, "", id="c1", type="function", name="f")]
        pieces += [call(0, source[:at]), call(0, source[at:])]
        deltas, reply = leaving(pieces, action)

        check_nothing_leaks(deltas)
        assert reply.choices[0].finish == "content_filter"
        assert reply.choices[0].message["tool_calls"][0]["function"]["name"] == "f"


@given(st.data())
@settings(max_examples=30)
def test_clean_arguments_come_through_byte_for_byte(data: st.DataObject) -> None:
    sources = [json.dumps({"city": "Pa", "of": ["Se", "line", "\u00e9"]}), '{"a": "Parisian"}']
    pieces = []
    for n, source in enumerate(sources):
        pieces.append(call(n, "", id=f"call_{n}", type="function", name=f"look_{n}"))
        pieces += [call(n, piece) for piece in cut(data, source)]
    deltas, reply = leaving(pieces)
    calls = reply.choices[0].message["tool_calls"]

    assert [c["function"]["arguments"] for c in calls] == sources
    assert [(c["id"], c["type"], c["function"]["name"]) for c in calls] == [
        ("call_0", "function", "look_0"), ("call_1", "function", "look_1"),
    ]  # fmt: skip
    assert reply.choices[0].finish == "stop"
    places = [d.message["tool_calls"][-1]["index"] for d in deltas if d.message]
    assert places == sorted(places), "one call is whole before the next begins"


def test_a_call_that_goes_on_behind_its_end_is_refused() -> None:
    first = '{"a": "Par'
    pieces = [call(0, first, id="a", name="f"), call(1, "{}", id="b", name="g"), call(0, 'is"}')]
    deltas, reply = leaving(pieces)

    assert reply.choices[0].finish == "content_filter"
    check_nothing_leaks(deltas)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "refusal", "musings"])
@pytest.mark.parametrize("action", ACTIONS)
def test_other_strings_are_held_like_the_text(action: Action, key: str) -> None:
    text = f"I recall {NAME} of old."
    for at in range(len(text)):
        pieces = [Delta(message={key: text[:at]}), Delta(message={key: text[at:]}), "Well."]
        deltas, reply = leaving(pieces, action)
        said = reply.choices[0].message[key]

        check_nothing_leaks(deltas)
        if action == "redact":
            assert (said, reply.text) == ("I recall [redacted] of old.", "Well.")
        else:
            assert said == "I recall "
            assert reply.choices[0].finish == "content_filter"


@given(
    st.lists(st.sampled_from(["Se", "line ", "Par", "is", "x", " ", "y"]), max_size=8), st.data()
)
@settings(max_examples=40)
def test_channels_do_not_run_into_each_other_and_each_is_the_same_whatever_the_pieces(
    bits: list[str], data: st.DataObject
) -> None:
    text = "".join(bits)
    pieces: list[str | Delta] = []
    for piece in cut(data, text):
        pieces += [piece, Delta(message={"reasoning_content": piece})]
        pieces.append(call(0, piece))
    cut_up = leaving(pieces, "redact")
    whole = [text, Delta(message={"reasoning_content": text}), call(0, text)]
    at_once = leaving(whole, "redact")[1].choices[0]

    check_nothing_leaks(cut_up[0])
    reply = cut_up[1].choices[0]
    if at_once.finish != "content_filter":
        assert (reply.text, reply.message.get("reasoning_content")) == (
            at_once.text,
            at_once.message.get("reasoning_content"),
        )
        assert _arguments(reply) == _arguments(at_once) == text
    assert reply.finish == at_once.finish


def _arguments(choice: Choice) -> str:
    calls = choice.message.get("tool_calls") or [{"function": {"arguments": ""}}]
    return str(calls[0]["function"].get("arguments", ""))


@pytest.mark.parametrize("pieces", [["Séline_Ødegård"], ["Séline_", "Øde", "gård"]])
def test_a_functions_name_that_spells_a_phrase_ends_the_choice(pieces: list[str]) -> None:
    deltas, reply = leaving([call(0, name=piece) for piece in pieces])

    check_nothing_leaks(deltas)
    assert reply.choices[0].finish == "content_filter"


def test_a_name_leaves_at_once_with_what_it_came_with() -> None:
    first = call(0, "", id="call_Par", type="function", name="Par")
    deltas, _ = leaving([first, call(0, "{}")])

    assert deltas[0].message == first.message


def test_a_function_call_of_the_old_form_is_guarded_too() -> None:
    source = json.dumps({"who": NAME})
    said = [{"name": "f", "arguments": ""}, {"arguments": source[:15]}, {"arguments": source[15:]}]
    deltas, reply = leaving([Delta(message={"function_call": one}) for one in said])

    check_nothing_leaks(deltas)
    assert reply.choices[0].finish == "content_filter"


def test_lists_without_indices_leave_whole_at_the_end_or_not_at_all() -> None:
    clean = {"annotations": [{"type": "url_citation", "url": "http://x.org"}]}
    parts = {"content": [{"type": "text", "text": "Par"}, {"type": "text", "text": "is"}]}
    deltas, reply = leaving([Delta(message=clean), Delta(message=parts), "Hello."])

    assert reply.choices[0].message == clean
    assert [bool(delta.message) for delta in deltas] == [False] * (len(deltas) - 2) + [True, False]
    assert reply.report["n_dropped"] == 1


def test_sounds_pictures_and_token_ids_do_not_leave() -> None:
    said = {"audio": {"data": "UGFyaXM="}, "images": [{"image_url": {"url": "data:"}}]}
    pieces = [Delta(message=said), Delta(text="Hi", extra={"token_ids": [1, 2], "seen": [3]})]
    _, reply = leaving(pieces)

    assert (reply.choices[0].message, reply.choices[0].extra, reply.text) == ({}, {}, "Hi")
    assert reply.report["n_dropped"] == 4


def test_fields_of_the_choice_leave_if_they_are_clean() -> None:
    extra = {"stop_reason": "ok", "note": NAME, "deep": {"a": ["Paris", 1.5, None]}, "Paris": 1}
    _, reply = leaving([Delta(text="Hi", extra=extra)])

    assert reply.choices[0].extra == {"stop_reason": "ok", "deep": {}}
    assert reply.report["n_dropped"] == 3


def test_a_field_that_spells_a_phrase_bit_by_bit_stops_short_of_it() -> None:
    deltas, _ = leaving([Delta(text="x", extra={"note": bit}) for bit in ("Séline ", "Ødegård")])

    assert [delta.extra for delta in deltas if delta.extra] == [{"note": "Séline "}]


def test_what_is_told_of_the_whole_reply_is_checked_too() -> None:
    class Telling(TextEngine):
        async def stream(self, plan: Plan) -> Any:
            async for delta in super().stream(plan):
                if delta.usage is None:
                    yield delta
            extra = {"service_tier": "flex", "note": NAME}
            usage = Usage(prompt_tokens=3, completion_tokens=1, extra={"x": {"y": 2}, "z": NAME})
            yield Delta(extra=extra, usage=usage, report={"engine": "text"})

    async def ask() -> Completion:
        plan = Plan(request=Request(messages=HI, n=2))
        return await collect(guarded_replies(Telling("Hi"), plan, RULES["restrict"], refusal="No."))

    reply = asyncio.run(ask())
    assert reply.extra == {"service_tier": "flex"}
    assert reply.usage == Usage(prompt_tokens=3, completion_tokens=2, extra={"x": {"y": 4}})


def test_a_message_too_deep_to_be_read_is_an_error_not_a_leak() -> None:
    deep: Any = "x"
    for _ in range(3_000):
        deep = {"a": deep}

    with pytest.raises(GuardError):
        leaving([Delta(message={"deep": deep})])


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(0, 9)
        | st.sampled_from(["Paris", "x", "Par", "is"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "index", "arguments", "id"]), inner, max_size=3)
        ),
        max_leaves=12,
    )
)
@settings(max_examples=80)
def test_whatever_form_an_unknown_field_has_nothing_leaks(value: Any) -> None:
    async def layers() -> Any:
        return await RULES["restrict"].layers(Request(messages=HI))

    channels = Channels(asyncio.run(layers()))
    message: Mapping[str, Any] = joined({}, channels.take({"field": value}))
    message = joined(message, channels.take({"field": value}))
    message = joined(message, channels.finish())

    check_never_leaks([*strings(message)], PHRASES)
