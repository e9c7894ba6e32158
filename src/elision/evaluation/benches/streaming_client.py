"""A client process for the gateway bench: a prompt per line in, two timings per line out."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp


async def main(url: str, model: str, n_tokens: int) -> None:
    """Stream an answer to each line of standard input; print ``[first_ms, later_ms]``."""
    async with aiohttp.ClientSession() as session:
        while line := await asyncio.to_thread(sys.stdin.readline):
            body = {
                "model": model,
                "messages": [{"role": "user", "content": line.rstrip("\n")}],
                "temperature": 0,
                "max_tokens": n_tokens,
                "stream": True,
            }
            print(json.dumps(await _timed(session, url, body)), flush=True)


async def _timed(
    session: aiohttp.ClientSession, url: str, body: dict[str, object]
) -> tuple[float, float]:
    start, seen = time.perf_counter(), list[float]()
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if b'"content":"' in line and b'"content":""' not in line:
                seen.append(time.perf_counter())
    return (seen[0] - start) * 1e3, (seen[-1] - seen[0]) / (len(seen) - 1) * 1e3


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
