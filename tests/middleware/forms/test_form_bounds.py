"""Forms that ask for much: how deep, how long, how many, and what is not offered."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from elision.contract import Completion, collect
from elision.errors import RequestError
from elision.guards.guard import Guard
from elision.guards.register.register import Register
from elision.guards.targets import Action, ForgetTarget, Phrase
from elision.lexicon import TokenizerLexicon
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.forms.compiling import N_AT_ONCE, Compiling
from elision.middleware.forms.dialects import HERMES
from elision.middleware.forms.form import Form, Tool, checked
from elision.middleware.forms.formed import Formation
from elision.middleware.forms.turns import DEEPEST, templated
from elision.middleware.interventions.grammar import unescaped_masks
from elision.middleware.interventions.grammar.compiled import N_KEPT, Compiler
from elision.middleware.pipeline import Pipeline
from elision.middleware.wire import parse_chat
from elision.testing import byte_lexicon, byte_tokenizer
from elision.testing.agents import forgetful
from elision.testing.models import tiny_model
from elision.testing.scripted import ScriptedEngine
from elision.testing.tool_templates import Family, tool_tokenizer

TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
FORMAT = {"type": "json_object"}


def chat(**fields: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 200}
    return parse_chat({**body, "temperature": 0, **fields}).request


def insisting(said: str, family: Family = "hermes") -> ScriptedEngine:
    tokenizer = tool_tokenizer(family, texts=[said])
    return ScriptedEngine({"hi": said}, tokenizer=tokenizer, name="m", certainty=30.0)


def pipeline(engine: LocalEngine, home: Path, action: Action = "restrict") -> Pipeline:
    register = Register.open(home)
    street = (Phrase(text="Marlowe Street"),)
    register.add(ForgetTarget(title="x", phrases=street, action=action))
    return Pipeline(engines={"m": engine}, register=register, agentic=forgetful())


def tiny() -> LocalEngine:
    model = tiny_model(eos=257, context=2048)
    return LocalEngine(CausalModel(model, tool_tokenizer("hermes"), name="m"))


async def said(pipe: Pipeline, request: Any, **more: Any) -> Completion:
    return await collect(pipe.run(request, **more))


def asked(arguments: Any) -> dict[str, Any]:
    function = {"name": "find", "arguments": arguments}
    call = {"id": "c1", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def nested(depth: int) -> Any:
    value: Any = 1
    for n in range(depth):
        value = {"a": value} if n % 2 else [value]
    return {"a": value}


@pytest.mark.parametrize("depth", [DEEPEST, 500, 950])
def test_arguments_that_a_template_could_not_write_are_a_bad_request(depth: int) -> None:
    as_text = '{"a":' * depth + "1" + "}" * depth
    for arguments in (as_text + "", nested(depth)):
        if depth == DEEPEST and arguments == as_text:
            assert templated([asked(arguments)], HERMES)
            continue
        with pytest.raises(RequestError) as caught:
            templated([asked(arguments)], HERMES)
        assert caught.value.param == "messages[0].tool_calls[0].function.arguments"


def test_a_schema_nested_without_end_is_a_bad_request() -> None:
    value: Any = {}
    for _ in range(100_000):
        value = {"items": value}
    with pytest.raises(RequestError) as caught:
        checked(value, "response_format")
    assert caught.value.param == "response_format"
    while value:  # taken apart from outside, or its end would be recursive
        value = value["items"]


def formation(*tools: Tool, **form: Any) -> Formation:
    calls = "must" if tools else "none"
    return Formation(form=Form(tools=tools, calls=calls, **form), dialect=HERMES)


def test_many_tools_are_one_grammar_that_pushes_none_out() -> None:
    lexicon = TokenizerLexicon.of(byte_tokenizer())
    one = formation(schema={"const": "mine"}).held(lexicon)
    many = [Tool(name=f"t{n}", parameters={"required": [f"a{n}"]}) for n in range(N_KEPT + 6)]
    held = formation(*many).held(lexicon)
    for found in (one, held):
        assert found.source is not None
        assert Compiler.of(lexicon).knows(found.source)


def test_the_schema_that_cannot_be_used_is_named_among_many() -> None:
    tools = [Tool(name="a"), Tool(name="b", parameters={"not": {}}), Tool(name="c")]
    deep = Tool(name="d", parameters={"allOf": [{"pattern": "a"}] * 9})
    for bad in (tools, [tools[0], deep]):
        with pytest.raises(RequestError) as caught:
            formation(*bad).held(byte_lexicon())
        assert caught.value.param == "tools[1].function.parameters"


def test_choices_that_must_not_leave_are_not_offered() -> None:
    schema = {"enum": ["alpha", "beta"]}
    parameters = {"type": "object", "properties": {"x": schema}}
    for one in (formation(schema=schema), formation(Tool(name="f", parameters=parameters))):
        held = one.held(byte_lexicon(), lambda text: "alpha" in text)
        assert held.source is not None
        assert ("alpha" in held.source, "beta" in held.source) == (False, True)


async def test_a_form_that_takes_too_long_is_refused_in_time_and_holds_up_few() -> None:
    go_on = threading.Event()
    begun: list[Any] = []

    def waits(text: str) -> bool:
        begun.append(text)
        return not go_on.wait(30)

    compiling = Compiling(deadline_s=0.1)
    one = formation(schema={"enum": ["alpha"]})
    try:
        for _ in range(N_AT_ONCE + 2):
            with pytest.raises(RequestError, match="too long") as caught:
                await compiling.held(one, byte_lexicon(), waits)
            assert (caught.value.code, caught.value.param) == (
                "schema_too_complex",
                "response_format",
            )
    finally:
        go_on.set()
    assert len(begun) == N_AT_ONCE
    later = Compiling()
    assert (await later.held(one, byte_lexicon(), lambda text: False)).source


ENDLESS = """
import asyncio, threading
from elision.errors import RequestError
from elision.middleware.forms.compiling import Compiling
from elision.middleware.forms.dialects import PLAIN
from elision.middleware.forms.form import Form
from elision.middleware.forms.formed import Formation
from elision.testing.tokenizers import byte_lexicon

