"""Whether an agent gets better with what it remembers: the lifecycle's table, and closed loops.

Students and teachers are scripted, but for the last: what is measured is the orchestration, never
the quality of a model. Figures of the alert slice are no ExCyTIn-Bench scores.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from elision.agents.atlas.report import Interval, Report
from elision.agents.speaking import EngineSpeaker
from elision.errors import MissingExtraError, NotFoundError
from elision.evaluation.atlas import planted, small_model
from elision.evaluation.atlas.alerts import AlertWorld
from elision.evaluation.atlas.closed_loop import Loop, Result
from elision.evaluation.atlas.cook import SKILLS as OF_KITCHENS
from elision.evaluation.atlas.excytin_data import folder
from elision.evaluation.atlas.investigators import SKILLS as OF_ALERTS
from elision.evaluation.atlas.kitchen import KitchenWorld
from elision.evaluation.atlas.simworld import SimWorld
from elision.evaluation.bench import Setup
from elision.evaluation.figures import Figure, Goal, of
from elision.memory.learning.lifecycle import Policy
from elision.memory.learning.simulation import simulate
from elision.memory.learning.states import SHOWN, State

if TYPE_CHECKING:
    from elision.evaluation.atlas.skills import Skill
    from elision.evaluation.atlas.world import World

SPEC: Final = Policy(active=0.9, n_harm=4)
"""The lifecycle as atlas_memory.md 2.7 has it."""
TABLE: Final = {
    0.2: (0.90, 0.01), 0.1: (0.68, 0.04), 0.0: (0.37, 0.16), -0.1: (0.14, 0.43), -0.2: (0.04, 0.75),
}  # fmt: skip
"""Its table: by true effect, the shares shown and demoted after 100 eligible episodes."""
SEEDS: Final = 5
_WHAT: Final = "orchestration with scripted roles, not a model"


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield every figure whose name begins with ``learning``."""
    yield from table(setup)
    yield from proofs(setup)
    with tempfile.TemporaryDirectory() as work:
        home = Path(work)
        yield from known_effects(setup, home / "planted")
        yield from loops(setup, home)
        yield from in_every_role(setup, home / "small")


# --- the lifecycle on made-up entries ------------------------------------------------------------


def table(setup: Setup) -> Iterator[Figure]:
    """Yield how far the lifecycle is from the spec's table, at worst."""
    runs = setup.repeats(4000, 500)
    off = []
    for effect, (shown, demoted) in TABLE.items():
        shares = simulate(effect, policy=SPEC, runs=runs, looks=(100,))[100]
        off += [abs(sum(shares[s] for s in SHOWN if s is not State.PROVISIONAL) - shown)]
        off += [abs(shares[State.DEMOTED] - demoted)]
    yield of(
        "learning.table_off_by", off, "share", pick=max, goal=_most(0.03), runs=runs,
        episodes=100, statistic="largest difference to the spec's table", policy="the spec's",
    )  # fmt: skip


def proofs(setup: Setup) -> Iterator[Figure]:
    """Yield how often entries that help, do nothing or harm are told to."""
    runs = setup.repeats(2000, 400)
    for name, effect, look, state, goal in (
        ("proven_at_zero", 0.0, 250, State.PROVEN, _most(0.05)),
        ("proven_at_plus_20", 0.2, 250, State.PROVEN, _least(0.85)),
        ("demoted_at_minus_20", -0.2, 200, State.DEMOTED, _least(0.90)),
    ):
        share = simulate(effect, policy=Policy(), runs=runs, looks=(look,))[look][state]
        yield of(
            f"learning.{name}", [share], "share", goal=goal, runs=runs, episodes=look,
            propensity=0.7, base=0.4,
        )  # fmt: skip


def known_effects(setup: Setup, home: Path) -> Iterator[Figure]:
    """Yield what the real loop finds of planted entries, beside what comparing tasks would say."""
    found = [
        one
        for seed in range(setup.repeats(SEEDS, 2))
        for one in asyncio.run(
            planted.measure(
                SimWorld(setup.repeats(400, 150), seed=seed), home / str(seed), seed=seed
            )
        )
    ]
    told: dict[str, Any] = {
        "seeds": setup.repeats(SEEDS, 2),
        "tasks": setup.repeats(400, 150),
        "what": _WHAT,
    }
    for kind in ("helps", "nothing", "harms", "confounded"):
        ones = [one for one in found if one.entry.kind == kind]
        errors = [one.estimate - one.truth for one in ones if one.estimate is not None]
        yield of(f"learning.error_{kind}", errors, "reward", pick=fmean,
                 statistic="estimated less true effect", **told)  # fmt: skip
    naive = [one.fired for one in found if one.entry.kind == "confounded"]
    yield of("learning.naive_praise", naive, "reward", pick=fmean, true=0,
             statistic="success where it fired less success elsewhere", **told)  # fmt: skip


# --- closed loops --------------------------------------------------------------------------------


