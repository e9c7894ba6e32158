"""What guidance costs: MTI, CFG, CAD and ULD against the same engine alone, token by token.

All ways answer the same questions in turns, greedily and to the same length. One stream's time
runs from its first text, so that it holds no prompts; that of eight streams is all they take.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from elision.contract import Here, Plan
from elision.evaluation.bench import Setup
from elision.evaluation.benches.batch import requests_of
from elision.evaluation.benches.model import PROMPTS
from elision.evaluation.benches.pacing import (
    Group,
    Paces,
    cost,
    endless,
    entropies,
    exceeded,
    in_turns,
)
from elision.evaluation.benches.racing import WARM_UP, Ours, Stable, ask, opened
from elision.evaluation.figures import Figure, Goal, of
from elision.middleware.engines.job import context_for
from elision.middleware.engines.local import LocalEngine
from elision.middleware.interventions.base import Chain
from elision.middleware.interventions.contrast import ContextAware
from elision.middleware.interventions.difference import LogitDifference
from elision.middleware.interventions.guidance import Guidance
from elision.middleware.interventions.mti import MinimalIntervention
from elision.middleware.interventions.views import LastToken, Without

if TYPE_CHECKING:
    from torch import Tensor

    from elision.contract import Recipe, Request
    from elision.middleware.engines.causal import CausalModel
    from elision.middleware.speculation.base import Mode

PASSAGE: Final = """\
The harbour museum opens at ten, but the watchman lets painters in from seven, because the light \
is best then. Its oldest boat, a ferry with two masts, was built here in 1871 and sank twice; both \
times the town raised the money to bring her up again."""
"""What stands before every question of one stream, so that CAD has something to leave out."""

FIRST: Final = ask(f"{PASSAGE}\n\n{WARM_UP}", 8)
"""What warms; it is asked nowhere else."""

SHARE: Final = 0.10
"""Of the tokens, those that MTI is to guide."""

NEAR: Final = 0.01
"""What the share may miss by without another try."""

N_TRIES: Final = 4

N_SHORT: Final = 24
"""Tokens of a reply where many pairs tell more than long ones."""

N_HURRIED: Final = 16
"""Tokens of a reply where there is no time."""

ASSISTANT: Final = "again"
"""The model's own weights, loaded once more: no assistant that is worth asking is larger."""

