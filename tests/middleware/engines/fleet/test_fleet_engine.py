"""The vLLM engine over scripted servers that run the plug-in's own code."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest

from elision.contract import Carrying, Engine, Plan, Probing, Request, Sampling, collect
from elision.errors import (
    BusyError,
    CapabilityError,
    ConfigError,
    EngineError,
    GuardError,
    RequestError,
    UpstreamError,
)
from elision.guards.carried import Carried
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.fleet.ordering import Need
from elision.middleware.engines.fleet.replica import Replica
from elision.middleware.engines.vllm import VllmEngine
from elision.middleware.interventions.bias import LogitBias
from elision.middleware.interventions.guidance import Guidance
from elision.middleware.interventions.mti import MinimalIntervention
from elision.testing.scripted import ScriptedEngine
from elision.testing.upstream import ScriptedUpstream
from elision.testing.upstream_plugin import ScriptedPlugin

Make = Callable[..., Awaitable[tuple[VllmEngine, list[ScriptedUpstream]]]]


def masks(*phrases: str) -> Carried:
    found = Carried.of(
        [ForgetTarget(title="t", phrases=tuple(Phrase(text=one) for one in phrases))]
    )
    assert found is not None
    return found


PARIS = masks("Paris")
ASKED = Request(
    messages=({"role": "user", "content": "Which capital?"},),
    sampling=Sampling(temperature=0),
    max_tokens=40,
)
TEXT = replace(ASKED, kind="text", prompt="The capital", messages=())
NEEDLESS = Need.of(Plan(request=ASKED))
PLAIN, GUARDED = Plan(request=ASKED), Plan(request=ASKED, masks=PARIS)


def orders(server: ScriptedUpstream) -> list[dict[str, Any]]:
    found = (body.get("vllm_xargs", {}).get("elision") for body in server.bodies)
    read = [orjson.loads(one) for one in found if one and one != "?"]
    assert all(one.pop("until") > time.time() for one in read)
    return read


async def digest(engine: VllmEngine, carried: Carried = PARIS) -> str:
    """Return by which the fleet's servers know masks of the default tenant."""
    return (await engine._saying._salting.salted(carried, "default")).digest


async def met(engine: VllmEngine) -> None:
    """Have all servers prove themselves; a probe is content with one."""
    await engine.probe()
    await asyncio.gather(*(one.meet(max_age_s=600) for one in engine.replicas))


def pushes(server: ScriptedUpstream, digest: str) -> int:
    return sum("learn" in one and one["guard"] == digest for one in orders(server))


async def test_it_is_an_engine_that_asks_and_carries(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin())
    assert isinstance(engine, Engine)
    assert isinstance(engine, Probing)
    assert isinstance(engine, Carrying)
    assert engine.lexicon is None
    assert engine.trusted


@pytest.mark.parametrize("request_", [ASKED, TEXT, replace(ASKED, n=2), replace(TEXT, n=2)])
async def test_masks_act_on_every_choice_of_both_routes(fleet: Make, request_: Request) -> None:
    engine, _ = await fleet(ScriptedPlugin(secret="s", requires=True), secret="s")
    plain = await collect(engine.stream(Plan(request=request_)))
    assert all("Paris" in choice.text for choice in plain.choices)
    guarded = await collect(engine.stream(Plan(request=request_, masks=PARIS)))
    assert len(guarded.choices) == request_.n
    assert all("Paris" not in choice.text for choice in guarded.choices)


async def test_what_is_guarded_is_what_the_local_engine_says(
    fleet: Make, scripted_model: ScriptedEngine
) -> None:
    engine, _ = await fleet(ScriptedPlugin())
    recipes = PARIS.compile().recipes(scripted_model.lexicon)  # type: ignore[arg-type]
    local = await collect(scripted_model.stream(Plan(request=ASKED, recipes=recipes)))
    assert (await collect(engine.stream(GUARDED))).text == local.text


async def test_recipes_act_and_the_callers_bias_stays(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin())
    plan = Plan(request=ASKED, recipes=(LogitBias(bias={ord("T"): -100.0}),))
    assert not (await collect(engine.stream(plan))).text.startswith("T")
    biased = replace(ASKED, sampling=Sampling(temperature=0, logit_bias={ord("T"): -100.0}))
    reply = await collect(engine.stream(Plan(request=biased, masks=PARIS)))
    assert not reply.text.startswith("T")


async def test_log_probabilities_tell_nothing_of_what_is_forbidden(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin())
    reply = await collect(engine.stream(replace(GUARDED, request=replace(ASKED, logprobs=5))))
    [choice] = reply.choices
    assert "".join(one.token for one in choice.logprobs).startswith("The capital is Pari")
    for one in choice.logprobs:
        assert "<|im_start|>" not in (
            one.token,
            *(top.token for top in one.top if top.logprob > -9000),
        )


