"""Responses whose callers, models or servers mean harm, or are only broken."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from elision.contract import Capability, Delta, Request, Usage
from elision.middleware.gateway.responses import reading
from elision.middleware.gateway.responses.asked import read_asked
from elision.middleware.gateway.responses.cleansing import CLEAN, Cleanser, applied
from elision.middleware.gateway.responses.items import Placed, read_input
from elision.middleware.gateway.responses.kept import Entry, Kept
from elision.middleware.gateway.responses.recalling import Reader, Recalling
from elision.middleware.gateway.responses.writing import Writing, new_head
from elision.middleware.gateway.streaming import EventStream
from elision.testing.text_engine import TextEngine, Words

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
PHRASE = "Marlowe Street"
NUMBER = 1_552_736_901
DEEP = "[" * 1000 + "]" * 1000
KEYS = [
    {"name": name, "key": f"key-{name}", "tenant": "t", "roles": ["service", "operator"]}
    for name in ("a", "b")
]


def call(function: Any) -> list[Delta]:
    return [Delta(message={"tool_calls": [{"index": 0, "id": "c", "function": function}]})]


SAYS: dict[str, Words] = {
    "deep": [DEEP],
    "object": call({"name": "f", "arguments": {"q": "tide"}}),
    "call without a function": call("f"),
    "calls that are none": ["x", Delta(message={"tool_calls": 5})],
    "call that is none": ["x", Delta(message={"function_call": 5})],
    "odd index": [Delta(message={"tool_calls": [{"index": [1], "function": {"arguments": "{}"}}]})],
    "annotations": ["x", Delta(message={"annotations": 5})],
    "annotation": ["x", Delta(message={"annotations": [{"url_citation": {
        "start_index": "a", "end_index": 1, "title": 1, "url": "u"}}]})],
    "deep field": ["x", Delta(extra={"odd": orjson.loads("[" * 400 + "]" * 400)})],
    "counts": ["x", Delta(usage=Usage(prompt_tokens=1, extra={"billed_to": PHRASE}))],
}  # fmt: skip


def reply(request: Request) -> Words:
    last = request.messages[-1]["content"]
    return SAYS.get(last, [last]) if isinstance(last, str) else ["x"]


@pytest.fixture(scope="module")
def server(served: Any) -> Iterator[Any]:
    engine = TextEngine(reply, name="m")
    engine.capabilities = Capability.PASSES
    with served(engine, keys=KEYS) as server:
        yield server


def ask(
    server: Any, path: str = "", body: Any = None, *, method: str = "", key: str = "a"
) -> tuple[int, Any]:
    method = method or ("GET" if body is None else "POST")
    whole = {"model": "m", **body} if body is not None else None
    status, _, page = server.ask(
        method, f"/v1/responses{path}", whole, authorization=f"Bearer key-{key}"
    )
    return status, orjson.loads(page)


class Forgotten:
    """A target, from here to the end of the block."""

    def __init__(self, server: Any, *phrases: str) -> None:
        self._server, self._phrases = server, phrases

    def __enter__(self) -> None:
        body = {"title": "t", "phrases": self._phrases}
        _, _, page = self._server.ask("POST", "/v1/forget", body, authorization="Bearer key-a")
        self._id = orjson.loads(page)["id"]

    def __exit__(self, *_rest: object) -> None:
        self._server.ask("DELETE", f"/v1/forget/{self._id}", authorization="Bearer key-a")


# --- what is told again --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        {"instructions": PHRASE}, {"user": PHRASE}, {"safety_identifier": PHRASE},
        {"prompt_cache_key": PHRASE}, {"metadata": {"a": PHRASE}}, {"metadata": {PHRASE: "a"}},
        {"tools": [{"type": "function", "name": "f", "description": PHRASE}]},
        {"text": {"format": {"type": "json_schema", "name": "n", "description": PHRASE,
                             "schema": {}}}},
        {"input": "counts"},
    ],
    ids=lambda said: next(iter(said)),
)  # fmt: skip
def test_no_field_tells_later_what_must_not_be_said_by_then(
    server: Any, said: dict[str, Any]
) -> None:
    _, whole = ask(server, body={"input": "hello", **said})
    with Forgotten(server, PHRASE):
        status, shown = ask(server, f"/{whole['id']}")
    assert status == 200
    assert PHRASE in orjson.dumps(whole).decode()
    assert PHRASE not in orjson.dumps(shown).decode()
    assert Response.model_validate(shown).id == whole["id"]


@pytest.mark.parametrize("field", ["max_output_tokens", "max_tool_calls", "temperature", "top_p"])
def test_a_number_that_the_caller_chose_is_read_too(
    server: Any, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = 0.15527369 if field in {"temperature", "top_p"} else NUMBER
    _, whole = ask(server, body={"input": "hello", field: number})
    monkeypatch.setattr(Cleanser, "allows", lambda _, value: value != number)
    with Forgotten(server, PHRASE):
        _, shown = ask(server, f"/{whole['id']}")
    assert (whole[field], shown[field]) == (number, None)


@pytest.mark.parametrize(
    "field",
    ["prompt_cache_retention", "service_tier", "truncation", "reasoning.effort",
     "reasoning.summary", "text.verbosity"],
)  # fmt: skip
def test_a_field_of_a_closed_set_takes_no_other_word(server: Any, field: str) -> None:
    outer, _, inner = field.partition(".")
    status, page = ask(server, body={"input": "x", outer: {inner: PHRASE} if inner else PHRASE})
    assert (status, page["error"]["param"]) == (400, field)
    assert ask(server, body={"input": "x", "prompt_cache_retention": "24h"})[0] == 200


@pytest.mark.parametrize(
    "body",
    [{"include": 0}, {"include": ""}, {"include": {}},
     {"input": [{"role": "user", "content": [
         {"type": "input_image", "image_url": "u", "detail": 0}]}]},
     {"input": [{"type": "reasoning", "summary": ""}]},
     {"input": [{"type": "reasoning", "content": 0}]}],
)  # fmt: skip
def test_what_is_empty_but_of_the_wrong_type_is_refused(server: Any, body: dict[str, Any]) -> None:
    assert ask(server, body={"input": "x", **body})[0] == 400


def test_a_number_of_calls_of_tools_that_run_here_is_held_by_there_being_none(server: Any) -> None:
    status, page = ask(server, body={"input": "x", "max_tool_calls": 1})
    assert (status, page["max_tool_calls"]) == (200, 1)


# --- depth ---------------------------------------------------------------------------------------


def test_json_in_a_string_may_be_as_deep_as_it_likes(server: Any) -> None:
    _, before = ask(server, body={"input": "deep"})
    with Forgotten(server, PHRASE):
        for path in ("", "/input_items"):
            assert ask(server, f"/{before['id']}{path}")[0] == 200
        going_on = {"input": "x", "previous_response_id": before["id"], "instructions": DEEP}
        status, page = ask(server, body=going_on)
        assert status == 200
        assert page["instructions"] in {None, DEEP}


def test_a_phrase_at_any_depth_is_withheld_and_what_is_too_deep_is_too(server: Any) -> None:
    with Forgotten(server, PHRASE):
        cleanser = Cleanser(asyncio.run(server.pipeline.rules("t", "m", "a")))
        for depth in (1, 90, 150, 240):
            item: Any = {"id": "x", "type": "message", "odd": orjson.loads(
                "[" * depth + f'"{PHRASE}", "fine"' + "]" * depth)}  # fmt: skip
            shown = orjson.dumps(cleanser.cleansed(item)).decode()
            assert PHRASE not in shown
            assert ("fine" in shown) == (depth < 100)
            said = {"arguments": "[" * depth + '"Marl\\u006fwe Street"' + "]" * depth}
            assert not cleanser.allows(said)


def test_a_verdict_tells_again_what_the_reading_told_and_holds_no_text(server: Any) -> None:
    parts = [{"type": "input_text", "text": text} for text in (PHRASE, "fine", "odd")]
    item: Any = {"id": "i", "type": "message", "role": "user", "content": parts, PHRASE: "x"}
    with Forgotten(server, PHRASE):
        cleanser = Cleanser(asyncio.run(server.pipeline.rules("t", "m", "a")))
        verdict = cleanser.verdict(item)
    assert applied(verdict, item) == cleanser.cleansed(item)
    assert [p["text"] for p in applied(verdict, item)["content"]] == ["[redacted]", "fine", "odd"]
    assert {*verdict} <= {0, 1}
    assert applied(CLEAN, item) is item


# --- what reading costs --------------------------------------------------------------------------


def _entry(n: int, *, previous: int | None = None, n_items: int = 30) -> Entry:
    items: list[Any] = [
        {
            "id": f"i{n}_{k}",
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": f"{n} {k}"}],
        }
        for k in range(n_items)
    ]
    said: list[Any] = [{"id": f"o{n}", "type": "message", "role": "assistant",
             "content": [{"type": "output_text", "text": f"said {n}"}]}]  # fmt: skip
    return Entry(
        id=f"r{n}", tenant="t", key="a", epoch=-1, engine="m",
        previous=None if previous is None else f"r{previous}", given=orjson.dumps(items),
        body=orjson.dumps({"output": said}), given_ids=tuple(i["id"] for i in items),
        said_ids=(f"o{n}",),
    )  # fmt: skip


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was read through the guard."""
    found: list[Any] = []
    real = Cleanser.allows

    def allows(cleanser: Cleanser, value: Any) -> bool:
        found.append(value)
        return real(cleanser, value)

    monkeypatch.setattr(Cleanser, "allows", allows)
    return found


