"""A real vLLM under mixed traffic: who is guarded, what changes while it runs, what is let go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from elision.contract import Completion, Request, Sampling, collect
from elision.errors import GuardError, UpstreamError
from elision.guards.carried import Carried
from elision.guards.register.register import Register
from elision.middleware.engines.plugin.orders import Order
from elision.middleware.pipeline import Pipeline
from elision.testing.laws import check_never_leaks, check_speaks_of_nothing

from .conftest import Restart
from .fleets import NAME, QUESTIONS, TARGETS, asked, engine_for, fleet, registered, target
from .servers import SECRET, Server, ordered

pytestmark = [pytest.mark.vllm, pytest.mark.model]

GREEDY = Sampling(temperature=0.0)
ENFORCED_WITHIN_S = 5.0
FREED_WITHIN_S = 3.0
STOP = 1


# --- many at once --------------------------------------------------------------------------------


class Asked(NamedTuple):
    """One request of a mix."""

    request: Request
    tenant: str = "free"
    profile: str = "plain"


def penalised(question: str, **penalties: float) -> Request:
    return asked(question, sampling=replace(GREEDY, **penalties))


MIX: tuple[Asked, ...] = (
    Asked(asked(QUESTIONS[0])),
    Asked(asked(QUESTIONS[4])),
    Asked(asked(QUESTIONS[0]), "a", "guarded"),
    Asked(asked(QUESTIONS[2]), "a"),
    Asked(asked(QUESTIONS[5], logprobs=3), "a"),
    Asked(asked(QUESTIONS[0]), "b", "guarded"),
    Asked(asked(QUESTIONS[4]), "b"),
    Asked(asked(QUESTIONS[1]), "b"),
    Asked(asked(QUESTIONS[3]), "free", "focused"),
    Asked(asked(QUESTIONS[1]), "a", "focused"),
    Asked(penalised(QUESTIONS[2], frequency_penalty=0.7), "b"),
    Asked(penalised(QUESTIONS[5], repetition_penalty=1.3), "a"),
    Asked(asked(QUESTIONS[3], n=2, sampling=Sampling(temperature=0.9, seed=4)), "a"),
    Asked(asked(QUESTIONS[4], sampling=replace(GREEDY, logit_bias={5345: -3.0})), "b", "focused"),
    Asked(asked(kind="text", prompt="The capital of France is"), "a"),
    Asked(asked(kind="text", prompt="The capital of France is"), "b"),
)


async def at_once(pipeline: Pipeline, several: Sequence[Asked]) -> list[Completion]:
    running = [pipeline.run(one.request, tenant=one.tenant, profile=one.profile) for one in several]
    return await asyncio.gather(*map(collect, running))


def texts(done: Completion) -> list[str]:
    return [choice.text for choice in done.choices]


async def check_mixed(server: Server, home: Path, mix: Sequence[Asked] = MIX) -> None:
    async with fleet(server, registered(home)) as pipeline:
        few = [await at_once(pipeline, mix[first : first + 2]) for first in range(0, len(mix), 2)]
        every = await at_once(pipeline, mix)
    for one, want, done in zip(mix, chain.from_iterable(few), every, strict=True):
        check_never_leaks([want, done], TARGETS[one.tenant])
        assert done.choices[0].finish != "content_filter"
        assert texts(done) == texts(want) or one.request.n > 1, one
    assert len(every[12].choices) == 2
    assert "Paris" in every[0].text
    assert every[0].text == every[5].text != every[2].text
    assert "Paris" in every[15].text


async def test_sixteen_mixed_requests_at_once_are_each_as_among_few(
    plugged: Server, tmp_path: Path
) -> None:
    await check_mixed(plugged, tmp_path)


async def test_sixteen_mixed_requests_at_once_under_our_proposer(
    proposing: Server, tmp_path: Path
) -> None:
    await check_mixed(proposing, tmp_path)


# --- who leaves ----------------------------------------------------------------------------------


async def frees(server: Server, pipeline: Pipeline, profile: str) -> float:
    """Return the seconds from a caller's leaving until vLLM works on nothing any more."""
    story = asked("Tell me a long story about the sea.", max_tokens=900)
    async with aclosing(pipeline.run(story, tenant="a", profile=profile)) as deltas:
        for _ in range(3):
            await anext(deltas)
        assert await asyncio.to_thread(server.n_running) >= 1
        left = time.monotonic()
    while await asyncio.to_thread(server.n_running):
        assert time.monotonic() - left < 5
    return time.monotonic() - left


