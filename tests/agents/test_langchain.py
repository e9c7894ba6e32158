from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.globals import set_llm_cache
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from pydantic import BaseModel, ValidationError

from elision.agents.langchain import ChatClient, ChatElision
from elision.agents.langchain_messages import to_messages
from elision.contract import Alternative, Delta, Message, TokenLogprob, Usage
from elision.errors import (
    BusyError,
    ConfigError,
    ElisionError,
    EngineError,
    GuardError,
    RequestError,
    UpstreamError,
)

REPORT = {"profile": "guarded", "epoch": 3, "blocked_mass": 0.25}


class ScriptedClient:
    """Answers with its script, piece by piece, and remembers what it was asked."""

    def __init__(self, *pieces: str, finish: Any = "stop", error: Exception | None = None) -> None:
        self.model = "scripted"
        self.pieces = pieces
        self.finish = finish
        self.error = error
        self.asked: list[tuple[Sequence[Message], dict[str, Any]]] = []
        self.written = 0
        self.closed = 0

    def stream(self, messages: Sequence[Message], **options: Any) -> Iterator[Delta]:
        self.asked.append((messages, options))
        try:
            for delta in self.deltas(options.get("n", 1)):
                self.written += 1
                yield delta
        finally:
            self.closed += 1

    async def astream(self, messages: Sequence[Message], **options: Any) -> AsyncIterator[Delta]:
        self.asked.append((messages, options))
        try:
            for delta in self.deltas(options.get("n", 1)):
                await asyncio.sleep(0)
                self.written += 1
                yield delta
        finally:
            self.closed += 1

    def deltas(self, n: int) -> Iterator[Delta]:
        for piece in self.pieces:
            yield from (Delta(choice=i, text=piece * (i + 1)) for i in range(n))
        if self.error is not None:
            raise self.error
        yield from (Delta(choice=i, finish=self.finish) for i in range(n))
        yield Delta(usage=Usage(prompt_tokens=5, completion_tokens=2), report=REPORT)


def model_on(*pieces: str, **options: Any) -> tuple[ChatElision, ScriptedClient]:
    client = ScriptedClient(*(pieces or ("Né ", "🙂!")))
    return ChatElision(client=client, **options), client


