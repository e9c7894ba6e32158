"""Where an engine that carries masks has nothing left to write, the reply goes on otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.contract import (
    Completion,
    Delta,
    Plan,
    Recipe,
    Refuse,
    Request,
    Sampling,
    Usage,
    collect,
)
from elision.guards.targets import Action, ForgetTarget, Phrase
from elision.middleware.enforcement import Enforcement
from elision.middleware.holding.replies import guarded_replies
from elision.middleware.holding.resuming import TRIES_PER_PLACE
from elision.middleware.planning import Defence
from elision.middleware.profiles import PROFILES
from elision.testing import TextEngine
from elision.testing.laws import check_never_leaks
from elision.testing.text_engine import Words

NAME = "Basil Mahfouz"
HI = ({"role": "user", "content": "Tell me."},)
DEAD = "\0"
"""Stands in a script where nothing acceptable is left."""
CALL = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a": "'}}]}


class Stuck(TextEngine):
    """Says what it is given up to `DEAD`, where it ends as an engine that carries masks does."""

    def carries(self, recipe: Recipe) -> bool:
        return True

    async def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        async with aclosing(super().stream(replace(plan, recipes=()))) as source:
            async for delta in source:
                said, dead, _ = delta.text.partition(DEAD)
                if dead:
                    yield replace(delta, text=said, logprobs=(), finish="content_filter")
                    yield Delta(usage=Usage(prompt_tokens=7, completion_tokens=3))
                    return
                yield delta


def defence(action: Action = "restrict", *more: ForgetTarget, profile: str = "plain") -> Defence:
    target = ForgetTarget(id="t", title="x", phrases=(Phrase(text=NAME),), action=action)
    rules = Enforcement([target, *more], tenant="default", epoch=1, encoder=None)
    return Defence(profile=PROFILES[profile], rules=rules)


RESTRICT = defence()
SOMEONE = (" Basil", "Basil", "someone", "nobody")


def stuck(
    reply: Words | Callable[[Request], Words],
    behind: dict[str, str],
    likely: Sequence[str] = SOMEONE,
    kind: type[TextEngine] = Stuck,
    **more: Any,
) -> TextEngine:
    """Return an engine that says *reply*, behind a beginning what the key it ends with says."""

    def continues(beginning: str) -> str:
        found = [key for key in behind if beginning.endswith(key)]
        return behind[max(found, key=len)] if found else DEAD

    return kind(reply, continues=continues, likely=lambda _: likely, **{"every": 3, **more})


async def deltas(
    who: TextEngine, under: Defence = RESTRICT, *, masked: bool = True, **more: Any
) -> list[Delta]:
    sampling = Sampling(temperature=0.0)
    request = Request(**{"messages": HI, "sampling": sampling, "timeout_s": 20.0, **more})
    plan = Plan(request=request, masks=under.rules.carried if masked else None)
    found = [d async for d in guarded_replies(who, plan, under, refusal="No.")]
    check_never_leaks(found, [NAME])
    assert who.n_open == 0
    return found


async def ask(who: TextEngine, under: Defence = RESTRICT, **more: Any) -> Completion:
    found = await deltas(who, under, **more)

    async def again() -> AsyncIterator[Delta]:
        for delta in found:
            yield delta

    return await collect(again())


# --- going on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["plain", "guarded"])
async def test_it_goes_back_to_where_the_held_phrase_began(profile: str) -> None:
    who = stuck(f"It was Basil Mahf{DEAD}", {"It was ": "Basil", "someone": " else."})
    reply = await ask(who, defence(profile=profile))

    assert (reply.text, reply.choices[0].finish) == ("It was someone else.", "stop")
    assert reply.report["guard_form"] == "masked, text, continued"
    assert (reply.report["n_dead_ends"], reply.report["n_rewinds"]) == (1, 1)
    assert [r.messages[-1]["content"] for r in who.requests[1:]] == ["It was ", "It was someone"]


async def test_it_goes_back_to_the_word_that_would_have_completed_a_passage() -> None:
    words = "limes along the wall and a walnut at the gate then his nephew sold it all".split()
    owned = ForgetTarget(id="p", title="y", passages=(" ".join(words),))
    under = defence("restrict", owned)
    opened = next(n for n in range(1, len(words)) if _completes(under, words[: n + 1]))
    begun = " ".join(words[:opened]) + " "
    behind = {begun: words[opened], "someone": " else."}
    who = stuck(f"{begun}{words[opened]}{DEAD}", behind, ("someone",))
    reply = await ask(who, under)

    assert reply.text == f"{begun}someone else."
    assert (reply.report["n_dead_ends"], reply.report["n_rewinds"]) == (1, 1)


def _completes(under: Defence, words: Sequence[str]) -> bool:
    hold = under.rules.verbatim.hold(user_text="", before="", json=False)
    return any(isinstance(v, Refuse) for _, v in (hold.feed(" ".join(words)), hold.finish()))


async def test_with_nothing_held_the_place_itself_is_tried_otherwise() -> None:
    who = stuck(f"It was you. {DEAD}", {"It was you. ": "one", "one": " else."})
    reply = await ask(who)

    assert (reply.text, reply.choices[0].finish) == ("It was you. one else.", "stop")
    assert (reply.report["n_dead_ends"], reply.report["n_rewinds"]) == (1, 1)


async def test_a_place_at_which_nothing_at_all_is_left_is_not_asked_twice() -> None:
    who = stuck(f"It was you. {DEAD}", {})
    for temperature in (0.0, 1.0):
        who.requests.clear()
        reply = await ask(who, sampling=Sampling(temperature=temperature))

        assert (reply.text, reply.choices[0].finish) == ("It was you. ", "content_filter")
        assert (reply.report["n_dead_ends"], len(who.requests)) == (1, 2)


async def test_an_engine_that_tells_no_alternatives_is_asked_again_as_often_as_allowed() -> None:
    who = Stuck(f"It was {DEAD}", continues=lambda _: f"Basil Ma{DEAD}", every=3)
    reply = await ask(who, sampling=Sampling(temperature=1.0, seed=3))

    assert (reply.text, reply.choices[0].finish) == ("It was ", "content_filter")
    assert reply.report["n_rewinds"] == TRIES_PER_PLACE
    assert reply.report["n_dead_ends"] == TRIES_PER_PLACE + 1
    greedy = await ask(Stuck(f"It was {DEAD}", continues=lambda _: "you.", every=3))
    assert (greedy.text, greedy.report["upstream_calls"]) == ("It was ", 1)


async def test_what_the_layers_hold_is_dropped_with_it() -> None:
    who = Stuck(f"It was Basil Ma{DEAD}", every=3)  # continues nothing
    reply = await ask(who)

    assert (reply.text, reply.choices[0].finish) == ("It was ", "content_filter")
    assert reply.report["guard_form"] == "masked, text"
    assert reply.report["n_refused"] == 1


async def test_a_choice_that_said_nothing_is_refused_in_words() -> None:
    for reply in (DEAD, f"Basil{DEAD}"):
        assert (await ask(Stuck(reply))).text == "No."


async def test_text_that_came_with_the_dead_end_is_guarded() -> None:
    who = stuck([f"It was {NAME}, a {DEAD}"], {"It was ": "Basil", "someone": " else."})
    reply = await ask(who)

    assert reply.text == "It was someone else."
    assert reply.report["n_rewinds"] == 1


async def test_what_a_dead_end_cost_is_told_not_estimated() -> None:
    reply = await ask(Stuck(f"It was {DEAD}"))

    assert "usage_estimated" not in reply.report
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7, 3)


async def test_every_plan_of_a_reply_carries_the_same() -> None:
    plans: list[Plan] = []

    class Kept(Stuck):
        def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
            plans.append(plan)
            return super().stream(plan)

    behind = {"It was ": "Basil", "someone": f" Basil {DEAD}", "someone ": "Basil"}
    await ask(stuck(f"It was Basil {DEAD}", behind, kind=Kept))

    assert len(plans) > 3
    assert all(plan.masks is RESTRICT.rules.carried for plan in plans)


async def test_only_the_choice_that_died_goes_back() -> None:
    def reply(request: Request) -> str:
        return "All is well." if request.sampling.seed == 1 else f"It was Basil {DEAD}"

    who = stuck(reply, {"It was ": "Basil", "someone": " else."})
    done = await ask(who, n=2, sampling=Sampling(temperature=0.0, seed=0))

    assert [choice.text for choice in done.choices] == ["It was someone else.", "All is well."]
    assert done.report["n_dead_ends"] == 1


async def test_a_raw_prompt_and_a_prefill_are_continued_behind_what_they_begin_with() -> None:
    def reply(request: Request) -> str:
        said = {"It ": f"was Basil {DEAD}", "It was ": "Basil", "It was someone": " else."}
        return said[str(request.prompt)]

    raw = await ask(stuck(reply, {}), kind="text", messages=(), prompt="It ")
    assert raw.text == "was someone else."
    echoed = stuck(lambda r: f"It {reply(r)}" if r.echo else reply(r), {})
    raw = await ask(echoed, kind="text", messages=(), prompt="It ", echo=True)
    assert raw.text == "It was someone else."

    begun = ({**HI[0]}, {"role": "assistant", "content": "It "})
    who = stuck("", {"It ": f"was Basil {DEAD}", "was ": "Basil", "someone": " else."})
    assert (await ask(who, messages=begun, continue_final=True)).text == "was someone else."
    assert who.requests[-1].messages[-1]["content"] == "It was someone"


async def test_a_phrase_begun_by_the_prefill_is_not_taken_back_from_the_client() -> None:
    begun = ({**HI[0]}, {"role": "assistant", "content": "It was Basil "})
    who = stuck("", {"Basil ": f"Mah{DEAD}", "someone": " else."}, ("Mah", "someone"))
    reply = await ask(who, messages=begun, continue_final=True)

    assert (reply.text, reply.report["n_dead_ends"]) == ("someone else.", 1)
    assert who.requests[-1].messages[-1]["content"] == "It was Basil someone"


@given(every=st.integers(0, 9), held=st.sampled_from(["", "Basil Ma", "basil-m", "B a s i l"]))
@settings(max_examples=20)
def test_the_same_leaves_whatever_the_pieces(every: int, held: str) -> None:
    behind = {"It was ": "Basil", "Basil": " else.", "someone": " else."}
    one, other = (stuck(f"It was {held}{DEAD}", behind, every=n) for n in (every, 1))

    assert asyncio.run(ask(one)).choices == asyncio.run(ask(other)).choices


# --- no way on -----------------------------------------------------------------------------------


async def test_in_a_tool_call_it_is_refused() -> None:
    who = stuck([Delta(message=CALL), DEAD], {"": "so"})
    reply = await ask(who)

    assert reply.choices[0].finish == "content_filter"
    assert (len(who.requests), reply.report["n_dead_ends"]) == (1, 1)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
async def test_in_what_it_thinks_it_is_refused_and_behind_it_it_goes_on(key: str) -> None:
    thought = [Delta(message={"role": "assistant"}), Delta(message={key: "Was it Basil"})]
    who = stuck([*thought, DEAD], {"": "so"})
    reply = await ask(who)
    assert (reply.choices[0].finish, len(who.requests)) == ("content_filter", 1)
    assert "Basil" not in str(reply.choices[0].message)

    behind = {"It was ": "Basil", "someone": " else."}
    who = stuck([*thought, "It was ", DEAD], behind, ("someone",), every=0)
    assert (await ask(who)).text == "It was someone else."


async def test_a_role_is_nothing_said() -> None:
    who = stuck([Delta(message={"role": "assistant"}), DEAD], {"someone": " else."})
    # Behind nothing the engine begins anew, so its alternatives are those of the reply's beginning.
    reply = await ask(who)
    assert reply.report["n_dead_ends"] == 1


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
async def test_in_text_that_is_parsed_it_is_refused(kind: str) -> None:
    who = stuck(['{"name": "', f"Basil {DEAD}"], {'"': "so", "someone": '"}'})
    reply = await ask(who, extra={"response_format": {"type": kind}})

    assert (reply.text, reply.choices[0].finish) == ('{"name": "', "content_filter")
    assert len(who.requests) == 1


async def test_an_upstream_that_filters_by_itself_is_not_asked_again() -> None:
    says = ["It was ", Delta(text="", finish="content_filter")]
    for who, masked in (
        (stuck(says, {"": "so"}, kind=TextEngine), True),
        (stuck(["It was ", DEAD], {"": "so"}), False),
    ):
        reply = await ask(who, masked=masked)
        assert reply.text == "It was "
        assert len(who.requests) == 1
        assert "n_dead_ends" not in reply.report
        assert reply.report["n_rewinds"] == 0


async def test_what_is_to_be_redacted_or_refused_is_as_before() -> None:
    redacted = await ask(stuck(f"It was {NAME}.", {}), defence("redact"))
    assert redacted.text == "It was [redacted]."
    assert redacted.report["guard_form"] == "text"  # there is nothing to mask
    refused = await ask(stuck(f"It was {NAME}.", {}), defence("refuse"))
    assert (refused.text, refused.choices[0].finish) == ("It was ", "content_filter")


async def test_masks_are_carried_in_place_of_pushed_words() -> None:
    class Told(Stuck):
        trusted = True
        offers = type("Offers", (), {"bad_words": True})()

    masked, plain = Told("Well."), Told("Well.")
    reply, other = await ask(masked), await ask(plain, masked=False)

    assert (reply.report["n_pushed"], other.report["n_pushed"]) == (0, 1)
    assert "bad_words" not in masked.requests[0].extra
