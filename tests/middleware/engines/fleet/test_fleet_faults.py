"""What goes wrong with one server or one request, and stays there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest

from elision.contract import Delta, Erasable, Plan, Request, Sampling, collect
from elision.errors import ElisionError, GuardError, RequestError, UpstreamError
from elision.errors import UpstreamTimeoutError as Late
from elision.guards.carried import Carried
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.fleet import meeting
from elision.middleware.engines.fleet.failover import is_lost
from elision.middleware.engines.fleet.known import Proof
from elision.middleware.engines.fleet.ordering import check_fields, is_shaped, order_of
from elision.middleware.engines.fleet.replica import Replica
from elision.middleware.engines.vllm import VllmEngine
from elision.middleware.interventions.mti import MinimalIntervention
from elision.testing.upstream import ScriptedUpstream
from elision.testing.upstream_plugin import ScriptedPlugin

Make = Callable[..., Awaitable[tuple[VllmEngine, list[ScriptedUpstream]]]]


def masks(*phrases: Phrase) -> Carried:
    found = Carried.of([ForgetTarget(title="t", phrases=phrases or (Phrase(text="Paris"),))])
    assert found is not None
    return found


ASKED = Request(
    messages=({"role": "user", "content": "Which capital?"},),
    sampling=Sampling(temperature=0),
    max_tokens=40,
)
PLAIN, GUARDED = Plan(request=ASKED), Plan(request=ASKED, masks=masks())
JSON = replace(ASKED, extra={"response_format": {"type": "json_object"}})


@asynccontextmanager
async def hung() -> AsyncIterator[str]:
    """Lend the address of a server that takes connections and never answers."""
    held: list[asyncio.StreamWriter] = []

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for writer in held:
            writer.close()


def beside(server: ScriptedUpstream, url: str, **more: Any) -> VllmEngine:
    replicas = [Replica(server.url, key="sk-fleet", model="scripted"), Replica(url, **more)]
    return VllmEngine(replicas, name="m")


def n_pushes(server: ScriptedUpstream) -> int:
    return sum("learn" in orjson.loads(order) for order in _orders(server))


def _orders(server: ScriptedUpstream) -> list[str]:
    found = [body.get("vllm_xargs", {}).get("elision") for body in server.bodies]
    return [one for one in found if one and one != "?"]


@pytest.mark.parametrize("weight", [1.0, 0.0])
async def test_a_server_that_hangs_holds_nobody_up(fleet: Make, weight: float) -> None:
    _, [server] = await fleet(ScriptedPlugin())
    async with hung() as url:
        engine = beside(server, url, weight=weight)
        begun = time.monotonic()
        await engine.probe()
        for n in range(6):  # some of which belong to the server that hangs
            asked = replace(ASKED, messages=({"role": "user", "content": f"Which capital? {n}"},))
            assert (await collect(engine.stream(replace(GUARDED, request=asked)))).text
            assert (await collect(engine.stream(replace(PLAIN, request=asked)))).text
        assert time.monotonic() - begun < 5
        await engine.aclose()


@pytest.mark.slow
async def test_how_servers_are_is_told_though_one_hangs(fleet: Make) -> None:
    _, [server] = await fleet(ScriptedPlugin())
    async with hung() as url:
        engine = beside(server, url)
        begun = time.monotonic()
        assert [one.base_url for one in await engine.health()] == [server.url, url]
        assert time.monotonic() - begun < 4
        await engine.aclose()


async def test_a_probe_in_vain_ends_and_is_not_waited_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meeting, "MOST_S", 0.5)
    async with hung() as url:
        engine = VllmEngine([Replica(url)], name="m")
        begun = time.monotonic()
        for _ in range(9):
            await engine.probe()
        assert time.monotonic() - begun < 4
        await engine.aclose()


async def test_a_callers_own_deadline_puts_nobody_in_doubt(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    await collect(engine.stream(GUARDED))
    [replica] = engine.replicas
    proof, server.delay_s = replica.proof, 0.05
    short = replace(ASKED, timeout_s=0.2)
    for plan in (PLAIN, GUARDED):
        with pytest.raises(Late):
            await collect(engine.stream(replace(plan, request=short)))
    assert replica.proof is proof
    assert replica.is_healthy
    server.delay_s = 0.0
    await collect(engine.stream(GUARDED))
    assert n_pushes(server) == 2  # the proof's own, and ours


@pytest.mark.parametrize("fault", ["500", "error-event"])
async def test_an_error_that_a_server_answers_with_is_that_requests_own(
    fleet: Make, fault: str
) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    await collect(engine.stream(GUARDED))
    [replica] = engine.replicas
    proof, server.fault = replica.proof, fault
    for _ in range(3):
        with pytest.raises(UpstreamError):
            await collect(engine.stream(GUARDED))
    await asyncio.sleep(0.05)
    assert replica.proof is proof
    assert 1 <= sum(one.path == "/health" for one in server.seen) <= 3


async def test_what_a_grammar_and_masks_left_nothing_to_say_is_a_dead_end(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    await collect(engine.stream(GUARDED))
    server.fault, server.fault_after = "error-event", 4
    [choice] = (await collect(engine.stream(replace(GUARDED, request=JSON)))).choices
    assert (choice.text, choice.finish) == ("The ", "content_filter")
    assert engine.stats()["dead_ends"] == 1
    assert engine.stats()["healthy"] == 1
    for plan in (replace(PLAIN, request=JSON), GUARDED):
        with pytest.raises(UpstreamError):
            await collect(engine.stream(plan))


async def test_a_dead_end_of_a_grammar_at_the_first_token_may_be_unknown_masks(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    await collect(engine.stream(GUARDED))
    n_before = n_pushes(server)
    server.fault, server.fault_after, server.n_faults = "error-event", 0, 1
    reply = await collect(engine.stream(replace(GUARDED, request=JSON)))
    assert reply.text.startswith("The capital")
    assert n_pushes(server) == n_before + 1


def test_a_grammar_is_seen_by_its_fields() -> None:
    shaped: list[dict[str, Any]] = [
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"regex": "a"}},
        {"guided_choice": ["a"]},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function"}},
    ]
    free: list[dict[str, Any]] = [
        {},
        {"response_format": {"type": "text"}},
        {"tools": [{}], "tool_choice": "auto"},
        {"structured_outputs": None},
    ]
    assert all(is_shaped(replace(ASKED, extra=extra)) for extra in shaped)
    assert not any(is_shaped(replace(ASKED, extra=extra)) for extra in free)


async def test_a_request_never_goes_by_a_proof_that_fell_while_it_was_made_ready(
    fleet: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    await engine.probe()
    [replica] = engine.replicas
    teach = replica.pushing.ensure

    async def ensure(carried: Any) -> None:
        await teach(carried)
        assert server.plugin is not None
        server.plugin.installed = False
        replica.lost()

    monkeypatch.setattr(replica.pushing, "ensure", ensure)
    with pytest.raises(GuardError, match="plug-in is not there"):
        await collect(engine.stream(GUARDED))
    assert not any(body.get("stream") for body in server.bodies)


async def test_a_trial_that_could_not_be_made_leaves_what_was_seen_before(
    fleet: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, [server] = await fleet(ScriptedPlugin(secret="s", requires=True), secret="s")
    await engine.probe()
    [replica] = engine.replicas
    proof, told = replica.proof, replica.told

    async def late(route: str) -> str:
        raise Late("the upstream did not answer in time", retryable=True)

    monkeypatch.setattr(replica, "told", late)
    replica.is_healthy = False
    with pytest.raises(Late):
        await replica.proved(max_age_s=0.0)
    assert replica.proof is proof
    assert not replica.is_healthy  # nobody has seen it answer
    assert await replica.requires_order()
    assert (await collect(engine.stream(PLAIN))).text
    assert "Paris" not in (await collect(engine.stream(GUARDED))).text
    assert proof is not None
    replica.proof = replace(proof, at=proof.at - 601)
    with pytest.raises(Late):
        await collect(engine.stream(GUARDED))  # too old, and nothing newer is to be had
    monkeypatch.setattr(replica, "told", told)
    assert (await collect(engine.stream(GUARDED))).text
    assert not any(body.get("stream") and "vllm_xargs" not in body for body in server.bodies)


async def test_a_trial_in_which_doubt_never_ends_proves_nothing(
    fleet: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, [_] = await fleet(ScriptedPlugin())
    [replica] = engine.replicas
    ask = replica.ask

    async def doubted(method: str, route: str, body: Any = None) -> Any:
        replica.doubt()
        return await ask(method, route, body)

    monkeypatch.setattr(replica, "ask", doubted)
    with pytest.raises(UpstreamError, match="lost"):
        await replica.proved(max_age_s=1)
    assert replica.proof is None
    assert not (await engine.health())[0].is_proved


async def test_masks_of_all_who_share_a_secret_are_taught_once(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin(secret="s"), secret="s")
    mine = Replica(server.url, key="sk-fleet", model="scripted")
    other = VllmEngine([mine], name="m", secret="s")
    assert server.plugin is not None
    n_proofs = 2
    for tenant in ("a", "b"):
        for one in (engine, other):
            plan = replace(GUARDED, masks=masks(), tenant=tenant)  # another salt every time
            assert "Paris" not in (await collect(one.stream(plan))).text
    await other.aclose()
    digests = {orjson.loads(one).get("guard") for one in _orders(server)[-4:]}
    assert len(digests - {None}) == 1
    assert n_pushes(server) == n_proofs + 2  # each gateway once: it cannot know of the other


async def test_masks_are_not_taught_again_and_again_where_nothing_can_be_said(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    await engine.probe()
    assert server.plugin is not None
    server.plugin.dies_at = 0
    n_before, n_bodies = n_pushes(server), len(server.bodies)
    for _ in range(8):
        reply = await collect(engine.stream(GUARDED))
        assert reply.choices[0].finish == "content_filter"
    assert n_pushes(server) == n_before + 2
    assert len(server.bodies) == n_bodies + 8 + 2 + 1
    engine.replicas[0].doubt()  # then it may have forgotten them indeed
    server.plugin.dies_at = None
    assert "capital" in (await collect(engine.stream(GUARDED))).text


async def test_all_who_find_masks_forgotten_at_once_are_served(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    first = await collect(engine.stream(GUARDED))
    assert server.plugin is not None
    server.plugin.forget()
    n_before = n_pushes(server)
    replies = await asyncio.gather(*(collect(engine.stream(GUARDED)) for _ in range(5)))
    assert {reply.text for reply in replies} == {first.text}
    assert n_pushes(server) == n_before + 1


async def test_one_deadline_holds_for_everything_together(
    fleet: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    await engine.probe()
    [replica] = engine.replicas
    teach, say, limits = replica.pushing.ensure, replica.say, []

    async def slow(carried: Any) -> None:
        await asyncio.sleep(0.3)
        await teach(carried)

    async def heard(request: Request, plan: Plan) -> AsyncIterator[Delta]:
        limits.append(request.timeout_s)
        async for delta in say(request, plan):
            yield delta

    monkeypatch.setattr(replica.pushing, "ensure", slow)
    monkeypatch.setattr(replica, "say", heard)
    assert server.plugin is not None
    server.plugin.dies_at = 0
    begun, short = time.monotonic(), replace(ASKED, timeout_s=0.5)
    with pytest.raises(Late):
        await collect(engine.stream(replace(GUARDED, request=short)))
    assert time.monotonic() - begun < 5
    assert [limit is not None and limit < 0.25 for limit in limits] == [True]


async def test_a_server_is_greeted_whatever_the_others_do(
    fleet: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, [first, second] = await fleet(ScriptedPlugin(), ScriptedPlugin(), greet_every_s=0.03)
    await engine.probe()
    await asyncio.gather(*(one.meet(max_age_s=600) for one in engine.replicas))
    ask = engine.replicas[0].ask

    async def slow(*asked: Any) -> Any:
        await asyncio.sleep(0.2)
        return await ask(*asked)

    monkeypatch.setattr(engine.replicas[0], "ask", slow)
    engine.replicas[0].doubt()
    n_before = [sum(one.path == "/health" for one in s.seen) for s in (first, second)]
    await asyncio.sleep(0.6)
    assert engine.replicas[0].proof is None  # it is still being tried
    for server, n in zip((first, second), n_before, strict=True):
        assert sum(one.path == "/health" for one in server.seen) >= n + 5


async def test_changes_are_said_once_each_and_tell_nothing(
    fleet: Make, caplog: pytest.LogCaptureFixture
) -> None:
    engine, [server] = await fleet(ScriptedPlugin(), secret=None)
    [replica] = engine.replicas
    with caplog.at_level(logging.WARNING, logger="elision.middleware.engines.fleet"):
        await collect(engine.stream(GUARDED))
        for _ in range(3):
            replica.lost(UpstreamError("gone", retryable=True))
        for _ in range(2):
            assert await replica.greet()
        assert server.plugin is not None
        server.plugin.installed = False
        for _ in range(2):
            await replica.proved(max_age_s=0)
    said = [one.getMessage() for one in caplog.records if "fleet" in one.name]
    assert [server.url in one for one in said] == [True] * 3
    assert ["not answer" in said[0], "answers again" in said[1], "not there" in said[2]] == [
        True
    ] * 3
    assert not any(word in one for one in said for word in ("Paris", "capital", "sk-fleet"))


@pytest.mark.parametrize(("fault", "n_asked"), [("hangs-up", 2), ("500", 2), ("429", 4)])
async def test_a_request_that_breaks_its_server_breaks_one_other_at_most(
    fleet: Make, fault: str, n_asked: int
) -> None:
    engine, servers = await fleet(*[ScriptedPlugin() for _ in range(4)])
    await asyncio.gather(*(one.meet(max_age_s=600) for one in engine.replicas))
    n_before = sum(len(server.bodies) for server in servers)
    for server in servers:
        server.fault = fault
    with pytest.raises(ElisionError):
        await collect(engine.stream(PLAIN))
    assert sum(len(server.bodies) for server in servers) == n_before + n_asked


async def test_a_request_that_reached_nobody_goes_on_to_all(fleet: Make) -> None:
    plugins = [ScriptedPlugin() for _ in range(4)]
    engine, _ = await fleet(*plugins, faults=(*["refused"] * 3, None))
    assert (await collect(engine.stream(PLAIN))).text


async def test_what_is_kept_of_a_tenant_can_be_dropped(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin(n_drafts=12))
    assert isinstance(engine, Erasable)
    recipes = (MinimalIntervention(tau=1.0),)
    for tenant in ("a", "b"):
        await collect(engine.stream(replace(GUARDED, recipes=recipes, tenant=tenant)))
    assert engine.erase("a") == 2
    assert engine.erase("a") == 0
    assert engine.erase("b") == 2
    assert (await collect(engine.stream(replace(GUARDED, tenant="a")))).text


@pytest.mark.parametrize(
    "name", ["prompt_logprobs", "thinking_token_budget", "prompt_logprob_token_ids"]
)
def test_0_asks_for_something(name: str) -> None:
    with pytest.raises(RequestError, match=name):
        check_fields(replace(ASKED, extra={name: 0}))


def test_fields_behind_the_masks_are_refused_by_name() -> None:
    with pytest.raises(RequestError, match="min_tokens"):
        check_fields(replace(ASKED, extra={"min_tokens": 3}))
    check_fields(replace(ASKED, extra={"min_tokens": 0, "bad_words": ["x"]}))
    for name, value in (("allowed_token_ids", [3]), ("bad_words", ["x"])):
        asked = replace(ASKED, extra={name: value})
        check_fields(asked)
        with pytest.raises(RequestError, match=name):
            check_fields(asked, is_guarded_draft=True)


async def test_bans_of_a_callers_own_are_refused_where_the_server_drafts(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin(n_drafts=4))
    asked = replace(ASKED, extra={"bad_words": ["x"]})
    with pytest.raises(RequestError, match="bad_words"):
        await collect(engine.stream(replace(GUARDED, request=asked)))


def test_the_callers_words_travel_only_where_masks_read_them() -> None:
    echoing = masks(Phrase(text="Paris", allow_echo=True))
    for carried, told in ((masks(Phrase(text="Paris", allow_echo=False)), ""),
                          (echoing, "Which capital?"), (None, "")):  # fmt: skip
        order = order_of(Plan(request=ASKED, masks=carried), (), Proof(at=0.0), b"k")
        assert order.user_text == told


async def test_choices_that_would_be_alike_are_asked_for_once(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    one = await collect(engine.stream(PLAIN))
    several = await collect(engine.stream(replace(PLAIN, request=replace(ASKED, n=3))))
    assert server.bodies[-1].get("n", 1) == 1
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert {choice.text for choice in several.choices} == {one.text}
    assert several.usage.completion_tokens == 3 * one.usage.completion_tokens
    assert several.usage.prompt_tokens == one.usage.prompt_tokens
    drawn = replace(ASKED, n=3, sampling=Sampling(temperature=0.5, seed=1))
    await collect(engine.stream(replace(PLAIN, request=drawn)))
    assert server.bodies[-1]["n"] == 3


def test_what_is_slow_is_not_lost() -> None:
    assert is_lost(UpstreamError("cut off", retryable=True))
    for exc in (
        Late("slow", retryable=True),
        UpstreamError("500", upstream_status=500, retryable=True),
        UpstreamError("in the stream"),
        GuardError("no"),
    ):
        assert not is_lost(exc)