def joined(chunks: Sequence[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


async def invoked(model: ChatElision) -> AIMessage:
    return model.invoke("Hi")


async def ainvoked(model: ChatElision) -> AIMessage:
    return await model.ainvoke("Hi")


async def streamed(model: ChatElision) -> AIMessage:
    return joined(list(model.stream("Hi")))


async def astreamed(model: ChatElision) -> AIMessage:
    return joined([chunk async for chunk in model.astream("Hi")])


WAYS = [invoked, ainvoked, streamed, astreamed]


# --- Laws ----------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=4), max_size=6), st.sampled_from(["stop", "length"]))
async def test_all_four_ways_to_ask_give_the_same_reply(pieces: list[str], finish: str) -> None:
    model = ChatElision(client=ScriptedClient(*pieces, finish=finish))
    replies = [await way(model) for way in WAYS]
    for reply in replies:
        assert reply.content == "".join(pieces)
        assert reply.response_metadata == {
            "finish_reason": finish,
            "model_name": "scripted",
            "model_provider": "elision",
            "elision": REPORT,
        }
        assert reply.usage_metadata == {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}


texts = st.text(max_size=5)
contents = texts | st.lists(texts | texts.map(lambda t: {"type": "text", "text": t}), max_size=3)
kinds = st.sampled_from(
    [(SystemMessage, "system"), (HumanMessage, "user"), (AIMessage, "assistant")]
)


@given(st.lists(st.tuples(kinds, contents), max_size=4))
def test_every_text_message_keeps_its_role_and_its_text(parts: Any) -> None:
    messages = [kind(content=content) for (kind, _), content in parts]
    assert to_messages(messages) == [
        {"role": role, "content": content if isinstance(content, str) else spelled(content)}
        for (_, role), content in parts
    ]


def spelled(content: list[Any]) -> str:
    return "".join(part if isinstance(part, str) else part["text"] for part in content)


# --- Streaming -----------------------------------------------------------------------------------


def test_a_piece_is_handed_on_before_the_next_one_is_written() -> None:
    model, client = model_on("a", "b", "c")
    stream = model.stream("Hi")
    assert next(stream).content == "a"
    assert client.written == 1


async def test_a_piece_is_handed_on_before_the_next_one_is_written_async_too() -> None:
    model, client = model_on("a", "b", "c")
    async with aclosing(cast("Any", model.astream("Hi"))) as stream:
        assert (await anext(stream)).content == "a"
        assert client.written == 1


def test_a_reader_that_leaves_early_ends_the_request() -> None:
    model, client = model_on("a", "b", "c")
    stream = cast("Any", model.stream("Hi"))
    next(stream)
    stream.close()
    assert (client.closed, client.written) == (1, 1)


async def test_a_reader_that_leaves_early_ends_the_request_async_too() -> None:
    model, client = model_on("a", "b", "c")
    async with aclosing(cast("Any", model.astream("Hi"))) as stream:
        await anext(stream)
    await asyncio.sleep(0.01)
    assert (client.closed, client.written) == (1, 1)


def test_the_last_chunk_says_that_it_is_the_last() -> None:
    model, _ = model_on("a")
    assert [chunk.chunk_position for chunk in model.stream("Hi")] == [None, None, "last"]


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_broken_guard_is_an_error_and_no_reply(way: str) -> None:
    model = ChatElision(client=ScriptedClient("so far", error=GuardError("broke")))
    with pytest.raises(GuardError):
        list(getattr(model, way)("Hi"))


def test_a_client_that_says_nothing_at_all_is_an_error() -> None:
    class Mute(ScriptedClient):
        def deltas(self, n: int) -> Iterator[Delta]:
            return iter(())

    with pytest.raises(EngineError):
        ChatElision(client=Mute()).invoke("Hi")


def test_a_refused_reply_says_so() -> None:
    model = ChatElision(client=ScriptedClient("I cannot.", finish="content_filter"))
    assert model.invoke("Hi").response_metadata["finish_reason"] == "content_filter"


# --- New tries -----------------------------------------------------------------------------------


class Recovering(ScriptedClient):
    """Fails with each of its errors once, after so many pieces, then answers."""

    def __init__(self, *errors: ElisionError, after: int = 0) -> None:
        super().__init__("a", "b")
        self.errors = list(errors)
        self.after = after

    def deltas(self, n: int) -> Iterator[Delta]:
        if self.errors:
            yield from [Delta(text="so far")] * self.after
            raise self.errors.pop(0)
        yield from super().deltas(n)


BUSY = BusyError("full", retry_after_s=0.01)
AWAY = UpstreamError("away", retryable=True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", [BUSY, AWAY])
async def test_a_busy_client_is_asked_again(
    error: ElisionError, way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elision.agents.langchain_asking.RETRY_S", 0.01)
    client = Recovering(error, error)
    assert (await way(ChatElision(client=client))).content == "ab"
    assert len(client.asked) == client.closed == 3


async def test_the_last_try_is_the_last() -> None:
    for retries in (0, 1):
        client = Recovering(BUSY, BUSY)
        with pytest.raises(BusyError):
            ChatElision(client=client, max_retries=retries).invoke("Hi")
        assert len(client.asked) == retries + 1


@pytest.mark.parametrize(
    ("error", "after"), [(BUSY, 1), (GuardError("broke"), 0), (UpstreamError("no"), 0)]
)
async def test_no_new_try_after_the_first_piece_or_where_it_would_not_help(
    error: ElisionError, after: int
) -> None:
    client = Recovering(error, after=after)
    with pytest.raises(type(error)):
        ChatElision(client=client).invoke("Hi")
    client.errors = [error]
    with pytest.raises(type(error)):
        await ChatElision(client=client).ainvoke("Hi")
    assert len(client.asked) == 2


@pytest.mark.parametrize("way", WAYS)
async def test_nobody_waits_longer_than_the_request_may_take(way: Any) -> None:
    client = Recovering(BusyError("full", retry_after_s=3600))
    with pytest.raises(BusyError):
        await way(ChatElision(client=client, timeout=30))
    assert len(client.asked) == 1


async def test_a_new_try_has_what_is_left_of_the_time() -> None:
    for way in (invoked, ainvoked):
        client = Recovering(BUSY)
        await way(ChatElision(client=client, timeout=30))
        first, second = (options["timeout_s"] for _, options in client.asked)
        assert first == 30
        assert 25 < second <= 29.99


# --- Options -------------------------------------------------------------------------------------


def test_a_bare_model_asks_for_nothing_special() -> None:
    model, client = model_on()
    model.invoke("Hi")
    assert client.asked == [([{"role": "user", "content": "Hi"}], {})]


def test_settings_reach_the_client_by_openais_names() -> None:
    model, client = model_on(
        profile="guarded",
        temperature=0.0,
        max_tokens=7,
        top_p=0.5,
        seed=0,
        stop=["x"],
        timeout=9,
        model_kwargs={"presence_penalty": 1.0},
    )
    model.invoke("Hi")
    assert client.asked[0][1] == {
        "profile": "guarded",
        "temperature": 0.0,
        "max_tokens": 7,
        "top_p": 0.5,
        "seed": 0,
        "stop": ["x"],
        "timeout_s": 9.0,
        "presence_penalty": 1.0,
    }


def test_a_call_overrules_the_settings() -> None:
    model, client = model_on(profile="guarded", temperature=0.0, stop=["x"], seed=1)
    model.bind(profile="plain", seed=None).invoke("Hi", stop=["y"], temperature=1.5)
    assert client.asked[0][1] == {"profile": "plain", "temperature": 1.5, "stop": ["y"]}


async def test_stop_texts_reach_the_client_each_way() -> None:
    model, client = model_on()
    model.invoke("Hi", stop=["a"])
    list(model.stream("Hi", stop=["a"]))
    await model.ainvoke("Hi", stop=["a"])
    assert [options async for options in model.astream("Hi", stop=["a"])]
    assert [options["stop"] for _, options in client.asked] == [["a"]] * 4


def test_langchains_profile_stays_langchains() -> None:
    facts: Any = {"max_input_tokens": 8192}
    model, _ = model_on(profile=facts, elision_profile="guarded")
    assert (model.profile, model.elision_profile) == (facts, "guarded")
    assert model_on(profile="guarded")[0].profile is None


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"max_tokens": 0}, {"top_p": 0}, {"n": 0}],
)
def test_a_setting_that_cannot_be_is_told_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model_on(**wrong)


def test_a_setting_that_does_not_exist_is_warned_of_and_not_quoted() -> None:
    with pytest.warns(UserWarning, match="'temprature'; it is left out") as caught:
        model_on(temprature="sk-very-secret")
    assert "sk-very-secret" not in str(caught[0].message)


def test_a_client_that_is_none_is_told_at_once() -> None:
    with pytest.raises(ValidationError):
        ChatElision(client=cast("Any", object()))


def test_the_scripted_client_keeps_the_clients_promise() -> None:
    assert isinstance(ScriptedClient(), ChatClient)


async def test_several_replies_are_generated_and_the_first_is_invoked() -> None:
    model, _ = model_on("a", "b", n=3)
    want = ["ab", "aabb", "aaabbb"]
    assert [g.text for g in model.generate([[HumanMessage("Hi")]]).generations[0]] == want
    result = await model.agenerate([[HumanMessage("Hi")]])
    assert [g.text for g in result.generations[0]] == want
    assert model.invoke("Hi").content == "ab"


async def test_each_of_several_replies_is_told_of_and_the_usage_counts_once() -> None:
    model, _ = model_on("a", n=3)
    for result in (
        model.generate([[HumanMessage("Hi")]]),
        await model.agenerate([[HumanMessage("Hi")]]),
    ):
        said = [cast("Any", reply).message for reply in result.generations[0]]
        assert [one.response_metadata["model_name"] for one in said] == ["scripted"] * 3
        assert [one.response_metadata["elision"] for one in said] == [REPORT] * 3
        assert [bool(one.usage_metadata) for one in said] == [True, False, False]


def test_a_model_closes_the_client_that_was_made_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import elision
    from elision.middleware import sdk

    class Closing(ScriptedClient):
        def close(self) -> None:
            self.closed += 1

    made = Closing()
    monkeypatch.setattr(sdk, "load", lambda _: made)
    elision.chat_model("any").close()
    assert made.closed == 1
    with pytest.raises(ValidationError):
        elision.chat_model("any", temperature=-1)
    assert made.closed == 2
    lent = Closing()
    elision.chat_model(client=lent).close()
    elision.chat_model("any", owns_client=False).close()
    assert (lent.closed, made.closed) == (0, 2)


def test_a_stream_carries_one_reply_and_says_so() -> None:
    model, _ = model_on(n=3)
    with pytest.raises(RequestError, match="n is 3"):
        next(model.stream("Hi"))


# --- Messages ------------------------------------------------------------------------------------


def test_names_and_free_roles_are_kept() -> None:
    messages = [ChatMessage(role="developer", content="Be brief."), HumanMessage("Hi", name="Ann")]
    assert to_messages(messages) == [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hi", "name": "Ann"},
    ]


CALL = {"name": "add", "args": {"a": 1, "b": "é"}, "id": "c1"}
TOLD = {
    "id": "c1",
    "type": "function",
    "function": {"name": "add", "arguments": '{"a": 1, "b": "é"}'},
}
USE = {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1, "b": "é"}}
PNG = "data:image/png;base64,aGk="


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (AIMessage("", tool_calls=[CALL]), {"content": None, "tool_calls": [TOLD]}),
        (AIMessage("so", tool_calls=[CALL]), {"content": "so", "tool_calls": [TOLD]}),
        (
            AIMessage([{"type": "text", "text": "so"}, USE], tool_calls=[CALL]),
            {"content": "so", "tool_calls": [TOLD]},
        ),
        (AIMessage([USE]), {"content": None, "tool_calls": [TOLD]}),
        (
            AIMessage("", invalid_tool_calls=[{"name": "f", "args": "{", "id": "2", "error": ""}]),
            {
                "content": None,
                "tool_calls": [
                    {"id": "2", "type": "function", "function": {"name": "f", "arguments": "{"}}
                ],
            },
        ),
        (AIMessage([{"type": "reasoning", "reasoning": "hm"}, "so"]), {"content": "so"}),
        (AIMessage("", additional_kwargs={"refusal": "no"}), {"content": None, "refusal": "no"}),
        (
            AIMessage("", additional_kwargs={"function_call": {"name": "f", "arguments": ""}}),
            {"content": None, "function_call": {"name": "f", "arguments": ""}},
        ),
    ],
)
def test_what_the_assistant_called_is_told_as_openai_does(message: Any, told: Any) -> None:
    assert to_messages([message]) == [{"role": "assistant", **told}]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            ToolMessage("3", tool_call_id="c1", name="add", status="error"),
            {"role": "tool", "content": "3", "tool_call_id": "c1"},
        ),
        (
            ToolMessage([{"type": "text", "text": "3"}, "4"], tool_call_id="c1"),
            {"role": "tool", "content": "34", "tool_call_id": "c1"},
        ),
        (
            FunctionMessage(name="f", content="3"),
            {"role": "function", "content": "3", "name": "f"},
        ),
    ],
)
def test_what_tools_returned_is_told_as_openai_does(message: Any, told: Any) -> None:
    assert to_messages([message]) == [told]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "image", "base64": "aGk=", "mime_type": "image/png"},
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
        },
        {"type": "image", "url": PNG},
        {"type": "image", "source": {"type": "url", "url": PNG}},
    ],
)
def test_every_spelling_of_an_image_becomes_openais(part: dict[str, Any]) -> None:
    (told,) = to_messages([HumanMessage(["look", part])])
    image = {"type": "image_url", "image_url": {"url": PNG}}
    assert told["content"] == [{"type": "text", "text": "look"}, image]


