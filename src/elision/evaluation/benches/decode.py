"""The engine's plain loop against ``transformers.generate``: same model, same thread count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import torch

from elision.contract import Plan, Request, Sampling, collect
from elision.evaluation.bench import Setup
from elision.evaluation.benches.model import PROMPTS, bench_model
from elision.evaluation.figures import Figure, Goal, of
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine

N_TOKENS = 128


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield the ratio of times per token, one figure per number format, runs interleaved."""
    n_threads = setup.settings.threads or 1
    for dtype in ("float32", "bfloat16"):
        model = bench_model(setup, dtype)
        own, theirs = asyncio.run(_race(model, setup, n_threads))
        ratios = [t / o for o, t in zip(own, theirs, strict=True)]
        conditions: dict[str, Any] = {
            "model": model.name, "dtype": dtype, "threads": n_threads,
            "tokens": f"{N_TOKENS} greedy", "own_ms_per_token": _median(own),
            "generate_ms_per_token": _median(theirs),
        }  # fmt: skip
        suffix = "" if dtype == "float32" else ".bf16"
        yield of(
            f"decode.vs_generate{suffix}",
            ratios,
            "x",
            goal=Goal(value=1.0, sense=">="),
            **conditions,
        )


def _median(seconds: list[float]) -> float:
    return round(sorted(seconds)[len(seconds) // 2] * 1e3, 2)


async def _race(
    model: CausalModel, setup: Setup, n_threads: int
) -> tuple[list[float], list[float]]:
    """Return seconds per token of both, prompt by prompt, taking turns at going first."""
    own, theirs = list[float](), list[float]()
    torch.set_num_threads(n_threads)
    engine = LocalEngine(model, n_threads=n_threads)
    n_tokens = setup.repeats(N_TOKENS, 32)
    try:
        await _own(engine, PROMPTS[0], 4)
        _generate(model, PROMPTS[0], 4)
        for turn, prompt in enumerate(PROMPTS[: setup.repeats(6, 3)] * setup.repeats(2, 1)):
            theirs_first = (turn + turn // len(PROMPTS)) % 2
            if theirs_first:
                theirs.append(_generate(model, prompt, n_tokens))
            own.append(await _own(engine, prompt, n_tokens))
            if not theirs_first:
                theirs.append(_generate(model, prompt, n_tokens))
    finally:
        await engine.aclose()
    return own, theirs


def _request(prompt: str, n_tokens: int) -> Request:
    return Request(
        messages=({"role": "user", "content": prompt},),
        sampling=Sampling(temperature=0.0),
        max_tokens=n_tokens,
    )


async def _own(engine: LocalEngine, prompt: str, n_tokens: int) -> float:
    start = time.perf_counter()
    done = await collect(engine.stream(Plan(request=_request(prompt, n_tokens))))
    return (time.perf_counter() - start) / done.usage.completion_tokens


def _generate(model: CausalModel, prompt: str, n_tokens: int) -> float:
    ids = torch.tensor([model.render(_request(prompt, n_tokens)).ids])
    with torch.inference_mode():
        start = time.perf_counter()
        out = model.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=n_tokens, do_sample=False
        )
        took = time.perf_counter() - start
    n_written = out.shape[1] - ids.shape[1] - int(int(out[0, -1]) in model.eos)
    return float(took / n_written)
