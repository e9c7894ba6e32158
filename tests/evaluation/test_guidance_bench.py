"""The bench of guidance: what it asks, in which order, to which length, and what it makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Delta, Plan, Request
from elision.evaluation import bench
from elision.evaluation.bench import Setup
from elision.evaluation.benches import guidance
from elision.evaluation.benches.pacing import (
    Pace,
    answer,
    cost,
    endless,
    entropies,
    exceeded,
    in_turns,
    usage,
)
from elision.evaluation.benches.racing import Stable, ask, stable
from elision.evaluation.figures import Figure
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.interventions.mti import MinimalIntervention
from elision.settings import Settings
from elision.testing.models import tiny_model
from elision.testing.tokenizers import byte_tokenizer

EOS = 257
QUESTIONS = [ask(text, 40) for text in ("hello", "a longer question", "why")]


def causal() -> CausalModel:
    """Return a model that soon chooses its end token, wherever it may."""
    tokenizer = byte_tokenizer()
    model: Any = tiny_model(vocab_size=len(tokenizer), context=2048, eos=EOS)
    model.lm_head.weight.data[EOS] *= 3
    return CausalModel(model, tokenizer, name="tiny")


@pytest.fixture
def tiny() -> Iterator[Stable]:
    engine = LocalEngine(causal())
    yield stable(engine)
    asyncio.run(engine.aclose())


def pace(seconds: float, n_tokens: int = 11, first_s: float = 0.0, **notes: float) -> Pace:
    return Pace(n_tokens=n_tokens, seconds=seconds, first_s=first_s, notes=notes)


# --- gates ---------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 11), min_size=1, max_size=60, unique=True), st.floats(0, 0.98))
def test_as_many_exceed_a_threshold_as_the_share_says(nats: list[float], share: float) -> None:
    tau = exceeded(nats, share)
    wanted = min(len(nats) - 1, round(share * len(nats)))
    assert sum(value > tau for value in nats) == wanted


def test_entropies_are_those_of_every_token_of_every_reply(tiny: Stable) -> None:
    way, requests = tiny.ours("off", "a"), endless(tiny, QUESTIONS)
    found = entropies(way, requests)
    assert len(found) == 3 * 40
    tau = exceeded(found, 0.5) + 1e-5
    gated = tiny.ours("off", "a", (MinimalIntervention(tau=tau, scale=1 + 1e-9),))
    guided = sum(answer(gated, [r]).notes.get("mti_guided", 0) for r in requests)
    assert guided == sum(value > tau for value in found) > 50


def test_a_gate_is_set_by_the_replies_that_it_guides(tiny: Stable) -> None:
    requests = endless(tiny, QUESTIONS)
    first = exceeded(entropies(tiny.ours("off", "a"), requests), guidance.SHARE)
    last = guidance.gated(tiny, requests)
    assert last.tau is not None
    missed = {tau: abs(_usage(tiny, requests, tau) - guidance.SHARE) for tau in (first, last.tau)}
    assert missed[last.tau] <= missed[first]
    assert missed[last.tau] < 0.04


def _usage(tiny: Stable, requests: list[Request], tau: float) -> float:
    way = tiny.ours("off", "a", (MinimalIntervention(tau=tau),))
    return usage([answer(way, [request]) for request in requests])


def test_an_idle_gate_looks_at_every_token_and_guides_none(tiny: Stable) -> None:
    idle = tiny.ours("off", "a", (guidance.IDLE,))
    found = answer(idle, endless(tiny, QUESTIONS))
    assert dict(found.notes) == {"mti_gate_seen": 120}
    assert usage([found]) == 0


def test_usage_is_the_share_of_all_tokens_that_were_guided() -> None:
    paces = [pace(1, 30, mti_gate_seen=30, mti_guided=6), pace(1, 10, mti_gate_seen=10)]
    assert usage(paces) == 0.15
    assert usage(paces[1:]) == 0


# --- turns ---------------------------------------------------------------------------------------


def test_replies_that_would_end_early_all_run_to_their_limit(tiny: Stable) -> None:
    way, requests = tiny.ours("off", "a"), endless(tiny, QUESTIONS)
    assert answer(way, QUESTIONS).n_tokens < 120
    for recipes in ((), (guidance.CFG,), (MinimalIntervention(tau=-1.0),)):
        together = answer(replace(way, recipes=recipes), requests)
        assert (together.n_tokens, answer(way, requests[:1]).n_tokens) == (120, 40)


@dataclass
class Noting:
    """An engine that notes who asks it what."""

    engine: LocalEngine
    log: list[tuple[str, str]] = field(default_factory=list)

    def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        self.log.append((plan.profile, str(plan.request.messages[0]["content"])))
        return self.engine.stream(plan)


def test_ways_are_warmed_and_then_take_turns_at_going_first(tiny: Stable) -> None:
    noting: Any = Noting(tiny.engine)
    ways = {name: replace(tiny.ours("off", name), engine=noting) for name in "abc"}
    groups = [[ask("p", 2)], [ask("q", 2), ask("r", 2)]]
    paces = in_turns(ways, groups, ask("first", 2))
    assert noting.log[:3] == [(name, "first") for name in "abc"]
    both = [(name, text) for name in "bca" for text in "qr"]
    assert noting.log[3:] == [(name, "p") for name in "abc"] + both
    assert {name: [p.n_tokens for p in found] for name, found in paces.items()} == {
        name: [2, 4] for name in "abc"
    }


def test_the_first_text_is_later_than_the_request_and_no_later_than_the_end(tiny: Stable) -> None:
    for group in (QUESTIONS, QUESTIONS[:1]):
        found = answer(tiny.ours("off", "a"), endless(tiny, group))
        assert 0 < found.first_s < found.seconds


# --- figures -------------------------------------------------------------------------------------


def test_a_cost_is_time_over_time_behind_the_first_token_or_in_all() -> None:
    paces = {
        "plain": [pace(2, first_s=1.0), pace(4, first_s=2.0), pace(9, first_s=1.0)],
        "cfg": [pace(3, first_s=1.0), pace(5, first_s=2.0), pace(13, first_s=1.0)],
    }
    behind = cost("x", paces, "cfg", most=1.4)
    assert (behind.value, behind.spread, behind.missed) == (1.5, (1.5, 2.0), True)
    assert behind.conditions["plain_ms"] == pytest.approx(1e3 * 11 / 30, abs=0.01)
    assert cost("x", paces, "cfg", in_all=True).value == pytest.approx(13 / 9, abs=1e-4)
    assert cost("x", paces, "cfg", over_all=True).value == pytest.approx(17 / 11, abs=1e-4)


@contextmanager
def as_it_is(setup: Setup, dtype: str) -> Iterator[Stable]:
    """Serve a tiny model whose weights are not packed, which takes longer than the bench."""
    model = causal()
    model.model.to(getattr(torch, dtype))
    engine = LocalEngine(model)
    yield stable(engine)
    asyncio.run(engine.aclose())


@pytest.mark.slow
def test_the_bench_reports_every_figure(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guidance, "opened", as_it_is)
    setup = Setup(settings=Settings(home=home), quick=True, repeats=lambda full, quick: quick)
    check({figure.figure: figure for figure in guidance.measure(setup)})


@pytest.mark.slow
def test_it_loads_its_models_as_they_are_served(tmp_path: Path) -> None:
    folder, model = tmp_path / "tiny", causal()
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    settings = Settings(
        home=tmp_path / "home", cache=tmp_path / "cache", model=str(folder), threads=1
    )
    found = bench.run("guidance", settings=settings, quick=True)
    check({figure.figure: figure for figure in found})
    assert all(figure.conditions["model"] == "tiny" for figure in found)


def check(found: dict[str, Figure]) -> None:
    """Check names, goals, and what the figures say of how they were measured."""
    assert {name.removeprefix("guidance."): str(f.goal or "") for name, f in found.items()} == {
        "mti_cost": "<= 1.15", "cfg_cost": "<= 1.4", "cad_cost": "", "uld_cost": "",
        "mti_idle": "<= 1.01", "cfg_cost.auto": "", "cfg_8": "<= 1.6", "mti_8": "",
        "mti_cost.fp32": "<= 1.25",
    }  # fmt: skip
    assert all(figure.value > 0 and figure.unit == "x" for figure in found.values())
    for name in ("cfg_cost", "cfg_cost.auto", "cad_cost", "uld_cost", "cfg_8", "mti_idle"):
        usage = found[f"guidance.{name}"].conditions["usage"]
        assert usage == (0 if name == "mti_idle" else 1)
    for name, dtype in (("mti_cost", "bfloat16"), ("mti_cost.fp32", "float32")):
        conditions = found[f"guidance.{name}"].conditions
        assert conditions["dtype"] == dtype
        assert 0 < conditions["usage"] < 0.3


def test_it_is_a_bench() -> None:
    assert "guidance" in bench.BENCHES
