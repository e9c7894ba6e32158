"""What a grammar lets pass is what the reader reads: right tools, valid arguments, nothing else."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from llguidance import LLMatcher

from elision.contract import Choice, Delta, Request, collect
from elision.errors import RequestError
from elision.middleware.forms.dialects import HERMES, LLAMA, MISTRAL, PLAIN, THINK, Dialect
from elision.middleware.forms.form import Form, Tool
from elision.middleware.forms.formed import Formation
from elision.middleware.forms.grammar import source_of
from elision.middleware.forms.reading import read
from elision.middleware.interventions.grammar.compiled import Compiler
from elision.testing.tokenizers import byte_lexicon

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 3}, "n": {"enum": [1, 20]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = (Tool(name="find", parameters=SCHEMA), Tool(name="find_all", parameters=SCHEMA))
DIALECTS = {
    "hermes": HERMES,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "thinking": replace(HERMES, think=THINK),
    "bare thinking": replace(LLAMA, think=THINK),
    "opened": replace(HERMES, think=THINK, opens_thought=True),
}
LEXICON = byte_lexicon()
MUST, MAY = Form(tools=TOOLS, calls="must"), Form(tools=TOOLS, calls="may")


def may_be(source: str | None, text: str) -> tuple[bool, bool]:
    """Return whether *text* may be written, and whether it may end there."""
    assert source is not None
    matcher = Compiler.of(LEXICON).matcher(source)
    assert not matcher.is_error(), matcher.get_error()
    return Compiler.of(LEXICON).read(matcher, text), matcher.is_accepting()


def allows(matcher: LLMatcher, token: int) -> bool:
    return bool(int.from_bytes(matcher.compute_bitmask(), "little") >> token & 1)


def written_by_chance(source: str, draw: random.Random, *, limit: int = 1000) -> str | None:
    """Return a text that *source* lets a model write that draws any token; None: none so soon."""
    matcher = Compiler.of(LEXICON).matcher(source)
    data = b""
    for _ in range(limit):
        if matcher.is_accepting() and draw.random() < 0.8:
            return data.decode("utf-8", "replace")
        bits = int.from_bytes(matcher.compute_bitmask(), "little")
        allowed = [t for t in range(256) if bits >> t & 1]
        if not allowed:
            return data.decode("utf-8", "replace")
        token = draw.choice([t for t in allowed if t < 128] or allowed)
        assert matcher.consume_token(token)
        data += bytes([token])
    return None


def message_of(text: str, form: Form, dialect: Dialect, *, is_thinking: bool = False) -> Choice:
    async def deltas() -> AsyncIterator[Delta]:
        yield Delta(text=text)
        yield Delta(finish="stop")

    found = read(deltas(), form, dialect, is_thinking=is_thinking)
    return asyncio.run(collect(found)).choices[0]


def check_calls(choice: Choice, names: set[str]) -> int:
    calls: list[dict[str, Any]] = choice.message.get("tool_calls", [])
    for call in calls:
        assert call["function"]["name"] in names
        jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMA)
    return len(calls)


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("only", ["", "find"])
@pytest.mark.parametrize("parallel", [True, False])
def test_whoever_must_call_calls_a_right_tool_with_valid_arguments(
    name: str, only: str, parallel: bool
) -> None:
    dialect = DIALECTS[name]
    form = replace(MUST, only=only, parallel=parallel)
    inside, draw = dialect.opens_thought, random.Random(name)
    source = source_of(form, dialect, is_thinking=inside)
    assert source is not None
    begun = "</think>\n\n" if inside else ""  # no chance would ever close a thought
    bare = source_of(form, replace(dialect, think=None))
    assert bare is not None
    for _ in range(3):
        text = written_by_chance(bare, draw)
        assert text is not None
        assert may_be(source, begun + text) == (True, True)
        n_calls = check_calls(
            message_of(begun + text, form, dialect, is_thinking=inside),
            {only} if only else {"find", "find_all"},
        )
        assert n_calls == 1 if not parallel or dialect.separator is None else n_calls >= 1


@pytest.mark.parametrize("name", DIALECTS)
def test_whoever_may_call_writes_any_text_or_calls(name: str) -> None:
    dialect = DIALECTS[name]
    source = source_of(MAY, replace(dialect, opens_thought=False))
    call = dialect.calls_begin + dialect.head("find") + '{"city": "x"}' + dialect.tail
    call += dialect.calls_end

    assert may_be(source, "") == (True, True)
    assert may_be(source, "Hello {there}\n<tool") == (True, True)
    assert may_be(source, call) == (True, True)
    assert may_be(source, call[:-1]) == (True, False)
    for wrong in ('{"city": 1', '{"town"', "[", '{"city": "xxxx'):
        begun = dialect.calls_begin + dialect.head("find") + wrong
        assert may_be(source, begun)[0] is False
    assert may_be(source, call + " and more")[0] is False
    if dialect.marker:
        assert may_be(source, "Let me look.\n" + call) == (True, True)
        assert may_be(source, dialect.call_begin + '{"name": "other')[0] is False
    if dialect.think:
        assert may_be(source, "<think>\nor <tool_call>?\n</think>\n\nHi.") == (True, True)
        assert may_be(source, f"<think>Hm.</think>{call}") == (True, True)
        assert may_be(source, "<think>\nHm")[1] is False


@pytest.mark.parametrize("name", ["llama", "mistral", "bare thinking"])
def test_white_space_before_a_bare_call_is_none_of_the_text(name: str) -> None:
    dialect = DIALECTS[name]
    source = source_of(MAY, dialect)
    call = dialect.calls_begin + dialect.head("find") + '{"city": "x"}' + dialect.tail
    call += dialect.calls_end

    assert may_be(source, f" \n{call}") == (True, True)
    assert may_be(source, " \nHello") == (True, True)
    assert check_calls(message_of(f" \n{call}", MAY, dialect), {"find"}) == 1
    assert message_of(" \nHello", MAY, dialect).text == " \nHello"
    assert message_of(" ", MAY, dialect).text == " "


@pytest.mark.parametrize("form", [MUST, MAY, replace(MAY, schema=SCHEMA)])
def test_behind_the_token_that_begins_calls_nothing_but_calls_is_written(form: Form) -> None:
    dialect = replace(MISTRAL, calls_mark_id=256)
    source = source_of(form, dialect)
    assert source is not None
    compiler = Compiler.of(LEXICON)
    call = "[" + dialect.head("find") + '{"city": "x"}' + dialect.tail + "]"

    for before in ("", " "):
        matcher = compiler.matcher(source)
        assert matcher.consume_token(256)
        assert not matcher.is_accepting()
        assert not allows(matcher, 256)
        assert not allows(matcher, ord("H"))
        assert compiler.read(matcher, before + call)
        assert matcher.is_accepting()
    begun = compiler.matcher(source)
    assert compiler.read(begun, "[" if form is MUST else '{"')
    assert not allows(begun, 256)
    assert may_be(source, call) == (True, True)  # without it, too
    assert not allows(compiler.matcher(str(source_of(form, MISTRAL))), 256)


@pytest.mark.parametrize("name", ["hermes", "thinking"])
def test_whoever_may_not_call_does_not_begin_a_call(name: str) -> None:
    source = source_of(replace(MAY, calls="none"), DIALECTS[name])

    assert may_be(source, "Text <tool_cal") == (True, True)
    assert may_be(source, "Text <tool_call>")[0] is False


@pytest.mark.parametrize("name", DIALECTS)
def test_with_a_schema_the_text_is_its_or_a_call(name: str) -> None:
    dialect = DIALECTS[name]
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    source = source_of(replace(MAY, schema=schema), replace(dialect, opens_thought=False))
    call = dialect.calls_begin + dialect.head("find") + '{"city": "x"}' + dialect.tail
    call += dialect.calls_end

    assert may_be(source, '{"a":true}') == (True, True)
    assert may_be(source, call) == (True, True)
    assert may_be(source, "Text")[0] is False
    for key in ("name", "names", "nam"):  # what a call begins with, or nearly
        named = {"type": "object", "properties": {key: {"type": "integer"}}, "required": [key]}
        beside = source_of(replace(MAY, schema=named), replace(dialect, opens_thought=False))
        assert may_be(beside, f'{{"{key}":12,"x":[1]}}') == (True, True)
        assert may_be(beside, call) == (True, True)
    only_json = source_of(Form(schema=schema, tools=TOOLS), dialect, is_thinking=False)
    assert may_be(only_json, '{"a":true}') == (True, True)
    assert may_be(only_json, call)[0] is False


def test_a_form_that_asks_for_nothing_has_no_grammar() -> None:
    assert source_of(Form(), HERMES) is None
    assert source_of(Form(tools=TOOLS), PLAIN) is None


def test_a_schema_that_cannot_be_used_is_told_by_its_place() -> None:
    never = {"type": "object", "properties": {"a": False}, "required": ["a"]}
    form = Form(tools=(TOOLS[0], Tool(name="bad", parameters=never)), calls="must")
    with pytest.raises(RequestError) as caught:
        Formation(form=form, dialect=HERMES).held(LEXICON)
    assert caught.value.param == "tools[1].function.parameters"
    chosen = replace(form, only="find")
    held = Formation(form=chosen, dialect=HERMES).held(LEXICON)
    assert held.source == source_of(chosen, HERMES)


def test_a_schema_of_too_many_levels_is_told_by_its_place() -> None:
    deep: dict[str, Any] = {}
    for _ in range(150):
        deep = {"type": "object", "properties": {"a": deep}}
    for form, param in (
        (Form(schema=deep), "response_format"),
        (
            Form(tools=(Tool(name="f", parameters=deep),), calls="may"),
            "tools[0].function.parameters",
        ),
    ):
        with pytest.raises(RequestError) as caught:
            Formation(form=form, dialect=HERMES).held(LEXICON)
        assert (caught.value.param, caught.value.code) == (param, "schema_too_complex")


def test_only_chats_that_are_written_have_a_form() -> None:
    class Engine:
        dialect = DIALECTS["thinking"]

    message = ({"role": "user", "content": "Hi"},)
    assert Formation.of(Request(messages=message), Engine()) is not None  # type: ignore[arg-type]
    for request in (
        Request(kind="text", prompt="Hi"),
        Request(messages=message, answer="Yes."),
        Request(messages=message, options={"trace": True}),
    ):
        assert Formation.of(request, Engine()) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("begun", "is_thinking"), [("<think>Hm", True), ("<think>Hm</think>Y", False)]
)
def test_a_beginning_tells_whether_the_reply_stands_in_a_thought(
    begun: str, is_thinking: bool
) -> None:
    class Engine:
        dialect = DIALECTS["opened"]

    messages = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": begun})
    found = Formation.of(Request(messages=messages, continue_final=True), Engine())  # type: ignore[arg-type]

    assert found is not None
    assert found.is_thinking == is_thinking
