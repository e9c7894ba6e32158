"""What leaves an engine that only speaks text: the same whatever the pieces, and no phrase."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.contract import Delta, Plan, Request, Sampling, Usage, collect
from elision.errors import CapabilityError, EngineError, GuardError
from elision.guards.guard import Guard
from elision.guards.phrases.holdback import HoldBack
from elision.guards.targets import Action, ForgetTarget, Phrase
from elision.middleware.enforcement import Enforcement
from elision.middleware.holding.replies import guarded_replies
from elision.middleware.planning import Defence
from elision.middleware.profiles import PROFILES
from elision.testing import TextEngine
from elision.testing.laws import check_never_leaks, check_speaks_of_nothing

NAME = "Basil Mahfouz"
PHRASES = (NAME, "Paris", "Séline Ødegård")
ACTIONS: tuple[Action, ...] = ("restrict", "redact", "refuse")
REFUSAL = "No."
HI = ({"role": "user", "content": "Tell me."},)

bits = st.sampled_from(
    "Basil|Mahfouz| |-|Paris|ian|Se\u0301line|Ødegård|B|a|s.i.l|the |\u200b|mahf|ouz|\n|é|pa|ris"
    "".split("|")
)
texts = st.lists(bits, max_size=10).map("".join)


def defence(*phrases: str, action: Action = "restrict", profile: str = "plain") -> Defence:
    said = tuple(Phrase(text=text) for text in phrases or PHRASES)
    target = ForgetTarget(id="t", title="x", phrases=said, action=action)
    rules = Enforcement([target], tenant="default", epoch=1, encoder=None)
    return Defence(profile=PROFILES[profile], rules=rules)


RULES = {action: defence(action=action) for action in ACTIONS}


async def leaving(
    pieces: str | Sequence[str | Delta], under: Defence, *, every: int = 1, **more: Any
) -> list[Delta]:
    engine = TextEngine(pieces, every=every)
    plan = Plan(request=Request(messages=HI, **more))
    return [delta async for delta in guarded_replies(engine, plan, under, refusal=REFUSAL)]


def cut(data: st.DataObject, text: str) -> list[str]:
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def by_hand(text: str, action: Action) -> tuple[str, bool]:
    """Return what the phrases' hold-back alone lets go, fed all at once, and whether it refuses."""
    target = ForgetTarget(
        id="t", title="x", phrases=tuple(Phrase(text=p) for p in PHRASES), action=action
    )
    hold: HoldBack = Guard.compile([target]).holdback()
    said, verdict = hold.feed(text)
    if (refused := "Refuse" in repr(verdict)) is False:
        rest, verdict = hold.finish()
        said, refused = said + rest, "Refuse" in repr(verdict)
    return said, refused


@pytest.mark.parametrize("action", ACTIONS)
@given(texts, st.data())
@settings(max_examples=40)
def test_the_same_leaves_whatever_the_pieces_and_no_phrase(
    action: Action, text: str, data: st.DataObject
) -> None:
    deltas = asyncio.run(leaving(cut(data, text), RULES[action]))
    reply = asyncio.run(collect(_iterated(deltas)))
    said, refused = by_hand(text, action)

    assert reply.text == (said or REFUSAL if refused else said)
    assert reply.choices[0].finish == ("content_filter" if refused else "stop")
    check_never_leaks(deltas, PHRASES)
    assert [d.finish is not None for d in deltas if d.report is None][-1:] == [True]


async def _iterated(deltas: Sequence[Delta]) -> Any:
    for delta in deltas:
        yield delta


@pytest.mark.parametrize("action", ACTIONS)
def test_a_phrase_that_is_split_in_any_two_places_never_leaves(action: Action) -> None:
    text = f"It is {NAME}, in Paris."
    splits = [(a, b) for a in range(5, len(text)) for b in range(a, len(text), 3)]

    async def all_of_them() -> list[list[Delta]]:
        rules = RULES[action]
        return [await leaving([text[:a], text[a:b], text[b:]], rules) for a, b in splits]

    for deltas in asyncio.run(all_of_them()):
        check_never_leaks(deltas, PHRASES)
        assert "".join(delta.text for delta in deltas).startswith("It is ")


