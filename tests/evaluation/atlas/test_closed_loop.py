"""The closed loop: real matching, drawing, evidence and accounts; only student and teacher act."""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import fmean

import pytest

from elision.agents.atlas.config import AtlasConfig, RouterConfig
from elision.agents.speaking import EngineSpeaker
from elision.errors import ConfigError
from elision.evaluation.atlas import planted, small_model
from elision.evaluation.atlas.alerts import AlertWorld
from elision.evaluation.atlas.closed_loop import Lived, Loop, Result
from elision.evaluation.atlas.cook import SKILLS as STRANGERS
from elision.evaluation.atlas.simworld import ENTRIES, SimWorld
from elision.memory.learning.states import State


@pytest.fixture(scope="module")
def result(excytin: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    home = tmp_path_factory.mktemp("loop")
    world = AlertWorld(excytin, home)
    # Where a lane is explored no teacher speaks, and its coin follows ids that are new each time.
    config = AtlasConfig(success_from=1.0, router=RouterConfig(explore=0.0))
    loop = Loop(config=config, strangers=STRANGERS, by_luck=0.0, n_most=6)
    return asyncio.run(loop.run(world, home / "runs", seeds=[0]))


def only(result: Result, arm: str) -> tuple[Lived, ...]:
    return next(runs[0] for name, runs in result.runs.items() if name == arm)


def test_every_arm_meets_the_same_tasks_in_the_same_order(result: Result) -> None:
    orders = {arm: [lived.task for lived in runs[0]] for arm, runs in result.runs.items()}
    assert orders["on"] == orders["off"] == orders["shadow"] == orders["shuffled"]
    assert orders["frozen"] == orders["fresh"]
    assert not set(orders["on"]) & set(orders["frozen"])
    assert [lived.row.n for lived in only(result, "on")] == list(range(1, 7))


def test_what_was_taught_is_learned_shown_and_counted(result: Result) -> None:
    assert sum(result.learned[0].values()) > 0
    # While it is learned it may be withheld each time: what is drawn follows ids that are new.
    assert sum(lived.n_shown for lived in only(result, "frozen")) > 0
    for arm in ("off", "fresh", "shadow"):
        assert not any(lived.n_shown for lived in only(result, arm))


def test_the_control_and_shadow_solve_the_same_where_the_lane_is_the_same(result: Result) -> None:
    pairs = zip(only(result, "off"), only(result, "shadow"), strict=True)
    same = [(one.row, two.row) for one, two in pairs if one.lane == two.lane == "paired"]
    assert same
    for one, two in same:
        assert (one.success, one.tokens_student) == (two.success, two.tokens_student)
        assert two.tokens_total >= one.tokens_total  # matching embeds, and that is counted


def test_tokens_of_the_teacher_are_in_the_total(result: Result) -> None:
    for lived in only(result, "off"):
        assert lived.row.tokens_student < lived.row.tokens_total


def test_a_report_says_what_it_is_of(result: Result) -> None:
    told = result.against("on", "off")
    assert "orchestration, not any model" in told.note
    assert told.control.n == told.memory.n == 6


def test_a_loop_takes_a_seed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one seed"):
        asyncio.run(Loop().run(SimWorld(1), tmp_path, seeds=[]))


def test_a_planted_entry_is_drawn_for_on_its_own_tasks_only(tmp_path: Path) -> None:
    world = SimWorld(12)
    found = asyncio.run(planted.measure(world, tmp_path, seed=0))
    assert [one.entry for one in found] == list(ENTRIES)
    for one in found:
        assert one.n == sum(one.entry.tag in task.tags for task in world.trained)
        assert one.state is not State.PROVEN


@pytest.mark.slow
def test_withholding_finds_true_effects_where_comparing_tasks_praises_what_does_nothing(
    tmp_path: Path,
) -> None:
    # What is withheld follows the ids of episodes, new each time: the laws are of many entries.
    found: dict[str, list[planted.Measured]] = {}
    for seed in range(6):
        world = SimWorld(250, seed=seed)
        for one in asyncio.run(planted.measure(world, tmp_path / str(seed), seed=seed)):
            found.setdefault(one.entry.kind, []).append(one)

    def n(kind: str, state: State) -> int:
        return sum(one.state is state for one in found[kind])

    assert n("helps", State.DEMOTED) <= 3 < n("helps", State.ACTIVE) + n("helps", State.PROVEN)
    assert n("harms", State.DEMOTED) >= 4
    assert n("harms", State.PROVEN) == 0
    assert n("confounded", State.PROVEN) <= 2
    praised = fmean(one.fired for one in found["confounded"])
    measured = fmean(one.estimate or 0.0 for one in found["confounded"])
    assert praised > 0.2
    assert measured < praised / 2


@pytest.mark.model
@pytest.mark.slow
def test_a_small_model_in_every_role_breaks_no_episode(smollm2_dir: Path, tmp_path: Path) -> None:
    import torch

    from elision.middleware.engines.causal import CausalModel
    from elision.middleware.engines.local import LocalEngine

    async def run() -> object:
        model = CausalModel.load(smollm2_dir, name="smollm2-135m", dtype=torch.float32)
        engine = LocalEngine(model)
        try:
            return await small_model.all_lanes(EngineSpeaker(engine), tmp_path, n_tasks=4)
        finally:
            await engine.aclose()

    found = asyncio.run(run())
    assert isinstance(found, dict)
    assert len(found) == 4
    for figures in found.values():
        assert not figures.errors
        assert sum(figures.statuses.values()) == figures.n == 1
        assert figures.tokens > 0
