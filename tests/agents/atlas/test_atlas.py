"""Episodes end to end: a real store, real selection and evidence; only the roles are scripted."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from elision.agents.atlas import remembering
from elision.agents.atlas.atlas import Atlas
from elision.agents.atlas.config import (
    AdviceConfig,
    AtlasConfig,
    DistillerConfig,
    Help,
    ProbeConfig,
    RouterConfig,
    StudentConfig,
    TeacherConfig,
    Thresholds,
    TurnConfig,
)
from elision.agents.atlas.distil_rules import RuleDistiller
from elision.agents.atlas.experience import Experience, Figures
from elision.agents.atlas.judge import Judge
from elision.agents.atlas.lanes import LANES, Lane
from elision.agents.atlas.ledger import Price
from elision.agents.atlas.plans import TaskPlan
from elision.agents.atlas.student import Attempt, Brief, Spent
from elision.agents.atlas.task import Task
from elision.agents.atlas.teacher import Review, Validation
from elision.agents.atlas.tools import Action
from elision.agents.speaking import Said
from elision.contract import Usage
from elision.errors import ConfigError, RequestError, StoreError, UpstreamError
from elision.memory.learning.cues import Cue
from elision.memory.learning.entries import Entry, EntryDraft
from elision.memory.learning.states import State
from elision.memory.memory import Memory
from elision.memory.records import Scope, Trust
from elision.testing import TextEngine

SCOPE = Scope("acme", ("agent",))
RULE = "Label the widgets before sorting them."
SECRET = "Zebulon"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a memory without records, made once: migrations take longer than most tests."""
    home = tmp_path_factory.mktemp("empty")
    Memory.open(home, snapshots=False).close()
    return home


@pytest.fixture
def memory(empty: Path, tmp_path: Path) -> Iterator[Memory]:
    home = shutil.copytree(empty, tmp_path / "memory")
    with Memory.open(home, snapshots=False) as opened:
        yield opened


@dataclass
class Sorter:
    """Does well if it is told the rule, by memory or by a teacher; notes what it is told."""

    tools: tuple[str, ...] = ("label",)
    works: Callable[[Brief], bool] = lambda brief: bool(brief.guidance) or RULE in brief.advice
    briefs: list[Brief] = field(default_factory=list)

    async def attempt(self, task: Task, brief: Brief) -> Attempt:
        self.briefs.append(brief)
        row = Spent(role="student", model="sorter", tokens_in=80, tokens_out=20)
        good = self.works(brief)
        actions = (Action(1, "label", {"what": "widget"}),) if good else ()
        return Attempt("good" if good else "bad", actions, (row,))


class Foreman:
    """Knows the rule."""

    def __init__(self) -> None:
        self.briefs: list[Brief] = []

    async def validate(self, task: Task, attempt: Attempt, brief: Brief) -> Validation:
        self.briefs.append(brief)
        row = Spent(role="teacher", model="foreman", tokens_in=40, tokens_out=10)
        good = attempt.output == "good"
        return Validation(good, "" if good else RULE, (row,))

    async def review(self, task: Task, plan: TaskPlan, brief: Brief) -> Review:
        return Review(plan)


def check(task: Task, attempt: Attempt) -> float:
    return float(attempt.output == "good")


def task(n: int, **more: Any) -> Task:
    return Task(f"Sort the widgets of crate {n} for {SECRET}.", **more)


def teach(memory: Memory, **more: Any) -> Entry:
    cue = more.pop("cue", Cue(type="keyword", pattern="widgets"))
    draft = EntryDraft(imperative=RULE, cue=cue, handle=more.pop("handle", "label"), **more)
    entry = memory.playbook.add(SCOPE, draft, actor="test", trust=Trust.OPERATOR)
    return memory.playbook.admit("acme", entry.id, actor="test")


def atlas(memory: Memory | None, student: Any = None, **more: Any) -> Atlas:
    said = more.pop("config", {})
    # Episodes have random ids, and the coin for exploring is drawn by them.
    router = {"explore": 0.0, **said.get("router", {})}
    config = AtlasConfig(**{**said, "router": router})
    more.setdefault("teacher", Foreman())
    more.setdefault("checker", check)
    return Atlas(student or Sorter(), memory, scope=SCOPE, config=config, **more)