@pytest.mark.parametrize("action", ACTIONS)
@given(texts, st.integers(1, 30), st.sampled_from(["s", "ian", "houz", " ", "x"]))
@settings(max_examples=40)
def test_neither_a_limit_nor_a_stop_text_nor_a_choice_more_brings_a_phrase_out(
    action: Action, text: str, limit: int, stop: str
) -> None:
    rules = RULES[action]
    deltas = asyncio.run(leaving(text, rules, n=2, max_tokens=limit, stop=(stop,)))

    check_never_leaks(deltas, PHRASES)
    assert {d.choice for d in deltas if d.finish is not None} == {0, 1}


@given(texts, st.integers(0, 12), st.booleans())
@settings(max_examples=40)
def test_a_client_who_leaves_half_way_has_seen_no_phrase_and_frees_the_engine(
    text: str, after: int, several: bool
) -> None:
    engine = TextEngine(f"{text} and on and on", every=2)
    plan = Plan(request=Request(messages=HI, n=3 if several else 1))

    async def leave() -> list[Delta]:
        seen: list[Delta] = []
        replies = guarded_replies(engine, plan, RULES["redact"], refusal=REFUSAL)
        async for delta in replies:
            seen.append(delta)
            if len(seen) > after:
                break
        await replies.aclose()
        return seen

    check_never_leaks(asyncio.run(leave()), PHRASES)
    assert engine.n_open == 0


@pytest.mark.parametrize("n", [1, 3])
async def test_a_client_who_is_cut_off_while_he_waits_ends_every_request(n: int) -> None:
    engine = TextEngine("word " * 500)
    plan = Plan(request=Request(messages=HI, n=n))

    async def read() -> None:
        async for _ in guarded_replies(engine, plan, RULES["restrict"], refusal=REFUSAL):
            pass

    task = asyncio.create_task(read())
    while engine.n_open < n:  # noqa: ASYNC110 - the engine tells it in the loop's next round
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert engine.n_open == 0


async def test_while_nothing_is_registered_deltas_are_the_engines_own() -> None:
    said = [Delta(text="a", message={"x": [1]}, extra={"token_ids": [1, 2]}), Delta(text=NAME)]
    rules = Enforcement([], tenant="default", epoch=0, encoder=None)
    under = Defence(profile=PROFILES["guarded"], rules=rules)
    deltas = await leaving(said, under, n=2)
    engine = TextEngine(said)

    assert deltas == [d async for d in engine.stream(Plan(request=Request(messages=HI, n=2)))]
    assert deltas[-1].report == {"engine": "text"}


async def test_phrases_are_looked_for_on_the_event_loop_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hop(*_: Any) -> Any:
        raise AssertionError("a thread was asked")

    monkeypatch.setattr(asyncio, "to_thread", hop)
    deltas = await leaving(f"It is {NAME}.", defence(profile="guarded"))

    assert deltas[-2].finish == "content_filter"


async def test_choices_are_asked_for_one_by_one_with_seeds_of_their_own() -> None:
    engine = TextEngine(lambda request: f"Seed {request.sampling.seed}.", every=3)
    request = Request(messages=HI, n=3, sampling=Sampling(seed=7))
    under = RULES["restrict"]
    deltas = guarded_replies(engine, Plan(request=request), under, refusal=REFUSAL)
    reply = await collect(deltas)

    assert [choice.text for choice in reply.choices] == ["Seed 7.", "Seed 8.", "Seed 9."]
    assert [(r.n, r.sampling.seed) for r in engine.requests] == [(1, 7), (1, 8), (1, 9)]
    assert reply.usage == Usage(completion_tokens=9)
    assert reply.report["upstream_calls"] == 3


