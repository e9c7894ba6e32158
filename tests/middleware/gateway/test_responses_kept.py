"""What is kept of responses: for whom, how many, how long, and as what it may still be read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseItem
from openai.types.responses.response_item_list import ResponseItemList
from pydantic import TypeAdapter

from elision.contract import Capability, Request, text_of
from elision.errors import NotFoundError
from elision.middleware.gateway.responses import kept as kept_
from elision.middleware.gateway.responses.cleansing import Cleanser
from elision.middleware.gateway.responses.kept import Entry, Kept
from elision.testing.text_engine import TextEngine

PHRASE = "Marlowe Street"
ITEM: TypeAdapter[Any] = TypeAdapter(ResponseItem)
KEYS = [
    {"name": f"{tenant}-{n}", "key": f"key-{tenant}-{n}", "tenant": tenant,
     "roles": ["service", "operator"]}
    for tenant in ("ours", "theirs") for n in (1, 2)
]  # fmt: skip


def echo(request: Request) -> str:
    """Say what the last message says behind all that was said before."""
    return " / ".join(text_of(message) for message in request.messages)


@pytest.fixture(scope="module")
def keeping(served: Any) -> Iterator[Any]:
    engine = TextEngine(echo, every=0, name="m")
    engine.capabilities = Capability.PASSES
    with served(engine, keys=KEYS) as server:
        yield server


@pytest.fixture
def client(keeping: Any) -> Iterator[openai.OpenAI]:
    with _client(keeping, "ours-1") as client:
        yield client


def _client(server: Any, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=f"key-{key}", max_retries=0)


def forget(server: Any, key: str = "ours-1", **more: Any) -> str:
    _, _, page = server.ask(
        "POST", "/v1/forget", {"title": "t", "phrases": [PHRASE], **more},
        authorization=f"Bearer key-{key}",
    )  # fmt: skip
    return str(orjson.loads(page)["id"])


def do(server: Any, method: str, path: str, body: Any = None, key: str = "ours-1") -> int:
    status, _, _ = server.ask(method, path, body, authorization=f"Bearer key-{key}")
    return int(status)


# --- the shelf -----------------------------------------------------------------------------------


def entry(n: int, *, tenant: str = "t", previous: int | None = None, size: int = 4) -> Entry:
    return Entry(
        id=f"r{n}", tenant=tenant, key="k", epoch=0, engine="m", given=b"[]", body=b"x" * size,
        previous=None if previous is None else f"r{previous}", said_ids=(f"i{n}",),
    )  # fmt: skip


steps = st.lists(
    st.one_of(
        st.tuples(st.just("keep"), st.sampled_from("ab"), st.integers(0, 5)),
        st.tuples(st.just("find"), st.sampled_from("ab"), st.integers(0, 5)),
        st.tuples(st.just("drop"), st.sampled_from("ab"), st.integers(0, 5)),
        st.tuples(st.just("erase"), st.sampled_from("ab"), st.just(0)),
        st.tuples(st.just("wait"), st.just("a"), st.integers(1, 6)),
    ),
    max_size=30,
)


@given(steps, st.integers(1, 4))
def test_a_shelf_is_what_a_list_would_be(said: list[tuple[str, str, int]], limit: int) -> None:
    now = 0.0
    kept = Kept(limit=limit, ttl_s=5, clock=lambda: now)
    oracle: dict[str, list[tuple[str, float]]] = {"a": [], "b": []}  # id, time of last use
    for what, tenant, n in said:
        for name, held in oracle.items():
            oracle[name] = [one for one in held if now - one[1] < 5]
        mine = oracle[tenant]
        there = [one for one in mine if one[0] == f"r{n}"]
        match what:
            case "wait":
                now += n
                continue
            case "keep":
                kept.keep(entry(n, tenant=tenant), since=kept.erasures(tenant))
                mine[:] = ([one for one in mine if one not in there] + [(f"r{n}", now)])[-limit:]
            case "erase":
                assert kept.erase(tenant) == len(mine)
                mine.clear()
            case _ if not there:
                with pytest.raises(NotFoundError):
                    getattr(kept, what)(tenant, f"r{n}")
            case "find":
                assert kept.find(tenant, f"r{n}").tenant == tenant
                mine.remove(there[0])
                mine.append((f"r{n}", now))
            case "drop":
                kept.drop(tenant, f"r{n}")
                mine.remove(there[0])
        assert len(kept) == sum(map(len, oracle.values()))
    for tenant, held in oracle.items():
        fresh = {one[0] for one in held if now - one[1] < 5}
        for n in range(6):
            owner = kept.owner(tenant, f"i{n}")
            assert (owner is not None) == (f"r{n}" in fresh)


def test_a_shelf_is_bounded_in_bytes_and_each_tenants_is_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept_, "LIMIT_BYTES", 100)
    kept = Kept(limit=99, ttl_s=5, clock=lambda: 0.0)
    for n in range(9):
        kept.keep(entry(n, size=28), since=0)
    kept.keep(entry(0, tenant="other", size=28), since=0)
    kept.keep(entry(77, size=200), since=0)

    assert [n for n in range(9) if kept.owner("t", f"i{n}")] == [6, 7, 8]
    assert kept.owner("other", "i0") is not None
    assert kept.owner("t", "i77") is None, "what is larger than a shelf pushes nothing off it"


def test_who_goes_on_from_a_response_keeps_all_before_it() -> None:
    now = 0.0
    kept = Kept(limit=9, ttl_s=10, clock=lambda: now)
    for n in range(3):
        kept.keep(entry(n, previous=n - 1 if n else None), since=0)
    for _ in range(5):
        now += 8
        assert [one.id for one in kept.chain("t", "r2")] == ["r0", "r1", "r2"]
    kept.drop("t", "r1")
    with pytest.raises(NotFoundError, match="one before it") as caught:
        kept.chain("t", "r2")
    assert caught.value.param == "previous_response_id"


def test_nothing_of_what_is_kept_shows_in_a_repr() -> None:
    shown = repr(entry(1)) + repr(Kept(limit=1, ttl_s=1))
    assert "xxxx" not in shown


# --- going on ------------------------------------------------------------------------------------


def test_a_conversation_goes_on_without_its_instructions(
    keeping: Any, client: openai.OpenAI
) -> None:
    first = client.responses.create(model="m", input="one", instructions="Be brief.")
    second = client.responses.create(model="m", input="two", previous_response_id=first.id)
    client.responses.create(
        model="m", input="three", previous_response_id=second.id, instructions="Be long."
    )
    heard = keeping.engine.requests[-1]

    assert second.output_text == "one / Be brief. / one / two"
    assert [(m["role"], text_of(m)) for m in heard.messages] == [
        ("system", "Be long."), ("user", "one"), ("assistant", "Be brief. / one"),
        ("user", "two"), ("assistant", second.output_text), ("user", "three"),
    ]  # fmt: skip
    assert heard.user_text == "one\ntwo\nthree", "what the model said is none of the caller's words"


def test_two_may_go_on_from_one(client: openai.OpenAI) -> None:
    first = client.responses.create(model="m", input="one")
    both = [
        client.responses.create(model="m", input=say, previous_response_id=first.id).output_text
        for say in ("two", "three")
    ]
    assert both == ["one / one / two", "one / one / three"]


def test_a_streamed_response_can_be_gone_on_from_at_once(client: openai.OpenAI) -> None:
    with client.responses.stream(model="m", input="one") as stream:
        first = stream.get_final_response()
    shown = client.responses.retrieve(first.id)

    assert shown.output_text == first.output_text
    assert shown.usage == first.usage
    assert client.responses.create(
        model="m", input="two", previous_response_id=first.id
    ).output_text.endswith("two")


def test_an_item_can_be_named_instead_of_sent(keeping: Any, client: openai.OpenAI) -> None:
    first = client.responses.create(model="m", input="one")
    said: Any = {"type": "item_reference", "id": first.output[0].id}
    asked: Any = {"id": client.responses.input_items.list(first.id).data[0].id}
    client.responses.create(model="m", input=[asked, said, {"role": "user", "content": "two"}])

    assert [text_of(m) for m in keeping.engine.requests[-1].messages] == ["one", "one", "two"]


def test_what_is_not_to_be_stored_is_not(keeping: Any, client: openai.OpenAI) -> None:
    first = client.responses.create(model="m", input="one", store=False)
    even = client.responses.create(model="m@plain", input="one")

    assert first.store is False  # type: ignore[attr-defined]
    assert even.store is True  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model="m", input="two", previous_response_id=first.id)
    assert caught.value.code == "previous_response_not_found"


def test_a_server_may_keep_none(served: Any) -> None:
    with served(TextEngine("x", name="m"), responses_kept=0) as server:
        _, _, page = server.ask("POST", "/v1/responses", {"model": "m", "input": "a"})
        body = orjson.loads(page)
        status, _, _ = server.ask("GET", f"/v1/responses/{body['id']}")
    assert (body["store"], status) == (False, 404)


def test_what_is_kept_says_no_more_than_a_body_could(served: Any) -> None:
    with (
        served(TextEngine("x", name="m"), body_limit_bytes=4000) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0) as client,
    ):
        first = client.responses.create(model="m", input="x" * 3000)
        item = {"id": client.responses.input_items.list(first.id).data[0].id}
        for more in ({"previous_response_id": first.id}, {"input": [item]}):
            with pytest.raises(openai.BadRequestError) as caught:
                client.responses.create(**{"model": "m", "input": "y", **more})  # type: ignore[call-overload]
            assert caught.value.code == "context_length_exceeded"


def test_what_is_deleted_is_gone_with_its_items(client: openai.OpenAI) -> None:
    first = client.responses.create(model="m", input="one")
    second = client.responses.create(model="m", input="two", previous_response_id=first.id)
    client.responses.delete(first.id)

    for gone in (
        lambda: client.responses.retrieve(first.id),
        lambda: client.responses.delete(first.id),
        lambda: client.responses.input_items.list(first.id),
        lambda: client.responses.create(model="m", input="x", previous_response_id=second.id),
        lambda: client.responses.create(model="m", input=[{"id": first.output[0].id}]),  # type: ignore[list-item,misc]
    ):
        with pytest.raises(openai.NotFoundError):
            gone()
    assert client.responses.retrieve(second.id).id == second.id


# --- whose it is ---------------------------------------------------------------------------------


def test_a_response_is_its_tenants_whatever_the_key(keeping: Any, client: openai.OpenAI) -> None:
    first = client.responses.create(model="m", input="one")
    item: Any = {"id": first.output[0].id}
    with _client(keeping, "ours-2") as ours, _client(keeping, "theirs-1") as theirs:
        assert ours.responses.retrieve(first.id).output_text == "one"
        for reach in (
            lambda: theirs.responses.retrieve(first.id),
            lambda: theirs.responses.delete(first.id),
            lambda: theirs.responses.input_items.list(first.id),
            lambda: theirs.responses.create(model="m", input="x", previous_response_id=first.id),
            lambda: theirs.responses.create(model="m", input=[item]),
        ):
            with pytest.raises(openai.NotFoundError):
                reach()
    assert client.responses.retrieve(first.id).output_text == "one"


def test_only_a_key_that_may_ask_for_text_may_read_one(served: Any) -> None:
    keys = [{"name": "a", "key": "key-a", "tenant": "t", "roles": ["auditor"]}]
    with served(TextEngine("x", name="m"), keys=keys) as server:
        for method, path in (
            ("POST", ""), ("GET", "/r"), ("DELETE", "/r"), ("GET", "/r/input_items"),
        ):  # fmt: skip
            assert do(server, method, f"/v1/responses{path}", {}, key="a") == 403


# --- input items ---------------------------------------------------------------------------------


def test_input_items_are_paged_either_way(client: openai.OpenAI) -> None:
    first = client.responses.create(
        model="m",
        input=[
            {"role": "user", "content": "one"},
            {"role": "developer", "content": [{"type": "input_text", "text": "two"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "three"},
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "s"}]},
        ],
    )
    last = client.responses.create(model="m", input="four", previous_response_id=first.id)
    for order in ("asc", "desc"):
        every: Any = client.responses.input_items.list(last.id, order=order, limit=2)  # type: ignore[arg-type]
        ids = [item.id for item in every]  # fetches page by page
        whole = client.responses.input_items.list(last.id, order=order, limit=100)  # type: ignore[arg-type]
        assert ids == [item.id for item in whole.data]  # type: ignore[union-attr]
        kinds = [item.type for item in whole.data]
        assert (kinds if order == "asc" else kinds[::-1]) == [
            "message", "message", "function_call", "function_call_output", "reasoning", "message",
            "message",
        ]  # fmt: skip
        assert len({*ids}) == 7


def test_input_items_are_of_the_clients_own_types(keeping: Any, client: openai.OpenAI) -> None:
    first = client.responses.create(model="m", input="one")
    last = client.responses.create(model="m", input="two", previous_response_id=first.id)
    path = f"/v1/responses/{last.id}/input_items"
    _, _, page = keeping.ask("GET", path, authorization="Bearer key-ours-1")
    body = orjson.loads(page)

    assert TypeAdapter(ResponseItemList).validate_python(body).has_more is False
    assert body["first_id"] == body["data"][0]["id"]
    for item in body["data"]:
        assert ITEM.validate_python(item).id == item["id"]
    for query in ("?limit=0", "?limit=101", "?order=up"):
        assert do(keeping, "GET", path + query) == 400
    assert do(keeping, "GET", f"{path}?after=nobody") == 404
    assert do(keeping, "GET", f"/v1/responses/{last.id}?stream=true") == 400


# --- when the register changes -------------------------------------------------------------------


def test_what_must_no_longer_be_said_is_read_as_redacted_until_it_may_again(
    keeping: Any, client: openai.OpenAI
) -> None:
    first = client.responses.create(model="m", input=f"She lives in {PHRASE}.", user=PHRASE)
    other = client.responses.create(model="m", input="It rains.")
    assert PHRASE in first.output_text
    target = forget(keeping)
    try:
        shown = client.responses.retrieve(first.id)
        second = client.responses.create(model="m", input="on", previous_response_id=first.id)
        heard = keeping.engine.requests[-1].messages
        items = client.responses.input_items.list(second.id).data
        texts = [item.content[0].text for item in items]  # type: ignore[union-attr]
        unaffected = client.responses.retrieve(other.id).output_text
    finally:
        do(keeping, "DELETE", f"/v1/forget/{target}")

    assert (shown.output_text, shown.user) == ("[redacted]", None)
    assert [text_of(m) for m in heard] == [f"She lives in {PHRASE}.", "[redacted]", "on"]
    assert texts == ["on", "[redacted]", "[redacted]"]
    assert unaffected == "It rains."
    assert PHRASE in client.responses.retrieve(first.id).output_text


def test_a_target_of_one_key_withholds_from_that_key_alone(keeping: Any) -> None:
    with _client(keeping, "ours-1") as one, _client(keeping, "ours-2") as two:
        said = one.responses.create(model="m", input=f"It is {PHRASE}.")
        target = forget(keeping, scope={"keys": ["ours-2"]})
        try:
            texts = [c.responses.retrieve(said.id).output_text for c in (one, two, one)]
        finally:
            do(keeping, "DELETE", f"/v1/forget/{target}")
    assert [PHRASE in text for text in texts] == [True, False, True]


def test_a_target_of_another_tenant_withholds_nothing(keeping: Any, client: openai.OpenAI) -> None:
    said = client.responses.create(model="m", input=f"It is {PHRASE}.")
    target = forget(keeping, key="theirs-1")
    shown = client.responses.retrieve(said.id).output_text
    do(keeping, "DELETE", f"/v1/forget/{target}", key="theirs-1")

    assert PHRASE in shown


def test_a_purge_takes_every_response_of_its_tenant_and_of_no_other(
    keeping: Any, client: openai.OpenAI
) -> None:
    said = client.responses.create(model="m", input=f"It is {PHRASE}.")
    with _client(keeping, "theirs-1") as theirs:
        elsewhere = theirs.responses.create(model="m", input="one")
        target = forget(keeping)
        assert do(keeping, "DELETE", f"/v1/forget/{target}") == 200
        assert PHRASE in client.responses.retrieve(said.id).output_text
        assert do(keeping, "POST", f"/v1/forget/{target}/purge", {}) == 200
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(said.id)
        assert theirs.responses.retrieve(elsewhere.id).output_text == "one"


def test_an_erasure_of_memory_takes_them_too(keeping: Any, client: openai.OpenAI) -> None:
    said = client.responses.create(model="m", input="one")
    assert keeping.pipeline.erase("ours") >= 1
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(said.id)


def test_strings_that_say_it_only_together_are_all_withheld(keeping: Any) -> None:
    target = forget(keeping)
    try:
        rules = asyncio.run(keeping.pipeline.rules("ours", "m", "ours-1"))
        parts = [{"type": "input_text", "text": text} for text in ("It is Marlowe", "Street 9")]
        item: Any = {"id": "msg_1", "type": "message", "role": "user", "content": parts}
        call: Any = {
            "id": "fc_1",
            "type": "function_call",
            "arguments": '{"a":"M\\u0061rlowe Street"}',
        }
        clean: Any = {"id": "fc_2", "type": "function_call", "arguments": '{"a": 1}'}
        found = [Cleanser(rules).cleansed(one) for one in (item, call, clean)]
    finally:
        do(keeping, "DELETE", f"/v1/forget/{target}")

    assert [part["text"] for part in found[0]["content"]] == ["[redacted]"] * 2
    assert found[1] == call | {"arguments": "[redacted]"}
    assert found[2] is clean
