"""The least that a relay in Python costs: Starlette and aiohttp, no key, no register, no look.

Run as ``python -m elision.evaluation.proxying.bare URL``; prints its address.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

_HEADERS = {"content-type": "application/json"}


class _Relay:
    """Hands on what one upstream answers. Lives as long as the process."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/chat/completions"
        self._session: aiohttp.ClientSession | None = None

    async def chat(self, request: Request) -> StreamingResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_read=60),
            )
        data = await request.body()
        answer = await self._session.post(self._url, data=data, headers=_HEADERS)
        return StreamingResponse(_bytes(answer), media_type="text/event-stream")


async def _bytes(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for chunk in answer.content.iter_any():
        yield chunk


def main(url: str) -> None:
    """Serve until killed."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    host, port = listening.getsockname()
    print(f"http://{host}:{port}/v1", flush=True)
    app = Starlette(routes=[Route("/v1/chat/completions", _Relay(url).chat, methods=["POST"])])
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1])