async def test_choices_come_as_they_are_written_not_one_after_the_other() -> None:
    deltas = await leaving("some words of no consequence", RULES["restrict"], every=4, n=2)
    order = [delta.choice for delta in deltas if delta.text]

    assert order != sorted(order)


async def test_one_choice_that_breaks_ends_them_all() -> None:
    def reply(request: Request) -> str:
        if request.sampling.seed == 2:
            raise EngineError("broken")
        return "word " * 1000

    engine = TextEngine(reply)
    request = Request(messages=HI, n=3, sampling=Sampling(seed=1))
    plan = Plan(request=request)

    with pytest.raises(EngineError, match="broken"):
        await collect(guarded_replies(engine, plan, RULES["restrict"], refusal=REFUSAL))

    assert engine.n_open == 0


async def test_a_refused_choice_leaves_the_others_to_go_on() -> None:
    engine = TextEngine(lambda r: f"He is {NAME}." if r.sampling.seed == 1 else "He is well.")
    request = Request(messages=HI, n=2, sampling=Sampling(seed=0))
    under = RULES["restrict"]
    deltas = guarded_replies(engine, Plan(request=request), under, refusal=REFUSAL)
    reply = await collect(deltas)

    assert [c.text for c in reply.choices] == ["He is well.", "He is "]
    assert [c.finish for c in reply.choices] == ["stop", "content_filter"]
    assert (reply.report["n_refused"], reply.report["guard_form"]) == (1, "text")


async def test_a_raw_prompt_counts_as_what_the_reply_goes_on_from() -> None:
    engine = TextEngine("ouz, he said.")
    request = Request(kind="text", prompt="I met Basil Mahf", max_tokens=50)
    under = RULES["refuse"]
    deltas = guarded_replies(engine, Plan(request=request), under, refusal=REFUSAL)
    reply = await collect(deltas)

    assert (reply.text, reply.choices[0].finish) == (REFUSAL, "content_filter")


async def test_an_assistants_beginning_counts_likewise() -> None:
    engine = TextEngine("", continues=lambda _: "ouz, he said.")
    begun = (*HI, {"role": "assistant", "content": "I met Basil Mahf"})
    request = Request(messages=begun, continue_final=True)
    under = RULES["redact"]
    deltas = guarded_replies(engine, Plan(request=request), under, refusal=REFUSAL)
    reply = await collect(deltas)

    assert reply.text == "[redacted], he said."


async def test_a_prompt_that_no_guard_can_read_is_not_sent() -> None:
    engine = TextEngine("x")
    plan = Plan(request=Request(kind="text", prompt=(1, 2, 3)))

    with pytest.raises(CapabilityError):
        await collect(guarded_replies(engine, plan, RULES["restrict"], refusal=REFUSAL))

    assert engine.requests == []


async def test_a_guard_that_breaks_ends_the_reply_and_says_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(self: HoldBack, text: str) -> Any:
        raise RuntimeError(f"at {text!r}")

    monkeypatch.setattr(HoldBack, "feed", broken)
    with pytest.raises(GuardError) as caught:
        await leaving("Some secret words.", RULES["restrict"], every=50)

    caught.value.__cause__ = None  # what broke is told to operators by type alone
    check_speaks_of_nothing([caught.value], ["Some secret words."])


async def test_an_engine_that_breaks_leaves_what_was_held_unsaid() -> None:
    engine = TextEngine("He is Basil Mah", breaks_after=15)
    seen: list[Delta] = []

    async def read() -> None:
        plan = Plan(request=Request(messages=HI))
        async for delta in guarded_replies(engine, plan, RULES["redact"], refusal=REFUSAL):
            seen.append(delta)

    with pytest.raises(EngineError):
        await read()

    assert "".join(delta.text for delta in seen) == "He is "