def test_a_page_reads_itself_alone_and_only_once(server: Any, judged: list[Any]) -> None:
    _, first = ask(server, body={"input": [
        {"role": "user", "content": f"item {n}"} for n in range(50)]})  # fmt: skip
    with Forgotten(server, PHRASE):
        for _ in range(3):
            status, page = ask(server, f"/{first['id']}/input_items?limit=2")
            assert (status, len(page["data"]), page["has_more"]) == (200, 2, True)
    assert len(judged) == 2


def test_what_is_withheld_is_read_only_once_too(server: Any, judged: list[Any]) -> None:
    _, first = ask(server, body={"input": f"It is {PHRASE}."})
    with Forgotten(server, PHRASE):
        pages = [ask(server, f"/{first['id']}/input_items")[1] for _ in range(3)]
        n_once = len(judged)
        pages += [ask(server, f"/{first['id']}/input_items")[1] for _ in range(3)]
    assert len(judged) == n_once
    assert all(page == pages[0] for page in pages)
    assert pages[0]["data"][0]["content"][0]["text"] == "[redacted]"


def test_pages_joined_are_the_whole_conversation() -> None:
    chain = [_entry(n, previous=n - 1 if n else None, n_items=3) for n in range(3)]
    places = [(one, n) for one in chain for n in range(len(one.ids))]
    for limit in (1, 2, 5, 99):
        found, after, more = list[str](), None, True
        while more:
            page, more = reading._page(places, after, limit)
            found += [one.ids[n] for one, n in page]
            after = found[-1]
        assert found == [one.ids[n] for one, n in places]
    for one, n in places:
        assert one.items([n])[0]["id"] == one.ids[n]