def rows(memory: Memory, table: str) -> list[tuple[Any, ...]]:
    with memory.store.reading() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {table}")]


# --- learning ---------------------------------------------------------------------------------


async def test_what_a_teacher_says_once_is_known_later(memory: Memory) -> None:
    agent = atlas(memory, distiller=RuleDistiller())
    first = await agent.run(task(1))
    await agent.settled()
    assert (first.status, len(first.tried), first.shown) == ("passed", 2, ())
    [entry] = memory.playbook.entries(SCOPE)
    assert (entry.state, entry.trust) == (State.PROVISIONAL, Trust.TOOL)
    await agent.aclose()
    later = await atlas(memory, config={"learning": "frozen"}).run(task(2))
    assert (later.shown, later.status, len(later.tried)) == ((entry.id,), "passed", 1)


async def test_the_entry_is_drawn_for_and_the_coin_is_on_record(memory: Memory) -> None:
    entry = teach(memory)
    agent = atlas(memory)
    for n in range(16):
        outcome = await agent.run(task(n))
        [met] = memory.episodes.exposures("acme", outcome.episode or "")
        assert met.propensity == 0.7
        assert met.applied is (outcome.shown == (entry.id,))
    evidence = memory.playbook.evidence("acme", entry.id)
    assert sum(p.applied.n + p.withheld.n for p in evidence.phases) == 16
    assert sum(p.applied.n for p in evidence.phases) > 0


async def test_an_entry_is_never_counted_in_the_episode_that_made_it(memory: Memory) -> None:
    agent = atlas(memory, distiller=RuleDistiller())
    outcome = await agent.run(task(1))
    await agent.settled()
    [entry] = memory.playbook.entries(SCOPE)
    assert memory.episodes.exposures("acme", outcome.episode or "") == ()
    assert memory.playbook.evidence("acme", entry.id).phases == ()


async def test_adoption_is_an_action_that_does_what_a_shown_entry_says(memory: Memory) -> None:
    entry = teach(memory)
    agent = atlas(memory, config={"learning": "on"})
    outcomes = [await agent.run(task(n)) for n in range(8)]
    shown = sum(bool(one.shown) for one in outcomes)
    tally = memory.playbook.tallies([entry])[entry.id]
    assert tally.n_applied == shown
    assert tally.adopted == tally.adopted_ok == shown


async def test_learning_behind_the_answer_never_blocks_it(memory: Memory) -> None:
    let = asyncio.Event()

    class Slow(RuleDistiller):
        async def distil(self, read: Any, **more: Any) -> Any:
            await let.wait()
            return await super().distil(read, **more)

    agent = atlas(memory, distiller=Slow())
    outcome = await asyncio.wait_for(agent.run(task(1)), 10)
    assert outcome.status == "passed"
    assert memory.playbook.entries(SCOPE) == ()
    let.set()
    await agent.aclose()
    assert len(memory.playbook.entries(SCOPE)) == 1


async def test_a_distiller_that_breaks_ends_nothing(
    memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        async def distil(self, read: Any, **_: Any) -> Any:
            raise KeyError(SECRET)

    agent = atlas(memory, distiller=Broken())
    with caplog.at_level(logging.DEBUG):
        assert (await agent.run(task(1))).status == "passed"
        await agent.settled()
    assert agent.experience.counts["failed_KeyError"] == 1
    assert SECRET not in caplog.text


async def test_drift_quarantines_what_was_learned_from_that_episode(memory: Memory) -> None:
    experience = Experience()
    experience.drift.prime(SCOPE, "checker", [0.0] * 20)
    agent = atlas(memory, distiller=RuleDistiller(), experience=experience)
    await agent.run(task(1))
    await agent.settled()
    assert experience.counts["drift_alarm"] == 1
    [entry] = memory.playbook.entries(SCOPE, states=tuple(State))
    assert entry.state is State.QUARANTINED
    assert memory.playbook.moves("acme", entry.id)[-1].reason == "drift"


async def test_over_the_daily_quota_nothing_is_distilled(memory: Memory) -> None:
    agent = atlas(memory, distiller=RuleDistiller(), config={"distiller": {"daily_tokens": 0}})
    await agent.run(task(1))
    await agent.settled()
    assert agent.experience.counts["over_quota"] == 1
    assert memory.playbook.entries(SCOPE, states=tuple(State)) == ()


# --- modes ------------------------------------------------------------------------------------


async def test_off_touches_no_memory_and_tells_the_student_nothing() -> None:
    class Untouched:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"memory was asked for {name}")

    student = Sorter()
    config = {"learning": "off", "router": {"explore": 1.0}}
    agent = atlas(Untouched(), student, config=config)  # type: ignore[arg-type]
    outcome = await agent.run(task(1))
    assert (outcome.episode, outcome.shown, outcome.lane) == (None, (), Lane.PAIRED)
    assert student.briefs[0].advice == ""
    with pytest.raises(ConfigError):
        await agent.reward("x", 1.0)
    with pytest.raises(ConfigError, match="without memory"):
        atlas(None)