CFG: Final = Guidance(scale=1.25, other=LastToken())
CAD: Final = ContextAware(other=Without(PASSAGE))
ULD: Final = LogitDifference(assistant=ASSISTANT)
IDLE: Final = MinimalIntervention(tau=1e9)
"""A gate that looks at every position and opens at none."""


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield every figure whose name begins with ``guidance``."""
    with opened(setup, "bfloat16") as stable:
        requests = questions(setup, stable)
        mti = gated(stable, requests)
        yield from _one_stream(setup, stable, requests, mti)
        yield _idle(setup, stable, requests)
        yield _drafted(stable, requests)
        yield from _eight_streams(setup, stable, mti)
    with opened(setup, "float32") as stable:
        requests = questions(setup, stable)
        mti = gated(stable, requests)
        ways = {"plain": _way(stable, "plain"), "mti": _way(stable, "mti", mti)}
        paces = in_turns(ways, one_by_one(requests), FIRST)
        yield _mti_cost("guidance.mti_cost.fp32", paces, mti, 1.25, **about(stable, requests))


def questions(setup: Setup, stable: Stable) -> list[Request]:
    """Return what one stream is asked."""
    n_tokens, n = setup.repeats(48, N_HURRIED), setup.repeats(len(PROMPTS), 2)
    return endless(stable, [ask(f"{PASSAGE}\n\n{prompt}", n_tokens) for prompt in PROMPTS[:n]])


def gated(stable: Stable, requests: Sequence[Request]) -> MinimalIntervention:
    """Return MTI whose gate is open at about `SHARE` of the tokens of its replies to *requests*.

    *tau* is first what the plain replies' entropies exceed at that share. Guided replies hesitate
    elsewhere and not as often: it is then set right, a few times, by those that it guides.
    """
    tau = exceeded(entropies(_way(stable, "gate"), requests), SHARE)
    missed_by = dict[float, float]()
    while tau not in missed_by and len(missed_by) < N_TRIES:
        nats = entropies(_way(stable, "gate", MinimalIntervention(tau=tau)), requests)
        missed_by[tau] = abs(sum(value > tau for value in nats) / len(nats) - SHARE)
        if missed_by[tau] > NEAR:
            tau = exceeded(nats, SHARE)
    return MinimalIntervention(tau=min(missed_by, key=lambda tried: missed_by[tried]))


def one_by_one(requests: Sequence[Request], n_rounds: int = 1) -> list[Group]:
    """Return each of *requests* as a group of its own, all of them *n_rounds* times."""
    return [[request] for _ in range(n_rounds) for request in requests]


def about(stable: Stable, requests: Sequence[Request]) -> dict[str, Any]:
    """Return what a figure says of the engine and of what it was asked."""
    return {
        "model": stable.engine.name, "dtype": stable.dtype, "threads": stable.n_threads,
        "questions": len(requests), "tokens": f"{requests[0].max_tokens} greedy",
    }  # fmt: skip


def _way(stable: Stable, name: str, *recipes: Recipe, speculation: Mode = "off") -> Ours:
    return stable.ours(speculation, f"guidance-{name}", recipes, reuse=True)


# --- one stream ----------------------------------------------------------------------------------


def _one_stream(
    setup: Setup, stable: Stable, requests: Sequence[Request], mti: MinimalIntervention
) -> Iterator[Figure]:
    with assisted(setup, stable) as again:
        ways = {
            "plain": _way(stable, "plain"),
            "mti": _way(stable, "mti", mti),
            "cfg": _way(stable, "cfg", CFG),
            "cad": _way(stable, "cad", CAD),
            "uld": _way(again, "uld", ULD),
        }
        paces = in_turns(ways, one_by_one(requests, setup.repeats(2, 1)), FIRST)
    on = about(stable, requests)
    yield _mti_cost("guidance.mti_cost", paces, mti, 1.15, **on)
    yield cost("guidance.cfg_cost", paces, "cfg", most=1.4, **on, other="last token")
    yield cost("guidance.cad_cost", paces, "cad", **on, other="without a passage")
    yield cost("guidance.uld_cost", paces, "uld", **on, other="the model's weights loaded again")


def _mti_cost(
    name: str, paces: Paces, mti: MinimalIntervention, most: float | None, **conditions: Any
) -> Figure:
    """Return what MTI costs over all groups: not all are guided at as many tokens."""
    return cost(
        name, paces, "mti", most=most, over_all=True, **conditions,
        tau=round(mti.tau or 0.0, 3),
    )  # fmt: skip


@contextmanager
def assisted(setup: Setup, stable: Stable) -> Iterator[Stable]:
    """Serve the model of *stable* from a second engine, beside its own weights loaded again."""
    with opened(setup, stable.dtype) as again:
        own, other = (s.engine.borrow(lambda model: model).result() for s in (stable, again))
        engine = LocalEngine(own, assistants={ASSISTANT: other}, n_threads=stable.n_threads)
        try:
            yield replace(stable, engine=engine)
        finally:
            asyncio.run(engine.aclose())


def _idle(setup: Setup, stable: Stable, requests: Sequence[Request]) -> Figure:
    """Return what a gate costs that never opens: its replies are the plain ones.

    Its hundredth is less than replies of the same engine differ by. So the chain itself is timed,
    on the model's rows and on its thread, and set against a token of plain replies; what guided
    replies take in turns with plain ones stands beside it.
    """
    short = [replace(request, max_tokens=N_SHORT) for request in requests]
    ways = {"plain": _way(stable, "plain"), "idle": _way(stable, "idle", IDLE)}
    paces = in_turns(ways, one_by_one(short, setup.repeats(5, 2)), FIRST)
    direct = cost("guidance.mti_idle", paces, "idle")
    plain_ms = direct.conditions["plain_ms"]
    added = stable.engine.borrow(lambda model: gate_ms(model, short[0])).result()
    return of(
        "guidance.mti_idle", [1 + ms / plain_ms for ms in added], "x",
        goal=Goal(value=1.01, sense="<="), **about(stable, short),
        usage=direct.conditions["usage"], tau=IDLE.tau, gate_ms=round(statistics.median(added), 4),
        plain_ms=plain_ms, in_turns=f"{direct.value} ({direct.spread})",
        statistic="a plain token and the gate's time on a row, over a plain token",
    )  # fmt: skip


def gate_ms(model: CausalModel, request: Request, n_rounds: int = 8) -> list[float]:
    """Return what the idle gate adds to a position, in ms, a median per round over real rows."""
    prompt, plan = model.render(request), Plan(request=request)
    context = context_for(plan, prompt, model, assistants=())
    chains = Chain(), Chain.begin((IDLE,), context)
    rows = model.rows(prompt.ids, model.new_cache(), min(32, len(prompt.ids)))
    rounds = [[_visit_ms(chain, rows) for chain in chains] for _ in range(n_rounds + 1)]
    return [idle - plain for plain, idle in rounds[1:]]  # the first warms


def _visit_ms(chain: Chain, rows: Tensor) -> float:
    times = []
    for position, row in enumerate(rows):
        began = time.perf_counter()
        here = Here(row.float(), position=position)
        chain.needs(here)
        chain.adjust(here.raw, here)
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


def _drafted(stable: Stable, requests: Sequence[Request]) -> Figure:
    """Return what CFG costs where both draft; each question comes once, or all would be known."""
    ways = {
        "plain": _way(stable, "drafted", speculation="auto"),
        "cfg": _way(stable, "drafted-cfg", CFG, speculation="auto"),
    }
    paces = in_turns(ways, one_by_one(requests), FIRST)
    return cost(
        "guidance.cfg_cost.auto", paces, "cfg", over_all=True, **about(stable, requests),
        other="last token", speculation="auto",
    )  # fmt: skip


# --- eight streams -------------------------------------------------------------------------------


def _eight_streams(setup: Setup, stable: Stable, mti: MinimalIntervention) -> Iterator[Figure]:
    n_tokens, n_turns = setup.repeats(48, N_HURRIED), setup.repeats(3, 1)
    groups = [endless(stable, requests_of(turn, n_tokens)) for turn in range(n_turns)]
    ways = {
        "plain": _way(stable, "eight"),
        "cfg": _way(stable, "eight-cfg", CFG),
        "mti": _way(stable, "eight-mti", mti),
    }
    paces = in_turns(ways, groups, FIRST)
    on = {**about(stable, groups[0]), "streams": "all questions at once, prompts included"}
    yield cost("guidance.cfg_8", paces, "cfg", most=1.6, in_all=True, **on, other="last token")
    yield cost(
        "guidance.mti_8", paces, "mti", in_all=True, **on,
        tau=round(mti.tau or 0.0, 3),
    )  # fmt: skip
