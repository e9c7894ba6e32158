"""Admission: what a vLLM with the plug-in takes and what it answers with 400."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import RequestError
from elision.guards.carried import Carried
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.plugin.admission import (
    MOST_LOGPROBS,
    REQUIRE,
    SECRET,
    admit,
    is_set,
    order_of,
    secret_of,
)
from elision.middleware.engines.plugin.kept import Kept
from elision.middleware.engines.plugin.orders import KEY, SEAL, Order, sealed

FORBIDDEN = [
    "prompt_logprobs",
    "prompt_logprob_token_ids",
    "logprob_token_ids",
    "thinking_token_budget",
    "trace_decode_token_ids",
]


def masks(text: str = "zebra") -> Carried:
    found = Carried.of([ForgetTarget(title="t", phrases=(Phrase(text=text),))])
    assert found is not None
    return found


def params(extra: Any = None, **fields: Any) -> SimpleNamespace:
    """Return what has the fields of vLLM's SamplingParams that count here."""
    neutral = dict.fromkeys(["logprobs", *FORBIDDEN])
    return SimpleNamespace(**{**neutral, "stop_token_ids": [], "extra_args": extra, **fields})


def carrying(order: Order | str, seal: Any = None) -> dict[str, Any]:
    text = order if isinstance(order, str) else order.dumps()
    return {KEY: text} if seal is None else {KEY: text, SEAL: seal}


def under(order: Order, secret: str | None) -> dict[str, Any]:
    text = order.dumps()
    return carrying(text, None if secret is None else sealed(text, secret))


def refused(given: SimpleNamespace, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(RequestError) as caught:
        admit(given, environ or {})
    assert isinstance(caught.value, ValueError)  # what vLLM answers with 400
    return str(caught.value)


def test_a_request_without_an_order_comes_in_unless_one_is_required() -> None:
    for extra in (None, {}, {"another_plugin": 1}):
        admit(params(extra), {})
        admit(params(extra, prompt_logprobs=5), {})
        assert "gateway" in refused(params(extra), {REQUIRE: "1"})


@pytest.mark.parametrize(
    ("value", "says"), [("1", True), ("true", True), ("0", False), (" No ", False), ("", False)]
)
def test_an_environment_says_yes_by_anything_but_a_no(value: str, says: bool) -> None:
    assert is_set(REQUIRE, {REQUIRE: value}) is says
    assert not is_set(REQUIRE, {})


def test_an_order_comes_in_under_its_seal_alone_where_there_is_a_secret() -> None:
    text = Order(user_text="zebra", until=time.time() + 60).dumps()
    environ = {SECRET: "s", REQUIRE: "1"}
    admit(params(carrying(text, sealed(text, "s"))), environ)
    admit(params(carrying(text)), {})
    for seal in (None, "", 1, sealed(text, "t"), sealed(text + " ", "s")):
        said = refused(params(carrying(text, seal)), environ)
        assert "sealed" in said
        assert "zebra" not in said
    assert refused(params({SEAL: sealed(text, "s")}), environ)
    assert secret_of({SECRET: ""}) is None


@pytest.mark.parametrize("order", ["", "{}", "[]", "{", '{"format":99}', 5, 1.5, ["{}"], None])
def test_what_is_no_order_is_refused(order: Any) -> None:
    assert refused(params({KEY: order}))
    assert refused(params({KEY: order, SEAL: "x"}), {SECRET: "s"})


@pytest.mark.parametrize(
    "field",
    FORBIDDEN,
)
def test_what_shows_or_chooses_behind_the_masks_goes_with_no_guard(field: str) -> None:
    for order in (Order(guard=masks().digest), Order(bans={0: (5,)})):
        assert field in refused(params(carrying(order), **{field: 0}))
    admit(params(carrying(Order()), **{field: 0}), {})
    admit(params(None, **{field: 0}), {})


def test_under_a_guard_few_alternatives_are_told() -> None:
    guarded = carrying(Order(guard=masks().digest))
    for n in (None, 0, 1, MOST_LOGPROBS):
        admit(params(guarded, logprobs=n), {})
    for n in (-1, MOST_LOGPROBS + 1):
        assert "logprobs" in refused(params(guarded, logprobs=n))
        admit(params(carrying(Order()), logprobs=n), {})


def test_the_stop_token_must_end_the_choice() -> None:
    order = carrying(Order(stop=5))
    admit(params(order, stop_token_ids=[1, 5]), {})
    for ids in ([], None, [6]):
        assert "stop" in refused(params(order, stop_token_ids=ids))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_tokens", 1),
        ("allowed_token_ids", [1, 2]),
        ("allowed_token_ids", []),
        ("bad_words", ["fine", "<|im_start|>"]),
        ("bad_words", [" [gMASK]"]),
        ("bad_words_token_ids", [[7], [8, 5]]),
    ],
)
def test_nothing_may_overrule_the_stop_token(field: str, value: Any) -> None:
    said = refused(params(carrying(Order(stop=5)), stop_token_ids=[5], **{field: value}))
    assert field.removesuffix("_token_ids") in said
    assert "im_start" not in said
    admit(params(carrying(Order()), **{field: value}), {})
    admit(params(None, **{field: value}), {})


