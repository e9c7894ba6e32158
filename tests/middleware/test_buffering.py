from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace

import pytest

from elision.contract import (
    REFUSE,
    Delta,
    Plan,
    Redact,
    Request,
    Rewind,
    Sampling,
    TokenLogprob,
    Usage,
    Verdict,
    collect,
)
from elision.errors import EngineError, GuardError
from elision.guards.guard import Guard
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.buffering import Checker, hold_all
from elision.testing.laws import check_never_leaks, check_speaks_of_nothing, check_stream_form
from elision.testing.scripted import ScriptedEngine

ENTRY = TokenLogprob("a", -0.5, b"a")
LAST = Delta(usage=Usage(prompt_tokens=3, completion_tokens=5), report={"engine": "e"})


async def stream(*deltas: Delta) -> AsyncGenerator[Delta, None]:
    for delta in deltas:
        yield delta


def reply(*texts: str) -> AsyncGenerator[Delta, None]:
    pieces = [
        Delta(choice=n, text=piece, logprobs=(ENTRY,))
        for n, text in enumerate(texts)
        for piece in (text[:3], text[3:])
    ]
    ends = [Delta(choice=n, finish="stop") for n in range(len(texts))]
    return stream(*pieces, *ends, LAST)


async def drain(deltas: AsyncGenerator[Delta, None], left: list[Delta]) -> None:
    async for delta in deltas:
        left.append(delta)


def cutting(word: str, marker: str = "[…]") -> Checker:
    def check(text: str) -> Iterable[Verdict]:
        at = text.find(word)
        return [Redact(at, at + len(word), marker)] if at >= 0 else []

    return check


async def test_what_is_allowed_leaves_as_it_was_with_usage_and_report_last() -> None:
    whole = await collect(reply("one two", "three"))
    deltas = [d async for d in hold_all(reply("one two", "three"), lambda _: ())]
    check_stream_form(deltas, n=2)
    done = await collect(stream(*deltas))
    assert done.choices == whole.choices
    assert done.usage == whole.usage
    assert done.report == {"engine": "e", "buffered": True, "n_refused": 0, "n_redacted": 0}


async def test_nothing_leaves_before_everything_has_been_checked() -> None:
    log: list[str] = []

    async def source() -> AsyncGenerator[Delta, None]:
        async for delta in reply("one two", "three"):
            log.append("came")
            yield delta

    def check(text: str) -> Iterable[Verdict]:
        log.append("checked")
        return ()

    async for _ in hold_all(source(), check):
        log.append("left")
    assert log == ["came"] * 7 + ["checked"] * 2 + ["left"] * 3


async def test_each_choice_is_judged_whole_and_alone() -> None:
    done = await collect(
        hold_all(reply("abcdef", "xcdx"), lambda t: [REFUSE] if "cd" in t else [], refusal="No.")
    )
    assert [c.text for c in done.choices] == ["No.", "No."]
    one = await collect(
        hold_all(reply("abcdef", "xx"), lambda t: [REFUSE] if "cd" in t else [], refusal="No.")
    )
    assert [(c.text, c.finish, len(c.logprobs)) for c in one.choices] == [
        ("No.", "content_filter", 0),
        ("xx", "stop", 2),
    ]
    assert one.report["n_refused"] == 1


async def test_redacted_spans_leave_as_their_marker_and_their_logprobs_not_at_all() -> None:
    done = await collect(hold_all(reply("abcdef", "xx"), cutting("cd")))
    assert [(c.text, len(c.logprobs)) for c in done.choices] == [("ab[…]ef", 0), ("xx", 2)]
    assert done.report["n_redacted"] == 1


async def test_overlapping_spans_unite() -> None:
    def check(text: str) -> Iterable[Verdict]:
        return [Redact(2, 4, "#"), Redact(1, 3, "#")] if "#" not in text else []

    assert (await collect(hold_all(reply("abcdef"), check))).text == "a#ef"


async def test_what_redaction_leaves_or_joins_is_checked_again() -> None:
    done = await collect(hold_all(reply("se-secret-cret"), cutting("secret", marker="")))
    assert done.text == "se--cret"
    done = await collect(hold_all(reply("sesecretcret"), cutting("secret", marker="")))
    assert (done.text, done.choices[0].finish) == ("", "content_filter")