async def test_reading_waits_for_its_own_threads_and_is_not_begun_for_nobody(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Forgotten(server, PHRASE):
        rules = await server.pipeline.rules("t", "m", "a")
    recalling = Recalling(Kept(limit=9, ttl_s=9), limit_bytes=1 << 20)
    reader = Reader(rules=rules, engine="m", key="a")
    going, began = threading.Event(), list[str]()

    def slow(cleanser: Cleanser, item: Any) -> bytes:
        began.append(threading.current_thread().name)
        assert going.wait(10)
        return CLEAN

    monkeypatch.setattr(Cleanser, "verdict", slow)
    tasks = [
        asyncio.create_task(recalling.told(_entry(n, n_items=1), [0], reader)) for n in range(5)
    ]
    while len(began) < 2:  # noqa: ASYNC110 - threads set it
        await asyncio.sleep(0.01)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: 3), 5) == 3
    for task in tasks[2:4]:
        task.cancel()
    await asyncio.gather(*tasks[2:4], return_exceptions=True)
    going.set()
    assert [found[0]["id"] for found in await asyncio.gather(tasks[0], tasks[1], tasks[4])] == [
        "i0_0", "i1_0", "i4_0",
    ]  # fmt: skip
    assert len(began) == 3
    assert all(name.startswith("elision-recalling") for name in began)