def test_a_guarded_reply_may_end_at_any_token() -> None:
    guarded = carrying(Order(guard=masks().digest))
    assert "min_tokens" in refused(params(guarded, min_tokens=1))
    admit(params(guarded, min_tokens=0), {})


def test_what_leaves_the_stop_token_alone_comes_in() -> None:
    harmless = {
        "min_tokens": 0,
        "allowed_token_ids": [5, 6],
        "bad_words": ["Mr. Smith", "naïve!", "1 + 1 = 2"],
        "bad_words_token_ids": [[7], [8, 9]],
    }
    admit(params(carrying(Order(stop=5)), stop_token_ids=[5], **harmless), {})


@given(age=st.floats(1, 1e9), secret=st.sampled_from([None, "s"]))
def test_an_order_that_was_kept_is_refused_where_one_of_now_comes_in(
    age: float, secret: str | None
) -> None:
    environ = {} if secret is None else {SECRET: secret}
    order = Order(user_text="zebra", until=time.time() + age)
    admit(params(under(order, secret)), environ)
    said = refused(params(under(replace(order, until=time.time() - age), secret)), environ)
    assert "clocks" in said
    assert "zebra" not in said


def test_an_order_that_holds_for_ever_comes_in_only_where_none_is_sealed() -> None:
    text = Order().dumps()
    admit(params(carrying(text)), {})
    assert "until" in refused(params(carrying(text, sealed(text, "s"))), {SECRET: "s"})


@pytest.mark.parametrize("until", ['"soon"', "true", "NaN", "[1]"])
def test_an_end_that_is_no_time_is_refused(until: str) -> None:
    assert refused(params({KEY: f'{{"format":1,"until":{until}}}'}))


def test_an_order_that_came_in_in_time_is_carried_out_whenever_its_turn_is() -> None:
    late = Order(until=1.0)
    assert order_of(under(late, "s"), "s") == late


def test_masks_to_learn_are_looked_at_before_they_come_in() -> None:
    found = masks()
    admit(params(carrying(Order(guard=found.digest, learn=found.body))), {})
    admit(params(carrying(Order(learn=found.body))), {})
    wrong = found.body.replace('"phrases"', '"names"')
    for order in (
        Order(guard=masks("lion").digest, learn=found.body),
        Order(guard=Carried.loads(wrong).digest, learn=wrong),
        Order(learn="{}"),
    ):
        assert "zebra" not in refused(params(carrying(order)))


def test_an_order_is_the_one_that_was_written() -> None:
    order = Order(guard="abc", user_text="hello")
    assert order_of(carrying(order), None) == order
    assert order_of(None, "secret") is None


# --- masks that are kept -------------------------------------------------------------------------


def test_masks_are_found_by_their_digest_and_the_oldest_go() -> None:
    kept, bodies = Kept(most=3), [masks(f"word{n}") for n in range(4)]
    for carried in bodies[:3]:
        assert kept.learn(carried.body) == carried.digest
    first = kept.find(bodies[0].digest)
    assert first is not None  # and used just now
    kept.learn(bodies[3].body)
    assert kept.find(bodies[0].digest) is first
    assert kept.find(bodies[1].digest) is None
    assert len(kept) == 3


def test_long_masks_push_out_those_that_were_not_used_and_stay_themselves() -> None:
    long, short = masks("zebra " * 20), [masks(f"word{n}") for n in range(3)]
    kept = Kept(most_chars=len(long.body) + len(short[0].body))
    for carried in (*short, long):
        kept.learn(carried.body)
    assert [kept.find(one.digest) is not None for one in (*short, long)] == [False] * 2 + [True] * 2
    tiny = Kept(most_chars=1)
    for carried in (long, short[0]):
        tiny.learn(carried.body)
        assert tiny.find(carried.digest) is not None
        assert len(tiny) == 1


def test_masks_that_are_known_are_not_compiled_again() -> None:
    kept, carried = Kept(), masks()
    kept.learn(carried.body)
    known = kept.find(carried.digest)
    kept.learn(carried.body)
    assert kept.find(carried.digest) is known
    assert "zebra" not in repr(kept)


def test_what_is_no_mask_leaves_what_is_kept() -> None:
    kept, carried = Kept(most=1), masks()
    kept.learn(carried.body)
    with pytest.raises(ValueError, match="carried"):
        kept.learn("[]")
    assert kept.find(carried.digest) is not None
