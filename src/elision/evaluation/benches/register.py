"""The register: what a look-up, an epoch and ten thousand registrations over HTTP cost."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import aiohttp

from elision.evaluation.bench import Setup
from elision.evaluation.benches.phrases import made_up
from elision.evaluation.figures import Figure, Goal, of, percentile
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget
from elision.middleware.assembly import around
from elision.middleware.gateway.serve import Listener
from elision.testing.text_engine import TextEngine

if TYPE_CHECKING:
    from elision.contract import Engine

N_TARGETS = 10_000


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield the cost of creating targets over HTTP, then of looking into what came of it."""
    n_targets = setup.repeats(N_TARGETS, N_TARGETS // 10)
    with tempfile.TemporaryDirectory() as home:
        with _served(setup, Path(home)) as url:
            seconds = asyncio.run(_create(url, made_up(n_targets)))
        yield of(
            "register.create_10000_s", [seconds * N_TARGETS / n_targets], "s",
            goal=Goal(value=60, sense="<="), targets=n_targets, requests="one a target, one by one",
            database="SQLite, synchronous=FULL, each commit on the disk",
        )  # fmt: skip
        with Register.open(Path(home)) as register:
            yield from _lookups(setup, register, n_targets)


def _lookups(setup: Setup, register: Register, n_targets: int) -> Iterator[Figure]:
    tenant = setup.settings.tenant
    begun = time.perf_counter()
    ids = [target.id for target in register.active(tenant)]
    opening = (time.perf_counter() - begun) * 1e3
    n = setup.repeats(5000, 1000)
    gets = _times(lambda k: register.get(tenant, ids[k * 7919 % len(ids)]), n)
    yield of(
        "register.lookup_p99_ms", [t * 1e3 for t in gets], "ms",
        goal=Goal(value=1, sense="<="), pick=lambda samples: percentile(samples, 0.99),
        statistic="p99", targets=n_targets,
    )  # fmt: skip
    epochs = _times(lambda _: register.epoch(tenant), n)
    yield of("register.epoch_us", [t * 1e6 for t in epochs], "us", targets=n_targets)
    yield of("register.open_all_ms", [opening], "ms", targets=n_targets, what="active(), cold")


def _times(call: Callable[[int], object], n: int) -> list[float]:
    """Return how many seconds each of *n* calls took."""
    times = []
    for k in range(n):
        begun = time.perf_counter()
        call(k)
        times.append(time.perf_counter() - begun)
    return times


async def _create(url: str, targets: tuple[ForgetTarget, ...]) -> float:
    """Register *targets* one by one over one connection; return the seconds that took."""
    begun = time.perf_counter()
    async with aiohttp.ClientSession() as session:
        for target in targets:
            body: dict[str, Any] = {
                "title": target.title,
                "phrases": [phrase.text for phrase in target.phrases],
            }
            async with session.post(f"{url}/v1/forget", json=body) as answer:
                answer.raise_for_status()
                await answer.read()
    return time.perf_counter() - begun


@contextmanager
def _served(setup: Setup, home: Path) -> Iterator[str]:
    """Run a gateway on loopback whose engine only speaks text; yield its address."""
    settings = setup.settings.model_copy(update={"home": home, "port": 0, "api_key": None})
    up = threading.Event()
    pipeline = around(cast("Engine", TextEngine("Hello.")), settings)
    listener = Listener(pipeline, settings, announce=lambda _url: up.set())
    thread = threading.Thread(target=listener.run, daemon=True)
    thread.start()
    up.wait(timeout=30)
    try:
        yield listener.url
    finally:
        listener.should_exit = True
        thread.join(timeout=30)
