"""``/v1/responses`` through the real client: whole, streamed, called, refused, broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from elision.contract import Capability, Delta, Request
from elision.errors import UpstreamError
from elision.guards.phrases.normal import N
from elision.testing.text_engine import TextEngine, Words

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
PHRASE = "Marlowe Street"
SPLIT = ("She lives in Mar", "lowe Str", "eet, number nine.")


def call(arguments: str, *, name: str = "find", index: int = 0) -> list[Delta]:
    """Return the pieces of a call, its arguments in threes."""
    entry: dict[str, Any] = {"index": index, "id": f"call_{index}", "type": "function"}
    first = Delta(message={"tool_calls": [entry | {"function": {"name": name, "arguments": ""}}]})
    cut = [arguments[at : at + 3] for at in range(0, len(arguments), 3)]
    return [first] + [
        Delta(message={"tool_calls": [{"index": index, "function": {"arguments": one}}]})
        for one in cut
    ]


def thought(*texts: str) -> list[Delta]:
    return [Delta(message={"reasoning_content": text}) for text in texts]


SAYS: dict[str, Words] = {
    "hello": ["Hel", "lo ", "you."],
    "address": [*SPLIT],
    "think": [*thought("Hmm, ", "well."), "Four."],
    "think of the address": [*thought(*SPLIT), "No."],
    "call": ["I look. ", *call('{"q": "tide"}'), *call("{}", name="add", index=1)],
    "call with the address": call('{"q": "Marl\\u006fwe Street"}'),
    "refuse": [Delta(message={"refusal": "I "}), Delta(message={"refusal": "won't."})],
    "json": ['{"q": ', '"tide"}'],
    "nothing": [],
}


def reply(request: Request) -> Words:
    """Say what the last message asks for; of others, what was said before."""
    last = request.messages[-1]["content"]
    if last in SAYS:
        return SAYS[last]
    said = [str(m.get("content")) for m in request.messages]
    return [f"{m['role']}: {text} | " for m, text in zip(request.messages, said, strict=True)]


KEYS = [
    {"name": f"{tenant}-{n}", "key": f"key-{tenant}-{n}", "tenant": tenant,
     "roles": ["service", "operator"]}
    for tenant in ("ours", "theirs") for n in (1, 2)
]  # fmt: skip


@pytest.fixture(scope="module")
def speaking(served: Any) -> Iterator[Any]:
    engine = TextEngine(reply, name="m")
    engine.capabilities = Capability.PASSES
    with served(engine, keys=KEYS) as server:
        yield server


@pytest.fixture
def client(speaking: Any) -> Iterator[openai.OpenAI]:
    with _client(speaking, "key-ours-1") as client:
        yield client


def _client(server: Any, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


@pytest.fixture
def forgotten(speaking: Any) -> Iterator[str]:
    _, _, page = speaking.ask(
        "POST", "/v1/forget", {"title": "t", "phrases": [PHRASE]}, authorization="Bearer key-ours-1"
    )
    target = orjson.loads(page)["id"]
    yield target
    speaking.ask("DELETE", f"/v1/forget/{target}", authorization="Bearer key-ours-1")


def ask(server: Any, body: Any, path: str = "/v1/responses", method: str = "POST") -> Any:
    status, _, page = server.ask(method, path, body, authorization="Bearer key-ours-1")
    return status, orjson.loads(page)


def events(server: Any, **body: Any) -> list[dict[str, Any]]:
    """Return a stream's events as they stand on the wire, each checked against its type."""
    _, _, page = server.ask(
        "POST", "/v1/responses", {"model": "m", "stream": True, **body},
        authorization="Bearer key-ours-1",
    )  # fmt: skip
    found = []
    for block in page.decode().removesuffix("\n\n").split("\n\n"):
        name, _, data = block.partition("\n")
        event = orjson.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert EVENTS.validate_python(event).type == event["type"]
        found.append(event)
    assert [event["sequence_number"] for event in found] == [*range(len(found))]
    return found


# --- what is said --------------------------------------------------------------------------------


def test_a_text_is_answered_with_a_text(client: openai.OpenAI) -> None:
    response = client.responses.create(
        model="m", input="hello", instructions="Be brief.", metadata={"a": "b"}, temperature=0.5
    )
    assert (response.status, response.output_text) == ("completed", "Hello you.")
    assert response.id.startswith("resp_")
    assert (response.instructions, response.metadata) == ("Be brief.", {"a": "b"})
    assert response.usage is not None
    assert response.usage.output_tokens == 3
    assert Response.model_validate(response.model_dump()) == response


