"""What the engine keeps from one request to the next, and what it finds out about its model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from elision.contract import Completion, Here, Plan, Stage, Stateless, collect
from elision.errors import CapabilityError
from elision.middleware.engines import station as module
from elision.middleware.engines.local import LocalEngine
from elision.middleware.engines.prefixes import PrefixCache
from elision.middleware.engines.station import CurveMemo, Station
from elision.middleware.speculation.cost import recall

from .test_drafting import causal, free
from .test_rewind import Every, back_to, plan

LONG = tuple(b"Once upon a time there was a keeper of bees who could not count beyond seven.")


def asked(**changes: Any) -> Plan:
    wanted = free(max_tokens=24)
    request = replace(wanted.request, prompt=LONG)
    return replace(wanted, request=request, reuse=True, **changes)


async def decode(engine: LocalEngine, plan: Plan) -> Completion:
    return await collect(engine.stream(plan))


def test_a_cost_curve_is_measured_once_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memo = CurveMemo(tmp_path / "costs.json", "here")
    Station(causal(), memo=memo).warm()
    assert recall(memo.file, memo.key) is not None

    def never(*args: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(module, "ForwardTimer", lambda model: never)
    Station(causal(), memo=memo).warm()


def test_a_model_that_takes_no_trees_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_tree_capable", lambda model, new_cache: False)
    station = Station(causal())
    station.warm()
    assert "curve" not in vars(station)


async def test_force_is_refused_where_the_model_takes_no_trees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "is_tree_capable", lambda model, new_cache: False)
    engine = LocalEngine(causal())
    try:
        with pytest.raises(CapabilityError, match="TREE"):
            await decode(engine, asked(speculation="force"))
        plain = await decode(engine, asked(speculation="off"))
        assert (await decode(engine, asked(speculation="auto"))).text == plain.text
    finally:
        await engine.aclose()


async def test_what_was_read_is_not_read_again_for_the_same_tenant_and_profile() -> None:
    engine = LocalEngine(causal())
    try:
        first = await decode(engine, asked())
        again = await decode(engine, asked())
        assert (first.usage.cached_tokens, again.usage.cached_tokens) == (0, len(LONG) - 1)
        assert again.text == first.text
        for other in (asked(tenant="b"), asked(profile="x")):
            assert (await decode(engine, other)).usage.cached_tokens == 0
        assert (await decode(engine, replace(asked(), reuse=False))).usage.cached_tokens == 0
        assert engine.erase("default") > 0
        assert (await decode(engine, asked())).usage.cached_tokens == 0
    finally:
        await engine.aclose()


async def test_nothing_is_kept_where_no_memory_is_given() -> None:
    engine = LocalEngine(causal(), prefix_bytes=0)
    for _ in range(2):
        assert (await decode(engine, asked())).usage.cached_tokens == 0
    await engine.aclose()


async def test_what_follows_a_reply_that_went_back_to_its_beginning_is_not_poisoned() -> None:
    """Going back, it draws its first token anew without a forward, and ends with it."""

    def letters(*recipes: Any, **fields: Any) -> Plan:
        wanted = plan(*recipes, max_tokens=6)
        request = replace(wanted.request, prompt=LONG, **fields)
        return replace(wanted, request=request, reuse=True)

    engine, fresh = LocalEngine(causal()), LocalEngine(causal())
    try:
        plain = (await decode(fresh, replace(letters(), reuse=False))).text
        back = Every(lambda t: len(t) == 3 and chr(t[0]) == plain[0], back_to(0))
        other = (await decode(fresh, replace(letters(back), reuse=False))).text[0]
        done = await decode(engine, letters(back, stop=(other,)))
        assert (done.text, done.choices[0].finish) == ("", "stop")
        assert engine.stats()["prefix_segments"] > 0
        longer = {"prompt": (*LONG, ord(other), *b" and so on for ever")}
        base = letters()
        follows = replace(base, request=replace(base.request, logprobs=0, **longer))
        got = await decode(engine, follows)
        want = await decode(fresh, replace(follows, reuse=False))
        assert got.text == want.text
        for mine, theirs in zip(got.choices[0].logprobs, want.choices[0].logprobs, strict=True):
            assert abs(mine.logprob - theirs.logprob) < 1e-3
    finally:
        await engine.aclose()
        await fresh.aclose()


@dataclass(frozen=True, kw_only=True)
class Refuses(Stateless):
    """Leaves nothing to choose from, at once."""

    stage: Stage = Stage.HARD_MASK

    def adjust(self, logits: Any, here: Here) -> Any:
        return logits - float("inf")


async def test_nothing_is_kept_of_a_reply_that_the_guard_ended() -> None:
    engine = LocalEngine(causal())
    wanted = asked()
    done = await decode(engine, replace(wanted, recipes=(*wanted.recipes, Refuses())))
    assert done.choices[0].finish == "content_filter"
    assert engine.stats()["prefix_segments"] == 0
    await engine.aclose()


def test_a_new_station_shares_nothing() -> None:
    one, other = Station(causal()), Station(causal())
    assert one.pools is not other.pools
    assert one.prefixes is not other.prefixes
    assert isinstance(one.prefixes, PrefixCache)