def loops(setup: Setup, home: Path) -> Iterator[Figure]:
    """Yield what memory changes in each world that can be had here, and how many could not."""
    missing = []
    try:
        alerts = AlertWorld(folder(setup.data), _made(home / "alerts"))
    except NotFoundError as exc:
        missing.append(str(exc))
    else:
        yield from loop(setup, alerts, "excytin", OF_KITCHENS, home / "excytin")
    try:
        kitchens = KitchenWorld(
            _made(home / "games"), n_games=setup.repeats(8, 2), n_held_out=setup.repeats(3, 1)
        )
    except MissingExtraError as exc:
        missing.append(str(exc))
    else:
        with closing(kitchens):
            yield from loop(setup, kitchens, "textworld", OF_ALERTS, home / "textworld")
    yield of("learning.worlds_missing", [len(missing)], "worlds", why="; ".join(missing) or "none")


def loop(
    setup: Setup, world: World, name: str, strangers: tuple[Skill, ...], home: Path
) -> Iterator[Figure]:
    """Yield the figures of one world: memory on, and its controls, on the same order and seeds.

    Against ``off`` both lanes and entries differ; against ``shadow`` the entries alone.
    """
    seeds = range(setup.repeats(SEEDS, 2))
    most = setup.repeats(1_000, 30)
    begun = time.perf_counter()
    result = asyncio.run(Loop(strangers=strangers, n_most=most).run(world, home, seeds=seeds))
    told: dict[str, Any] = {"seeds": len(seeds), "what": _WHAT, "world": world.name}
    yield from _against(result, "on", "off", name, told, goal=True)
    yield from _against(result, "frozen", "fresh", f"{name}_transfer", told, goal=True)
    yield from _against(result, "shuffled", "off", f"{name}_shuffled", told, goal=False)
    yield from _against(result, "shadow", "off", f"{name}_shadow", told, goal=False)
    yield from _against(result, "on", "shadow", f"{name}_entries", told, goal=False)
    yield of(f"learning.{name}_minutes", [(time.perf_counter() - begun) / 60], "min", **told)


def _against(
    result: Result, arm: Any, control: Any, name: str, told: dict[str, Any], *, goal: bool
) -> Iterator[Figure]:
    """Yield success gained and tokens changed, each with the interval as its spread.

    A goal is met where the whole interval is on the right side: by its end nearest to nought.
    """
    found = result.against(arm, control)
    rates = {
        "success": _rate(found, "memory"), "control": _rate(found, "control"),
        "tokens": round(found.memory.tokens_total),
        "control_tokens": round(found.control.tokens_total),
    }  # fmt: skip
    if (gain := found.success_gain) is not None:
        yield _figure(f"learning.{name}_success_gain", gain, "share", told | rates)
        if goal:
            yield of(
                f"learning.{name}_success_gain_least", [gain.low], "share", goal=_least(0.0001)
            )
    if (tokens := found.tokens_change) is not None:
        yield _figure(f"learning.{name}_tokens_change", tokens, "share", told | rates)
        if goal:
            yield of(
                f"learning.{name}_tokens_change_most", [tokens.high], "share", goal=_most(-0.0001)
            )
    if (own := found.student_tokens_change) is not None:
        yield _figure(f"learning.{name}_student_tokens_change", own, "share", told)


def _rate(found: Report, arm: str) -> float:
    success = getattr(found, arm).success
    return 0.0 if success is None else round(success.value, 3)


def _figure(name: str, interval: Interval, unit: str, told: dict[str, Any]) -> Figure:
    return Figure(
        figure=name,
        value=round(interval.value, 4),
        unit=unit,
        spread=(round(interval.low, 4), round(interval.high, 4)),
        conditions={"statistic": "paired difference; its 95 % interval", **told},
    )


# --- a real model ---------------------------------------------------------------------------------


def in_every_role(setup: Setup, home: Path) -> Iterator[Figure]:
    """Yield what becomes of a small model in every role, through all lanes."""
    from elision.evaluation.benches.model import bench_model
    from elision.middleware.engines.local import LocalEngine

    engine = LocalEngine(bench_model(setup))
    n_tasks = setup.repeats(small_model.N_TASKS, 4)
    begun = time.perf_counter()
    found = asyncio.run(_all_lanes(engine, home, n_tasks))
    told: dict[str, Any] = {"model": engine.name, "tasks": n_tasks, "lanes": len(found)}
    errors = sum(sum(one.errors.values()) for one in found.values())
    yield of("learning.model_errors", [errors], "episodes", goal=_most(0), **told)
    for status in ("passed", "failed", "unvalidated"):
        n = sum(one.statuses.get(status, 0) for one in found.values())
        yield of(f"learning.model_{status}", [n], "episodes", **told)
    yield of("learning.model_faults", [sum(f.n_faults for f in found.values())], "roles", **told)
    yield of("learning.model_minutes", [(time.perf_counter() - begun) / 60], "min", **told)


async def _all_lanes(engine: Any, home: Path, n_tasks: int) -> Any:
    try:
        return await small_model.all_lanes(EngineSpeaker(engine), _made(home), n_tasks=n_tasks)
    finally:
        await engine.aclose()


def _made(home: Path) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    return home


def _most(value: float) -> Goal:
    return Goal(value=value, sense="<=")


def _least(value: float) -> Goal:
    return Goal(value=value, sense=">=")