async def test_frozen_shows_all_and_changes_nothing_but_its_own_rows(memory: Memory) -> None:
    entry = teach(memory)
    tables = ("records", "evidence", "exposures", "moves", "vectors", "changes")
    before = {table: rows(memory, table) for table in tables}
    agent = atlas(memory, distiller=RuleDistiller(), config={"learning": "frozen"})
    outcomes = [await agent.run(task(n)) for n in range(6)]
    await agent.settled()
    assert all(one.shown == (entry.id,) for one in outcomes)
    assert {table: rows(memory, table) for table in tables} == before
    assert len(rows(memory, "episodes")) == 6
    assert rows(memory, "ledger")


async def test_shadow_notes_what_it_would_have_drawn_for_and_shows_nothing(memory: Memory) -> None:
    entry = teach(memory)
    student = Sorter()
    agent = atlas(memory, student, config={"learning": "shadow"})
    outcome = await agent.run(task(1))
    assert {brief.advice for brief in student.briefs} == {""}
    assert outcome.shown == ()
    [met] = memory.episodes.exposures("acme", outcome.episode or "")
    assert (met.entry, met.applied) == (entry.id, False)
    assert memory.playbook.evidence("acme", entry.id).phases == ()


async def test_with_nothing_selected_the_prompt_is_that_of_off(memory: Memory) -> None:
    heard: list[list[Any]] = []
    for learning, kept in (("on", memory), ("off", None)):
        engine = TextEngine("fine", every=0)
        agent = atlas(kept, engine, config={"learning": learning}, teacher=None, checker=None)
        await agent.run(task(1))
        heard.append([request.messages for request in engine.requests])
    assert heard[0] == heard[1]


async def test_injected_advice_never_fires_a_cue(memory: Memory) -> None:
    first = teach(memory)
    teach(memory, cue=Cue(type="keyword", pattern="label"), effect="for those who label")
    agent = atlas(memory, config={"learning": "frozen"})
    assert (await agent.run(task(1))).shown == (first.id,)


# --- lanes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", LANES)
async def test_every_lane_can_be_forced(memory: Memory, lane: Lane) -> None:
    agent = atlas(memory, config={"forced_lane": lane})
    outcome = await agent.run(task(1))
    assert outcome.lane is lane
    assert outcome.decision.source == "forced"
    assert memory.episodes.get("acme", outcome.episode or "").lane == lane.value


@pytest.mark.parametrize(("works", "lane"), [(True, Lane.AUTO), (False, Lane.ESCALATE)])
async def test_supervision_follows_what_the_student_did_alone(
    memory: Memory, works: bool, lane: Lane
) -> None:
    student = Sorter(works=lambda _: works)
    agent = atlas(memory, student)
    assert (await agent.run(task(1))).lane is Lane.PAIRED
    alone = atlas(memory, student, config={"forced_lane": "auto"})
    for _ in range(10):
        await alone.run(task(1))
    outcome = await agent.run(task(1))
    assert (outcome.lane, outcome.decision.source) == (lane, "history")
    assert len(outcome.decision.neighbours) == 8


