"""Orders as they are written: what stands in them, beside them, and must not."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Plan, Request, Sampling
from elision.errors import RequestError
from elision.guards.carried import Carried
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.fleet.known import Proof
from elision.middleware.engines.fleet.ordering import (
    Need,
    check_fields,
    check_xargs,
    order_of,
    ordered,
    salt_of,
    wire,
)
from elision.middleware.engines.fleet.sharing import Shared
from elision.middleware.engines.plugin.admission import REQUIRE, SECRET, admit
from elision.middleware.engines.plugin.orders import Order, is_sealed
from elision.middleware.interventions.entropy import EntropyMinimisation
from elision.middleware.interventions.mti import MinimalIntervention

KEY = b"k" * 32
MASKS = Carried.of([ForgetTarget(title="t", phrases=(Phrase(text="Paris"),))])
CHAT = Request(messages=({"role": "user", "content": "Which capital?"},))
TEXT = Request(kind="text", prompt="The capital")
PROOF = Proof(at=0.0, acts=True, is_raw_logprobs=False, stop=7, n_drafts=4, drafts=True)


class Params:
    """What of a body vLLM makes of it."""

    def __init__(self, request: Request) -> None:
        self.extra_args = request.extra.get("vllm_xargs")
        self.stop_token_ids = request.extra.get("stop_token_ids")
        self.logprobs = request.logprobs


@given(
    text=st.booleans(),
    prefill=st.booleans(),
    stops=st.lists(st.integers(8, 99), max_size=3),
    secret=st.none() | st.text(min_size=1, max_size=9),
    masked=st.booleans(),
    takes_bias=st.booleans(),
)
def test_every_order_that_is_written_is_admitted_and_read_as_it_was_meant(
    text: bool, prefill: bool, stops: list[int], secret: str | None, masked: bool, takes_bias: bool
) -> None:
    said = {"role": "assistant", "content": "It is"}
    request = TEXT if text else CHAT
    if prefill and not text:
        request = replace(CHAT, messages=(*CHAT.messages, said), continue_final=True)
    request = replace(request, extra={"stop_token_ids": stops, "vllm_xargs": {"mine": 1}})
    recipes = (EntropyMinimisation(),)
    plan = Plan(request=request, recipes=recipes, masks=MASKS if masked else None)
    order = order_of(plan, recipes, PROOF, KEY)
    sent = ordered(request, order, secret=secret, takes_bias=takes_bias)
    admit(Params(sent), {REQUIRE: "1"} | ({SECRET: secret} if secret else {}))
    xargs = sent.extra["vllm_xargs"]
    read = Order.loads(xargs["elision"])
    assert replace(read, until=None) == order
    assert read.until is not None
    assert read.guard == (MASKS.digest if masked and MASKS else "")
    assert read.before == (None if text else "It is" if prefill else "")
    assert read.user_text == ""  # nothing of these masks looks at it
    assert sent.extra["stop_token_ids"] == [*stops, 7]
    assert xargs["mine"] == 1
    assert sent.sampling.logit_bias == ({7: 100.0} if takes_bias else {})
    assert secret is None or is_sealed(xargs["elision"], xargs["elision_seal"], secret)
    assert request.extra["stop_token_ids"] == stops  # what came in is not written into


def test_drafts_are_asked_for_where_there_are_some_and_a_pool_keeps_tenants_apart() -> None:
    plan = Plan(request=CHAT, speculation="auto")
    drafted = order_of(plan, (), PROOF, KEY)
    assert drafted.drafts == "recycle"
    assert drafted.pool != order_of(replace(plan, tenant="b"), (), PROOF, KEY).pool
    assert drafted.pool != order_of(replace(plan, profile="b"), (), PROOF, KEY).pool
    assert order_of(replace(plan, speculation="off"), (), PROOF, KEY).drafts == "none"
    assert order_of(plan, (), replace(PROOF, n_drafts=0), KEY) == Order(stop=7)


def test_a_request_needs_what_its_plan_holds() -> None:
    assert Need.of(Plan(request=CHAT)) == Need(False, False, False, False)
    told = replace(CHAT, logprobs=0)
    assert Need.of(Plan(request=told, masks=MASKS)) == Need(True, True, True, False)
    sly = replace(CHAT, extra={"logprobs": True})
    assert Need.of(Plan(request=sly, masks=MASKS)).logprobs
    assert not Need.of(Plan(request=told, recipes=(EntropyMinimisation(),))).logprobs
    assert Need.of(Plan(request=CHAT, recipes=(MinimalIntervention(),))).branch
    for neutral in (MinimalIntervention(scale=1), MinimalIntervention(tau=math.inf)):
        assert not Need.of(Plan(request=CHAT, recipes=(neutral,))).branch


def test_a_server_that_was_never_proved_lacks_everything_that_must_act() -> None:
    unproved = Proof(at=0.0, why="nobody knows")
    for need in (Need(True, True, False, False), Need(True, False, False, True)):
        assert need.lacking(unproved, engine="m") is not None
        assert need.lacking(PROOF, engine="m") is None
    assert Need(False, False, False, False).lacking(unproved, engine="m") is None


@given(st.text(max_size=5), st.text(max_size=5), st.none() | st.text(max_size=5))
def test_salts_of_two_tenants_never_meet(one: str, other: str, own: str | None) -> None:
    assert salt_of(one, own, KEY) == salt_of(one, own, KEY)
    assert (salt_of(one, own, KEY) == salt_of(other, own, KEY)) == (one == other)
    assert salt_of(one, own, KEY) != salt_of(one, own, b"j" * 32)
    assert 1 <= len(salt_of(one, own, KEY)) <= 1024


def test_harmless_fields_pass() -> None:
    extra: dict[str, object] = {
        "use_beam_search": False,
        "prompt_logprobs": None,
        "logits_processors": [],
        "top_k": 3,
    }
    check_fields(replace(CHAT, extra={**extra, "stop_token_ids": [1]}), stop=7)
    check_xargs({"vllm_xargs": {"theirs": "elision"}})
    check_xargs({"vllm_xargs": None})
    check_fields(replace(TEXT, echo=True))
    with pytest.raises(RequestError, match="stop_token_ids"):
        check_fields(replace(CHAT, extra={"stop_token_ids": [7]}), stop=7)


def test_an_order_without_a_secret_has_no_seal() -> None:
    assert [*wire(Order(), None)] == ["elision"]
    assert [*wire(Order(), "s")] == ["elision", "elision_seal"]


async def test_work_is_done_once_for_all_who_wait_and_goes_on_when_one_leaves() -> None:
    shared, begun, gate = Shared(), [0], asyncio.Event()

    async def work() -> int:
        begun[0] += 1
        await gate.wait()
        return begun[0]

    waiting = [asyncio.ensure_future(shared.do("a", work)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    gate.set()
    assert await waiting[1] == await waiting[2] == 1
    assert await shared.do("a", work) == 2
    assert await shared.do("b", work) == 3


async def test_what_fails_fails_for_all_who_wait_and_is_tried_again_by_the_next() -> None:
    shared, n = Shared(), [0]

    async def work() -> None:
        n[0] += 1
        await asyncio.sleep(0)
        raise RequestError("no")

    found = await asyncio.gather(*(shared.do("a", work) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in found] == [RequestError] * 3
    assert n == [1]
    with pytest.raises(RequestError):
        await shared.do("a", work)
    assert n == [2]


async def test_what_is_under_way_is_called_off_at_the_end() -> None:
    shared = Shared()
    waiting = asyncio.ensure_future(shared.do("a", lambda: asyncio.sleep(9)))
    await asyncio.sleep(0)
    await shared.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_the_callers_sampling_stays() -> None:
    request = replace(CHAT, sampling=Sampling(temperature=0, logit_bias={3: -1.0}))
    sent = ordered(request, Order(stop=7), secret=None, takes_bias=True)
    assert sent.sampling == Sampling(temperature=0, logit_bias={3: -1.0, 7: 100.0})
    assert ordered(request, Order(), secret=None, takes_bias=True).sampling == request.sampling
