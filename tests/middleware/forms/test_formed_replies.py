"""A model of our own under a form: through the pipeline, with and without what must not be said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from elision.contract import Choice, Completion, Delta, collect
from elision.errors import RequestError
from elision.guards.register.register import Register
from elision.guards.targets import Action, ForgetTarget, Phrase
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.forms.dialects import HERMES
from elision.middleware.pipeline import Pipeline
from elision.middleware.rendering import ChatChunks, Head, chat_completion
from elision.middleware.wire import parse_chat
from elision.testing.agents import forgetful
from elision.testing.laws import check_never_leaks
from elision.testing.models import tiny_model
from elision.testing.scripted import ScriptedEngine
from elision.testing.tool_templates import Family, tool_tokenizer

PHRASE = "Marlowe Street"
PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 2}, "n": {"enum": [1, 20]}},
    "required": ["city", "n"],
    "additionalProperties": False,
}
OPEN = {"type": "object", "additionalProperties": {"type": "string"}}


def tool(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TOOLS = [tool("find", PLACE), tool("look_up", PLACE)]
WIDE = [tool("find", OPEN), tool("marlowe_street", OPEN)]
SLOW = partial(pytest.param, marks=pytest.mark.slow)
FORMAT = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE}}


def chat(text: str = "Hi", **fields: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 300}
    return parse_chat({**body, "temperature": 0, **fields}).request


def call(arguments: str, name: str = "find") -> str:
    return HERMES.head(name) + arguments + HERMES.tail


def pipeline(engine: LocalEngine, home: Path, action: Action | None = None) -> Pipeline:
    register = Register.open(home)
    if action is not None:
        said = (Phrase(text=PHRASE),)
        register.add(ForgetTarget(title="x", phrases=said, action=action))
    return Pipeline(engines={"m": engine}, register=register, agentic=forgetful())


def tiny(family: Family = "hermes", **more: Any) -> LocalEngine:
    model = tiny_model(eos=257, context=2048, vocab_size=260, **more)
    return LocalEngine(CausalModel(model, tool_tokenizer(family), name="m"))


def insisting(said: str | Mapping[str, str], family: Family = "thinking") -> ScriptedEngine:
    """Return an engine that wants to write what it is told to, come what may."""
    facts = {"hi": said} if isinstance(said, str) else said
    tokenizer = tool_tokenizer(family, texts=[*facts.values(), json.dumps(WIDE)] * 4)
    return ScriptedEngine(facts, tokenizer=tokenizer, name="m", certainty=30.0)


async def said(pipe: Pipeline, request: Any, **more: Any) -> tuple[list[Delta], Completion]:
    deltas = [delta async for delta in pipe.run(request, **more)]

    async def again() -> Any:
        for delta in deltas:
            yield delta

    return deltas, await collect(again())


def calls_of(choice: Choice) -> list[tuple[str, str]]:
    found = choice.message.get("tool_calls", [])
    functions = [one["function"] for one in found]
    return [(one["name"], one.get("arguments", "")) for one in functions]


# --- Forced --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["hermes", SLOW("llama"), SLOW("mistral")])
async def test_a_random_model_that_must_call_calls_right(family: Family, tmp_path: Path) -> None:
    pipe = pipeline(tiny(family), tmp_path)
    named = {"type": "function", "function": {"name": "look_up"}}
    for seed, choice in enumerate(["required", named]):
        request = chat(tools=TOOLS, tool_choice=choice, seed=seed, temperature=1.0, n=2 - seed)
        request = replace(request, extra={**request.extra, "parallel_tool_calls": False})
        _, whole = await said(pipe, request)
        for one in whole.choices:
            [(name, arguments)] = calls_of(one)
            assert name in {"find", "look_up"} if seed == 0 else name == "look_up"
            jsonschema.validate(json.loads(arguments), PLACE)
            assert (one.finish, one.text) == ("tool_calls", "")
    await pipe.aclose()


async def test_a_model_that_writes_the_token_before_calls_goes_on_with_one(tmp_path: Path) -> None:
    pipe = pipeline(tiny("mistral"), tmp_path)
    likes = {"259": 100}
    _, whole = await said(pipe, chat(tools=TOOLS, tool_choice="auto", logit_bias=likes))
    _, other = await said(pipe, chat(logit_bias=likes, max_tokens=4))

    assert calls_of(whole.choices[0])
    assert whole.choices[0].text == ""
    assert not calls_of(other.choices[0])
    await pipe.aclose()


@pytest.mark.parametrize(
    "profile", [SLOW("plain"), SLOW("guarded"), "focused", SLOW("reasoning"), SLOW("buffered")]
)
@pytest.mark.parametrize("action", [SLOW(None), "restrict"])
async def test_every_profile_of_scores_holds_a_reply_to_its_form(
    profile: str, action: Action | None, tmp_path: Path
) -> None:
    pipe = pipeline(tiny(), tmp_path, action)
    _, whole = await said(pipe, chat(response_format=FORMAT, seed=1), profile=profile)
    jsonschema.validate(json.loads(whole.text), PLACE)
    assert (whole.choices[0].finish, whole.report["profile"]) == ("stop", profile)
    request = chat(tools=TOOLS[:1], tool_choice="required", parallel_tool_calls=False)
    _, called = await said(pipe, request, profile=profile)
    jsonschema.validate(json.loads(calls_of(called.choices[0])[0][1]), PLACE)
    await pipe.aclose()


async def test_one_seed_gives_one_reply_drafted_or_not(tmp_path: Path) -> None:
    pipe = pipeline(tiny(), tmp_path)
    texts = set()
    for options in ({}, {"speculation": "force"}, {"speculation": "off"}, {"deterministic": True}):
        body: Any = {"response_format": FORMAT, "seed": 5, "temperature": 1.0, "elision": options}
        texts.add((await said(pipe, chat(**body)))[1].text)
    assert len(texts) == 1
    await pipe.aclose()


async def test_log_probabilities_name_only_what_the_form_allows(tmp_path: Path) -> None:
    pipe = pipeline(tiny(), tmp_path)
    _, whole = await said(pipe, chat(response_format=FORMAT, logprobs=True, top_logprobs=5))
    [choice] = whole.choices
    first = choice.logprobs[0]

    assert b"".join(entry.data for entry in choice.logprobs).decode() == choice.text
    assert [other.token for other in first.top] == ["{"]
    await pipe.aclose()


# --- Read ----------------------------------------------------------------------------------------

TWO = "I look.\n" + call('{"city": "Paris"}') + "\n" + call('{"city": "\\u0000"}')
THOUGHT = "<think>\nA walk?\n</think>\n\nYes.\n" + call('{"city": "Rome"}')


@pytest.mark.parametrize("action", [None, SLOW("restrict"), "redact", SLOW("refuse")])
async def test_what_a_model_writes_of_itself_is_read(action: Action, tmp_path: Path) -> None:
    for raw, content, thought, calls in (
        (TWO, "I look.", "", ['{"city": "Paris"}', '{"city": "\\u0000"}']),
        (THOUGHT, "Yes.", "A walk?", ['{"city": "Rome"}']),
    ):
        pipe = pipeline(insisting(raw), tmp_path / str(len(raw)), action)
        _, whole = await said(pipe, chat(tools=WIDE))
        [choice] = whole.choices
        assert (choice.text, choice.finish) == (content, "tool_calls")
        assert choice.message.get("reasoning_content", "") == thought
        assert choice.message.get("reasoning", "") == thought
        assert [source for _, source in calls_of(choice)] == calls
        if thought:
            counted = whole.usage.extra["completion_tokens_details"]["reasoning_tokens"]
            assert 0 < counted < whole.usage.completion_tokens
        await pipe.aclose()


async def test_a_prompt_that_begins_the_thought_has_the_reply_stand_in_it(tmp_path: Path) -> None:
    pipe = pipeline(insisting("<think>\nHm.\n</think>\n\nYes.", "opened"), tmp_path)
    for tools in (None, WIDE):
        _, whole = await said(pipe, chat(tools=tools))
        assert (whole.text, whole.choices[0].message["reasoning"]) == ("Yes.", "Hm.")
    await pipe.aclose()


async def test_on_the_wire_calls_and_thoughts_look_like_openais(tmp_path: Path) -> None:
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    pipe = pipeline(insisting(THOUGHT), tmp_path)
    deltas, whole = await said(pipe, chat(tools=WIDE))
    head = _head()
    chunks = ChatChunks(head)
    objects = [chunk for delta in deltas for chunk in chunks.of(delta)]
    first = objects[0]["choices"][0]["delta"]
    body = chat_completion(head, whole, logprobs=False)

    assert first["role"] == "assistant"
    for chunk in objects:
        ChatCompletionChunk.model_validate(chunk)
    message = ChatCompletion.model_validate(body).choices[0].message
    assert message.tool_calls
    assert message.tool_calls[0].id.startswith("call_")
    assert body["choices"][0]["message"]["content"] == "Yes."
    await pipe.aclose()


def _head() -> Head:
    return Head(id="chatcmpl-1", created=1, model="m", fingerprint="fp")


# --- Guarded -------------------------------------------------------------------------------------

ATTACKS = {
    "as it stands": call(f'{{"city": "{PHRASE}"}}'),
    "over a line break": call('{"city": "Marlowe\\nStreet"}'),
    "over a quote": call('{"city": "Marlowe \\"Street\\""}'),
    "over arguments": call('{"first": "Marlowe", "last": "Street"}'),
    "over arguments, escaped": call('{"first": "Mar\\blowe", "last": "Street"}'),
    "in a key": call(f'{{"{PHRASE}": "x"}}'),
    "over key and value": call('{"Marlowe": "Street"}'),
    "as a tool's name": call("{}", "marlowe_street"),
    "in a thought": f"<think>\n{PHRASE}?\n</think>\n\nNo.",
    "in text before a call": f"It is {PHRASE}. {call('{}')}",
    "in a second call": f"{call('{}')}\n{call(json.dumps({'a': PHRASE}))}",
}


@pytest.mark.parametrize("action", ["restrict", SLOW("redact"), SLOW("refuse")])
async def test_no_phrase_leaves_in_any_part_of_a_message(action: Action, tmp_path: Path) -> None:
    pipe = pipeline(insisting(ATTACKS), tmp_path, action)
    for attack in ATTACKS:
        request = chat(attack, tools=WIDE, logprobs=True, top_logprobs=3)
        deltas, whole = await said(pipe, request)
        [choice] = whole.choices
        check_never_leaks(deltas, [PHRASE])
        check_never_leaks(whole, [PHRASE])
        for name, source in calls_of(choice):
            check_never_leaks([name, source, "".join(_values(source))], [PHRASE])
            assert "[redacted]" not in source
        if attack == "in text before a call" and action == "redact":
            assert choice.text == "It is [redacted]."
    await pipe.aclose()


def _values(source: str) -> list[str]:
    try:
        return [f"{value} " for value in json.loads(source).values()]
    except ValueError:
        return []


async def test_a_phrase_that_the_schema_demands_is_refused(tmp_path: Path) -> None:
    demanded = {"type": "object", "properties": {"a": {"const": PHRASE}}, "required": ["a"]}
    for fields in (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": demanded}}},
        {"tools": [tool("find", demanded)], "tool_choice": "required"},
    ):
        pipe = pipeline(tiny(), tmp_path / str(len(fields)), "restrict")
        deltas, whole = await said(pipe, chat(**fields))
        check_never_leaks(deltas, [PHRASE])
        assert whole.choices[0].finish == "content_filter"
        await pipe.aclose()


async def test_json_that_was_asked_for_as_text_is_never_redacted(tmp_path: Path) -> None:
    pipe = pipeline(insisting(f'{{"a":"{PHRASE}"}}', "hermes"), tmp_path, "redact")
    _, whole = await said(pipe, chat(response_format={"type": "json_object"}))

    assert "[redacted]" not in whole.text
    assert whole.choices[0].finish == "content_filter"
    await pipe.aclose()


# --- Refused -------------------------------------------------------------------------------------

REFUSED = [
    ({"tools": TOOLS, "elision": {"trace": True}}, "guarded", "elision"),
    ({"tools": TOOLS}, "agentic", "tools"),
    ({"tools": TOOLS}, "discreet", "tools"),
    ({"tools": TOOLS}, "guard-paper", "model"),
    ({"response_format": FORMAT}, "discreet", "response_format"),
    ({"tools": [tool("f", {"type": "object", "properties": {"a": False}, "required": ["a"]})]},
     "guarded", "tools[0].function.parameters"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "profile", "param"), REFUSED)
async def test_what_cannot_be_held_to_a_form_is_refused_by_name(
    fields: dict[str, Any], profile: str, param: str, tmp_path: Path
) -> None:
    pipe = pipeline(tiny(), tmp_path, "restrict")
    with pytest.raises(RequestError) as caught:
        await said(pipe, chat(**fields), profile=profile)

    assert (caught.value.status, caught.value.param) == (400, param)
    await pipe.aclose()


async def test_a_template_without_tools_takes_none_and_says_who_does(tmp_path: Path) -> None:
    pipe = pipeline(ScriptedEngine({"hi": "Yes."}, name="m"), tmp_path)
    with pytest.raises(RequestError, match="Qwen2") as caught:
        await said(pipe, chat(tools=TOOLS))
    assert caught.value.param == "tools"
    assert (await said(pipe, chat(tools=TOOLS, tool_choice="none")))[1].text == "Yes."
    await pipe.aclose()


async def test_thoughts_are_no_part_of_what_agents_audit(tmp_path: Path) -> None:
    pipe = pipeline(insisting("<think>\nHm.\n</think>\n\nYes."), tmp_path)
    for profile in ("alu", "agentic"):
        _, whole = await said(pipe, chat(), profile=profile)
        assert "Hm." not in whole.text
    await pipe.aclose()


def test_the_reply_ends_with_its_reader(tmp_path: Path) -> None:
    async def run() -> None:
        engine = tiny()
        pipe = pipeline(engine, tmp_path)
        replies = pipe.run(chat(tools=TOOLS, tool_choice="required"))
        await anext(replies)
        await replies.aclose()
        for _ in range(100):
            if not engine.stats().get("active_streams", 0):
                break
            await asyncio.sleep(0.05)
        assert not engine.stats().get("active_streams", 0)
        await pipe.aclose()

    asyncio.run(run())