async def test_a_risky_task_is_never_explored_on(memory: Memory) -> None:
    agent = atlas(memory, config={"router": {"explore": 1.0}})
    risky = await agent.run(task(1, facts={"risk": "high"}))
    plain = await agent.run(task(2))
    assert risky.decision.source == "no_history"
    assert plain.decision.source == "explore"


class Talker:
    """Says one thing to whatever it is asked, or what a function of the prompt returns."""

    def __init__(self, name: str, said: str | Callable[[str], str]) -> None:
        self.name = name
        self.said = said
        self.n_asked = 0

    async def say(self, messages: Sequence[Any], *, max_tokens: int, **_: Any) -> Said:
        self.n_asked += 1
        prompt = "\n".join(message["content"] for message in messages)
        text = self.said if isinstance(self.said, str) else self.said(prompt)
        return Said(text, Usage(prompt_tokens=30, completion_tokens=6))


@pytest.mark.parametrize(
    ("said", "lane", "state"),
    [('{"mode": "escalate", "confidence": 0.2}', Lane.ESCALATE, "used"),
     ("auto!", Lane.PAIRED, "failed"),
     ('{"mode": "sleep", "confidence": 1}', Lane.PAIRED, "failed")],
)  # fmt: skip
async def test_a_probe_is_used_or_its_failure_is_on_record(
    memory: Memory, said: str, lane: Lane, state: str
) -> None:
    agent = atlas(memory, probe=Talker("probe", said))
    outcome = await agent.run(task(1))
    assert (outcome.lane, outcome.decision.probe) == (lane, state)
    decision = memory.episodes.get("acme", outcome.episode or "").decision
    assert decision["probe"] == state
    assert outcome.ledger.of("probe").calls == (1 if state == "used" else 2)


# --- rewards ----------------------------------------------------------------------------------


VERDICT = json.dumps(
    {
        "principles": [{"name": "right", "weight": 0.5}, {"name": "brief", "weight": 0.5}],
        "score": 0.9,
        "rationale": "fine",
        "uncertainty": 0.1,
    }
)


async def test_the_truth_comes_before_judges_and_judges_before_nothing(memory: Memory) -> None:
    judge = Judge(Talker("judge", VERDICT))
    checked = await atlas(memory, judge=judge).run(task(1))
    assert (checked.reward and checked.reward.source, checked.ledger.of("judge").calls) == (
        "checker",
        0,
    )
    judged = await atlas(memory, judge=judge, checker=lambda *_: None).run(task(2))
    assert judged.reward is not None
    assert (judged.reward.source, judged.reward.score) == ("judge", 0.9)
    assert judged.ledger.of("judge").calls == 3
    unknown = await atlas(memory, checker=None).run(task(3))
    assert unknown.reward is None
    assert memory.episodes.get("acme", unknown.episode or "").reward is None


async def test_an_unknown_reward_counts_for_nothing(memory: Memory) -> None:
    entry = teach(memory)
    agent = atlas(memory, checker=None)
    for n in range(4):
        await agent.run(task(n))
    assert memory.playbook.evidence("acme", entry.id).phases == ()


@pytest.mark.parametrize("checker", [lambda *_: 1 / 0, lambda *_: 7.0, lambda *_: float("nan")])
async def test_a_checker_that_breaks_leaves_the_reward_unknown(
    memory: Memory, checker: Any
) -> None:
    outcome = await atlas(memory, checker=checker).run(task(1))
    assert outcome.reward is None
    assert outcome.status == "passed"  # the teacher's word
    assert outcome.faults[0].startswith("checker:")


async def test_a_checker_may_be_a_coroutine(memory: Memory) -> None:
    async def later(task: Task, attempt: Attempt) -> float:
        return 0.25

    outcome = await atlas(memory, checker=later).run(task(1))
    assert outcome.reward is not None
    assert (outcome.reward.score, outcome.status) == (0.25, "failed")


async def test_a_person_may_reward_later_and_only_once_per_rank(memory: Memory) -> None:
    entry = teach(memory)
    agent = atlas(memory, checker=None)
    episode = (await agent.run(task(1))).episode or ""
    assert await agent.reward(episode, 1.0)
    assert not await agent.reward(episode, 0.0)
    assert memory.episodes.get("acme", episode).success is True
    assert len(memory.playbook.evidence("acme", entry.id).phases) == 1