def test_a_streamed_text_comes_in_the_order_of_the_openai_api(speaking: Any) -> None:
    found = events(speaking, input="hello")

    assert [event["type"].removeprefix("response.") for event in found] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.delta", "output_text.delta", "output_text.done", "content_part.done",
        "output_item.done", "completed",
    ]  # fmt: skip
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == "Hello you."


@pytest.mark.parametrize("say", [*SAYS])
def test_the_clients_own_joining_of_a_stream_is_the_whole_response(
    client: openai.OpenAI, say: str
) -> None:
    whole = client.responses.create(model="m", input=say)
    with client.responses.stream(model="m", input=say) as stream:
        streamed = stream.get_final_response()

    assert _bare(streamed) == _bare(whole)


def _bare(response: Response) -> Any:
    """Return what a response says, without what is new in each."""
    told = response.model_dump(exclude={"id", "created_at", "completed_at"}, exclude_none=True)
    for item in told["output"]:
        item.pop("id")
        item.pop("parsed_arguments", None)
        for part in item.get("content", ()):
            part.pop("parsed", None)
    return told


def test_calls_thoughts_and_refusals_are_items_and_parts_of_their_own(
    client: openai.OpenAI,
) -> None:
    called = client.responses.create(model="m", input="call").output
    thinking = client.responses.create(model="m", input="think").output
    refused = client.responses.create(model="m", input="refuse").output

    assert [item.type for item in called] == ["message", "function_call", "function_call"]
    assert [(i.name, i.arguments, i.call_id) for i in called if i.type == "function_call"] == [
        ("find", '{"q": "tide"}', "call_0"), ("add", "{}", "call_1"),
    ]  # fmt: skip
    assert thinking[0].type == "reasoning"
    assert thinking[0].content is not None
    assert thinking[0].content[0].text == "Hmm, well."
    assert refused[0].type == "message"
    assert [part.model_dump() for part in refused[0].content] == [
        {"type": "refusal", "refusal": "I won't."}
    ]


def test_what_is_cut_off_says_why(client: openai.OpenAI, forgotten: str) -> None:
    short = client.responses.create(model="m", input="hello", max_output_tokens=1)
    filtered = client.responses.create(model="m", input="address")

    assert (short.status, short.output[0].status) == ("incomplete", "incomplete")  # type: ignore[union-attr]
    assert short.incomplete_details is not None
    assert short.incomplete_details.reason == "max_output_tokens"
    assert filtered.incomplete_details is not None
    assert filtered.incomplete_details.reason == "content_filter"


class Tide(BaseModel):
    q: str


def test_a_reply_is_parsed_into_the_callers_own_type(speaking: Any, client: openai.OpenAI) -> None:
    parsed = client.responses.parse(model="m", input="json", text_format=Tide)

    assert parsed.output_parsed == Tide(q="tide")
    wanted = speaking.engine.requests[-1].extra["response_format"]["json_schema"]
    assert (wanted["name"], wanted["strict"]) == ("Tide", True)
    assert "q" in wanted["schema"]["properties"]


def test_a_client_that_leaves_frees_the_engine_and_nothing_is_kept(served: Any) -> None:
    engine = TextEngine("word " * 4000, name="m", every=1)
    with served(engine) as server:
        line = server.open({"model": "m", "input": "x", "stream": True}, "/v1/responses")
        page = line.recv(4000).decode()
        line.close()
        server.settles(1, "elision_requests_total", route="/v1/responses", status="client gone")
        kept = page.partition('"id":"')[2].partition('"')[0]
        assert kept.startswith("resp_")
        assert server.ask("GET", f"/v1/responses/{kept}")[0] == 404
        assert engine.n_open == 0


def test_tools_and_formats_reach_the_engine_in_a_chats_form(
    speaking: Any, client: openai.OpenAI
) -> None:
    tool = {"type": "function", "name": "find", "parameters": {"type": "object"}, "strict": True}
    other: Any = tool | {"name": "add"}
    allowed: Any = {"type": "allowed_tools", "mode": "required",
                    "tools": [{"type": "function", "name": "add"}]}  # fmt: skip
    client.responses.create(
        model="m", input="hello", tools=[tool, other], tool_choice=allowed,  # type: ignore[list-item]
        parallel_tool_calls=False, text={"format": {"type": "json_object"}},
        extra_body={"unheard": 1},
    )  # fmt: skip
    extra = speaking.engine.requests[-1].extra

    function = {"name": "add", "parameters": {"type": "object"}, "strict": True}
    assert extra == {
        "tools": [{"type": "function", "function": function}], "tool_choice": "required",
        "parallel_tool_calls": False, "response_format": {"type": "json_object"}, "unheard": 1,
    }  # fmt: skip