def test_files_and_sounds_become_openais() -> None:
    file = {"type": "file", "base64": "aGk=", "mime_type": "application/pdf"}
    sound = {"type": "audio", "base64": "aGk=", "mime_type": "audio/wav"}
    (told,) = to_messages([HumanMessage([file, sound])])
    assert told["content"] == [
        {
            "type": "file",
            "file": {"filename": "file", "file_data": "data:application/pdf;base64,aGk="},
        },
        {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
    ]


@pytest.mark.parametrize(
    "message",
    [
        ChatMessage(role="tool", content="Voldemort"),
        RemoveMessage(id="1"),
        HumanMessage([{"type": "text", "text": 3}]),
        HumanMessage([{"Voldemort": "text"}]),
        HumanMessage([{"type": "Voldemort"}]),
        HumanMessage([{"type": "image", "source": {"data": "Voldemort"}}]),
        HumanMessage([{"type": "file", "base64": "Voldemort"}]),
    ],
    ids=lambda message: f"{type(message).__name__} {message.additional_kwargs or ''}",
)
def test_what_has_no_form_is_refused_by_its_place_and_not_quoted(message: BaseMessage) -> None:
    with pytest.raises(RequestError) as caught:
        to_messages([SystemMessage("ok"), message])
    assert (caught.value.param or "").startswith("messages[1]")
    assert "Voldemort" not in str(caught.value)


# --- Within LangChain ----------------------------------------------------------------------------


def test_a_chain_runs() -> None:
    model, client = model_on("Paris", ".")
    chain = ChatPromptTemplate.from_messages([("system", "Be {how}."), ("user", "{q}")]) | model
    assert (chain | StrOutputParser()).invoke({"how": "brief", "q": "Where?"}) == "Paris."
    assert [m["content"] for m in client.asked[0][0]] == ["Be brief.", "Where?"]


async def test_batches_run_each_way() -> None:
    model, client = model_on("a", "b")
    assert [m.content for m in model.batch(["1", "2", "3"])] == ["ab"] * 3
    assert [m.content for m in await model.abatch(["1", "2", "3"])] == ["ab"] * 3
    assert sorted(m[0]["content"] for m, _ in client.asked) == ["1", "1", "2", "2", "3", "3"]


class Recorder(BaseCallbackHandler):
    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.ended: list[Any] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **rest: Any) -> None:
        self.started.append({"serialized": serialized, **rest})

    def on_llm_new_token(self, token: Any, **rest: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: Any, **rest: Any) -> None:
        self.ended.append(response)