# --- accounts and budgets ---------------------------------------------------------------------


async def test_the_ledger_holds_all_roles_and_is_what_memory_keeps(memory: Memory) -> None:
    prices = {"sorter": Price(input=1, output=1), "foreman": Price(input=10, output=10)}
    agent = atlas(
        memory,
        probe=Talker("probe", '{"mode": "paired", "confidence": 0.6}'),
        judge=Judge(Talker("judge", VERDICT)),
        checker=None,
        config={"prices": prices},
    )
    outcome = await agent.run(task(1))
    assert set(outcome.ledger.roles) == {"embedder", "probe", "student", "teacher", "judge"}
    kept = memory.episodes.get("acme", outcome.episode or "")
    assert kept.tokens == outcome.ledger.total.tokens > outcome.ledger.student.tokens
    assert kept.cost == pytest.approx(outcome.ledger.total.cost)
    assert outcome.ledger.student.cost == pytest.approx(outcome.ledger.student.tokens / 1e6)
    assert memory.episodes.spent("acme", outcome.episode or "") == outcome.ledger.rows


async def test_a_distillers_tokens_come_to_the_same_account(memory: Memory) -> None:
    from elision.agents.atlas.distil import SpeakerDistiller

    agent = atlas(memory, distiller=SpeakerDistiller(Talker("writer", '{"add": []}')))
    outcome = await agent.run(task(1))
    await agent.settled()
    kept = memory.episodes.get("acme", outcome.episode or "")
    assert kept.tokens == outcome.ledger.total.tokens + 36
    assert memory.episodes.spent("acme", outcome.episode or "")[-1].role == "distiller"


@pytest.mark.parametrize(
    "limits", [{"max_tokens": 0}, {"deadline_s": 0.0}, {"max_cost": 0.0}], ids=str
)
async def test_without_budget_nothing_is_tried_and_nothing_passes(
    memory: Memory, limits: dict[str, float]
) -> None:
    student = Sorter()
    for outcome in (
        await atlas(memory, student).run(task(1, **limits)),
        await atlas(memory, student, config=limits).run(task(2)),
    ):
        assert (outcome.status, outcome.output, outcome.reward) == ("unvalidated", "", None)
        assert "budget" in outcome.faults
        assert memory.episodes.get("acme", outcome.episode or "").state == "aborted"
    assert student.briefs == []


# --- what breaks ------------------------------------------------------------------------------


async def test_a_student_that_cannot_answer_aborts_the_episode(memory: Memory) -> None:
    class Gone:
        async def attempt(self, task: Task, brief: Brief) -> Attempt:
            raise UpstreamError("gone")

    with pytest.raises(UpstreamError):
        await atlas(memory, Gone()).run(task(1))
    [episode] = memory.episodes.list(SCOPE)
    assert (episode.state, episode.reward) == ("aborted", None)


async def test_a_cancelled_episode_is_aborted_and_its_reward_unknown(memory: Memory) -> None:
    begun = asyncio.Event()

    class Slow:
        async def attempt(self, task: Task, brief: Brief) -> Attempt:
            begun.set()
            await asyncio.sleep(60)
            raise AssertionError

    running = asyncio.create_task(atlas(memory, Slow()).run(task(1)))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    [episode] = memory.episodes.list(SCOPE)
    assert (episode.state, episode.reward) == ("aborted", None)


