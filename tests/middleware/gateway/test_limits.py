"""Limits: what a key may use, with a clock of ours."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from elision.contract import Request, Usage
from elision.errors import BusyError, RequestError, StoreError, UpstreamError, UpstreamTimeoutError
from elision.limits import Limits
from elision.middleware.gateway.limits import budgets as budgets_module
from elision.middleware.gateway.limits.allowance import Allowance, Allowances, duration
from elision.middleware.gateway.limits.bucket import Bucket
from elision.middleware.gateway.limits.budgets import Account, Books, period_name
from elision.middleware.gateway.limits.errors import QuotaError, RateLimitError
from elision.middleware.gateway.limits.estimate import REPLY_TOKENS, Estimate
from elision.middleware.gateway.limits.ledger import Ledger, place_of
from elision.middleware.gateway.limits.meter import Meter
from elision.settings import Settings
from elision.testing.waiting import awaited_s

S = 1_000_000_000
STEPS = st.lists(
    st.tuples(
        st.integers(0, 90 * S),
        st.sampled_from(["take", "give"]),
        st.integers(1, 150),
    ),
    max_size=40,
)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 7

    def __call__(self) -> int:
        return self.now


class Oracle:
    """A bucket in fractions, as one would write it on paper."""

    def __init__(self, per_minute: int) -> None:
        self.limit, self.level = per_minute, Fraction(per_minute)

    def passes(self, ns: int) -> None:
        self.level = min(Fraction(self.limit), self.level + Fraction(ns * self.limit, 60 * S))

    def take(self, n: int) -> bool:
        if n > self.level:
            return False
        self.level -= n
        return True

    def give(self, n: int) -> None:
        self.level = min(Fraction(self.limit), self.level + n)


@given(limit=st.integers(1, 100), steps=STEPS)
def test_a_bucket_is_the_one_on_paper_and_never_negative(limit: int, steps: Any) -> None:
    clock = Clock()
    bucket, oracle, out = Bucket(limit, clock=clock), Oracle(limit), 0
    for passed, act, n in steps:
        clock.now += passed
        oracle.passes(passed)
        if act == "take":
            taken = bucket.take(n)
            assert taken == oracle.take(n)
            out += n if taken else 0
        else:
            n = min(n, out)
            out -= n
            bucket.give(n)
            oracle.give(n)
        assert 0 <= bucket.left == oracle.level // 1 <= limit


@given(limit=st.integers(1, 100), steps=STEPS)
def test_no_window_sees_more_than_a_burst_and_what_came_in(limit: int, steps: Any) -> None:
    clock = Clock()
    bucket, moves = Bucket(limit, clock=clock), list[tuple[int, int]]()
    out = 0
    for passed, act, n in steps:
        clock.now += passed
        if act == "take" and bucket.take(n):
            moves.append((clock.now, n))
            out += n
        elif act == "give" and out:
            n = min(n, out)
            bucket.give(n)
            moves.append((clock.now, -n))
            out -= n
    for first in range(len(moves)):
        net = 0
        for at, n in moves[first:]:
            net += n
            assert net * 60 * S <= limit * 60 * S + limit * (at - moves[first][0])


@given(limit=st.integers(1, 1000), n=st.integers(1, 1000), passed=st.integers(0, 60 * S))
def test_what_is_given_back_at_once_leaves_no_trace(limit: int, n: int, passed: int) -> None:
    clock = Clock()
    one, other = Bucket(limit, clock=clock), Bucket(limit, clock=clock)
    one.take(limit)
    other.take(limit)
    clock.now += passed
    if one.take(n):
        one.give(n)
    assert [one.wait_ns(k) for k in (1, limit)] == [other.wait_ns(k) for k in (1, limit)]


@given(limit=st.integers(1, 1000), n=st.integers(1, 1000), spent=st.integers(0, 3000))
def test_the_wait_is_exactly_as_long_as_it_takes(limit: int, n: int, spent: int) -> None:
    clock = Clock()
    bucket, n = Bucket(limit, clock=clock), min(n, limit)
    bucket.owe(spent)
    wait = bucket.wait_ns(n)
    if wait:
        clock.now += wait - 1
        assert not bucket.take(n)
        clock.now += 1
    assert bucket.take(n)


def test_what_is_owed_comes_first_and_is_shown_as_nothing_left() -> None:
    clock = Clock()
    bucket = Bucket(60, clock=clock)
    bucket.owe(90)

    assert bucket.left == 0
    clock.now += 30 * S
    assert not bucket.take(1)
    clock.now += S
    assert bucket.take(1)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    clock = Clock()
    bucket = Bucket(60, clock=clock)
    assert bucket.take(60)
    clock.now -= 5
    assert bucket.left == 0


@pytest.mark.parametrize(
    ("ns", "told"),
    [
        (0, "0s"), (1, "1ms"), (20_000_000, "20ms"), (999_000_001, "1s"), (1_500_000_000, "1.5s"),
        (59_999_999_999, "1m0s"), (72_172_000_000, "1m12.172s"), (360 * S, "6m0s"),
        (3_600 * S, "1h0m0s"), (10 * S, "10s"), (100 * S, "1m40s"),
    ],
)  # fmt: skip
def test_times_are_written_as_openai_does(ns: int, told: str) -> None:
    assert duration(ns) == told


@given(ns=st.integers(0, 10**14))
def test_a_written_time_is_the_time_rounded_up(ns: int) -> None:
    units = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
    parts = re.findall(r"([0-9.]+)(ms|h|m|s)", duration(ns))
    assert "".join(n + unit for n, unit in parts) == duration(ns)
    assert round(sum(float(n) * units[unit] for n, unit in parts)) == -(-ns // 1_000_000)


def test_a_keys_own_limits_come_first_figure_by_figure() -> None:
    default = Limits(requests_per_minute=5, token_budget=10, budget_period="day")
    own = Limits(requests_per_minute=None, tokens_per_minute=7)

    assert own.over(default) == Limits(tokens_per_minute=7, token_budget=10, budget_period="day")
    assert Limits().over(default) == default
    assert Limits().is_none
    assert not own.is_none


@pytest.mark.parametrize("wrong", [{"requests_per_minute": 0}, {"tokens": 1}, {"token_budget": -1}])
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Limits(**wrong)  # type: ignore[arg-type]


# --- Estimates -----------------------------------------------------------------------------------


def test_a_request_may_take_its_prompt_and_the_longest_reply_it_names() -> None:
    chat = Request(messages=({"role": "user", "content": "x" * 400},), n=3, max_tokens=10)
    assert Estimate.of([chat]) == Estimate(prompt=104, named=30)

    open_end = Request(kind="text", prompt=(1, 2, 3))
    assert Estimate.of([open_end, chat]) == Estimate(107, 30, REPLY_TOKENS)


@given(st.text())
def test_a_prompts_estimate_is_a_quarter_of_its_bytes_rounded_up(text: str) -> None:
    found = Estimate.of([Request(kind="text", prompt=text, max_tokens=1)])
    assert found.prompt == -(-len(text.encode(errors="replace")) // 4)


def test_parts_calls_and_tools_count_as_prompt() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "x" * 100}}
    messages = (
        {"role": "user", "content": [{"type": "text", "text": "y" * 40}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    )
    bare = Estimate.of([Request(messages=messages[:1])]).prompt
    called = Estimate.of([Request(messages=messages)]).prompt
    armed = Estimate.of([Request(messages=messages, extra={"tools": [{"x": "z" * 400}]})]).prompt
    assert (bare, called > bare + 25, armed > called + 100) == (14, True, True)


# --- Allowances ----------------------------------------------------------------------------------

USES = st.lists(
    st.tuples(st.integers(0, 5 * S), st.integers(1, 60), st.integers(0, 80), st.booleans()),
    max_size=30,
)


@given(limit=st.integers(1, 120), uses=USES)
def test_what_is_used_within_its_promise_never_exceeds_limit_and_burst(
    limit: int, uses: Any
) -> None:
    """Requests overlap: each is settled when the next but one arrives."""
    clock = Clock()
    allowance = Allowance(Limits(tokens_per_minute=limit), clock=clock)
    began, used_all, owed, going = clock.now, 0, 0, list[tuple[int, int]]()

    def settle() -> None:
        nonlocal used_all, owed
        held, used = going.pop(0)
        allowance.settle(held, used)
        used_all += used
        owed += max(0, used - held)

    for passed, n, used, _ in uses:
        clock.now += passed
        if len(going) > 2:
            settle()
        with suppress(RateLimitError):
            going.append((allowance.hold(n, at_least=n), used))
    while going:
        settle()
    assert (used_all - owed) * 60 * S <= limit * 60 * S + limit * (clock.now - began)


def test_a_reply_of_unnamed_length_is_promised_at_most_all_there_ever_is() -> None:
    allowance = Allowance(Limits(tokens_per_minute=50), clock=Clock())

    assert allowance.hold(600, at_least=10) == 50
    with pytest.raises(RateLimitError) as caught:
        allowance.hold(600, at_least=10)
    assert caught.value.retry_after_s == 60
    assert caught.value.kind == "tokens"


def test_more_than_there_ever_is_is_told_as_such() -> None:
    allowance = Allowance(Limits(tokens_per_minute=50), clock=Clock())
    with pytest.raises(RateLimitError, match="max_tokens") as caught:
        allowance.hold(51, at_least=51)
    assert not caught.value.retryable


def test_headers_tell_limit_rest_and_reset() -> None:
    clock = Clock()
    allowance = Allowance(Limits(requests_per_minute=60, tokens_per_minute=600), clock=clock)
    allowance.admit()
    allowance.hold(60, at_least=60)

    assert dict(allowance.headers()) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1s",
        b"x-ratelimit-limit-tokens": b"600",
        b"x-ratelimit-remaining-tokens": b"540",
        b"x-ratelimit-reset-tokens": b"6s",
    }
    assert list(Allowance(Limits(token_budget=1)).headers()) == []


def test_a_meter_settles_by_usage_by_what_left_or_not_at_all() -> None:
    for told, n_left in (("usage", 88), ("left", 87), ("nothing", 100)):
        allowance = Allowance(Limits(tokens_per_minute=100), clock=Clock())
        meter = Meter(allowance)
        request = Request(kind="text", prompt="x" * 40, max_tokens=50)
        asyncio.run(meter.ask([request], None))  # type: ignore[arg-type]  # asked by spans alone
        assert dict(allowance.headers())[b"x-ratelimit-remaining-tokens"] == b"40"
        if told == "usage":
            meter.wrote(1000)
            meter.used(Usage(prompt_tokens=9, completion_tokens=3))
        elif told == "left":
            meter.wrote(12)
        meter.close()
        assert dict(allowance.headers())[b"x-ratelimit-remaining-tokens"] == b"%d" % n_left


@pytest.mark.parametrize(
    ("failure", "n_used"),
    [
        (None, 10),
        (ClientDisconnect(), 10),
        (asyncio.CancelledError(), 10),
        (UpstreamTimeoutError("late"), 10),
        (ValueError("no"), 10),
        (UpstreamError("cut off"), 10),
        (UpstreamError("no", upstream_status=500), 0),
        (BusyError("full"), 0),
        (RequestError("no"), 0),
    ],
)
@pytest.mark.parametrize("begun", [True, False])
def test_the_prompt_costs_once_the_engine_was_asked_unless_it_turned_it_away(
    failure: BaseException | None, n_used: int, begun: bool
) -> None:
    allowance = Allowance(Limits(tokens_per_minute=100), clock=Clock())
    meter = Meter(allowance)
    request = Request(kind="text", prompt="x" * 40, max_tokens=50)
    asyncio.run(meter.ask([request], None))  # type: ignore[arg-type]
    if begun:
        meter.begin()
    meter.close(failure)
    left = int(dict(allowance.headers())[b"x-ratelimit-remaining-tokens"])
    assert left == 100 - (n_used if begun else 0)


@pytest.mark.parametrize("counted", [True, False])
@given(prompt=st.integers(0, 60), completion=st.integers(0, 60), n_chars=st.integers(0, 200))
def test_what_is_not_counted_is_never_charged_below_what_is_known(
    counted: bool, prompt: int, completion: int, n_chars: int
) -> None:
    allowance = Allowance(Limits(tokens_per_minute=1000), clock=Clock())
    meter = Meter(allowance)
    request = Request(kind="text", prompt="x" * 40, max_tokens=50)
    asyncio.run(meter.ask([request], None))  # type: ignore[arg-type]
    meter.begin()
    meter.wrote(n_chars)
    meter.used(Usage(prompt_tokens=prompt, completion_tokens=completion), counted=counted)
    meter.close()
    used = 1000 - int(dict(allowance.headers())[b"x-ratelimit-remaining-tokens"])
    known, about = prompt + completion, 10 + -(-n_chars // 4)
    assert used == (known if counted and prompt else max(known, about))


def test_an_upstreams_own_limits_are_not_shown_as_ours() -> None:
    headers = [(b"X-RateLimit-Limit-Tokens", b"9"), (b"x-kept", b"1")]
    Meter(Allowance(Limits(requests_per_minute=2), clock=Clock())).stamp(headers)
    assert dict(headers)[b"x-ratelimit-limit-requests"] == b"2"
    assert (b"x-kept", b"1") in headers
    assert len(headers) == 4

    unlimited = [(b"x-ratelimit-limit-tokens", b"9")]
    Meter().stamp(unlimited)
    assert unlimited == [(b"x-ratelimit-limit-tokens", b"9")]


# --- Budgets -------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.db")
    yield ledger
    ledger.close()


def test_periods_are_of_the_calendar_in_utc() -> None:
    at = datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC).timestamp()
    assert [period_name(p, at) for p in ("day", "month", "total")] == [
        "2026-02-28", "2026-02", "total",
    ]  # fmt: skip
    assert period_name("month", at + 1) == "2026-03"


def test_a_ledger_adds_by_tenant_key_and_period(ledger: Ledger) -> None:
    one, other = ("t", "k", "total"), ("t", "k", "2026-01")
    assert ledger.spent(one) == 0
    assert ledger.add({one: 3}) == {one: 3}
    assert ledger.add({one: 4, other: 1}) == {one: 7, other: 1}
    assert ledger.spent(("u", "k", "total")) == 0


def test_a_ledger_outlives_its_process_and_drops_what_is_long_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path / "l.db")
    ledger.add({("t", "k", "2020-01-01"): 1, ("t", "k", "total"): 2})
    ledger.close()
    later = time.time() + 500 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    ledger = Ledger(tmp_path / "l.db")
    assert ledger.spent(("t", "k", "2020-01-01")) == 0
    assert ledger.spent(("t", "k", "total")) == 2
    ledger.close()
    with pytest.raises(StoreError, match="closed"):
        ledger.spent(("t", "k", "total"))


def test_the_ledger_lies_beside_the_register(tmp_path: Path) -> None:
    def place(url: str | None) -> str:
        return str(place_of(Settings(home=tmp_path, register_url=url)))

    assert place(None) == str(tmp_path / "ledger.db")
    assert place("sqlite:////srv/register.db") == "sqlite:////srv/register.db-ledger.db"
    assert place("postgresql+psycopg://u:p@h/d") == "postgresql+psycopg://u:p@h/d"


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 60), st.integers(0, 60)),
        st.tuples(st.just("end"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("save"), st.just(0), st.just(0)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    max_size=30,
)


@given(budget=st.integers(1, 300), acts=ACTS)
def test_a_budget_is_never_overspent_whatever_ends_and_restarts(budget: int, acts: Any) -> None:
    """Against a sum: requests promise *n*, use up to it, end in any order, processes too."""

    class Kept:
        total = 0

        def spent(self, _entry: Any) -> int:
            return self.total

        def add(self, tokens: Any) -> Any:
            self.total += sum(tokens.values())
            return dict.fromkeys(tokens, self.total)

        def close(self) -> None:
            pass

    async def play() -> None:
        kept, used, going = Kept(), 0, list[tuple[int, int]]()

        async def begin() -> tuple[Books, Account]:
            books = Books(kept)  # type: ignore[arg-type]
            account = books.open("t", "k", budget, "total")
            await account.refresh()
            return books, account

        books, account = await begin()
        for act, n, uses in acts:
            if act == "ask":
                held = sum(h for h, _ in going)
                assert account.left == budget - used - held
                if account.hold(n):
                    assert used + held + n <= budget
                    going.append((n, min(n, uses)))
                else:
                    assert used + held + n > budget
            elif act == "end" and going:
                held, spent = going.pop(n % len(going))
                account.settle(held, spent)
                used += spent
            elif act == "save":
                await books.save()
            elif act == "restart":
                for held, spent in going:
                    account.settle(held, spent)
                    used += spent
                going.clear()
                await books.aclose()
                assert kept.total == used
                books, account = await begin()
        await books.aclose()
        assert kept.total == used <= budget

    asyncio.run(play())


async def test_two_processes_share_a_budget(ledger: Ledger, monkeypatch: Any) -> None:
    monkeypatch.setattr(budgets_module, "FRESH_S", 0.0)
    ours, theirs = Books(ledger), Books(ledger)
    one, other = (books.open("t", "k", 100, "total") for books in (ours, theirs))
    for account in (one, other):
        await account.refresh()
    one.hold(70)
    one.settle(70, 70)
    await ours.save()

    await other.refresh()
    assert other.left == 30
    other.hold(30)
    other.settle(30, 30)
    await theirs.save()
    await one.refresh()
    assert one.left == 0
    await ours.aclose()


async def test_a_new_period_has_a_whole_budget_and_the_old_one_is_kept(ledger: Ledger) -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()
    books = Books(ledger, clock=lambda: now)
    account = books.open("t", "k", 100, "month")
    await account.refresh()
    account.hold(80)
    account.settle(80, 80)
    assert not account.hold(30)

    now += 86_400
    await account.refresh()
    assert account.left == 100
    await books.save()
    assert account.left == 100
    assert ledger.spent(("t", "k", "2026-01")) == 80
    await books.aclose()


async def test_what_cannot_be_saved_still_counts_and_is_tried_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_tokens: object) -> dict[Any, int]:
        raise StoreError("the disk is full")

    monkeypatch.setattr(budgets_module, "SAVE_S", 0.01)
    books = Books(ledger)
    account = books.open("t", "k", 100, "total")
    await account.refresh()
    account.hold(60)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "add", broken)
        account.settle(60, 60)
        await asyncio.sleep(0.05)
        assert account.left == 40
    await awaited_s(lambda: ledger.spent(account.entry) == 60)
    assert account.left == 40
    await books.aclose()


async def test_who_knows_no_balance_gives_no_credit(ledger: Ledger) -> None:
    allowance = Allowance(
        Limits(token_budget=10), Books(ledger).open("t", "k", 10, "total"), clock=Clock()
    )
    ledger.close()
    request = Request(kind="text", prompt="x", max_tokens=1)
    with pytest.raises(StoreError):
        await Meter(allowance).ask([request], None)  # type: ignore[arg-type]


async def test_a_refusal_by_the_minute_leaves_the_budget_alone(ledger: Ledger) -> None:
    books = Books(ledger)
    account = books.open("t", "k", 100, "day")
    await account.refresh()
    limits = Limits(tokens_per_minute=40, token_budget=100, budget_period="day")
    allowance = Allowance(limits, account, clock=Clock())
    allowance.hold(30, at_least=30)
    with pytest.raises(RateLimitError):
        allowance.hold(30, at_least=30)
    assert account.left == 70
    allowance.settle(30, 0)
    with pytest.raises(QuotaError, match=r"100 tokens a day: 100 are left.*may take 101.*next day"):
        allowance.hold(101, at_least=101)
    await books.aclose()


async def test_every_key_has_its_own_and_names_bound_their_number(tmp_path: Path) -> None:
    keys = [
        {"name": "a", "key": "ka"},
        {"name": "b", "key": "kb", "limits": {"requests_per_minute": None}},
    ]
    settings = Settings(home=tmp_path, keys=keys, api_key="s", limits={"requests_per_minute": 1})  # type: ignore[arg-type]
    found = Allowances.of(settings)
    assert found["b"] is None
    assert found["nobody"] is None
    assert found["a"] is not None
    assert found["api_key"] is not found["a"]
    assert not (tmp_path / "ledger.db").exists()
    await found.aclose()
