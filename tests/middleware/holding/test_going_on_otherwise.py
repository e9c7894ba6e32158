"""Where a phrase must not stand, the reply goes back to where it began and on otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.contract import Capability, Completion, Plan, Request, Sampling, collect
from elision.errors import BusyError, UpstreamTimeoutError
from elision.guards.targets import Action, ForgetTarget, Phrase
from elision.middleware.enforcement import Enforcement
from elision.middleware.holding.replies import guarded_replies
from elision.middleware.holding.resuming import TRIES_PER_PLACE, TRIES_PER_REPLY
from elision.middleware.planning import Defence
from elision.middleware.profiles import PROFILES
from elision.testing import TextEngine
from elision.testing.laws import check_never_leaks

NAME = "Basil Mahfouz"
HI = ({"role": "user", "content": "Tell me."},)
GREEDY = Sampling(temperature=0.0)


def defence(action: Action = "restrict", *more: ForgetTarget, profile: str = "plain") -> Defence:
    target = ForgetTarget(id="t", title="x", phrases=(Phrase(text=NAME),), action=action)
    rules = Enforcement([target, *more], tenant="default", epoch=1, encoder=None)
    return Defence(profile=PROFILES[profile], rules=rules)


RESTRICT = defence()


def engine(
    reply: str,
    behind: dict[str, str],
    likely: Sequence[str] = (" Basil", "Basil", "someone", "nobody"),
    **more: Any,
) -> TextEngine:
    """Return an engine that says *reply*, behind a beginning what the key it ends with says.

    Elsewhere it goes on with the name.
    """

    def continues(beginning: str) -> str:
        found = [key for key in behind if beginning.endswith(key)]
        return behind[max(found, key=len)] if found else f"{NAME}."

    return TextEngine(reply, continues=continues, likely=lambda _: likely, every=3, **more)


async def ask(who: TextEngine, under: Defence = RESTRICT, **more: Any) -> Completion:
    request = Request(**{"messages": HI, "sampling": GREEDY, "timeout_s": 20.0, **more})
    deltas = [d async for d in guarded_replies(who, Plan(request=request), under, refusal="No.")]
    check_never_leaks(deltas, [NAME])

    async def again() -> Any:
        for delta in deltas:
            yield delta

    return await collect(again())


async def test_the_likeliest_other_token_stands_there_and_the_engine_goes_on_behind_it() -> None:
    who = engine(f"It was {NAME}, a writer.", {"someone": " else."})
    reply = await ask(who)

    assert (reply.text, reply.choices[0].finish) == ("It was someone else.", "stop")
    assert reply.report["guard_form"] == "text, continued"
    assert reply.report["n_rewinds"] == 1
    assert reply.report["upstream_calls"] == 3
    first, asked, onward = who.requests
    assert not first.continue_final
    assert asked.messages[-1] == {"role": "assistant", "content": "It was "}
    assert (asked.max_tokens, asked.logprobs, asked.continue_final) == (1, 20, True)
    assert onward.messages[-1] == {"role": "assistant", "content": "It was someone"}
    assert onward.logprobs is None
    assert who.n_open == 0


async def test_what_was_taken_back_is_no_part_of_the_replys_tokens() -> None:
    reply = await ask(engine(f"It was {NAME}, a writer.", {"someone": " else."}))
    n_kept = len("It was ") // 3 + 1

    assert reply.usage.completion_tokens == n_kept + 1 + 2
    assert reply.report["usage_rewound"] > 0


async def test_a_token_that_begins_the_phrase_again_is_not_taken() -> None:
    likely = ("Ba", "B", "basil ma", " BASIL", NAME, "<|im_end|>", "", "ba nobody", "nobody")
    who = engine(f"It was {NAME}.", {"nobody": " at all."}, likely)

    assert (await ask(who)).text == "It was ba nobody at all."


async def test_the_same_place_is_tried_with_other_tokens_and_then_refused() -> None:
    likely = [chr(ord("p") + n // 26) + chr(ord("a") + n % 26) for n in range(20)]
    # Every other beginning leads into the phrase from the very place.
    who = TextEngine(
        f"It was {NAME}.",
        continues=lambda b: NAME[1:] if b.endswith("B") else f"\b{NAME}",
        likely=lambda _: likely,
        every=3,
    )
    reply = await ask(who)

    assert reply.choices[0].finish == "content_filter"
    assert reply.report["n_rewinds"] <= TRIES_PER_REPLY
    assert reply.text.startswith("It was ")


async def test_an_engine_that_insists_is_refused_after_so_many_tries_at_a_place() -> None:
    who = TextEngine(f"It was {NAME}.", continues=lambda _: NAME, every=3)
    reply = await ask(who, sampling=Sampling(temperature=1.0, seed=3))

    assert (reply.text, reply.choices[0].finish) == ("It was ", "content_filter")
    assert reply.report["n_rewinds"] == TRIES_PER_PLACE
    seeds = [request.sampling.seed for request in who.requests]
    assert len(set(seeds)) == TRIES_PER_PLACE + 1


async def test_an_engine_that_insists_everywhere_is_refused_after_so_many_tries() -> None:
    who = TextEngine(NAME, continues=lambda _: f" and {NAME}", likely=lambda _: ["he"], every=3)
    reply = await ask(who)

    assert reply.choices[0].finish == "content_filter"
    assert reply.report["n_rewinds"] == TRIES_PER_REPLY


async def test_without_alternatives_another_seed_is_tried_where_the_draw_is_free() -> None:
    def continues(beginning: str) -> str:
        return NAME if len(who.requests) < 4 else "nobody."

    who = TextEngine(f"It was {NAME}.", continues=continues, every=3)
    free = await ask(who, sampling=Sampling(temperature=0.7))
    greedy = await ask(TextEngine(f"It was {NAME}.", continues=continues, every=3))

    assert (free.text, free.report["n_rewinds"]) == ("It was nobody.", 3)
    assert (greedy.text, greedy.choices[0].finish) == ("It was ", "content_filter")


async def test_a_raw_prompt_is_continued_by_any_engine() -> None:
    def reply(request: Request) -> str:
        if str(request.prompt).endswith("someone"):
            return " else."
        return f"was {NAME}." if request.prompt == "It " else NAME

    who = TextEngine(reply, likely=lambda _: ["Basil", "someone"], every=3)
    assert Capability.CONTINUE not in who.capabilities
    request = Request(kind="text", prompt="It ", sampling=GREEDY, max_tokens=40)
    replies = guarded_replies(who, Plan(request=request), RESTRICT, refusal="No.")
    answer = await collect(replies)

    assert answer.text == "was someone else."
    assert [r.prompt for r in who.requests] == ["It ", "It was ", "It was someone"]
    assert [r.max_tokens for r in who.requests] == [40, 1, 40 - 2 - 1]


async def test_an_assistants_beginning_is_continued_with_what_was_written_behind_it() -> None:
    who = engine("", {"I think it": f" was {NAME}", "someone": " else."})
    begun = (*HI, {"role": "assistant", "content": "I think it"})
    reply = await ask(who, messages=begun, continue_final=True)

    assert reply.text == " was someone else."
    assert who.requests[-1].messages[1:] == (
        {"role": "assistant", "content": "I think it was someone"},
    )


@pytest.mark.parametrize("action", ["refuse", "redact"])
async def test_only_what_restricts_is_written_otherwise(action: Action) -> None:
    who = engine(f"It was {NAME}, a writer.", {"someone": " else."})
    reply = await ask(who, defence(action))
    said = {"refuse": "It was ", "redact": "It was [redacted], a writer."}

    assert reply.text == said[action]
    assert (reply.report["n_rewinds"], reply.report["guard_form"]) == (0, "text")


async def test_a_phrase_that_refuses_does_so_beside_one_that_restricts() -> None:
    other = ForgetTarget(id="u", title="x", phrases=(Phrase(text="Xin Lee"),), action="refuse")
    both = defence("restrict", other)
    one = await ask(engine(f"Xin Lee and {NAME}.", {"someone": " else."}), both)
    two = await ask(engine(f"{NAME} and Xin Lee.", {"someone": " and Xin Lee."}), both)

    assert (one.text, one.choices[0].finish) == ("No.", "content_filter")
    assert (two.text, two.choices[0].finish) == ("someone and ", "content_filter")


async def test_redacted_spans_are_handed_back_as_the_client_saw_them() -> None:
    other = ForgetTarget(id="u", title="x", phrases=(Phrase(text="Xin Lee"),), action="redact")
    who = engine(f"Xin Lee met {NAME}.", {"someone": " else."})
    reply = await ask(who, defence("restrict", other))

    assert reply.text == "[redacted] met someone else."
    assert who.requests[-1].messages[-1]["content"] == "[redacted] met someone"


async def test_a_passage_and_an_encoding_are_written_otherwise_too() -> None:
    passage = "the quick brown fox jumps over the lazy dog while seven wizards quietly brew tea"
    target = ForgetTarget(id="p", title="x", passages=(f"{passage} in the old mill by the sea",))
    under = defence("restrict", target, profile="guarded")
    quoted = await ask(
        engine(f"So: {passage} in the old mill.", {"x": " and so on."}, ["x"]), under
    )
    turned = await ask(engine(f"It: {NAME[::-1]}.", {"x": " and so on."}, ["x"]), under)

    assert quoted.text.endswith("x and so on.")
    assert turned.text.endswith("x and so on.")
    assert NAME[::-1] not in turned.text


async def test_limits_hold_over_what_was_written_before_and_after() -> None:
    who = engine(f"It was {NAME}, a writer.", {"someone": " else" * 20})
    reply = await ask(who, max_tokens=8)

    assert reply.choices[0].finish == "length"
    assert reply.usage.completion_tokens == 8
    assert reply.text == "It was someone" + (" else" * 20)[: 4 * 3]


async def test_a_stop_text_across_the_seam_ends_the_reply() -> None:
    who = engine(f"It was {NAME}.", {"someone": " else entirely."})
    across = await ask(who, stop=("one el",))
    begun = await ask(engine(f"It was {NAME}.", {"someone": " else."}), stop=("was some",))
    behind = await ask(engine(f"It was {NAME}.", {"someone": " else."}), stop=("se.",))

    assert (across.text, across.choices[0].finish) == ("It was some", "stop")
    assert begun.text.startswith("It was ")
    assert begun.choices[0].finish == "stop"
    assert (behind.text, behind.choices[0].finish) == ("It was someone el", "stop")


async def test_an_engine_that_will_not_tell_alternatives_is_as_one_that_cannot() -> None:
    who = engine(f"It was {NAME}.", {})
    spoken = who.stream

    def stream(plan: Plan) -> Any:
        if plan.request.max_tokens == 1:
            raise BusyError("later")
        return spoken(plan)

    who.stream = stream  # type: ignore[method-assign]
    reply = await ask(who)

    assert (reply.text, reply.choices[0].finish) == ("It was ", "content_filter")


async def test_the_requests_deadline_holds_for_all_calls_together() -> None:
    who = engine(f"It was {NAME}.", {"someone": " else."})
    await ask(who, timeout_s=5.0)

    limits = [request.timeout_s for request in who.requests]
    assert all(limit is not None and 0 < limit <= 5.0 for limit in limits)
    with pytest.raises(UpstreamTimeoutError):
        await ask(engine(f"It was {NAME}.", {}), timeout_s=1e-9)


async def test_what_was_said_in_a_tool_call_is_not_written_otherwise() -> None:
    from elision.contract import Delta

    function = {"name": "f", "arguments": f'"{NAME}"'}
    said = [Delta(message={"tool_calls": [{"index": 0, "id": "a", "function": function}]})]
    who = TextEngine(said, continues=lambda _: "x", likely=lambda _: ["x"])
    reply = await ask(who)

    assert (reply.choices[0].finish, reply.report["n_rewinds"]) == ("content_filter", 0)


async def test_each_of_several_choices_goes_back_for_itself() -> None:
    who = engine(f"It was {NAME}.", {"someone": " else."})
    reply = await ask(who, n=3, sampling=Sampling(temperature=0.0, seed=1))

    assert [choice.text for choice in reply.choices] == ["It was someone else."] * 3
    assert reply.report["n_rewinds"] == 3


async def test_log_probabilities_go_back_with_the_text() -> None:
    who = engine(f"It was {NAME}.", {"someone": " else."})
    reply = await ask(who, logprobs=4)
    told = reply.choices[0].logprobs

    assert "".join(entry.token for entry in told) == reply.text == "It was someone else."
    assert all(" Basil" in {o.token for o in entry.top} for entry in told[:2])


def _cuts(text: str, places: set[int]) -> list[str]:
    edges = [0, *sorted(p for p in places if p < len(text)), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


@given(st.sets(st.integers(1, 30), max_size=6), st.sets(st.integers(1, 30), max_size=6))
@settings(max_examples=25)
def test_the_same_is_written_otherwise_whatever_the_pieces(one: set[int], two: set[int]) -> None:
    def made(cut: Callable[[str], Sequence[str]]) -> TextEngine:
        def continues(beginning: str) -> Sequence[str]:
            if beginning.endswith("or someone"):
                return cut(" else.")
            return cut(f" or {NAME}?") if beginning.endswith("someone") else [NAME]

        first = cut(f"It was {NAME}, a writer, yes.")
        return TextEngine(first, continues=continues, likely=lambda _: ["Basil", "someone"])

    texts = []
    for places in (one, two):
        who = made(lambda text, at=places: _cuts(text, at))  # type: ignore[misc]
        texts.append(asyncio.run(ask(who)).text)

    assert texts[0] == texts[1] == "It was someone or someone else."