async def check_frees(server: Server, home: Path) -> None:
    async with fleet(server, registered(home)) as pipeline:
        assert await frees(server, pipeline, "plain") < FREED_WITHIN_S
        assert await frees(server, pipeline, "focused") < FREED_WITHIN_S
        done = await collect(pipeline.run(asked(), tenant="a"))
    check_never_leaks(done, TARGETS["a"])


async def test_leaving_frees_a_request_under_an_order(plugged: Server, tmp_path: Path) -> None:
    await check_frees(plugged, tmp_path)


async def test_leaving_frees_a_request_under_our_proposer(
    proposing: Server, tmp_path: Path
) -> None:
    await check_frees(proposing, tmp_path)


# --- what changes while it runs ------------------------------------------------------------------


async def test_a_target_holds_on_the_running_server_as_soon_as_it_is_registered(
    plugged: Server, tmp_path: Path
) -> None:
    """Registered by another process's handle on the same register, as a second gateway would."""
    async with fleet(plugged, registered(tmp_path, {})) as pipeline:
        free = await collect(pipeline.run(asked()))
        with Register.open(tmp_path) as elsewhere:
            began = time.monotonic()
            kept = elsewhere.add(target("Paris"))
            while "Paris" in (await collect(pipeline.run(asked()))).text:
                assert time.monotonic() - began < ENFORCED_WITHIN_S
            took_s = time.monotonic() - began
            elsewhere.revoke("default", kept.target.id, reason="a test")
        again = await collect(pipeline.run(asked()))
    assert "Paris" in free.text
    assert again.text == free.text
    assert took_s < ENFORCED_WITHIN_S


async def test_a_target_that_comes_while_replies_are_written_holds_for_the_next(
    plugged: Server, tmp_path: Path
) -> None:
    register = registered(tmp_path, {"default": ("Neptune",)})
    story = asked("Tell me a long story about the sea.", max_tokens=60)
    async with fleet(plugged, register) as pipeline:
        writing = asyncio.create_task(collect(pipeline.run(story)))
        await asyncio.sleep(0.3)
        register.add(target("Paris"))
        done = await collect(pipeline.run(asked()))
        check_never_leaks(done, ["Paris", "Neptune"])
        assert (await writing).usage.completion_tokens > 20


async def test_masks_that_a_server_has_forgotten_are_taught_again(
    plugged: Server, tmp_path: Path
) -> None:
    async with fleet(plugged, registered(tmp_path, {"default": ("Paris",)})) as pipeline:
        first = await collect(pipeline.run(asked()))
        await asyncio.gather(*(asyncio.to_thread(teach, plugged, n) for n in range(65)))
        n_pushes = pipeline.stats()["pushes"]
        again, other = await asyncio.gather(*(collect(pipeline.run(asked())) for _ in range(2)))
        assert pipeline.stats()["pushes"] == n_pushes + 1
    assert again.text == other.text == first.text
    assert "Paris" not in first.text
    assert again.choices[0].finish == "stop"


def teach(server: Server, n: int) -> None:
    masks = Carried.of([target(f"something that nobody says, number {n}")])
    assert masks is not None
    order = ordered(Order(guard=masks.digest, learn=masks.body))
    answer = server.ask("/v1/completions", {"prompt": "Hello", "max_tokens": 1, **order})
    assert answer.status == 200


# --- where nothing is left -----------------------------------------------------------------------


