"""Servers that are odd in one way: what the proof makes of each, and what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import orjson
import pytest

from elision.errors import BusyError, NotFoundError, RequestError, UpstreamTimeoutError
from elision.middleware.engines.fleet import proving
from elision.middleware.engines.fleet.proving import prove
from elision.middleware.engines.fleet.trying import Tried, tried_of
from elision.middleware.engines.plugin.orders import KEY, Order
from elision.middleware.engines.remote import RemoteEngine
from elision.middleware.engines.upstream.answers import from_now, whole
from elision.testing.scripted import ScriptedEngine
from elision.testing.upstream import ScriptedUpstream
from elision.testing.upstream_plugin import ScriptedPlugin
from elision.testing.upstream_speech import Adjust

Change = Callable[[str, Any], Any]
Refuse = Callable[[str, Mapping[str, Any]], Exception | None]


class Odd:
    """A server as `prove` sees it: a scripted vLLM, some of its answers changed on their way."""

    model = "scripted"

    def __init__(self, remote: RemoteEngine, server: ScriptedUpstream) -> None:
        self.remote, self.server = remote, server
        self.change: Change = lambda _route, answer: answer
        self.refuse: Refuse = lambda _route, _body: None
        self.routes: list[str] = []

    async def ask(self, method: str, route: str, body: Mapping[str, Any] | None = None) -> Any:
        self.routes.append(route)
        if (failure := self.refuse(route, body or {})) is not None:
            raise failure
        data = await self._asked(method, route, body)
        return self.change(route, orjson.loads(data))

    async def told(self, route: str) -> str:
        if (failure := self.refuse(route, {})) is not None:
            raise failure
        return (await self._asked("GET", route, None)).decode()

    async def _asked(self, method: str, route: str, body: Mapping[str, Any] | None) -> bytes:
        deadline = from_now(30)
        data = None if body is None else orjson.dumps(body)
        async with self.remote._answer(method, route, deadline, body=data, retries=0) as response:
            return await whole(response, deadline)


@pytest.fixture
async def odd(scripted_model: ScriptedEngine) -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def make(plugin: ScriptedPlugin | None = None) -> Odd:
            plugin = ScriptedPlugin() if plugin is None else plugin
            server = ScriptedUpstream(scripted_model, dialect="vllm", plugin=plugin)
            await stack.enter_async_context(server)
            remote = RemoteEngine(server.url, model="scripted", trusted=True)
            stack.push_async_callback(remote.aclose)
            return Odd(remote, server)

        yield make


class Ahead(ScriptedPlugin):
    """vLLM's first runner as it schedules ahead: the tokens before a score are not known yet."""

    def adjusting(self, order: Order, prompt: tuple[int, ...]) -> Adjust:
        acted = super().adjusting(order, prompt)
        return lambda scores, written, behind: acted(scores, [-1] * len(written), behind)


class Careless(ScriptedPlugin):
    """A plug-in that goes on under masks that it does not know."""

    def adjusting(self, order: Order, prompt: tuple[int, ...]) -> Adjust:
        known = order.guard.strip("0")
        return super().adjusting(order if known else replace(order, guard=""), prompt)


# --- it cannot be asked --------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["/metrics", "/version", "/tokenize", "completions"])
@pytest.mark.parametrize(
    "failure", [UpstreamTimeoutError("it did not answer in time"), BusyError("it is busy")]
)
async def test_who_cannot_be_asked_is_neither_fit_nor_unfit(
    odd: Callable[..., Any], route: str, failure: Exception
) -> None:
    server = await odd()
    server.refuse = lambda asked, _body: failure if asked == route else None
    with pytest.raises(type(failure)):
        await prove(server)


async def test_a_proof_that_takes_too_long_is_none(
    odd: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving, "TOTAL_S", 0.0)
    with pytest.raises(UpstreamTimeoutError, match="took longer than 0 s"):
        await prove(await odd())


# --- what it says --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
async def test_a_chat_that_is_all_thoughts_is_read(odd: Callable[..., Any], name: str) -> None:
    def thinking(route: str, answer: Any) -> Any:
        for choice in answer["choices"] if route == "chat/completions" else ():
            message = choice["message"]
            message[name], message["content"] = message["content"], None
        return answer

    server = await odd()
    server.change = thinking
    proof = await prove(server)
    assert proof.acts, proof.why


async def test_thoughts_that_say_what_is_forbidden_are_seen(odd: Callable[..., Any]) -> None:
    first: dict[str, Any] = {}

    def leaking(route: str, answer: Any) -> Any:
        for choice in answer["choices"] if route == "chat/completions" else ():
            said = first.setdefault("said", choice["message"]["content"])
            choice["message"] |= {"reasoning": said, "content": None}
        return answer

    server = await odd()
    server.change = leaking
    proof = await prove(server)
    assert not proof.acts
    assert "masks do not act in chat completions" in proof.why