async def test_a_rewind_becomes_what_it_says_otherwise() -> None:
    rewind = Rewind(to=0, bans=frozenset({1}))
    done = await collect(hold_all(reply("abc"), lambda _: [rewind], refusal="No."))
    assert done.text == "No."
    soft = replace(rewind, otherwise=Redact(0, 1, "#"))
    done = await collect(hold_all(reply("abc"), lambda t: [soft] if t[0] != "#" else []))
    assert done.text == "#bc"


async def test_a_check_that_breaks_ends_the_reply_and_says_nothing_of_it() -> None:
    def check(text: str) -> Iterable[Verdict]:
        raise RuntimeError(text)

    left: list[Delta] = []
    with pytest.raises(GuardError) as caught:
        await drain(hold_all(reply("marmalade-4711"), check), left)
    assert not left
    check_speaks_of_nothing(str(caught.value), ["marmalade-4711"])


async def test_an_engine_that_breaks_lets_nothing_out() -> None:
    async def source() -> AsyncGenerator[Delta, None]:
        yield Delta(text="half a secr")
        raise EngineError("broke")

    left: list[Delta] = []
    with pytest.raises(EngineError):
        await drain(hold_all(source(), lambda _: ()), left)
    assert not left


async def test_what_is_not_checked_in_time_is_refused() -> None:
    def check(text: str) -> Iterable[Verdict]:
        time.sleep(0.2)
        return ()

    deadline = time.monotonic() + 0.05
    done = await collect(hold_all(reply("abc", "def"), check, refusal="No.", deadline=deadline))
    assert [c.text for c in done.choices] == ["No.", "No."]


async def test_whoever_leaves_early_ends_the_engines_stream() -> None:
    closed = asyncio.Event()

    async def source() -> AsyncGenerator[Delta, None]:
        try:
            async for delta in reply("abc", "def"):
                yield delta
            await asyncio.Event().wait()
        finally:
            closed.set()

    held = hold_all(source(), lambda _: ())
    waiting = asyncio.create_task(anext(held))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert closed.is_set()
    await held.aclose()


async def test_a_phrase_that_only_the_whole_text_shows_does_not_leave() -> None:
    """An acrostic: no phrase is written anywhere, the check finds it all the same."""
    poem = "Pale light\nAll night\nRain falls\nIce calls\nSnow stays."
    guard = Guard.compile([ForgetTarget(title="t", phrases=(Phrase(text="Paris"),))])

    def check(text: str) -> Iterable[Verdict]:
        initials = "".join(line[:1] for line in text.splitlines())
        return [REFUSE] if guard.hides(text) or guard.hides(initials) else []

    engine = ScriptedEngine({"poem": poem})
    request = Request(
        messages=({"role": "user", "content": "poem"},), sampling=Sampling(temperature=0.0)
    )
    async with aclosing(engine.stream(Plan(request=request))) as open_deltas:
        assert (await collect(open_deltas)).text == poem
    done = await collect(hold_all(engine.stream(Plan(request=request)), check, refusal="No."))
    assert done.text == "No."
    check_never_leaks(done, ["Paris"])
    await engine.aclose()


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}


def calling(*arguments: str) -> AsyncGenerator[Delta, None]:
    pieces = [{"index": 0, "function": {"arguments": piece}} for piece in arguments]
    return stream(
        *(Delta(message={"tool_calls": [call]}) for call in (CALL, *pieces)),
        Delta(finish="tool_calls", extra={"stop_reason": 3}),
        replace(LAST, extra={"service_tier": "x"}),
    )


async def test_tool_calls_and_unknown_fields_leave_with_the_reply() -> None:
    done = await collect(hold_all(calling('{"a": ', '"b"}'), lambda _: ()))
    (call,) = done.choices[0].message["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": '{"a": "b"}'}
    assert (done.choices[0].finish, done.choices[0].extra) == ("tool_calls", {"stop_reason": 3})
    assert done.extra == {"service_tier": "x"}


@pytest.mark.parametrize("arguments", [('{"a": "ab', 'cd"}'), (r'{"a": "ab\u00', '63d"}')])
async def test_a_tool_call_is_read_as_what_it_says_and_refused_whole(
    arguments: tuple[str, ...],
) -> None:
    found = hold_all(calling(*arguments), lambda t: [REFUSE] if t == "abcd" else [], refusal="No.")
    done = await collect(found)
    assert (done.text, done.choices[0].finish) == ("No.", "content_filter")
    assert not done.choices[0].message