async def test_where_memory_fails_at_the_end_the_answer_still_stands(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(memory.episodes, "spend", full)
    outcome = await atlas(memory).run(task(1))
    assert outcome.output == "good"
    assert outcome.faults == ("memory:StoreError",)


async def test_episodes_side_by_side_lose_nothing(memory: Memory) -> None:
    entry = teach(memory)
    agent = atlas(memory, distiller=RuleDistiller())
    outcomes = await asyncio.gather(*(agent.run(task(n)) for n in range(8)))
    await agent.settled()
    assert len({one.episode for one in outcomes}) == 8
    evidence = memory.playbook.evidence("acme", entry.id)
    assert sum(p.applied.n + p.withheld.n for p in evidence.phases) == 8


async def test_no_word_of_a_task_is_in_what_is_told_of_it(memory: Memory) -> None:
    agent = atlas(memory, distiller=RuleDistiller())
    outcome = await agent.run(task(1))
    await agent.settled()
    assert SECRET not in repr(outcome)
    assert SECRET not in json.dumps(outcome.decision.told())
    assert SECRET not in repr(agent.experience.counts)


async def test_tenants_never_meet(memory: Memory) -> None:
    teach(memory)
    agent = Atlas(
        Sorter(), memory, teacher=Foreman(), checker=check, scope=Scope("other", ("agent",))
    )
    outcome = await agent.run(task(1))
    assert outcome.shown == ()
    with pytest.raises(LookupError):
        await atlas(memory).reward(outcome.episode or "", 1.0)


# --- configuration ----------------------------------------------------------------------------


def _keys(model: type[BaseModel], under: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _keys(inner, f"{under}{name}.")
        else:
            yield f"{under}{name}"


PARTS: dict[type[BaseModel], str] = {
    AtlasConfig: "",
    RouterConfig: "router.",
    Thresholds: "router.thresholds.",
    Help: "router.help.",
    AdviceConfig: "advice.",
    StudentConfig: "student.",
    TeacherConfig: "teacher.",
    ProbeConfig: "probe.",
    TurnConfig: "judge.",
    DistillerConfig: "distiller.",
}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Note every key of a configuration that is read."""
    seen: set[str] = set()
    plain = BaseModel.__getattribute__

    def noting(self: BaseModel, name: str) -> Any:
        kind = object.__getattribute__(self, "__class__")
        if kind in PARTS:
            seen.add(PARTS[kind] + name)
        return plain(self, name)

    for kind in PARTS:
        monkeypatch.setattr(kind, "__getattribute__", noting, raising=False)
    return seen


async def test_every_key_of_the_configuration_is_read(memory: Memory, read: set[str]) -> None:
    def answer(prompt: str) -> str:
        verdict = json.dumps({"valid": False, "guidance": RULE})
        return verdict if "valid" in prompt else "bad"

    steps = json.dumps({"steps": [{"id": c, "description": f"Do {c}."} for c in "ab"]})
    config = {
        "router": {"success_value": 1.0, "least": {"x": "paired"}},
        "advice": {"n_context": 999},
    }
    probe = Talker("probe", '{"mode": "paired", "confidence": 0.6}')
    engine = TextEngine(lambda request: answer(str(request.messages)), every=0)
    judge = Judge(Talker("judge", VERDICT))
    agent = atlas(
        memory, engine, teacher=None, judge=judge, probe=probe, checker=lambda *_: 0.5,
        distiller=RuleDistiller(), config=config,
    )  # fmt: skip
    for lane in LANES:
        await agent.run(task(1))
        talker = Talker("m", lambda p: steps if "plan" in p else answer(p))
        other = atlas(memory, talker, checker=None, judge=judge, config={"forced_lane": lane})
        await other.run(task(9))
    await agent.settled()
    assert set(_keys(AtlasConfig)) - read == set()


def test_an_unknown_key_is_an_error() -> None:
    for broken in ({"lane": "auto"}, {"router": {"taus": 1}}, {"advice": {"tokens": 3}}):
        with pytest.raises(ValueError, match="Extra inputs"):
            AtlasConfig(**broken)


def test_experience_is_figures_of_the_last_episodes() -> None:
    experience = Experience()
    assert experience.median_tokens(SCOPE) is None
    experience.prime(SCOPE, [Figures("auto", 10, 1.0), Figures("coach", 30, 3.0)])
    experience.prime(SCOPE, [Figures("auto", 999, 9.0)])
    assert experience.note(SCOPE, Figures("coach", 50, 5.0)) == 3
    assert experience.median_tokens(SCOPE) == 30
    assert experience.costs(SCOPE) == {Lane.AUTO: 1.0, Lane.COACH: 4.0}


async def test_a_new_process_knows_what_episodes_cost(memory: Memory) -> None:
    outcome = await atlas(memory).run(task(1))
    fresh = atlas(memory)
    await fresh.run(task(2))
    assert fresh.experience.median_tokens(SCOPE) == outcome.ledger.total.tokens


@pytest.mark.parametrize("learning", ["on", "frozen", "shadow"])
async def test_costs_are_noted_though_nothing_is_learned(memory: Memory, learning: str) -> None:
    agent = atlas(memory, config={"learning": learning})
    outcomes = [await agent.run(task(n)) for n in range(2)]
    assert agent.experience.median_tokens(SCOPE) == sum(
        one.ledger.total.tokens for one in outcomes
    ) / len(outcomes)
    assert list(agent.experience.costs(SCOPE)) == [outcomes[0].lane]


async def test_a_new_process_reads_the_last_episodes_of_many(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembering, "WINDOW", 2)
    monkeypatch.setattr(remembering, "_PAGE", 2)
    for n in range(5):
        await atlas(memory, config={"forced_lane": "auto"}).run(task(n))
    await atlas(memory, config={"forced_lane": "coach"}).run(task(5))
    fresh = atlas(memory, config={"forced_lane": "paired"})
    await fresh.run(task(6))
    assert set(fresh.experience.costs(SCOPE)) == {Lane.AUTO, Lane.COACH, Lane.PAIRED}
    assert memory.episodes.list(SCOPE)[0].lane == "auto"
    assert len(fresh.experience._last(SCOPE)) == 3


@pytest.mark.parametrize(("trust", "told"), [(Trust.TOOL, False), (Trust.USER, True)])
async def test_a_seed_is_for_a_teacher_only_from_its_floor_on(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, trust: Trust, told: bool
) -> None:
    monkeypatch.setattr(remembering, "_helps", lambda effect: True)
    draft = EntryDraft(
        imperative="Plan: label.",
        purpose="plan_seed",
        handle="label",
        body="label",
        cue=Cue(type="keyword", pattern="widgets"),
    )
    entry = memory.playbook.add(SCOPE, draft, actor="test", trust=trust)
    memory.playbook.admit("acme", entry.id, actor="test")
    # A coin says each time whether the entry is shown: until it was and was not, nothing is known.
    for n in range(99):
        if memory.playbook.effect("acme", entry.id) is not None:
            break
        await atlas(memory, config={"forced_lane": "auto"}).run(task(n))
    recollection = atlas(memory, config={"learning": "frozen"})._recorder._recollection
    assert recollection is not None
    recalled = recollection.recall(task(99), {}, ("label",))
    assert recalled.plan == TaskPlan.listed(["label"])
    assert recalled.plan_for_teacher is told


# --- the real model ---------------------------------------------------------------------------


@pytest.fixture
async def smollm2(smollm2_dir: Path) -> AsyncIterator[Any]:
    import torch

    from elision.middleware.engines.causal import CausalModel
    from elision.middleware.engines.local import LocalEngine

    model = CausalModel.load(smollm2_dir, name="smollm2", dtype=torch.float32)
    engine = LocalEngine(model)
    yield engine
    await engine.aclose()


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_a_small_model_goes_through_all_lanes_without_an_unhandled_error(
    memory: Memory, smollm2: Any
) -> None:
    for lane in LANES:
        config = {
            "forced_lane": lane,
            "max_retries": 0,
            "student": {"max_tokens": 8},
            "teacher": {"max_tokens": 8},
        }
        agent = atlas(
            memory, smollm2, teacher=None, checker=lambda t, a: float("4" in a.output),
            distiller=RuleDistiller(), config=config,
        )  # fmt: skip
        for text in ("What is two plus two?", "Name a colour of the sky."):
            outcome = await agent.run(Task(text))
            assert outcome.lane is lane
            assert outcome.tried
            assert outcome.ledger.student.tokens > 0
            assert outcome.status in {"passed", "failed"}
            assert not any(fault.startswith("student") for fault in outcome.faults)
        await agent.aclose()


async def test_a_task_of_white_space_is_refused(memory: Memory) -> None:
    with pytest.raises(RequestError):
        await atlas(memory).run("  ")