async def test_a_server_that_schedules_ahead_is_told_how_to_stop_it(
    odd: Callable[..., Any],
) -> None:
    proof = await prove(await odd(Ahead()))
    assert not proof.acts
    assert "--no-async-scheduling" in proof.why


# --- the token that ends a choice ----------------------------------------------------------------


def first_special(server: Odd, token: int, *more: tuple[int, str]) -> None:
    def told(route: str, answer: Any) -> Any:
        if route != "/tokenize":
            return answer
        pairs = [(token, "<|first|>"), *more]
        return answer | {"tokens": [n for n, _ in pairs], "token_strs": [name for _, name in pairs]}

    server.change = told


async def test_an_end_token_with_which_chats_begin_ends_no_choice(
    odd: Callable[..., Any],
) -> None:
    server = await odd()
    end = min(server.server._source.model.eos)
    first_special(server, end)
    proof = await prove(server)
    assert proof.acts, proof.why
    assert proof.stop is None
    assert not any(str(end) in (body.get("logit_bias") or {}) for body in server.server.bodies)


async def test_the_next_special_token_is_taken_where_the_first_is_an_end(
    odd: Callable[..., Any],
) -> None:
    server = await odd()
    first_special(server, min(server.server._source.model.eos), (5, "text"), (256, "<|im_start|>"))
    proof = await prove(server)
    assert proof.acts, proof.why
    assert proof.stop == 256


async def test_one_that_answers_under_unknown_masks_is_unfit(odd: Callable[..., Any]) -> None:
    proof = await prove(await odd(Careless()))
    assert not proof.acts
    assert "answers under masks that it does not know" in proof.why


# --- what it refuses -----------------------------------------------------------------------------


def refusing(field: str) -> Refuse:
    def refuse(_route: str, body: Mapping[str, Any]) -> Exception | None:
        return RequestError("the upstream refuses it", param=field) if field in body else None

    return refuse


async def test_one_that_tells_no_alternatives_is_proved_and_counts_as_raw(
    odd: Callable[..., Any],
) -> None:
    server = await odd()
    server.refuse = refusing("logprobs")
    proof = await prove(server)
    assert proof.acts, proof.why
    assert proof.is_raw_logprobs


async def test_one_that_takes_no_bias_is_proved_and_counts_as_drafting(
    odd: Callable[..., Any],
) -> None:
    server = await odd(ScriptedPlugin(n_drafts=4))
    server.refuse = lambda route, _body: NotFoundError("no") if route == "/metrics" else None
    proof = await prove(server)
    assert proof.acts, proof.why
    assert proof.speculates  # so that nobody sends it a bias


async def test_what_it_refuses_is_named(odd: Callable[..., Any]) -> None:
    server = await odd()
    server.refuse = lambda _route, body: (
        RequestError("no", param="temperature") if "logprobs" in body or KEY in str(body) else None
    )
    proof = await prove(server)
    assert not proof.acts
    assert "'temperature'" in proof.why
    assert "secret" not in proof.why


# --- what it learns ------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [None, "s"])
async def test_every_proof_of_this_process_teaches_one_mask(
    odd: Callable[..., Any], secret: str | None
) -> None:
    server = await odd(ScriptedPlugin(secret=secret))
    for _ in range(2):
        proof = await prove(server, secret=secret)
        assert proof.acts, proof.why
    asked = [(body.get("vllm_xargs") or {}).get(KEY, "") for body in server.server.bodies]
    orders = [Order.loads(text) for text in asked if text.startswith("{")]
    taught = {order.guard for order in orders if order.learn}
    assert len(taught) == 1


def test_a_choice_is_empty_if_it_ended_before_it_said_anything() -> None:
    cut = {"choices": [{"text": "", "finish_reason": "length"}]}
    ended = {"choices": [{"text": "", "finish_reason": "stop", "stop_reason": 7}]}
    assert not tried_of(cut).is_empty
    assert tried_of(ended).is_empty
    assert tried_of(ended).stop_reason == 7
    assert Tried(texts=("a", ""), finishes=("length", "stop")).is_empty


@pytest.mark.parametrize(
    ("n_tokens", "reasons", "stop", "is_short"),
    [(2, (7,), 7, True), (3, (7,), 7, False), (2, (None,), 7, False), (2, (None,), None, True),
     (0, (7,), 7, False)],
)  # fmt: skip
def test_a_choice_is_cut_short_behind_its_first_token(
    n_tokens: int, reasons: tuple[object, ...], stop: int | None, is_short: bool
) -> None:
    tried = Tried(texts=("a",), finishes=("stop",), stop_reasons=reasons, n_tokens=n_tokens)
    assert tried.is_cut_short(stop) == is_short
