"""Laws 2, 5 and 7: what every engine owes, whatever its model.

Each checker asks an engine for replies, so give it plans whose replies are short. Async checkers
have a twin without the ``a``, which runs its own event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, cast

from elision.contract import Capability, Completion, Delta, Engine, Plan, collect
from elision.errors import ElisionError
from elision.testing.broken import PLACES, Breaking, Where

MakeEngine = Callable[[], Engine]

_GIVEAWAY = "quixotic-marmalade-4711"


def check_restored(make_engine: MakeEngine, plan: Plan, *others: Plan) -> None:
    """Twin of `acheck_restored`."""
    asyncio.run(acheck_restored(make_engine, plan, *others))


async def acheck_restored(make_engine: MakeEngine, plan: Plan, *others: Plan) -> None:
    """Check law 2: no request leaves a trace that the next one could notice.

    One fresh engine answers *plan* at once. Another first serves every other plan, abandons each
    in the middle, breaks under a raising recipe; then it must answer *plan* the same, down to the
    last bit of every reported log-probability.

    Args:
        make_engine: Builds an engine that nobody has used; both are closed here.
        plan: The request to compare by; a seed is filled in if it samples.
        others: The requests served before; *plan* itself if there are none.

    Raises:
        AssertionError: With what differs.
        ElisionError: If the engine cannot serve a plan at all.
    """
    fresh, used = make_engine(), make_engine()
    plan = _repeatable(plan)
    if Capability.TOP_LOGPROBS in fresh.capabilities:
        plan = _with_logprobs(plan, 5)
    try:
        wanted = await collect(fresh.stream(plan))
        for other in others or (plan,):
            await collect(used.stream(other))
            await _abandon(used, other)
            await _break(used, other)
        _assert_same(await collect(used.stream(plan)), wanted, "after other requests")
    finally:
        await fresh.aclose()
        await used.aclose()


def check_stream_equals_whole(engine: Engine, plan: Plan, *, beside: Plan | None = None) -> None:
    """Twin of `acheck_stream_equals_whole`; the engine is closed when it returns."""

    async def check() -> None:
        async with aclosing(cast("Any", engine)):
            await acheck_stream_equals_whole(engine, plan, beside=beside)

    asyncio.run(check())


async def acheck_stream_equals_whole(
    engine: Engine, plan: Plan, *, beside: Plan | None = None
) -> None:
    """Check law 5: the text does not depend on how it is fetched.

    The reply is fetched whole, piece by piece by a slow reader, twice at the same time, and with
    another request beside it; and with one choice more: the choices there were stay the same.

    Args:
        engine: The engine; it stays open.
        plan: The request; a seed is filled in if it samples. The choice added is left out when
            ``rng`` is ``torch``.
        beside: A request, of another tenant say, to serve at the same time; *plan* if None.

    Raises:
        AssertionError: With what differs.
        ElisionError: If the engine cannot serve a plan at all.
    """
    plan = _repeatable(plan)
    whole = await collect(engine.stream(plan))
    pieces = await _read_slowly(engine.stream(plan))
    check_stream_form(pieces, n=plan.request.n)
    _assert_same(await collect(_replay(pieces)), whole, "read slowly")
    twins = [collect(engine.stream(p)) for p in (plan, beside or plan)]
    one, _ = await asyncio.gather(*twins)
    _assert_same(one, whole, "with another request beside it")
    if plan.request.sampling.rng != "torch":
        wider = replace(plan, request=replace(plan.request, n=plan.request.n + 1))
        more = await collect(engine.stream(wider))
        first = replace(more, choices=more.choices[: plan.request.n], usage=whole.usage)
        _assert_same(replace(first, report=whole.report), whole, "with one choice more")


def check_stream_form(deltas: Sequence[Delta], *, n: int) -> None:
    """Check that *deltas* are one whole stream, as `Delta` and `Engine.stream` promise.

    Args:
        deltas: Everything that one stream yielded.
        n: Choices asked for.

    Raises:
        AssertionError: With what is wrong.
    """
    assert deltas, "the stream is empty"
    *pieces, last = deltas
    assert last.usage is not None, "the last delta carries no usage"
    assert last.report is not None, "the last delta carries no report"
    said = last.text or last.logprobs or last.finish
    assert not said, "the last delta carries text"
    ended: set[int] = set()
    for at, delta in enumerate(pieces):
        assert delta.usage is None, f"delta {at} carries usage before the end"
        assert delta.report is None, f"delta {at} carries a report before the end"
        assert delta.choice not in ended, f"delta {at} follows the end of choice {delta.choice}"
        if delta.finish is not None:
            ended.add(delta.choice)
    assert ended == set(range(n)), f"choices {sorted(ended)} ended; {n} were asked for"


def check_fails_closed(
    make_engine: MakeEngine, plan: Plan, *, after: Sequence[int] = (0, 3)
) -> None:
    """Twin of `acheck_fails_closed`."""
    asyncio.run(acheck_fails_closed(make_engine, plan, after=after))


async def acheck_fails_closed(
    make_engine: MakeEngine, plan: Plan, *, after: Sequence[int] = (0, 3)
) -> None:
    """Check law 7: a guard that breaks stops the reply, and nothing passes it unjudged.

    A recipe is added that raises in each of its methods in turn, at once and after some tokens.
    The stream must end with an `ElisionError` or with ``content_filter``; what left before must
    be the beginning of the healthy reply, no longer than the tokens that were judged; the error
    must not repeat what the exception said; and the engine must serve the next request unharmed.

    Args:
        make_engine: Builds an engine that nobody has used, with the capability LOGITS.
        plan: A request for one choice; its reply must have more tokens than *after* says.
        after: Tokens that pass before the recipe breaks.

    Raises:
        AssertionError: With the method that broke and what went wrong.
    """
    plan = _repeatable(plan)
    engine = make_engine()
    try:
        healthy = await collect(engine.stream(_with_logprobs(plan)))
        for n_judged in after:
            for where in PLACES:
                judged = _beginning(healthy, n_judged if where != "begin" else 0)
                judged = healthy.text if where == "finish" else judged
                await _assert_closed(engine, plan, where, n_judged, judged)
        _assert_same(
            await collect(engine.stream(_with_logprobs(plan))), healthy, "after broken guards"
        )
    finally:
        await engine.aclose()


async def _assert_closed(engine: Engine, plan: Plan, where: Where, after: int, judged: str) -> None:
    place = f"a guard that broke in {where} after {after} tokens"
    recipe = Breaking(where=where, after=after, secret=_GIVEAWAY)
    broken = replace(plan, recipes=(*plan.recipes, recipe))
    deltas, error = await _until_error(engine.stream(broken))
    refused = any(delta.finish == "content_filter" for delta in deltas)
    assert error is not None or refused, f"{place} did not end the reply"
    assert error is None or isinstance(error, ElisionError), (
        f"{place} ended the reply with {type(error).__name__}, which is none of ours"
    )
    text = "".join(delta.text for delta in deltas).removesuffix(plan.refusal if refused else "")
    assert judged.startswith(text), f"{place} let {len(text)} characters pass; {len(judged)} may"
    assert _GIVEAWAY not in str(error), f"{place} had its exception's text repeated"


async def _until_error(stream: AsyncIterator[Delta]) -> tuple[list[Delta], Exception | None]:
    deltas: list[Delta] = []
    try:
        await _read_into(deltas, stream)
    except Exception as exc:  # whatever it is, the caller judges it
        return deltas, exc
    return deltas, None


async def _read_into(deltas: list[Delta], stream: AsyncIterator[Delta]) -> None:
    async for delta in stream:
        deltas.append(delta)
        await asyncio.sleep(0.001)


def _beginning(whole: Completion, n_tokens: int) -> str:
    entries = whole.choices[0].logprobs
    assert len(entries) > n_tokens, (
        f"the reply has {len(entries)} tokens; more than {n_tokens} needed"
    )
    return b"".join(entry.data for entry in entries[:n_tokens]).decode("utf-8", "ignore")


async def _abandon(engine: Engine, plan: Plan) -> None:
    stream = engine.stream(plan)
    await anext(stream, None)
    await cast("Any", stream).aclose()


async def _break(engine: Engine, plan: Plan) -> None:
    recipes = (*plan.recipes, Breaking(where="adjust", after=2))
    with suppress(ElisionError):
        await collect(engine.stream(replace(plan, recipes=recipes)))


async def _read_slowly(stream: AsyncIterator[Delta]) -> list[Delta]:
    deltas: list[Delta] = []
    await _read_into(deltas, stream)
    return deltas


async def _replay(deltas: Iterable[Delta]) -> AsyncIterator[Delta]:
    for delta in deltas:
        yield delta


def _repeatable(plan: Plan) -> Plan:
    sampling = plan.request.sampling
    if sampling.seed is not None:
        return plan
    return replace(plan, request=replace(plan.request, sampling=replace(sampling, seed=0)))


def _with_logprobs(plan: Plan, n_top: int = 0) -> Plan:
    return replace(plan, request=replace(plan.request, logprobs=plan.request.logprobs or n_top))


def _assert_same(got: Completion, wanted: Completion, when: str) -> None:
    assert len(got.choices) == len(wanted.choices), f"{when}: another number of choices"
    for one, two in zip(got.choices, wanted.choices, strict=True):
        place = f"{when}, choice {two.index}"
        assert one.text == two.text, (
            f"{place}: another text from character {_apart(one.text, two.text)}"
        )
        assert one.finish == two.finish, f"{place}: it ends by {one.finish}, not {two.finish}"
        assert one.logprobs == two.logprobs, f"{place}: other log-probabilities"
    assert got.usage == wanted.usage, f"{when}: another usage"
    assert got.report == wanted.report, f"{when}: another report"


def _apart(one: str, two: str) -> int:
    pairs = enumerate(zip(one, two, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(two)))
