"""Any OpenAI client: register a target, ask, revoke. Needs `make serve` in another terminal."""

from __future__ import annotations

import os
import sys

import aiohttp
import openai

URL = os.environ.get("ELISION_URL", "http://127.0.0.1:8000")
QUESTION = "What is the capital of France?"


async def ask(client: openai.AsyncOpenAI) -> str:
    reply = await client.chat.completions.create(
        model="smollm2-135m",
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=24,
    )
    return reply.choices[0].message.content or ""


async def main() -> None:
    client = openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="none")
    print("before:", await ask(client))
    async with aiohttp.ClientSession(URL) as admin:
        target = {"title": "the capital", "phrases": ["Paris"]}
        async with admin.post("/v1/forget", json=target) as answer:
            target_id = (await answer.json())["id"]
        print("during:", await ask(client))
        async with admin.delete(f"/v1/forget/{target_id}"):
            pass
    print("after: ", await ask(client))
    await client.close()


if __name__ == "__main__":
    import asyncio

    sys.exit(asyncio.run(main()))