def test_what_is_long_is_not_repeated_and_nobody_waits_for_it_to_be_read(
    server: Any, judged: list[Any]
) -> None:
    long = "word another thing " * 20_000
    body = {"input": "x", "instructions": long, "user": "u"}
    with Forgotten(server, PHRASE):
        status, page = ask(server, body=body)
    assert (status, page["instructions"], page["user"]) == (200, None, "u")
    assert long not in judged
    assert ask(server, body=body)[1]["instructions"] == long, "nothing is registered then"


def test_a_request_over_its_limit_is_turned_away_before_its_fields_are_read(
    served: Any, judged: list[Any]
) -> None:
    limits = {"tokens_per_minute": 40}
    engine = TextEngine(reply, name="m")
    with served(engine, keys=KEYS, limits=limits) as server, Forgotten(server, PHRASE):
        status, _ = ask(server, body={"input": "x" * 4000, "instructions": "Be brief."})
        assert (status, judged) == (429, [])
        status, _ = ask(server, body={"input": "x", "instructions": "Be brief."}, key="b")
        assert (status, bool(judged)) == (200, True)


# --- erasure -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_being_written_while_its_tenant_is_erased_is_not_kept(
    served: Any, stream: bool
) -> None:
    speaking, going = threading.Event(), threading.Event()

    class Slow(TextEngine):
        async def stream(self, plan: Any) -> Any:
            speaking.set()
            await asyncio.to_thread(going.wait, 10)
            async for delta in super().stream(plan):
                yield delta

    with served(Slow("x", name="m"), keys=KEYS) as server:
        found: list[bytes] = []

        def work() -> None:
            body = {"model": "m", "input": "my secret", "stream": stream,
                    "elision": {"session": "s"}}  # fmt: skip
            found.append(server.ask("POST", "/v1/responses", body, authorization="Bearer key-a")[2])

        thread = threading.Thread(target=work)
        thread.start()
        assert speaking.wait(10)
        server.pipeline.erase("t")
        going.set()
        thread.join(20)
        text = found[0].decode()
        at = text.index('"resp_') + 1
        assert ask(server, f"/{text[at : text.index(chr(34), at)]}")[0] == 404
        rules = asyncio.run(server.pipeline.rules("t", "m", "a"))
        asked = Request(options={"session": "s"})
        assert server.pipeline.conversations.earlier(asked, rules) is None
        _, later = ask(server, body={"input": "x", "elision": {"session": "s"}})
        assert ask(server, f"/{later['id']}")[0] == 200, "what begins afterwards is kept"
        assert server.pipeline.conversations.earlier(asked, rules) is not None


# --- what engines say ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "say", ["object", "call without a function", "calls that are none", "call that is none",
            "odd index", "annotations", "annotation"],
)  # fmt: skip
def test_no_reply_of_an_engine_breaks_its_response(server: Any, say: str) -> None:
    tools = [{"type": "function", "name": "f"}]
    status, page = ask(server, body={"input": say, "tools": tools})
    assert status == 200
    assert Response.model_validate(page).status == "completed"
    if say == "object":
        assert orjson.loads(page["output"][0]["arguments"]) == {"q": "tide"}


