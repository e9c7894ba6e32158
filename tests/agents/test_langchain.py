from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
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
from pydantic import ValidationError

from elision.agents.langchain import ChatClient, ChatElision
from elision.agents.langchain_messages import to_messages
from elision.contract import Delta, Message, Usage
from elision.errors import (
    BusyError,
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
    monkeypatch.setattr("elision.agents.langchain._RETRY_S", 0.01)
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


@pytest.mark.parametrize("name", ["tools", "tool_choice", "functions", "function_call"])
def test_tools_are_refused_by_name(name: str) -> None:
    model, client = model_on()
    with pytest.raises(RequestError) as caught:
        model.bind(**{name: ["Voldemort"]}).invoke("Hi")
    assert caught.value.param == name
    assert "Voldemort" not in str(caught.value)
    assert client.asked == []


async def test_several_replies_are_generated_and_the_first_is_invoked() -> None:
    model, _ = model_on("a", "b", n=3)
    want = ["ab", "aabb", "aaabbb"]
    assert [g.text for g in model.generate([[HumanMessage("Hi")]]).generations[0]] == want
    result = await model.agenerate([[HumanMessage("Hi")]])
    assert [g.text for g in result.generations[0]] == want
    assert model.invoke("Hi").content == "ab"


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


CALL = {"name": "Voldemort", "args": {}, "id": "1"}


@pytest.mark.parametrize(
    "message",
    [
        ToolMessage("Voldemort", tool_call_id="1"),
        FunctionMessage(name="f", content="Voldemort"),
        ChatMessage(role="tool", content="Voldemort"),
        RemoveMessage(id="1"),
        AIMessage("", tool_calls=[CALL]),
        AIMessage("", additional_kwargs={"function_call": {"name": "Voldemort", "arguments": ""}}),
        HumanMessage([{"type": "image_url", "image_url": {"url": "Voldemort"}}]),
        HumanMessage([{"type": "text", "text": 3}]),
        HumanMessage([{"Voldemort": "text"}]),
    ],
    ids=lambda message: f"{type(message).__name__} {message.additional_kwargs or ''}",
)
def test_anything_but_text_is_refused_by_its_place_and_not_quoted(message: BaseMessage) -> None:
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