class KeyedClient(ScriptedClient):
    def __repr__(self) -> str:
        return "KeyedClient(key='sk-very-secret')"


LANGCHAINS_OWN = {
    "ls_provider": "elision",
    "ls_model_type": "chat",
    "ls_model_name": "scripted",
    "ls_temperature": 0.5,
    "ls_integration": "langchain_chat_model",
}


def test_callbacks_hear_of_tokens_and_settings_but_not_of_the_client() -> None:
    recorder = Recorder()
    model = ChatElision(client=KeyedClient("a", "b"), profile="guarded", temperature=0.5)
    list(model.stream("Hi", config={"callbacks": [recorder]}))
    (started,) = recorder.started
    assert [token for token in recorder.tokens if token] == ["a", "b"]
    assert started["metadata"].keys() - {"lc_versions"} == {*LANGCHAINS_OWN}
    assert {name: started["metadata"][name] for name in LANGCHAINS_OWN} == LANGCHAINS_OWN
    assert started["invocation_params"] == {
        "model_name": "scripted",
        "profile": "guarded",
        "temperature": 0.5,
        "_type": "elision",
        "stop": None,
    }
    assert "sk-very-secret" not in f"{recorder.started}{recorder.ended}{model!r}"


def test_a_global_cache_never_answers_for_a_guard() -> None:
    set_llm_cache(InMemoryCache())
    try:
        model, client = model_on("a")
        model.invoke("Hi")
        model.invoke("Hi")
        assert len(client.asked) == 2
    finally:
        set_llm_cache(None)


