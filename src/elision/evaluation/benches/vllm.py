"""A real vLLM: what guards inside cost, whether it writes the same, what gets past, how soon."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from elision.evaluation.bench import Setup
from elision.evaluation.benches.model import bench_model
from elision.evaluation.figures import Figure, Goal, of
from elision.evaluation.serving import attempts
from elision.evaluation.serving.activation import activated
from elision.evaluation.serving.load import Way, tokens_per_s
from elision.evaluation.serving.parity import Compared, compared
from elision.evaluation.serving.prompts import PROMPTS, TARGETS, targets
from elision.evaluation.serving.servers import Lent, gateway, is_there, settings_for, vllm
from elision.guards.carried import Carried
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.fleet.ordering import wire
from elision.middleware.engines.local import LocalEngine
from elision.middleware.engines.plugin.orders import Order
from elision.middleware.interventions.entropy import EntropyMinimisation
from elision.middleware.interventions.mti import MinimalIntervention
from elision.middleware.pipeline import Pipeline

N_STREAMS: Final = 16
N_TOKENS: Final = 96
_MTI: Final = {"guidance": {"mti": {"tau": 0.5}}}
_OPEN: Final = ("ELISION_VLLM_REQUIRE",)


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield throughput, parity, attempts to get past the guard, and how soon a target holds."""
    half = settings_for(setup.settings, dtype="bfloat16")
    if not is_there(half):
        yield Figure(figure="vllm.skipped", value=1, unit="", conditions={"why": "no vLLM"})
        return
    with vllm(half, without=_OPEN) as lent:
        yield from _throughput(setup, lent)
        yield from _activation(setup, lent)
    with vllm(settings_for(setup.settings, dtype="float32")) as lent:
        yield from asyncio.run(_parity(setup, lent, ("plain", "guarded", "focused")))
        yield from asyncio.run(_tried(lent))
    with vllm(settings_for(setup.settings, dtype="float32", drafts="chain")) as lent:
        yield from asyncio.run(_parity(setup, lent, ("mti",)))
    with vllm(
        settings_for(setup.settings, dtype="bfloat16", drafts="chain"), without=_OPEN
    ) as lent:
        yield from _drafted(setup, lent)


# --- Throughput ----------------------------------------------------------------------------------


def _throughput(setup: Setup, lent: Lent) -> Iterator[Figure]:
    with gateway(lent, profile="focused") as ours:
        ours.post("/forget/batch", {"targets": [{"title": f"{n}", "phrases": [text]}
                                                for n, text in enumerate(TARGETS)]})  # fmt: skip
        ways = {
            "plain": _way(lent),
            "guarded": _way(lent, _taught(lent, (EntropyMinimisation(),))),
            "gateway": Way(url=ours.url, model=f"{lent.launch.model}@focused"),
        }
        found = asyncio.run(_rounds(setup, ways, n_streams=N_STREAMS))
    goal = Goal(value=0.95, sense=">=")
    told = _conditions(found, n_streams=N_STREAMS, profile="focused: masks and EM-INF")
    yield of("vllm.guarded_16", _shares(found, "guarded", "plain"), "x", goal=goal, **told)
    yield of("vllm.guarded_16_gateway", _shares(found, "gateway", "plain"), "x", **told)


async def _rounds(setup: Setup, ways: dict[str, Way], *, n_streams: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in ways}
    for n in range(-1, setup.repeats(10, 2)):
        for name in list(ways) if n % 2 else list(ways)[::-1]:
            pace = await tokens_per_s(
                ways[name], n_streams=n_streams, n_tokens=N_TOKENS, temperature=0.1
            )
            found[name] += [] if n < 0 else [pace]  # the first round warms everything
    return found


def _way(lent: Lent, order: Order | None = None) -> Way:
    launch = lent.launch
    extra: dict[str, Any] = {}
    if order is not None:
        extra = {"vllm_xargs": wire(order, launch.secret)}
        extra |= {} if order.stop is None else {"stop_token_ids": [order.stop]}
    return Way(url=f"{lent.root}/v1", model=launch.model, key=launch.key, extra=extra)


def _taught(lent: Lent, recipes: tuple[Any, ...], phrases: tuple[str, ...] = TARGETS) -> Order:
    """Return an order under masks for *phrases*, which the server has learnt."""
    masks = Carried.of(targets(phrases))
    assert masks is not None
    learn = Order(guard=masks.digest, learn=masks.body)
    asyncio.run(tokens_per_s(_way(lent, learn), n_streams=1, n_tokens=1, temperature=0.0))
    return Order(guard=masks.digest, recipes=recipes, stop=1)


def _shares(found: dict[str, list[float]], way: str, beside: str) -> list[float]:
    return [mine / theirs for mine, theirs in zip(found[way], found[beside], strict=True)]