def test_a_place_where_everything_is_forbidden_ends_the_choice_and_not_the_server(
    plugged: Server,
) -> None:
    every = tuple(range(49152))
    body = {"prompt": "1 2 3 4", "max_tokens": 8, "temperature": 0, "stop_token_ids": [STOP]}
    free = plugged.ask("/v1/completions", {**body, **ordered(Order())})
    order = Order(stop=STOP, bans={3: every})
    bound = plugged.ask("/v1/completions", {**body, **ordered(order)}).body["choices"][0]
    assert bound["finish_reason"] == "stop"
    assert bound["stop_reason"] == STOP
    assert free.texts[0].startswith(bound["text"])
    assert len(bound["text"]) < len(free.texts[0])
    assert plugged.ask("/v1/completions", {**body, **ordered(Order())}).texts == free.texts


def only(*answers: str) -> dict[str, Any]:
    return {"structured_outputs": {"choice": [*answers]}}


async def check_grammar(server: Server, home: Path) -> None:
    """What a grammar leaves is forbidden: the choice ends there, and nobody else is concerned.

    vLLM lets no token through that its grammar does not know, our stop token neither: it ends the
    request with an error.
    """
    async with fleet(server, registered(home, {"default": ("Paris",)})) as pipeline:
        impossible = asked(extra=only("Paris", "It is Paris"))
        try:
            done = await collect(pipeline.run(impossible))
        except UpstreamError as refused:
            check_speaks_of_nothing(refused, ["Paris"])
        else:
            check_never_leaks(done, ["Paris"])
            assert done.choices[0].finish == "content_filter"
        other = await collect(pipeline.run(asked(extra=only("London", "Rome"))))
        assert other.text in ("London", "Rome")
        after = await collect(pipeline.run(asked()))
    check_never_leaks(after, ["Paris"])
    assert after.choices[0].finish == "stop"


async def test_a_grammar_that_leaves_only_what_is_forbidden_is_a_dead_end(
    plugged: Server, tmp_path: Path
) -> None:
    await check_grammar(plugged, tmp_path)


async def test_a_grammar_is_a_dead_end_under_our_proposer_too(
    proposing: Server, tmp_path: Path
) -> None:
    await check_grammar(proposing, tmp_path)


# --- a server that is started anew ---------------------------------------------------------------


async def test_a_server_that_comes_back_without_the_plug_in_is_not_believed_again(
    plugged_then_bare: tuple[Server, Restart], tmp_path: Path
) -> None:
    server, restart = plugged_then_bare
    register = registered(tmp_path, {"a": ("Paris",)})
    async with fleet(server, register, proves=True) as pipeline:
        check_never_leaks(await collect(pipeline.run(asked(), tenant="a")), ["Paris"])
        await asyncio.to_thread(restart)
        with pytest.raises(GuardError, match="plug-in"):
            await collect(pipeline.run(asked(), tenant="a", profile="plain"))
        assert "Paris" in (await collect(pipeline.run(asked(), profile="plain"))).text


async def test_a_server_that_comes_back_with_the_plug_in_is_proved_and_taught_anew(
    bare_then_raw: tuple[Server, Restart], tmp_path: Path
) -> None:
    server, restart = bare_then_raw
    register = registered(tmp_path, {"a": ("Paris",)})
    async with fleet(server, register, proves=True, secret=SECRET) as pipeline:
        with pytest.raises(GuardError):
            await collect(pipeline.run(asked(), tenant="a"))
        await asyncio.to_thread(restart)
        done = await collect(pipeline.run(asked(), tenant="a"))
        check_never_leaks(done, ["Paris"])
        assert done.choices[0].finish == "stop"


async def test_what_the_engine_tells_of_its_replicas_names_no_content(
    plugged: Server, tmp_path: Path
) -> None:
    engine = engine_for(plugged)
    pipeline = Pipeline(
        engines={NAME: engine}, register=registered(tmp_path, {"default": ("Paris",)})
    )
    await collect(pipeline.run(asked()))
    [health] = await engine.health()
    gauges = engine.stats()
    await pipeline.aclose()
    assert gauges["replicas"] == gauges["healthy"] == gauges["proved"] == 1
    assert gauges["pushes"] >= 1
    assert "Paris" not in repr(health)