def test_a_cache_that_is_asked_for_keeps_profiles_apart() -> None:
    client, cache = ScriptedClient("a"), InMemoryCache()
    for profile in ("guarded", "plain", "guarded"):
        ChatElision(client=client, profile=profile, cache=cache).invoke("Hi")
    assert [options["profile"] for _, options in client.asked] == ["guarded", "plain"]


async def test_the_async_ways_stay_on_the_event_loop() -> None:
    threads: set[int] = set()

    class Watching(ScriptedClient):
        def deltas(self, n: int) -> Iterator[Delta]:
            threads.add(threading.get_ident())
            return super().deltas(n)

    model = ChatElision(client=Watching("a"))
    await model.ainvoke("Hi")
    assert [chunk async for chunk in model.astream("Hi")]
    assert threads == {threading.get_ident()}


def test_without_langchain_the_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['langchain_core'] = None\n"
        "from elision.errors import MissingExtraError\n"
        "try:\n    import elision.agents.langchain\n"
        "except MissingExtraError as error:\n    print(error.extra)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "agents\n"


# --- Tools, formats, thoughts --------------------------------------------------------------------


class Speaking(ScriptedClient):
    """Says given deltas."""

    def __init__(self, *said: Delta) -> None:
        super().__init__()
        self.said = said

    def deltas(self, n: int) -> Iterator[Delta]:
        yield from self.said


def calling(index: int | None, name: str = "", arguments: str = "", id_: str = "") -> Delta:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    call = {"index": index, "function": function} | ({"id": id_, "type": "function"} if id_ else {})
    return Delta(message={"tool_calls": [call]})