def test_a_stream_that_json_cannot_hold_ends_with_error_and_failed(server: Any) -> None:
    _, _, page = server.ask(
        "POST", "/v1/responses", {"model": "m", "input": "deep field", "stream": True},
        authorization="Bearer key-a",
    )  # fmt: skip
    events = [orjson.loads(line[6:]) for line in page.split(b"\n") if line.startswith(b"data: ")]
    assert [event["type"] for event in events][-2:] == ["error", "response.failed"]
    for event in events:
        assert EVENTS.validate_python(event).sequence_number == event["sequence_number"]


async def test_a_stream_whose_last_words_break_ends_with_an_error_all_the_same() -> None:
    class Broken(EventStream):
        def told(self, exc: Exception) -> bytes:
            raise TypeError("no words")

    async def source() -> Any:
        yield b"data: 1\n\n"
        raise ValueError("on its way")

    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.sleep(60)

    await Broken(source())({"type": "http", "state": {}}, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    assert b'"error"' in body.split(b"\n\n")[1]
    assert b"on its way" not in body
    assert sent[-1]["more_body"] is False


def test_lists_beside_a_text_grow_in_place_and_are_nobody_elses() -> None:
    writing = Writing(new_head("m", {}, report=False))
    given = [1]
    opened = writing.of(Delta(text="x", extra={"token_ids": given}))[0]["response"]
    own = writing._extra["token_ids"]
    for k in range(2, 9):
        writing.of(Delta(text="x", extra={"token_ids": (k,)}))
    assert writing._extra["token_ids"] is own, "a copy for each piece would take quadratic time"
    assert (given, opened["token_ids"]) == ([1], [1]), "neither is ours to write into"
    assert writing.body("completed")["token_ids"] == [*range(1, 9)]


# --- whose an item is ----------------------------------------------------------------------------


def test_an_item_is_its_first_writers_whatever_id_another_sends(server: Any) -> None:
    _, first = ask(server, body={"input": "first"})
    said = first["output"][0]["id"]
    forged = {"role": "assistant", "type": "message", "id": said, "content": "another text"}
    _, second = ask(server, body={"input": [forged, {"role": "user", "content": "go"}]}, key="b")
    named = {"input": [{"type": "item_reference", "id": said}, {"role": "user", "content": "go"}]}
    _, third = ask(server, body=named)
    assert server.engine.requests[-1].messages[0]["content"] == "first"
    assert said not in orjson.dumps(ask(server, f"/{second['id']}/input_items")[1]).decode()
    for gone in (second, third):
        ask(server, f"/{gone['id']}", method="DELETE")
    assert ask(server, body=named)[0] == 200, "the first still has it"


def test_an_item_goes_to_the_next_that_has_it_when_its_first_owner_is_gone() -> None:
    kept = Kept(limit=3, ttl_s=9)
    for n in range(3):
        one = _entry(n, n_items=0)
        kept.keep(
            Entry(**{f: getattr(one, f) for f in one.__slots__} | {"said_ids": ("i", "i")}), since=0
        )
    owners = []
    for _ in range(3):
        owner = kept.owner("t", "i")
        assert owner is not None
        owners.append(owner.id)
        kept.drop("t", owner.id)
    assert owners == ["r0", "r1", "r2"]
    assert kept.owner("t", "i") is None


def test_no_item_of_a_conversation_has_the_id_of_another(server: Any) -> None:
    _, first = ask(server, body={"input": "first"})
    named = {"type": "item_reference", "id": first["output"][0]["id"]}
    body = {"input": [named, named], "previous_response_id": first["id"]}
    _, second = ask(server, body=body)
    _, page = ask(server, f"/{second['id']}/input_items?limit=100")
    ids = [item["id"] for item in page["data"]]
    assert len(ids) == 4
    assert len({*ids}) == 4


def test_what_a_caller_sends_gets_an_id_of_ours() -> None:
    item = {"type": "message", "role": "user", "id": "msg_" + "0" * 32, "content": "x"}
    for one in (*read_input([item]), *read_asked({"model": "m", "input": [item]}).items):
        assert isinstance(one, Placed)
        assert one.item["id"] != item["id"]
