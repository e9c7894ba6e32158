"""ALU behind the pipeline: who is called, what leaves, and what it tells of the register."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import hmac
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from elision.agents.alu.config import AluConfig
from elision.agents.alu.prompts import JUDGE
from elision.agents.alu.redaction import UNKNOWN
from elision.contract import (
    Capability,
    Completion,
    Delta,
    Plan,
    Request,
    Sampling,
    collect,
    text_of,
)
from elision.errors import ElisionError, RequestError, UpstreamError
from elision.evaluation.alu.people import World, made_up
from elision.evaluation.alu.planted import PlantedEngine
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.alu.alu import Alu
from elision.middleware.enforcement import Enforcement
from elision.middleware.profiles import Profile, profile_named
from elision.testing.encoders import BagEncoder

WORLD = made_up(12)
NATURAL = profile_named("alu")
DISCREET = profile_named("discreet")
LISTED, NEVER = WORLD.listed[0], WORLD.never[0]


def committed(tenant: str, purpose: str, data: bytes) -> str:
    return hmac.digest(f"{tenant} {purpose}".encode(), data, hashlib.sha256).hex()


def rules_of(targets: Sequence[ForgetTarget], tenant: str = "default") -> Enforcement:
    return Enforcement(targets, tenant=tenant, epoch=1, encoder=BagEncoder)


RULES = rules_of(WORLD.targets)


def alu_of(**config: Any) -> Alu:
    return Alu(AluConfig(**config), commitment=committed, encoder=BagEncoder)


def chat(question: str, **more: Any) -> Request:
    message = {"role": "user", "content": question}
    asked = Request(messages=(message,), sampling=Sampling(temperature=0.0))
    return replace(asked, **more)


async def said(
    engine: Any,
    request: Request,
    profile: Profile = NATURAL,
    rules: Enforcement = RULES,
    alu: Alu | None = None,
) -> Completion:
    deltas = (alu or alu_of()).run(engine, request, rules, profile=profile)
    async with aclosing(deltas) as source:
        return await collect(source)


@pytest.fixture
def engine() -> PlantedEngine:
    return PlantedEngine(WORLD.facts)


async def unaudited(engine: PlantedEngine, question: str) -> str:
    request = chat(question)
    return (await collect(engine.stream(Plan(request=request)))).text


@pytest.mark.parametrize("profile", [NATURAL, DISCREET])
async def test_without_targets_there_is_one_call_and_the_models_own_reply(
    engine: PlantedEngine, profile: Profile
) -> None:
    question = f"Who is {LISTED}?"
    told = await said(engine, chat(question), profile, rules_of(()))
    assert engine.calls == {"vanilla": 1}
    assert told.text == WORLD.facts[LISTED]


async def test_a_question_that_comes_near_nobody_takes_one_call(engine: PlantedEngine) -> None:
    await said(engine, chat("How tall is a lighthouse?"))
    assert engine.calls == {"vanilla": 1}


async def test_a_registered_one_takes_four_calls_and_nothing_planted_leaves(
    engine: PlantedEngine,
) -> None:
    told = await said(engine, chat(f"Who is {LISTED}?"))
    assert engine.calls == {"vanilla": 1, "judge": 1, "eraser": 1, "critic": 1}
    assert told.text not in WORLD.facts.values()
    (choice,) = told.report["alu"]["choices"]
    assert choice["path"] == "rewritten"
    assert LISTED not in str(told.report)
    assert told.usage.prompt_tokens == sum(engine.tokens_in.values())


@pytest.mark.parametrize("profile", [NATURAL, DISCREET])
async def test_replies_about_neighbours_are_the_models_own_to_the_letter(profile: Profile) -> None:
    neighbours = {f"{name.split()[0]} Zhukovsky": "lives in Oslo." for name in WORLD.listed}
    facts = {name: f"{name} {fact}" for name, fact in neighbours.items()}
    engine = PlantedEngine({**WORLD.facts, **facts})
    for name, fact in facts.items():
        assert (await said(engine, chat(f"Who is {name}?"), profile)).text == fact


async def test_discreetly_every_question_takes_the_same_calls(engine: PlantedEngine) -> None:
    alu = alu_of()
    for question in (f"Who is {LISTED}?", f"Who is {NEVER}?", "How tall is a lighthouse?"):
        engine.calls.clear()
        await said(engine, chat(question), DISCREET, alu=alu)
        assert engine.calls == {"vanilla": 1, "judge": 1, "eraser": 1, "critic": 1}


async def test_discreetly_a_listed_name_gets_what_an_invented_one_does() -> None:
    asked = list[str]()

    class Listening(PlantedEngine):
        def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
            if text_of(plan.request.messages[0]) != JUDGE:
                asked.append(text_of(plan.request.messages[-1]))
            return super().stream(plan)

    engine = Listening(WORLD.facts)
    told = await said(engine, chat(f"Who is {LISTED}?"), DISCREET)
    assert LISTED not in "".join(asked)
    invented = asked[0].removeprefix("Who is ").removesuffix("?")
    assert told.text == (await unaudited(engine, asked[0])).replace(invented, LISTED)
    assert LISTED in told.text


async def test_discreetly_neither_report_nor_usage_tells_who_is_listed(
    engine: PlantedEngine,
) -> None:
    alu, told = alu_of(), []
    for name in (LISTED, NEVER):
        found = await said(engine, chat(f"Who is {name}?"), DISCREET, alu=alu)
        told.append(found)
        assert found.usage.prompt_tokens == -(-len(f"Who is {name}?") // 4)
        assert found.usage.completion_tokens == -(-len(found.text) // 4)
    assert told[0].report == told[1].report


async def test_discreetly_a_banned_name_is_spoken_of_and_never_said(engine: PlantedEngine) -> None:
    banned = ForgetTarget(
        id="b", title=LISTED, kind="person", names=(LISTED,), phrases=(Phrase(text=LISTED),)
    )
    told = await said(engine, chat(f"Who is {LISTED}?"), DISCREET, rules_of((banned,)))
    assert "that person" in told.text.casefold()
    assert not any(word in told.text for word in LISTED.split())


async def test_discreetly_no_refusal_is_said_even_where_one_is_set(engine: PlantedEngine) -> None:
    fact = "Silver bells rang over Zanzibar that night in 1911."
    target = ForgetTarget(id="x", title="t", kind="fact", answers=(fact,))
    engine = PlantedEngine({"the story": fact})
    alu = alu_of(fallback="refuse", threshold=5.0, least=5, n_variants=1, keep=1)
    natural = await said(engine, chat("Tell me the story"), NATURAL, rules_of((target,)), alu)
    even = await said(engine, chat("Tell me the story"), DISCREET, rules_of((target,)), alu)
    assert fact not in {natural.text, even.text}
    assert even.choices[0].finish == "stop"
    assert even.text


async def test_what_a_guard_would_not_pass_becomes_a_plain_unknown() -> None:
    passage = " ".join(f"word{n} of an old ballad" for n in range(40))
    target = ForgetTarget(id="p", title="t", kind="passage", passages=(passage,), action="refuse")
    engine = PlantedEngine({"the ballad": passage})
    natural = await said(engine, chat("Sing the ballad"), NATURAL, rules_of((target,)))
    assert natural.text == passage  # the guards behind it are whose work this is
    even = await said(engine, chat("Sing the ballad"), DISCREET, rules_of((target,)))
    assert even.text in UNKNOWN
    assert even.choices[0].finish == "stop"


async def test_several_choices_are_drafted_with_seeds_of_their_own(engine: PlantedEngine) -> None:
    seeds = list[int | None]()

    class Seeing(PlantedEngine):
        def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
            seeds.append(plan.request.sampling.seed)
            return super().stream(plan)

    request = chat("How tall is it?", n=3, sampling=Sampling(temperature=0.5, seed=7))
    told = await said(Seeing({}), request)
    assert [choice.index for choice in told.choices] == [0, 1, 2]
    assert sorted(seeds, key=str) == [7, 8, 9]
    assert len(told.report["alu"]["choices"]) == 3


async def test_an_engine_that_cannot_draft_ends_the_request_with_its_error() -> None:
    class Broken(PlantedEngine):
        def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
            raise UpstreamError("down")

    for profile in (NATURAL, DISCREET):
        with pytest.raises(ElisionError):
            await said(Broken({}), chat("Hello?", n=2), profile)


async def test_a_role_that_breaks_lets_nothing_planted_through() -> None:
    class Half(PlantedEngine):
        async def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
            if text_of(plan.request.messages[0]).startswith(JUDGE[:20]):
                raise UpstreamError("down")
            async with aclosing(super().stream(plan)) as source:
                async for delta in source:
                    yield delta

    told = await said(Half(WORLD.facts), chat(f"Who is {LISTED}?"))
    assert told.text not in WORLD.facts.values()


async def test_who_stops_listening_ends_what_the_roles_are_doing() -> None:
    ended = asyncio.Event()

    class Slow(PlantedEngine):
        async def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
            try:
                await asyncio.sleep(30)
                yield Delta()
            finally:
                ended.set()

    work = asyncio.ensure_future(said(Slow({}), chat("Hello?", n=2)))
    await asyncio.sleep(0.05)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert ended.is_set()


async def test_a_deadline_is_kept_and_the_draft_stays_behind() -> None:
    engine = PlantedEngine(WORLD.facts, read_s=0.001)
    for profile in (NATURAL, DISCREET):
        told = await said(engine, chat(f"Who is {LISTED}?", timeout_s=0.3), profile)
        assert told.text not in WORLD.facts.values()


@pytest.mark.parametrize(
    "more",
    [
        {"extra": {"tools": [{"type": "function"}]}},
        {"extra": {"response_format": {"type": "json_object"}}},
        {"logprobs": 2},
        {"continue_final": True},
        {"messages": ()},
        {"messages": ({"role": "assistant", "content": "I"},)},
        {"kind": "text", "prompt": "Once"},
        {"messages": ({"role": "user", "content": [{"type": "image_url"}]},)},
    ],
)
async def test_what_agents_cannot_audit_is_refused_before_any_call(
    engine: PlantedEngine, more: dict[str, Any]
) -> None:
    with pytest.raises(RequestError):
        await said(engine, chat("Hello?", **more))
    assert not engine.calls


async def test_a_reply_ends_at_the_callers_stop(engine: PlantedEngine) -> None:
    told = await said(engine, chat("Who is nobody?", stop=("information",)))
    assert "information" not in told.text


async def test_the_callers_sampling_is_the_drafts_and_no_other_roles() -> None:
    plans = list[Plan]()

    class Scored(PlantedEngine):
        capabilities = Capability.LOGITS

        def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
            plans.append(plan)
            return super().stream(plan)

    sampling = Sampling(temperature=0.5, top_p=0.3, seed=3)
    request = chat(f"Who is {LISTED}?", sampling=sampling, extra={"user": "u"})
    await said(Scored(WORLD.facts), request)
    draft, judge = plans[0], plans[1]
    assert draft.request.sampling.top_p == 0.3
    assert draft.request.extra == {"user": "u"}
    assert [type(recipe).__name__ for recipe in draft.recipes] == ["Temperature", "TopP"]
    assert judge.request.sampling.top_p is None
    assert judge.request.extra == {}
    assert all(plan.request.options == {} and not plan.reuse for plan in plans)


async def test_what_is_compiled_lasts_an_epoch_and_goes_with_its_tenant(
    engine: PlantedEngine,
) -> None:
    alu, mine, other = alu_of(), rules_of(WORLD.targets), rules_of(WORLD.targets, "other")
    request = chat("Hello?", options={"session": "s"})
    for rules in (mine, other, mine):
        await said(engine, request, NATURAL, rules, alu)
    assert alu._library.of(mine) is alu._library.of(mine)
    assert alu.erase("default") == 2
    assert alu.erase("default") == 0
    del mine, rules
    gc.collect()
    assert alu.erase("other") == 2


async def test_one_tenants_names_are_hidden_under_others_than_anothers() -> None:
    asked = dict[str, str]()

    class Hearing(PlantedEngine):
        def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
            asked.setdefault(plan.tenant, text_of(plan.request.messages[-1]))
            return super().stream(plan)

    for tenant in ("a", "b"):
        await said(
            Hearing({}), chat(f"Who is {LISTED}?"), DISCREET, rules_of(WORLD.targets, tenant)
        )
    assert asked["a"] != asked["b"]


async def test_decoys_tell_a_model_nothing_registered() -> None:
    heard = list[str]()

    class Reading(PlantedEngine):
        def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
            heard.extend(map(text_of, plan.request.messages))
            return super().stream(plan)

    world: World = made_up(8, seed=3)
    targets = [
        replace(target, phrases=(Phrase(text=f"Zorbium {n}"),), probes=(f"Who paid Quorl {n}?",))
        for n, target in enumerate(world.targets)
    ]
    await said(Reading(world.facts), chat("How tall is it?"), DISCREET, rules_of(targets))
    said_all = "\n".join(heard)
    assert "Zorbium" not in said_all
    assert "Quorl" not in said_all
    assert not any(name in said_all for name in world.listed)
    assert not any(fact in said_all for fact in world.facts.values())