LAST = Delta(usage=Usage(prompt_tokens=5, completion_tokens=2), report={})
STOP = Delta(finish="tool_calls")
AS_JSON = '{"a": 1, "b": ["é"]}'
CALLS = [
    calling(0, "add", "", "c1"),
    calling(0, arguments=AS_JSON[:7]),
    calling(1, "sub", "", "c2"),
    calling(0, arguments=AS_JSON[7:]),
    calling(1, arguments="{}"),
]
WANTED = [
    {"name": "add", "args": {"a": 1, "b": ["é"]}, "id": "c1", "type": "tool_call"},
    {"name": "sub", "args": {}, "id": "c2", "type": "tool_call"},
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_calls_are_put_together_however_they_came(way: Any, version: str) -> None:
    said = [Delta(text="So. "), *CALLS, STOP, LAST]
    reply = await way(ChatElision(client=Speaking(*said), output_version=version))
    assert [{**call} for call in reply.tool_calls] == WANTED
    assert reply.text == "So. "
    assert reply.response_metadata["finish_reason"] == "tool_calls"
    kinds = [block["type"] for block in reply.content_blocks]
    assert kinds == ["text", "tool_call", "tool_call"]
    assert [block["args"] for block in reply.content_blocks[1:]] == [{"a": 1, "b": ["é"]}, {}]


cuts = st.lists(st.integers(0, len(AS_JSON)), max_size=5)


@given(cuts, st.sampled_from(["v0", "v1"]))
def test_arguments_may_be_cut_anywhere(places: list[int], version: str) -> None:
    bounds = [0, *sorted(places), len(AS_JSON)]
    pieces = [AS_JSON[a:b] for a, b in pairwise(bounds)]
    said = [calling(0, "add", "", "c1"), *(calling(0, arguments=one) for one in pieces), STOP, LAST]
    model = ChatElision(client=Speaking(*said), output_version=version)
    for reply in (model.invoke("Hi"), joined(list(model.stream("Hi")))):
        assert [{**call} for call in reply.tool_calls] == WANTED[:1]


def test_whole_calls_without_an_index_stay_apart() -> None:
    said = [calling(None, "add", AS_JSON, "c1"), calling(None, "sub", "{}", "c2"), STOP, LAST]
    model = ChatElision(client=Speaking(*said))
    for reply in (model.invoke("Hi"), joined(list(model.stream("Hi")))):
        assert [{**call} for call in reply.tool_calls] == WANTED


def test_arguments_that_are_no_json_are_told_as_such() -> None:
    said = [calling(0, "add", "[1]", "c1"), Delta(finish="length"), LAST]
    reply = ChatElision(client=Speaking(*said)).invoke("Hi")
    assert (reply.tool_calls, len(reply.invalid_tool_calls)) == ([], 1)
    assert reply.invalid_tool_calls[0]["args"] == "[1]"


TRICKY = '{"a": "x\\"]}\\\\", "b": [[1, {"c": "\\u00e9"}], "]"], "d": {}}'


@given(
    st.integers(0, len(TRICKY) - 1),
    st.sampled_from(["v0", "v1"]),
    st.sampled_from(["length", "content_filter"]),
)
def test_a_call_that_was_cut_off_is_no_call(place: int, version: str, finish: Any) -> None:
    said = [
        calling(0, "add", AS_JSON, "c1"),
        calling(1, "sub", TRICKY[:place], "c2"),
        Delta(finish=finish),
        LAST,
    ]
    model = ChatElision(client=Speaking(*said), output_version=version)
    inside = ChatElision(client=Speaking(*said), output_version=version, streaming=True)
    for reply in (model.invoke("Hi"), inside.invoke("Hi"), joined(list(model.stream("Hi")))):
        assert [{**call} for call in reply.tool_calls] == WANTED[:1]
        (broken,) = reply.invalid_tool_calls
        assert (broken["name"], broken["args"][:place]) == ("sub", TRICKY[:place])  # type: ignore[index]
        kinds = [block["type"] for block in reply.content_blocks]
        assert kinds.count("tool_call") == 1


def test_a_tool_without_arguments_may_be_called_with_none_at_all() -> None:
    reply = ChatElision(client=Speaking(calling(0, "now", "", "c1"), STOP, LAST)).invoke("Hi")
    assert [call["args"] for call in reply.tool_calls] == [{}]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("way", WAYS)
async def test_thoughts_are_a_block_of_their_own(way: Any, version: str, name: str) -> None:
    thoughts = [Delta(message={name: piece, "role": "assistant"}) for piece in ("Hm", "mm. ")]
    both = Delta(text="F", message={name: "So."})
    said = [*thoughts, both, Delta(text="our"), Delta(finish="stop"), LAST]
    reply = await way(ChatElision(client=Speaking(*said), output_version=version))
    told = [{k: v for k, v in block.items() if k != "index"} for block in reply.content_blocks]
    assert told == [
        {"type": "reasoning", "reasoning": "Hmmm. So."},
        {"type": "text", "text": "Four"},
    ]


@pytest.mark.parametrize("way", WAYS)
async def test_what_else_a_message_says_is_kept_beside_it(way: Any) -> None:
    said = [
        Delta(message={"refusal": "I "}),
        Delta(message={"refusal": "won't.", "audio": {"id": "a", "data": "x"}}),
        Delta(message={"audio": {"id": "a", "data": "y"}}, finish="stop"),
        LAST,
    ]
    reply = await way(ChatElision(client=Speaking(*said)))
    assert reply.additional_kwargs == {
        "refusal": "I won't.",
        "audio": {"id": "a", "data": "xy"},
    }


@pytest.mark.parametrize("way", WAYS)
async def test_usage_is_told_in_detail_where_it_was(way: Any) -> None:
    extra = {"completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 0}}
    usage = Usage(prompt_tokens=9, completion_tokens=7, cached_tokens=3, extra=extra)
    said = [Delta(text="a", finish="stop"), Delta(usage=usage, extra={"service_tier": "flex"})]
    reply = await way(ChatElision(client=Speaking(*said)))
    assert reply.usage_metadata == {
        "input_tokens": 9,
        "output_tokens": 7,
        "total_tokens": 16,
        "input_token_details": {"cache_read": 3},
        "output_token_details": {"reasoning": 4},
    }
    assert reply.response_metadata["service_tier"] == "flex"


@pytest.mark.parametrize("way", WAYS)
async def test_log_probabilities_are_told_as_openai_does(way: Any) -> None:
    entry = TokenLogprob("a", -0.5, b"a", (Alternative("b", float("-inf"), b"b"),))
    said = [Delta(text="a", logprobs=(entry,)), Delta(text="a", logprobs=(entry,)), STOP, LAST]
    reply = await way(ChatElision(client=Speaking(*said)))
    token = {"token": "a", "logprob": -0.5, "bytes": [97]}
    other = {"token": "b", "logprob": -9999.0, "bytes": [98]}
    assert reply.response_metadata["logprobs"] == {
        "content": [token | {"top_logprobs": [other]}] * 2
    }


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("any", "required"),
        ("required", "required"),
        (True, "required"),
        ("auto", "auto"),
        ("none", "none"),
        ("add", {"type": "function", "function": {"name": "add"}}),
        (
            {"type": "function", "function": {"name": "add"}},
            {"type": "function", "function": {"name": "add"}},
        ),
        (None, None),
        (False, None),
    ],
)
def test_tools_go_in_openais_form(choice: Any, told: Any) -> None:
    model, client = model_on()
    model.bind_tools([add], tool_choice=choice, parallel_tool_calls=False).invoke("Hi")
    (_, options) = client.asked[0]
    (tool,) = options["tools"]
    assert (tool["function"]["name"], tool["function"]["description"]) == (
        "add",
        "Add two numbers.",
    )
    assert "strict" not in tool["function"]
    assert options.get("tool_choice") == told
    assert options["parallel_tool_calls"] is False


