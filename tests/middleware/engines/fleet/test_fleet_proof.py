"""The proof: what a server does is seen, not believed, and what is missing is said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from elision.contract import Capability, Plan, Request, Sampling, collect
from elision.errors import CapabilityError, GuardError, UpstreamError
from elision.guards.carried import Carried
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.fleet.trying import Tried, is_word_in, tried_of, word_in
from elision.middleware.engines.vllm import VllmEngine
from elision.middleware.interventions.entropy import EntropyMinimisation
from elision.testing.upstream import ScriptedUpstream
from elision.testing.upstream_plugin import ScriptedPlugin

Make = Callable[..., Awaitable[tuple[VllmEngine, list[ScriptedUpstream]]]]
MASKS = Carried.of([ForgetTarget(title="t", phrases=(Phrase(text="Paris"),))])
ASKED = Request(
    messages=({"role": "user", "content": "Which capital?"},),
    sampling=Sampling(temperature=0),
    max_tokens=40,
)
GUARDED = Plan(request=ASKED, masks=MASKS)

UNFIT: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no plug-in": (None, {}, "plug-in is not there"),
    "not installed": (ScriptedPlugin(installed=False), {}, "plug-in is not there"),
    "speculation": (ScriptedPlugin(speculates=True), {}, "turn speculative decoding off"),
    "version": (ScriptedPlugin(version="0.33.0"), {}, "was not tested"),
    "no version": (ScriptedPlugin(version=""), {}, "was not tested"),
    "runner": (ScriptedPlugin(fails=True), {}, "VLLM_USE_V2_MODEL_RUNNER=0"),
    "our secret": (ScriptedPlugin(secret="theirs"), {"secret": "ours"}, "another secret"),
    "no secret there": (ScriptedPlugin(), {"secret": "ours"}, "under any seal"),
    "no secret here": (ScriptedPlugin(secret="theirs"), {}, "another secret"),
}


@pytest.mark.parametrize("case", UNFIT)
async def test_guarded_requests_are_refused_where_masks_were_not_seen_to_act(
    fleet: Make, case: str
) -> None:
    plugin, more, why = UNFIT[case]
    engine, [server] = await fleet(plugin, **more)
    await engine.probe()
    n_asked = len(server.bodies)
    with pytest.raises(GuardError, match=why):
        await collect(engine.stream(GUARDED))
    recipes = Plan(request=ASKED, recipes=(EntropyMinimisation(),))
    with pytest.raises(GuardError, match=why):
        await collect(engine.stream(recipes))
    assert len(server.bodies) == n_asked
    assert engine.stats()["proved"] == 0
    assert engine.stats()["proofs_failed"] == 1


@pytest.mark.parametrize("case", ["no plug-in", "speculation", "version", "runner"])
async def test_plain_requests_pass_where_masks_do_not_act(fleet: Make, case: str) -> None:
    plugin, more, _ = UNFIT[case]
    engine, _ = await fleet(plugin, **more)
    assert "Paris" in (await collect(engine.stream(Plan(request=ASKED)))).text


@pytest.mark.parametrize(
    ("plugin", "more"),
    [
        (ScriptedPlugin(), {}),
        (ScriptedPlugin(secret="s", requires=True), {"secret": "s"}),
        (ScriptedPlugin(raw=True), {}),
        (ScriptedPlugin(version="0.33.0"), {"untested": True}),
        (ScriptedPlugin(n_drafts=12), {}),
    ],
)
async def test_a_server_where_masks_act_is_proved(
    fleet: Make, plugin: ScriptedPlugin, more: dict[str, Any]
) -> None:
    engine, _ = await fleet(plugin, **more)
    capabilities = await engine.probe()
    [replica] = engine.replicas
    assert replica.proof is not None
    assert replica.proof.acts
    assert not replica.proof.why
    assert replica.proof.stop == 256  # <|im_start|>, with which a chat begins
    assert replica.proof.is_raw_logprobs == plugin.raw
    assert replica.proof.requires == plugin.requires
    assert (Capability.BRANCH in capabilities) == (plugin.n_drafts > 0) == replica.proof.drafts
    assert "Paris" not in (await collect(engine.stream(GUARDED))).text


async def test_fewer_drafts_than_the_negative_prompt_has_tokens_are_no_branch(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin(n_drafts=2))
    await engine.probe()
    [replica] = engine.replicas
    assert replica.proof is not None
    assert replica.proof.n_drafts == 2


async def test_raw_log_probabilities_are_refused_under_masks_and_told_without(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin(raw=True))
    told = Request(messages=ASKED.messages, sampling=ASKED.sampling, max_tokens=9, logprobs=2)
    with pytest.raises(CapabilityError, match="--logprobs-mode processed_logprobs") as failed:
        await collect(engine.stream(Plan(request=told, masks=MASKS)))
    assert failed.value.param == "logprobs"
    reply = await collect(engine.stream(Plan(request=told)))
    assert len(reply.choices[0].logprobs) == 9


async def test_a_proof_is_made_once_for_all_who_wait_and_again_when_it_is_old(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin(), prove_every_s=100)
    await asyncio.gather(*(collect(engine.stream(GUARDED)) for _ in range(4)))
    assert _n_proofs(server) == 1
    [replica] = engine.replicas
    assert replica.proof is not None
    replica.proof = replace(replica.proof, at=replica.proof.at - 150)
    await collect(engine.stream(GUARDED))
    assert _n_proofs(server) == 1
    replica.proof = replace(replica.proof, at=replica.proof.at - 100)
    await collect(engine.stream(GUARDED))
    assert _n_proofs(server) == 2


async def test_a_proof_is_renewed_in_the_background(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin(), prove_every_s=0.1, greet_every_s=0.03)
    await engine.probe()
    for _ in range(60):
        await asyncio.sleep(0.05)
        if _n_proofs(server) > 1:
            return
    pytest.fail("nothing was proved again")


async def test_a_server_that_comes_back_without_its_plug_in_is_not_believed(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin(), greet_every_s=0.03)
    assert "Paris" not in (await collect(engine.stream(GUARDED))).text
    assert server.plugin is not None
    server.plugin.installed = False
    engine.replicas[0].lost()  # what a greeting while it starts again finds
    with pytest.raises(GuardError, match="plug-in is not there"):
        await collect(engine.stream(GUARDED))


async def test_a_plug_in_that_is_gone_between_two_proofs_ends_choices_at_once(fleet: Make) -> None:
    engine, [server] = await fleet(ScriptedPlugin())
    assert "Paris" not in (await collect(engine.stream(GUARDED))).text
    assert server.plugin is not None
    server.plugin.installed = False
    reply = await collect(engine.stream(GUARDED))
    assert reply.text == ""
    assert reply.choices[0].finish == "content_filter"


async def test_nothing_of_masks_or_orders_stands_in_errors_and_reprs(fleet: Make) -> None:
    engine, _ = await fleet(ScriptedPlugin(installed=False), secret="hush")
    with pytest.raises(GuardError) as failed:
        await collect(engine.stream(GUARDED))
    assert MASKS is not None
    shown = f"{failed.value!r} {engine!r} {await engine.health()!r} {engine.stats()!r} {GUARDED!r}"
    for secret in ("Paris", MASKS.digest, "hush", "sk-fleet"):
        assert secret not in shown.replace(f"{GUARDED!r}", "")
    assert "Paris" not in f"{engine.replicas!r} {engine.replicas[0].proof!r}"


def test_words_are_whole_and_not_those_that_were_cut_off() -> None:
    assert word_in(Tried(texts=("It is wednes",))) == ""
    assert word_in(Tried(texts=("On Monday, as ever, tues",))) == "Monday"
    assert is_word_in("Monday", Tried(texts=("x", "on MONDAY.")))
    assert not is_word_in("Monday", Tried(texts=("Mondays are long", "on Monday")))


def test_what_was_forbidden_is_looked_for_where_two_replies_part() -> None:
    before = Tried(texts=("ab",), tokens=("a", "b"), tops=({"a": -0.1}, {"b": -0.1}))
    masked = Tried(texts=("ac",), tokens=("a", "c"), tops=({"a": -0.1}, {"c": -0.1}))
    marked = Tried(texts=("ac",), tokens=("a", "c"), tops=({"a": -0.1}, {"b": -9999.0}))
    raw = Tried(texts=("ac",), tokens=("a", "c"), tops=({"a": -0.1}, {"b": -0.1}))
    assert not masked.tells(before)
    assert not marked.tells(before)
    assert raw.tells(before)
    assert before.tells(before)
    assert Tried(texts=("",)).tells(before)


@pytest.mark.parametrize("reply", [None, {}, {"choices": []}, {"choices": [3]}, []])
def test_what_is_no_reply_proves_nothing(reply: Any) -> None:
    with pytest.raises(UpstreamError):
        tried_of(reply)


def _n_proofs(server: ScriptedUpstream) -> int:
    return sum(one.path == "/version" for one in server.seen)