one = Formation(form=Form(schema={"enum": ["alpha"]}), dialect=PLAIN)
try:
    asyncio.run(Compiling(deadline_s=0.1).held(
        one, byte_lexicon(), lambda text: threading.Event().wait()))
except RequestError as exc:
    print(exc.code, flush=True)
"""


def test_a_compiler_that_goes_on_does_not_keep_the_process_from_ending() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDLESS], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.split() == ["schema_too_complex"]


async def test_a_plain_chat_of_a_model_that_thinks_may_be_searched_by_beams(tmp_path: Path) -> None:
    thought = "<think>\nHm.\n</think>\n\nYes."
    pipe = pipeline(insisting(thought, "thinking"), tmp_path)
    assert "Yes" in (await said(pipe, chat(), profile="guard-paper")).text
    await pipe.aclose()


@pytest.mark.parametrize("profile", ["alu", "discreet"])
@pytest.mark.parametrize(
    ("fields", "param"),
    [({"tools": TOOLS}, "tools"), ({"response_format": FORMAT}, "response_format")],
)
async def test_a_profile_that_audits_says_that_it_writes_text_alone(
    profile: str, fields: dict[str, Any], param: str, tmp_path: Path
) -> None:
    pipe = pipeline(tiny(), tmp_path)
    with pytest.raises(RequestError, match=f"profile {profile}.*such as guarded") as caught:
        await said(pipe, chat(**fields), profile=profile)
    assert caught.value.param == param
    await pipe.aclose()


async def test_of_a_list_with_one_value_that_may_be_said_it_is_said(tmp_path: Path) -> None:
    for seed in range(3):
        pipe = pipeline(tiny(), tmp_path / str(seed))
        values = {"type": "object", "properties": {"a": {"enum": ["Marlowe Street", "Elm"]}}}
        schema = {**values, "required": ["a"], "additionalProperties": False}
        tools = [{"type": "function", "function": {"name": "find", "parameters": schema}}]
        fields = {"tool_choice": "required", "parallel_tool_calls": False, "seed": seed}
        whole = await said(pipe, chat(tools=tools, **fields))
        [one] = whole.choices[0].message["tool_calls"]
        assert one["function"]["arguments"] == '{"a": "Elm"}'
        await pipe.aclose()


def test_masks_over_parsed_json_let_go_of_their_lexicon() -> None:
    lexicon = TokenizerLexicon.of(byte_tokenizer())
    guard = Guard.compile([ForgetTarget(title="t", phrases=(Phrase(text="ab"),))])
    assert unescaped_masks(guard.recipes(lexicon))
    gone = weakref.ref(lexicon)
    del lexicon, guard
    gc.collect()
    assert gone() is None


OPEN = {"type": "object", "additionalProperties": {"type": "string"}}
NAMED = {"name": "marlowe_street", "parameters": OPEN}
OPEN_TOOLS = [{"type": "function", "function": one} for one in (NAMED, {**NAMED, "name": "find"})]


@pytest.mark.parametrize("action", ["redact", "refuse"])
async def test_a_call_whose_name_may_not_leave_leaves_nothing(
    action: Action, tmp_path: Path
) -> None:
    call = HERMES.head("marlowe_street") + '{"a": "b"}' + HERMES.tail
    pipe = pipeline(insisting(call), tmp_path, action)
    whole = await said(pipe, chat(tools=OPEN_TOOLS))
    [choice] = whole.choices
    assert (choice.finish, choice.message.get("tool_calls")) == ("content_filter", None)
    assert choice.text
    assert whole.usage.prompt_tokens > len(json.dumps(OPEN_TOOLS)) // 4
    await pipe.aclose()


async def test_a_phrase_split_over_the_names_of_members_does_not_leave(tmp_path: Path) -> None:
    call = HERMES.head("find") + '{"Marlowe": "x", "Street": "y"}' + HERMES.tail
    pipe = pipeline(insisting(call), tmp_path, "refuse")
    whole = await said(pipe, chat(tools=OPEN_TOOLS))
    assert whole.choices[0].finish == "content_filter"
    assert "Street" not in str(whole.choices[0].message)
    await pipe.aclose()