def test_no_tools_are_none_and_one_that_is_not_there_cannot_be_chosen() -> None:
    model, client = model_on()
    model.bind_tools([]).invoke("Hi")
    assert client.asked[0][1] == {}
    with pytest.raises(RequestError, match="not bound") as caught:
        model.bind_tools([add], tool_choice="Voldemort")
    assert caught.value.param == "tool_choice"
    assert "Voldemort" not in str(caught.value)


class Joke(BaseModel):
    setup: str
    punchline: str | None = None


class Branch(BaseModel):
    name: str
    below: list[Branch] = []


GOOD = '{"setup": "Why?", "punchline": "So."}'


@pytest.mark.parametrize("way", ["invoke", "stream"])
@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_a_reply_is_read_into_its_class(way: str, method: Any) -> None:
    model, client = model_on(*GOOD)
    reader = model.with_structured_output(Joke, method=method)
    found = reader.invoke("Hi") if way == "invoke" else list(reader.stream("Hi"))[-1]
    assert found == Joke(setup="Why?", punchline="So.")
    form = client.asked[0][1]["response_format"]
    assert form["type"] == ("json_object" if method == "json_mode" else "json_schema")
    if method == "json_schema":
        assert form["json_schema"] == {"name": "Joke", "schema": Joke.model_json_schema()}


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_call_is_read_into_its_class(way: str) -> None:
    client = Speaking(calling(0, "Joke", GOOD, "c1"), STOP, LAST)
    reader = ChatElision(client=client).with_structured_output(Joke, method="function_calling")
    found = reader.invoke("Hi") if way == "invoke" else list(reader.stream("Hi"))[-1]
    assert found == Joke(setup="Why?", punchline="So.")
    choice = client.asked[0][1]["tool_choice"]
    assert choice == {"type": "function", "function": {"name": "Joke"}}


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        (Joke.model_json_schema(), "Joke"),
        ({"type": "object", "properties": {"setup": {"type": "string"}}}, "reply"),
        ({"name": "joke", "schema": Joke.model_json_schema()}, "joke"),
        ({"name": "joke", "description": "One.", "parameters": Joke.model_json_schema()}, "joke"),
        (Branch, "Branch"),
        (Branch.model_json_schema() | {"title": "A tree, of names!"}, "A_tree__of_names_"),
    ],
)
def test_a_schema_may_come_in_many_forms(schema: Any, name: str) -> None:
    model, client = model_on('{"name": "a"}')
    model.with_structured_output(schema).invoke("Hi")
    form = client.asked[0][1]["response_format"]["json_schema"]
    assert form["name"] == name
    assert form["schema"].get("type") == "object" or "$ref" in form["schema"]


