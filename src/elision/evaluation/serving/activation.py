"""How soon a target that was registered holds on a server that runs and is busy."""

from __future__ import annotations

import asyncio
import time

import aiohttp

from elision.evaluation.proxying.processes import Server
from elision.evaluation.serving.attempts import QUESTION
from elision.evaluation.serving.load import Way, tokens_per_s


async def activated(ours: Server, model: str, n_times: int) -> list[float]:
    """Return, for several targets, the seconds from registering one until it is kept.

    Each names a word that the model has just said. Four streams run beside it.

    Args:
        ours: Our server.
        model: As it calls it.
        n_times: How many targets.
    """
    busy = Way(url=ours.url, model=model)
    beside = asyncio.create_task(_beside(busy))
    try:
        return [await _one_activation(ours, model, n) for n in range(n_times)]
    finally:
        beside.cancel()
        await asyncio.wait([beside])


async def _beside(way: Way) -> None:
    while True:
        await tokens_per_s(way, n_streams=4, n_tokens=96, temperature=0.1)


async def _one_activation(ours: Server, model: str, n: int) -> float:
    """Register what the model says next; return how long until it does not say it any more."""
    prompt = f"Question {n}: {QUESTION}"
    async with aiohttp.ClientSession() as session:
        said = await _said(session, ours, model, prompt)
        word = max(said.split(), key=len)
        begun = time.perf_counter()
        body = {"targets": [{"title": f"activation {n}", "phrases": [word]}]}
        await asyncio.to_thread(ours.post, "/forget/batch", body)
        while word in await _said(session, ours, model, prompt):
            pass
        return time.perf_counter() - begun


async def _said(session: aiohttp.ClientSession, ours: Server, model: str, prompt: str) -> str:
    body = {
        "model": model, "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 16, "temperature": 0,
    }  # fmt: skip
    async with session.post(f"{ours.url}/chat/completions", json=body) as answer:
        answer.raise_for_status()
        told = await answer.json()
    return str(told["choices"][0]["message"]["content"])
