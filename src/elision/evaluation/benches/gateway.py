"""What HTTP adds: a client in its own process against the pipeline called directly."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

from elision.contract import Request, Sampling
from elision.evaluation.bench import Setup
from elision.evaluation.benches.model import PROMPTS, bench_model
from elision.evaluation.figures import Figure, Goal, of
from elision.middleware.assembly import around
from elision.middleware.engines.local import LocalEngine
from elision.middleware.gateway.serve import Listener
from elision.middleware.pipeline import Pipeline

Timing: TypeAlias = tuple[float, float]
"""Milliseconds to the first token, and per token after it."""


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield what the gateway adds to the first token and to each later one, runs interleaved."""
    n_tokens, n_runs = setup.repeats(32, 16), setup.repeats(48, 8)
    direct, through = _race(setup, n_tokens, n_runs)
    conditions: dict[str, Any] = {
        "model": setup.settings.model, "dtype": "float32", "threads": 1,
        "tokens": f"{n_tokens} greedy, streamed", "client": "aiohttp, own process, loopback",
    }  # fmt: skip
    first = [t[0] - d[0] for d, t in zip(direct, through, strict=True)]
    yield of(
        "gateway.first_token_ms", first, "ms", goal=Goal(value=5, sense="<="), **conditions,
        direct_ms=round(statistics.median(d[0] for d in direct), 1),
    )  # fmt: skip
    later = [100 * (t[1] / d[1] - 1) for d, t in zip(direct, through, strict=True)]
    yield of(
        "gateway.per_token", later, "%", goal=Goal(value=3, sense="<="), **conditions,
        direct_ms=round(statistics.median(d[1] for d in direct), 2),
    )  # fmt: skip


def _race(setup: Setup, n_tokens: int, n_runs: int) -> tuple[list[Timing], list[Timing]]:
    direct, through = list[Timing](), list[Timing]()
    with (
        tempfile.TemporaryDirectory() as home,
        _served(setup, Path(home)) as (pipeline, url),
        _client(url, setup.settings.model, n_tokens) as (ask, answers),
    ):
        for run in range(-1, n_runs):
            prompt = PROMPTS[run % len(PROMPTS)]
            pair: dict[str, Timing] = {}
            for side in ("direct", "through") if run % 2 else ("through", "direct"):
                if side == "direct":
                    pair[side] = asyncio.run(_direct(pipeline, prompt, n_tokens))
                else:
                    pair[side] = _through(ask, answers, prompt)
            if run >= 0:  # the first round warms both
                direct.append(pair["direct"])
                through.append(pair["through"])
    return direct, through


@contextmanager
def _served(setup: Setup, home: Path) -> Iterator[tuple[Pipeline, str]]:
    settings = setup.settings.model_copy(update={"home": home, "port": 0, "api_key": None})
    pipeline = around(LocalEngine(bench_model(setup), n_threads=1), settings)
    up = threading.Event()
    listener = Listener(pipeline, settings, announce=lambda _url: up.set())
    thread = threading.Thread(target=listener.run, daemon=True)
    thread.start()
    up.wait(timeout=30)
    try:
        yield pipeline, listener.url
    finally:
        listener.should_exit = True
        thread.join(timeout=30)


@contextmanager
def _client(url: str, model: str, n_tokens: int) -> Iterator[tuple[IO[str], IO[str]]]:
    process = subprocess.Popen(  # noqa: S603 -- our own module
        [
            sys.executable,
            "-m",
            "elision.evaluation.benches.streaming_client",
            url,
            model,
            str(n_tokens),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdin, process.stdout
    finally:
        process.stdin.close()
        process.wait(timeout=10)


def _through(ask: IO[str], answers: IO[str], prompt: str) -> Timing:
    ask.write(prompt + "\n")
    ask.flush()
    first, later = json.loads(answers.readline())
    return first, later


async def _direct(pipeline: Pipeline, prompt: str, n_tokens: int) -> Timing:
    request = Request(
        model=pipeline.models()[0],
        messages=({"role": "user", "content": prompt},),
        sampling=Sampling(temperature=0.0),
        max_tokens=n_tokens,
    )
    start, seen = time.perf_counter(), list[float]()
    async for delta in pipeline.run(request):
        if delta.text:
            seen.append(time.perf_counter())
    return (seen[0] - start) * 1e3, (seen[-1] - seen[0]) / (len(seen) - 1) * 1e3
