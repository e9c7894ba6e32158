"""How a chat model of LangChain asks its client, and asks again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from math import inf
from typing import Any, Final, Protocol, runtime_checkable

from elision.contract import Delta, Message
from elision.errors import BusyError, ElisionError

RETRY_S: Final = 0.5
"""Wait before a new try where the error names none; openai-python's first wait."""
_LEAST_S: Final = 0.001


@runtime_checkable
class ChatClient(Protocol):
    """What a chat model speaks through: what ``elision.load`` and ``elision.connect`` return.

    Attributes:
        model: Name of the model behind it.
    """

    model: str

    def stream(self, messages: Sequence[Message], **options: Any) -> Iterator[Delta]:
        """Yield a guarded reply to *messages*; the options go by OpenAI's names."""
        ...

    def astream(self, messages: Sequence[Message], **options: Any) -> AsyncIterator[Delta]:
        """Yield the same without blocking the event loop."""
        ...


def ask(
    client: ChatClient, messages: Sequence[Message], options: Mapping[str, Any], *, retries: int
) -> Generator[Delta, None, None]:
    """Yield the client's deltas; ask again while it is busy and nothing has come yet."""
    until = _until(options)
    for left in range(retries, -1, -1):
        said = False
        with _closing(client.stream(messages, **options)) as deltas:
            try:
                for delta in deltas:
                    said = True
                    yield delta
                return
            except ElisionError as error:
                wait_s = _wait_s(error, until, final=said or not left)
        time.sleep(wait_s)
        options = _remaining(options, until)


async def aask(
    client: ChatClient, messages: Sequence[Message], options: Mapping[str, Any], *, retries: int
) -> AsyncGenerator[Delta, None]:
    """Async twin of `ask`."""
    until = _until(options)
    for left in range(retries, -1, -1):
        said = False
        async with _aclosing(client.astream(messages, **options)) as deltas:
            try:
                async for delta in deltas:
                    said = True
                    yield delta
                return
            except ElisionError as error:
                wait_s = _wait_s(error, until, final=said or not left)
        await asyncio.sleep(wait_s)
        options = _remaining(options, until)


def _until(options: Mapping[str, Any]) -> float:
    """Return when the request's deadline is, on the monotonic clock."""
    return time.monotonic() + float(options.get("timeout_s") or inf)


def _remaining(options: Mapping[str, Any], until: float) -> Mapping[str, Any]:
    """Return *options* with what is left of the deadline; a new try gets no new one."""
    if until == inf:
        return options
    return {**options, "timeout_s": max(until - time.monotonic(), _LEAST_S)}


def _wait_s(error: ElisionError, until: float, *, final: bool) -> float:
    """Return how long to wait before asking again; raise *error* if that would not help."""
    wait_s = error.retry_after_s if isinstance(error, BusyError) else RETRY_S
    if final or not error.retryable or time.monotonic() + wait_s >= until:
        raise error
    return wait_s


@contextmanager
def _closing(deltas: Iterator[Delta]) -> Iterator[Iterator[Delta]]:
    """Lend *deltas* and close them, so that a reader who leaves early ends the request."""
    try:
        yield deltas
    finally:
        close = getattr(deltas, "close", None)
        if close is not None:
            close()


@asynccontextmanager
async def _aclosing(deltas: AsyncIterator[Delta]) -> AsyncIterator[AsyncIterator[Delta]]:
    try:
        yield deltas
    finally:
        close = getattr(deltas, "aclose", None)
        if close is not None:
            await close()