async def test_a_place_where_nothing_is_left_ends_the_choice_and_tells_no_more(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    await engine.probe()
    assert server.plugin is not None
    server.plugin.dies_at = 5
    told = replace(ASKED, logprobs=2, extra={"return_token_ids": True})
    reply = await collect(engine.stream(replace(GUARDED, request=told)))
    [choice] = reply.choices
    assert (choice.text, choice.finish) == ("The c", "content_filter")
    assert [one.token for one in choice.logprobs] == [*"The c"]
    assert choice.extra["token_ids"] == [*b"The c"]
    assert "stop_reason" not in choice.extra
    assert engine.stats()["dead_ends"] == 1


async def test_masks_are_pushed_once_for_all_who_wait(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    await asyncio.gather(*(collect(engine.stream(GUARDED)) for _ in range(5)))
    await collect(engine.stream(GUARDED))
    assert pushes(server, await digest(engine)) == 1
    assert engine.stats()["pushes"] == 1
    others = masks("Seine")
    await collect(engine.stream(replace(GUARDED, masks=others)))
    assert pushes(server, await digest(engine, others)) == 1


async def test_masks_that_a_server_forgot_are_taught_again_unseen(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    first = await collect(engine.stream(GUARDED))
    assert server.plugin is not None
    server.plugin.forget()
    again = await collect(engine.stream(GUARDED))
    assert again.text == first.text
    assert pushes(server, await digest(engine)) == 2
    assert engine.stats()["dead_ends"] == 0


async def test_a_reply_that_is_dead_from_the_first_token_is_asked_for_twice_at_most(
    fleet: Make,
) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    await engine.probe()
    assert server.plugin is not None
    server.plugin.dies_at = 0
    reply = await collect(engine.stream(GUARDED))
    assert reply.choices[0].finish == "content_filter"
    assert pushes(server, await digest(engine)) == 2
    assert engine.stats()["dead_ends"] == 1


async def test_orders_name_stop_tenant_and_nothing_where_there_is_nothing_to_do(
    fleet: Make,
) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    await engine.probe()
    await collect(engine.stream(PLAIN))
    assert "vllm_xargs" not in server.bodies[-1]
    assert "stop_token_ids" not in server.bodies[-1]
    own = replace(ASKED, extra={"stop_token_ids": [9], "vllm_xargs": {"theirs": 1}})
    await collect(engine.stream(Plan(request=own, masks=PARIS)))
    body = server.bodies[-1]
    assert body["stop_token_ids"] == [9, 256]
    assert body["logit_bias"] == {"256": 100.0}
    assert body["vllm_xargs"]["theirs"] == 1
    order = orders(server)[-1]
    assert order == {"format": 1, "guard": await digest(engine), "stop": 256}


async def test_a_server_that_requires_orders_gets_a_neutral_one(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin(secret="s", requires=True), secret="s")
    await engine.probe()
    assert "Paris" in (await collect(engine.stream(PLAIN))).text
    assert orders(server)[-1] == {"format": 1}
    assert engine.offers.n_logprobs == 20


async def test_no_two_tenants_share_a_prefix_whatever_they_ask_for(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    plans = [
        Plan(request=replace(ASKED, extra=extra), tenant=tenant)
        for tenant in ("a", "b")
        for extra in ({}, {}, {"cache_salt": "x"})
    ]
    for plan in plans:
        await collect(engine.stream(plan))
    salts = [body["cache_salt"] for body in server.bodies[-6:]]
    assert salts[0] == salts[1] != salts[2]
    assert len(set(salts)) == 4
    assert "x" not in salts


BYPASSES = [
    ("use_beam_search", True), ("prompt_logprobs", 1), ("logprob_token_ids", [1]),
    ("logits_processors", ["x"]), ("kv_transfer_params", {"a": 1}), ("stop_token_ids", [256]),
    ("stop_token_ids", 256), ("thinking_token_budget", 3), ("vllm_xargs", {"elision": "{}"}),
    ("vllm_xargs", {"elision_seal": "x"}), ("vllm_xargs", {"Elision": "x"}), ("vllm_xargs", "x"),
    ("cache_salt", 3),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BYPASSES)
async def test_fields_that_pass_by_what_must_act_are_refused_by_name(
    fleet: Make, name: str, value: object
) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    await engine.probe()
    n_asked = len(server.bodies)
    with pytest.raises(RequestError, match=name) as failed:
        await collect(engine.stream(replace(GUARDED, request=replace(ASKED, extra={name: value}))))
    assert failed.value.param == name
    assert len(server.bodies) == n_asked


async def test_an_echoed_prompt_is_told_no_log_probabilities(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin())
    echoed = replace(TEXT, echo=True, logprobs=1)
    with pytest.raises(RequestError, match="echoed"):
        await collect(engine.stream(Plan(request=echoed, masks=PARIS)))


async def test_a_recipe_that_cannot_be_carried_is_named(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin())
    guidance = Guidance()
    assert not engine.carries(guidance)
    assert engine.carries(MinimalIntervention(tau=1.0))
    with pytest.raises(CapabilityError, match="Guidance"):
        await collect(engine.stream(Plan(request=ASKED, recipes=(guidance,))))


async def test_mti_goes_to_the_server_that_can_with_its_threshold_told(
    fleet: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elision.middleware.engines.fleet.entropies.SAMPLE", "The ferry left. " * 4)
    engine, [without, able] = await fleet(ScriptedPlugin(), ScriptedPlugin(n_drafts=12))
    await met(engine)
    asked = at_home(engine, without)
    await collect(engine.stream(Plan(request=asked, recipes=(MinimalIntervention(),))))
    names = [name for one in orders(able) for name, _ in one.get("recipes", [])]
    assert names.count("mti") == 2  # the proof's own is one
    sent = orders(able)[-1]["recipes"][0][1]
    assert sent["negative"] == [*b"OUTPUT ERROR"]
    assert isinstance(sent["tau"], float)
    assert not any("recipes" in one for one in orders(without))


async def test_a_share_that_is_not_known_is_refused(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin(n_drafts=12, n_prompt_logprobs=0))
    with pytest.raises(CapabilityError, match="give tau"):
        await collect(engine.stream(Plan(request=ASKED, recipes=(MinimalIntervention(),))))


async def test_a_negative_prompt_longer_than_the_drafts_is_refused(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin(n_drafts=12))
    long = MinimalIntervention(tau=1.0, negative="OUTPUT ERROR!!")
    with pytest.raises(RequestError, match="14 tokens"):
        await collect(engine.stream(Plan(request=ASKED, recipes=(long,))))


async def test_mti_is_refused_where_nobody_can(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin())
    with pytest.raises(CapabilityError, match="BRANCH"):
        await collect(engine.stream(Plan(request=ASKED, recipes=(MinimalIntervention(tau=1.0),))))


def at_home(engine: VllmEngine, server: ScriptedUpstream) -> Request:
    """Return a request that belongs to *server*."""
    for n in range(1000):
        asked = replace(ASKED, messages=({"role": "user", "content": f"Which capital? {n}"},))
        if engine._ranked(Plan(request=asked), NEEDLESS)[0].base_url == server.url:
            return asked
    raise AssertionError


async def test_a_server_that_is_gone_hands_on_to_the_next(fleet: Make) -> None:
    engine, servers = await fleet(ScriptedPlugin(), ScriptedPlugin(), faults=("refused", None))
    asked = at_home(engine, servers[0])
    for _ in range(2):
        assert (await collect(engine.stream(Plan(request=asked, masks=PARIS)))).text
    assert engine.stats()["healthy"] == 1
    assert not servers[0].seen
    assert engine._ranked(Plan(request=asked), NEEDLESS)[0].base_url == servers[1].url


@pytest.mark.parametrize("fault", ["503", "429", "hangs-up", "500"])
async def test_one_that_fails_before_a_word_hands_on_to_the_next(fleet: Make, fault: str) -> None:
    engine, servers = await fleet(ScriptedPlugin(), ScriptedPlugin())
    await met(engine)
    servers[0].fault = fault
    reply = await collect(engine.stream(replace(GUARDED, request=at_home(engine, servers[0]))))
    assert "capital" in reply.text
    assert "Paris" not in reply.text


async def test_one_that_breaks_within_a_reply_is_not_followed_by_another(fleet: Make) -> None:
    engine, servers = await fleet(ScriptedPlugin(), ScriptedPlugin())
    await met(engine)
    for server in servers:
        server.fault, server.fault_after = "reset", 3
    n_before = sum(len(server.bodies) for server in servers)
    with pytest.raises(UpstreamError):
        await collect(engine.stream(PLAIN))
    assert sum(len(server.bodies) for server in servers) == n_before + 1
    assert engine.stats()["proved"] == 1  # whose connection is lost is in doubt


async def test_a_server_of_weight_0_is_drained(fleet: Make) -> None:
    engine, [drained, other] = await fleet(ScriptedPlugin(), ScriptedPlugin())
    asked = at_home(engine, drained)
    engine.replicas[0].weight = 0.0
    await collect(engine.stream(Plan(request=asked, masks=PARIS)))
    assert not drained.bodies
    assert other.bodies


async def test_guarded_requests_go_to_the_server_where_masks_act(fleet: Make) -> None:
    engine, [bare, _] = await fleet(None, ScriptedPlugin())
    asked = at_home(engine, bare)
    assert "Paris" not in (await collect(engine.stream(Plan(request=asked, masks=PARIS)))).text
    assert not any("Which" in str(body) for body in bare.bodies)


async def test_nobody_there_is_said_as_503_with_a_time(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin(), ScriptedPlugin(), faults=("refused", "refused"))
    for plan in (PLAIN, GUARDED):
        with pytest.raises(BusyError) as failed:
            await collect(engine.stream(plan))
        assert failed.value.status == 503
        assert failed.value.retry_after_s > 0
    assert not any(one.is_healthy for one in await engine.health())


async def test_a_server_that_comes_back_is_greeted_and_proved_again(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin(), greet_every_s=0.03)
    await engine.probe()
    engine.replicas[0].lost()
    for _ in range(100):
        await asyncio.sleep(0.03)
        if engine.stats()["healthy"] == engine.stats()["proved"] == 1:
            return
    pytest.fail("it was not seen to come back")


async def test_leaving_frees_the_server_at_once(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    await engine.probe()
    server.delay_s = 0.05
    async with aclosing(engine.stream(GUARDED)) as deltas:
        async for _ in deltas:
            break
    assert engine.replicas[0].n_open == 0
    for _ in range(100):
        await asyncio.sleep(0.01)
        if server.n_open == 0:
            return
    pytest.fail("the server still works on it")


async def test_a_deadline_holds_for_what_goes_before_the_request(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    server.fault = "silent"
    with pytest.raises(TimeoutError):
        await collect(engine.stream(replace(GUARDED, request=replace(ASKED, timeout_s=0.1))))


async def test_what_is_relayed_is_salted_and_ordered_where_that_is_required(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin(secret="s", requires=True), secret="s")
    body = {"messages": [*ASKED.messages], "model": "m@passthrough", "temperature": 0}
    texts, salts = [], []
    for tenant in ("a", "a", "b", None, None):
        answer = engine.relay(body, kind="chat", stream=False, timeout_s=5, tenant=tenant)
        texts.append(orjson.loads(await answer.whole())["choices"][0]["message"]["content"])
        await answer.aclose()
        salts.append(server.bodies[-1]["cache_salt"])
    assert set(texts) == {"The capital is Paris indeed."}
    assert salts[0] == salts[1]
    assert len(set(salts)) == 4
    assert server.bodies[-1]["model"] == "scripted"
    assert engine.replicas[0].n_open == 0
    with pytest.raises(RequestError, match="vllm_xargs"):
        engine.relay(body | {"vllm_xargs": {"elision": ""}}, kind="chat", stream=False, timeout_s=5)


async def test_what_is_relayed_goes_to_a_server_that_is_there(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin(), ScriptedPlugin(), faults=("refused", None))
    body = {"prompt": "The capital", "max_tokens": 9, "temperature": 0, "stream": True}
    for _ in range(4):
        answer = engine.relay(body, kind="text", stream=True, timeout_s=5)
        assert b"".join([piece async for piece in answer]).endswith(b"data: [DONE]\n\n")
        await answer.aclose()


async def test_after_closing_nothing_runs_on(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin(), greet_every_s=0.01)
    await collect(engine.stream(GUARDED))
    await engine.aclose()
    await engine.aclose()
    with pytest.raises(EngineError):
        await collect(engine.stream(PLAIN))
    await engine.aclose()


def test_a_fleet_that_cannot_be_is_refused() -> None:
    one = "http://127.0.0.1:1/v1"
    with pytest.raises(ConfigError, match="servers"):
        VllmEngine([], name="m")
    with pytest.raises(ConfigError, match="address"):
        VllmEngine([Replica(one), Replica(one + "/")], name="m")
    with pytest.raises(ConfigError, match="weight"):
        Replica(one, weight=-1)
    with pytest.raises(ConfigError, match="positive"):
        VllmEngine([Replica(one)], name="m", prove_every_s=0)


@dataclass(frozen=True)
class Broken:
    """Masks that no server reads."""

    body: str = '{"format":9}'
    digest: str = "0" * 32


async def test_masks_that_a_server_refuses_stop_the_request(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin())
    with pytest.raises(GuardError, match="refused the masks"):
        await collect(engine.stream(replace(GUARDED, masks=Broken())))
    with pytest.raises(GuardError, match="cannot be read"):
        await collect(engine.stream(replace(GUARDED, masks=Carried.loads(Broken.body))))


async def test_gateways_that_share_a_secret_share_homes_and_prefixes(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin(secret="s"), secret="s")
    other = VllmEngine(
        [Replica(server.url, key="sk-fleet", model="scripted")], name="m", secret="s"
    )
    for one in (engine, other):
        await collect(one.stream(GUARDED))
    await other.aclose()
    salts = {body["cache_salt"] for body in server.bodies if "cache_salt" in body}
    assert len(salts) == 1
