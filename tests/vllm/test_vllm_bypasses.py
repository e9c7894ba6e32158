"""Ways past the guard of a real vLLM: each is refused or guarded, and nothing leaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import pytest

from elision.contract import Sampling, collect
from elision.errors import ElisionError, GuardError
from elision.evaluation.serving import attempts
from elision.evaluation.serving.attempts import SECRET, direct, straight, through
from elision.guards.carried import Carried
from elision.middleware.engines.plugin.orders import Order
from elision.testing.laws import check_never_leaks, check_speaks_of_nothing

from .fleets import asked, fleet, registered, target
from .servers import KEY, Server, ordered
from .servers import SECRET as SEALING

pytestmark = [pytest.mark.vllm, pytest.mark.model]

STOP = 1
"""``<|im_start|>``: begins every rendered chat, and writes no text."""
QUESTION = asked(attempts.QUESTION)


def learnt(server: Server) -> Order:
    """Have *server* learn masks for what must not be said; return an order under them."""
    masks = Carried.of([target(SECRET)])
    assert masks is not None
    teaching = ordered(Order(guard=masks.digest, learn=masks.body))
    answer = server.ask("/v1/completions", {"prompt": "Hello", "max_tokens": 1, **teaching})
    assert answer.status == 200, answer.told
    return Order(guard=masks.digest, stop=STOP)


async def outcomes(found: AsyncIterator[tuple[str, Any]]) -> dict[str, Any]:
    return {name: outcome async for name, outcome in found}


async def tried(server: Server, order: Order, names: Collection[str] = ()) -> dict[str, Any]:
    """Return what came of attempts at *server* itself: of those called *names*, or of all."""
    how = {"key": KEY, "model": server.model, "secret": SEALING}
    chosen = [one for one in direct() if not names or one.name in names]
    return await outcomes(straight(server.root, order=order, attempts=chosen, **how))


def is_alive(server: Server) -> bool:
    answer = server.ask("/v1/completions", {"prompt": "1 2 3", "max_tokens": 2, **ordered(Order())})
    return answer.status == 200 and server.n_running() == 0


# --- at the server itself ------------------------------------------------------------------------

REFUSED = {
    "prompt_logprobs", "completions, prompt_logprobs", "completions, echo", "chosen ids",
    "beam search", "a guard taken out", "no seal", "another seal", "no stop",
}  # fmt: skip
"""What there is no guarded answer to."""


async def test_an_order_holds_whatever_else_the_body_says(plugged: Server) -> None:
    found = await tried(plugged, learnt(plugged))
    assert "leaked" not in found.values(), found
    must = {name for name in found if name.startswith("no order")} | REFUSED
    assert {name: found[name] for name in must} == dict.fromkeys(must, "refused")
    assert found["as it is"] == found["n > 1"] == found["alternatives"] == "guarded"
    assert is_alive(plugged)


async def test_an_order_holds_under_our_proposer(proposing: Server) -> None:
    found = await tried(proposing, learnt(proposing))
    assert "leaked" not in found.values(), found
    must = {name for name in found if name.startswith("no order")} | REFUSED
    assert {name: found[name] for name in must} == dict.fromkeys(must, "refused")
    assert found["as it is"] == found["n > 1"] == "guarded"
    assert is_alive(proposing)


LEAKING = {
    "as it is", "alternatives", "prompt_logprobs", "a choice", "a JSON schema",
    "completions, as it is", "no order, /v1/chat/completions", "no order, /v1/completions",
    "no order, /invocations",
}  # fmt: skip


async def test_the_same_attempts_leak_where_nothing_guards(vllm: Server) -> None:
    found = await tried(vllm, Order(guard="0" * 32, stop=STOP), LEAKING)
    assert {name: found[name] for name in LEAKING} == dict.fromkeys(LEAKING, "leaked")
    assert found["no seal"] == found["another seal"] == "leaked"


def words(server: Server, answer: Any) -> str:
    """Return the text of what ``/inference/v1/generate`` answered: it tells ids."""
    ids = [token for one in answer.body["choices"] for token in one["token_ids"]]
    return str(server.ask("/detokenize", {"tokens": ids}).body["prompt"])


def test_the_route_from_ids_to_ids_is_guarded(plugged: Server, vllm_ids: list[int]) -> None:
    order = learnt(plugged)
    params = {"max_tokens": 8, "temperature": 0, "stop_token_ids": [STOP]}
    free, bound = (
        plugged.ask(
            "/inference/v1/generate",
            {
                "token_ids": vllm_ids,
                "sampling_params": {**params, "extra_args": ordered(one)["vllm_xargs"]},
            },
        )
        for one in (Order(), order)
    )
    assert SECRET in words(plugged, free)
    assert SECRET not in words(plugged, bound)


@pytest.fixture
def vllm_ids(plugged: Server) -> list[int]:
    told = plugged.ask("/tokenize", {"prompt": "The capital of France is"}).body["tokens"]
    return [*map(int, told)]


def test_alternatives_hold_nothing_that_completes_a_phrase(plugged: Server) -> None:
    body = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0, "logprobs": 20}
    answers = [
        plugged.ask("/v1/completions", {**body, **ordered(order), "stop_token_ids": [STOP]})
        for order in (Order(), learnt(plugged))
    ]
    places = [one.body["choices"][0]["logprobs"]["top_logprobs"] for one in answers]
    named = [[token.strip() for place in told for token in place] for told in places]
    assert SECRET in named[0]
    assert SECRET not in named[1]


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "null", '{"format":2}', '{"format":1,"what":1}', '{"format":1,"guard":7}',
     '{"format":1,"recipes":[["x",{}]]}', '{"format":1,"bans":{"a":[1]}}', "x" * 100],
)  # fmt: skip
def test_an_order_that_cannot_be_read_is_refused_and_not_repeated(
    text: str, plugged: Server
) -> None:
    from elision.middleware.engines.plugin.orders import KEY as ORDER
    from elision.middleware.engines.plugin.orders import SEAL, sealed

    body = {"prompt": "Hello", "max_tokens": 2}
    xargs = {ORDER: text, SEAL: sealed(text, SEALING)}
    answer = plugged.ask("/v1/completions", {**body, "vllm_xargs": xargs})
    assert answer.status == 400
    assert text not in json.loads(answer.told)["error"]["message"] or len(text) < 3


def test_what_it_logs_tells_nothing_of_orders(plugged: Server) -> None:
    marker = "Xylophagous"
    masks = Carried.of([target(marker)])
    assert masks is not None
    order = Order(guard=masks.digest, learn=masks.body, user_text=marker, before=marker)
    body = {"prompt": "Hello", "max_tokens": 2}
    assert plugged.ask("/v1/completions", {**body, **ordered(order)}).status == 200
    wrong = plugged.ask("/v1/completions", {**body, **ordered(order, secret="x")})
    assert wrong.status == 400
    log = plugged.log.read_text(errors="replace")
    check_speaks_of_nothing([wrong.told, log], [marker, masks.digest, masks.body])


# --- through the pipeline ------------------------------------------------------------------------


async def check_nothing_gets_past(server: Server, home: Path) -> None:
    async with fleet(server, registered(home, {"default": (SECRET,)})) as pipeline:
        tries = [outcomes(through(pipeline, profile=profile)) for profile in ("guarded", "focused")]
        every = await asyncio.gather(*tries)
    for found in every:
        assert "leaked" not in found.values(), found
        assert found["as it is"] == found["n > 1"] == found["completions"] == "guarded"
    assert is_alive(server)


async def test_nothing_a_caller_writes_gets_past_the_pipeline(
    plugged: Server, tmp_path: Path
) -> None:
    await check_nothing_gets_past(plugged, tmp_path)


async def test_nothing_a_caller_writes_gets_past_it_under_our_proposer(
    proposing: Server, tmp_path: Path
) -> None:
    await check_nothing_gets_past(proposing, tmp_path)


async def test_without_the_plug_in_guarded_traffic_is_refused(vllm: Server, tmp_path: Path) -> None:
    register = registered(tmp_path, {"a": (SECRET,)})
    async with fleet(vllm, register, secret=None) as pipeline:
        with pytest.raises(GuardError, match="plug-in") as caught:
            await collect(pipeline.run(QUESTION, tenant="a"))
        check_speaks_of_nothing(caught.value, [SECRET])
        free = await collect(pipeline.run(QUESTION, tenant="b", profile="plain"))
    assert SECRET in free.text


async def test_beside_speculation_guarded_traffic_is_refused(
    speculating: Server, tmp_path: Path
) -> None:
    async with fleet(speculating, registered(tmp_path, {"a": (SECRET,)})) as pipeline:
        for profile in ("plain", "guarded", "focused"):
            with pytest.raises(GuardError, match=r"(?i)speculat") as caught:
                await collect(pipeline.run(QUESTION, tenant="a", profile=profile))
            check_speaks_of_nothing(caught.value, [SECRET])


def test_beside_speculation_the_server_takes_an_order_and_does_not_carry_it_out(
    speculating: Server,
) -> None:
    """Why a proof is asked for: nothing that the server says tells that its guard is gone."""
    body = {"messages": [*QUESTION.messages], "max_tokens": 24, "temperature": 0}
    order = ordered(learnt(speculating))
    body["stop_token_ids"] = [STOP]
    answer = speculating.ask("/v1/chat/completions", {**body, **order})
    assert answer.status == 200
    assert SECRET in answer.texts[0]


async def test_raw_log_probabilities_are_not_told_of_guarded_replies(
    raw: Server, tmp_path: Path
) -> None:
    async with fleet(raw, registered(tmp_path, {"a": (SECRET,)})) as pipeline:
        with pytest.raises(ElisionError, match="processed_logprobs"):
            await collect(pipeline.run(asked(attempts.QUESTION, logprobs=5), tenant="a"))
        silent = await collect(pipeline.run(QUESTION, tenant="a"))
        check_never_leaks(silent, [SECRET])
        assert silent.choices[0].finish != "content_filter"
        free = await collect(
            pipeline.run(asked(attempts.QUESTION, logprobs=5), tenant="b", profile="plain")
        )
    assert SECRET in free.text
    assert len(free.choices[0].logprobs[0].top) == 5


async def test_another_version_is_not_believed(
    plugged: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elision.middleware.engines.fleet import proving

    monkeypatch.setattr(proving, "TESTED_VERSIONS", ("9.9",))
    async with fleet(plugged, registered(tmp_path / "1", {"a": (SECRET,)})) as pipeline:
        with pytest.raises(GuardError, match=r"0\.32"):
            await collect(pipeline.run(QUESTION, tenant="a"))
    register = registered(tmp_path / "2", {"a": (SECRET,)})
    async with fleet(plugged, register, untested=True) as pipeline:
        check_never_leaks(await collect(pipeline.run(QUESTION, tenant="a")), [SECRET])


async def test_a_wrong_secret_is_told_of_and_nothing_guarded_passes(
    plugged: Server, tmp_path: Path
) -> None:
    register = registered(tmp_path, {"a": (SECRET,)})
    async with fleet(plugged, register, secret="another") as pipeline:
        with pytest.raises(GuardError, match="vllm_secret"):
            await collect(pipeline.run(QUESTION, tenant="a"))
        with pytest.raises(ElisionError):
            await collect(pipeline.run(QUESTION, tenant="b", profile="plain"))


async def test_high_temperatures_and_many_choices_leak_nothing(
    plugged: Server, tmp_path: Path
) -> None:
    hot = asked(attempts.QUESTION, n=8, sampling=Sampling(temperature=1.3, seed=3), logprobs=5)
    async with fleet(plugged, registered(tmp_path, {"default": (SECRET, "France")})) as pipeline:
        done = await collect(pipeline.run(hot, profile="plain"))
    assert len(done.choices) == 8
    check_never_leaks(done, [SECRET, "France"])