def test_a_round_of_tools_is_read_in_order(speaking: Any, client: openai.OpenAI) -> None:
    first = client.responses.create(model="m", input="call")
    results: Any = [
        {"type": "function_call_output", "call_id": c, "output": "high"}
        for c in ("call_0", "call_1")
    ]
    replayed: Any = [{"role": "user", "content": "call"}, *[i.model_dump() for i in first.output]]
    client.responses.create(model="m", input=replayed + results)
    by_hand = speaking.engine.requests[-1].messages
    client.responses.create(model="m", input=results, previous_response_id=first.id)

    assert [m["role"] for m in by_hand] == ["user", "assistant", "tool", "tool"]
    assert [c["function"]["name"] for c in by_hand[1]["tool_calls"]] == ["find", "add"]
    assert by_hand[1]["content"] == "I look. "
    assert speaking.engine.requests[-1].messages == by_hand
    assert speaking.engine.requests[-1].user_text == "call"


# --- what is guarded -----------------------------------------------------------------------------


@pytest.mark.parametrize("say", ["address", "think of the address", "call with the address"])
@pytest.mark.parametrize("profile", ["guarded", "buffered", "plain"])
def test_a_phrase_leaves_in_no_channel_whole_or_streamed(
    speaking: Any, forgotten: str, say: str, profile: str
) -> None:
    body = {"input": say, "elision": {"profile": profile, "report": True}}
    _, whole = ask(speaking, {"model": "m", **body})
    streamed = events(speaking, **body)
    joined = "".join(event.get("delta", "") for event in streamed)

    assert N(PHRASE) not in N(_words(whole))
    assert N(PHRASE) not in N(joined)
    assert all(N(PHRASE) not in N(_words(event)) for event in streamed)
    assert whole["elision"]["n_targets"] == 1
    assert _shape(streamed[-1]["response"]) == _shape(whole)


def _words(value: Any) -> str:
    """Return every string in *value*, and what stands in those that are JSON, in a row."""
    match value:
        case dict():
            return " ".join(f"{key} {_words(inner)}" for key, inner in value.items())
        case list():
            return " ".join(map(_words, value))
        case str() if value[:1] == "{" and value[-1:] == "}":
            return f"{value} {_words(orjson.loads(value))}"
    return str(value)


def _shape(response: dict[str, Any]) -> Any:
    said = [(i["type"], i["status"], i.get("arguments"), [_words(p) for p in i.get("content", ())])
            for i in response["output"]]  # fmt: skip
    return response["status"], response["incomplete_details"], said


def test_what_a_request_says_is_not_said_back_if_it_must_not_be_said(
    speaking: Any, forgotten: str
) -> None:
    tool = {"type": "function", "name": "find", "description": f"Finds {PHRASE}."}
    body = {
        "model": "m", "input": f"Where is {PHRASE}?", "instructions": f"Never say {PHRASE}.",
        "metadata": {"where": PHRASE}, "tools": [tool], "user": "Marlowe-Street",
        "prompt_cache_key": "harmless",
    }  # fmt: skip
    _, whole = ask(speaking, body)
    _, shown = ask(speaking, None, f"/v1/responses/{whole['id']}", "GET")
    _, items = ask(speaking, None, f"/v1/responses/{whole['id']}/input_items", "GET")

    for page in (whole, shown, items):
        assert N(PHRASE) not in N(_words(page))
    assert (whole["instructions"], whole["metadata"], whole["tools"]) == (None, {}, [])
    assert whole["prompt_cache_key"] == "harmless"
    assert items["data"][0]["content"][0]["text"] == "[redacted]"
    assert PHRASE in speaking.engine.requests[-1].messages[0]["content"], "the model reads it"


def test_turns_do_not_spell_together_what_no_turn_may_say(speaking: Any, forgotten: str) -> None:
    SAYS["half"], SAYS["other half"] = "It is Marlowe", "Street."
    _, first = ask(speaking, {"model": "m", "input": "half"})
    body = {"model": "m", "input": "other half", "previous_response_id": first["id"]}
    _, second = ask(speaking, body)
    _, alone = ask(speaking, {"model": "m", "input": "other half"})

    assert _words(first["output"]).count("It is Marlowe") == 1
    assert second["status"] == "incomplete"
    assert "Street." not in _words(second["output"])
    assert "Street." in _words(alone["output"])