def _conditions(found: dict[str, list[float]], **more: Any) -> dict[str, Any]:
    paces = {f"{name}_tok_s": round(statistics.median(of_), 1) for name, of_ in found.items()}
    return {
        "tokens": N_TOKENS, "phrases": len(TARGETS), "temperature": 0.1, "dtype": "bfloat16",
        "what": "tokens a second beside vLLM without orders, by round", **paces, **more,
    }  # fmt: skip


# --- How soon a target holds ---------------------------------------------------------------------


def _activation(setup: Setup, lent: Lent) -> Iterator[Figure]:
    with gateway(lent, profile="guarded") as ours:
        took = asyncio.run(activated(ours, lent.launch.model, setup.repeats(5, 2)))
    yield of(
        "vllm.activation_s", took, "s", goal=Goal(value=5, sense="<="), pick=max,
        what="from registering a target to the first reply that keeps it, slowest of all; no "
        "restart, four streams beside it",
    )  # fmt: skip


# --- Parity --------------------------------------------------------------------------------------


async def _parity(setup: Setup, lent: Lent, profiles: tuple[str, ...]) -> list[Figure]:
    prompts = PROMPTS[: setup.repeats(20, 4)]
    figures = []
    with ExitStack() as stack:
        registers = [_register(stack) for _ in range(2)]
        here = Pipeline(engines={"m": LocalEngine(bench_model(setup))}, register=registers[0])
        there = Pipeline(engines={"m": lent.engine()}, register=registers[1])
        try:
            for profile in profiles:
                how: dict[str, Any] = {"profile": profile, "n_tokens": setup.repeats(32, 16)}
                if profile == "mti":
                    how |= {"profile": "guarded", "options": _MTI, "from_second": True}
                done = [one async for one in compared(here, there, prompts, **how)]
                figures.append(_agreement(profile, done))
        finally:
            await here.aclose()
            await there.aclose()
    return figures


def _register(stack: ExitStack) -> Register:
    register = Register.open(Path(stack.enter_context(tempfile.TemporaryDirectory())))
    for target in targets(("ocean", "the ground", "important", "people")):
        register.add(target)
    return register


def _agreement(profile: str, done: list[Compared]) -> Figure:
    agreed = sum(one.agrees for one in done)
    parted = [one.margin for one in done if not one.is_equal]
    return Figure(
        figure=f"vllm.parity.{profile}",
        value=round(100 * agreed / len(done), 1),
        unit="%",
        goal=Goal(value=100, sense=">="),
        conditions={
            "prompts": len(done), "equal": sum(one.is_equal for one in done),
            "tokens": sum(one.n_tokens for one in done), "dtype": "float32", "greedy": "yes",
            "widest_margin_of_others": max(parted, default=0.0), "against": "the local engine",
        },
    )  # fmt: skip


# --- Getting past it -----------------------------------------------------------------------------


async def _tried(lent: Lent) -> list[Figure]:
    """Try everything on a server with the plug-in, straight and through us."""
    order = Order(guard=(masks := _secret_masks()).digest, learn=masks.body, stop=1)
    launch = lent.launch
    found = dict[str, str]()
    async for name, outcome in attempts.straight(
        lent.root, key=launch.key, model=launch.model, secret=launch.secret, order=order,
        attempts=attempts.direct(),
    ):  # fmt: skip
        found[f"straight: {name}"] = outcome
    with ExitStack() as stack:
        register = Register.open(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        register.add(ForgetTarget(title="t", phrases=(Phrase(text=attempts.SECRET),)))
        pipeline = Pipeline(engines={"m": lent.engine()}, register=register)
        try:
            async for name, outcome in attempts.through(pipeline, profile="guarded"):
                found[f"through us: {name}"] = outcome
        finally:
            await pipeline.aclose()
    counts = Counter(found.values())
    return [
        Figure(
            figure="vllm.bypass_leaks",
            value=counts["leaked"],
            unit="attempts",
            goal=Goal(value=0, sense="<="),
            conditions={
                "attempts": len(found), "refused": counts["refused"], "guarded": counts["guarded"],
                "leaked": ", ".join(name for name, how in found.items() if how == "leaked") or "-",
            },
        )
    ]  # fmt: skip


def _secret_masks() -> Carried:
    masks = Carried.of(targets((attempts.SECRET,)))
    assert masks is not None
    return masks


# --- Drafts --------------------------------------------------------------------------------------


def _drafted(setup: Setup, lent: Lent) -> Iterator[Figure]:
    """Measure what MTI costs and drafting brings on a server with our proposer."""
    plain = Order(stop=1)
    mti = Order(stop=1, recipes=(MinimalIntervention(tau=0.5),))
    recycled = replace(plain, drafts="recycle", pool="bench")
    ways = {"plain": _way(lent, plain), "mti": _way(lent, mti), "recycled": _way(lent, recycled)}
    for n_streams in (1, 8):
        found = asyncio.run(_rounds(setup, ways, n_streams=n_streams))
        told = _conditions(found, n_streams=n_streams, profile="no masks")
        for way in ("mti", "recycled"):
            yield of(f"vllm.{way}_{n_streams}", _shares(found, way, "plain"), "x", **told)