def test_strict_mode_is_asked_for_only_where_it_is() -> None:
    model, client = model_on(GOOD)
    for strict in (None, False, True):
        model.with_structured_output(Joke, strict=strict).invoke("Hi")
    forms = [options["response_format"]["json_schema"] for _, options in client.asked]
    assert [form.get("strict") for form in forms] == [None, False, True]
    assert forms[2]["schema"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("said", "finish", "words"),
    [
        ('{"setup": "Voldemort', "length", "cut off"),
        ("I cannot, Voldemort.", "content_filter", "refused"),
        ("Voldemort", "stop", "no JSON"),
        ('["Voldemort"]', "stop", "no JSON object"),
        ('{"setup": ["Voldemort"]}', "stop", "does not fit 'Joke': 1"),
    ],
)
async def test_a_reply_that_does_not_fit_is_an_error_that_quotes_nothing(
    said: str, finish: str, words: str
) -> None:
    model = ChatElision(client=ScriptedClient(said, finish=finish))
    reader = model.with_structured_output(Joke)

    async def drain() -> None:
        assert [one async for one in reader.astream("Hi")]

    for ask in (lambda: reader.invoke("Hi"), lambda: list(reader.stream("Hi"))):
        with pytest.raises(OutputParserException, match=words) as caught:
            ask()
        assert "Voldemort" not in f"{caught.value!r}{caught.value.__cause__!r}"
    with pytest.raises(OutputParserException, match=words):
        await drain()
    raw = model.with_structured_output(Joke, include_raw=True).invoke("Hi")
    assert isinstance(raw, dict)
    assert (raw["raw"].text, raw["parsed"]) == (said, None)
    assert isinstance(raw["parsing_error"], OutputParserException)


def test_a_reply_that_calls_something_else_is_an_error() -> None:
    client = Speaking(calling(0, "other", "{}", "c1"), STOP, LAST)
    reader = ChatElision(client=client).with_structured_output(Joke, method="function_calling")
    with pytest.raises(OutputParserException, match="does not call 'Joke'"):
        reader.invoke("Hi")


@pytest.mark.parametrize("wrong", [{"schema": None}, {"schema": Joke, "method": "magic"}])
def test_structured_output_that_cannot_be_is_told_at_once(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        model_on()[0].with_structured_output(**wrong)


def test_json_mode_needs_no_schema() -> None:
    model, _ = model_on('{"a": 1}')
    assert model.with_structured_output(method="json_mode").invoke("Hi") == {"a": 1}


# --- Which model, and whose ----------------------------------------------------------------------


def test_a_call_may_name_another_model() -> None:
    model, client = model_on(model="first@plain")
    assert model.model_name == "first"
    assert model.invoke("Hi").response_metadata["model_name"] == "first"
    reply = model.invoke("Hi", model="second@guarded")
    assert reply.response_metadata["model_name"] == "second"
    assert [options["model"] for _, options in client.asked] == ["first@plain", "second@guarded"]


@pytest.mark.parametrize("owns", [True, False])
def test_only_its_own_client_is_closed(owns: bool) -> None:
    class Closing(ScriptedClient):
        n = 0

        def close(self) -> None:
            self.n += 1

    client = Closing("a")
    with ChatElision(client=client, owns_client=owns) as model:
        model.invoke("Hi")
    assert client.n == owns