# --- what is wrong -------------------------------------------------------------------------------

PART = {"type": "input_text", "text": "x"}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": 3}, "input", "invalid_type"),
        ({"input": []}, "input", "empty_array"),
        ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
        ({"input": [{"role": "user", "content": "a"}, {"role": "no", "content": "a"}]},
         "input[1].role", "invalid_value"),
        ({"input": ["a", {"role": "user", "content": "a"}]}, "input[0]", "invalid_type"),
        ({"input": [{"role": "user", "content": [PART, {"type": "input_text", "text": 3}]}]},
         "input[0].content[1].text", "invalid_type"),
        ({"input": [{"role": "user", "content": [{"type": "video"}]}]},
         "input[0].content[0].type", "invalid_value"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}]},
         "input[0].arguments", "invalid_type"),
        ({"input": [{"type": "function_call_output", "output": "x"}]},
         "input[0].call_id", "missing_required_parameter"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type", "unsupported_parameter"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": []}]},
         "input[0].output", "empty_array"),
        ({"input": [{"id": "msg_none"}]}, "input[0].id", "item_not_found"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice.name", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": 1}}},
         "text.format.schema", "invalid_type"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "invalid_value"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
        ({"include": ["secrets"]}, "include[0]", "invalid_value"),
        ({"top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"metadata": {"a": 1}}, "metadata", "invalid_type"),
        ({"truncation": "middle"}, "truncation", "invalid_value"),
        ({"background": True}, "background", "unsupported_parameter"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
        ({"messages": []}, "messages", "unknown_parameter"),
        ({"n": 2}, "n", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"elision": {"profil": "plain"}}, "elision", "invalid_value"),
        ({"model": "nobody"}, "model", "model_not_found"),
        ({"previous_response_id": "resp_none"}, "previous_response_id",
         "previous_response_not_found"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_named_as_the_caller_wrote_it(
    speaking: Any, fields: dict[str, Any], param: str, code: str, stream: bool
) -> None:
    body = {"model": "m", "input": "hello", "stream": stream} | fields
    status, page = ask(speaking, {key: one for key, one in body.items() if one is not None})

    assert status == (404 if code.endswith("not_found") else 400)
    assert (page["error"]["param"], page["error"]["code"]) == (param, code)


def test_an_engines_refusal_of_a_field_names_it_too(served: Any) -> None:
    image = {"type": "input_image", "image_url": "data:,"}
    items = [PART | {"type": "input_text"}, image]
    long = {"role": "user", "content": "hello"}
    with served(TextEngine(reply, name="m")) as server:
        status, _, page = server.ask(
            "POST", "/v1/responses",
            {"model": "m", "input": [long, {"role": "user", "content": items}]},
        )  # fmt: skip
    assert status == 400
    assert orjson.loads(page)["error"]["param"] == "input[1].content[1].type"
    assert "messages" not in page.decode()


def test_a_tool_is_refused_by_a_name_that_is_known_and_by_no_other(client: openai.OpenAI) -> None:
    for kind in ("web_search", "Marlowe Street", 3):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model="m", input="x", tools=[{"type": kind}])  # type: ignore[list-item,misc]
        assert ("web_search" in caught.value.message) == (kind == "web_search")
        assert "Marlowe" not in caught.value.message


def test_a_reply_that_breaks_before_its_first_piece_is_an_ordinary_error(served: Any) -> None:
    with served(TextEngine("abc", name="m", breaks_after=0)) as server:
        for stream in (False, True):
            status, _, page = server.ask(
                "POST", "/v1/responses", {"model": "m", "input": "x", "stream": stream}
            )
            assert status == 500
            assert orjson.loads(page)["error"]["code"] == "engine_failed"


def test_a_reply_that_breaks_on_its_way_ends_with_error_and_failed(served: Any) -> None:
    broken = UpstreamError("the upstream broke")
    with served(TextEngine("abcdef", name="m", breaks_after=2, error=broken)) as server:
        with _client(server, "none") as client:
            found = list(client.responses.create(model="m", input="x", stream=True))
        last = found[-1]
        assert [event.type for event in found[-2:]] == ["error", "response.failed"]
        assert last.type == "response.failed"
        assert last.response.error is not None
        assert last.response.error.message == "the upstream broke"
        server.settles(1, "elision_failures_total", error="UpstreamError")
        status, _, _ = server.ask("GET", f"/v1/responses/{last.response.id}")
        assert status == 404, "what broke is not kept"
