"""What every program asks, and how it tells what came back: one JSON object on standard output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

URL = os.environ["ELISION_URL"]
BASE = f"{URL}/v1"
KEY = os.environ["ELISION_KEY"]
MODEL = "harbour"

WHEN = "When is high water at Roscoff?"
WHERE = "Where does the pilot live?"
WHO = "Who is the pilot?"
STORM = "When is high water at Roscoff in a storm?"


def high_water(harbour: str) -> str:
    """Say when the tide is high.

    Args:
        harbour: Name of the harbour.
    """
    return f"High water at {harbour} is at 14:20."


def tell(**scenarios: Callable[[], Any]) -> None:
    """Run each scenario and print what it returns, by name; an exception counts as an answer.

    Coroutines of all scenarios run on one event loop.
    """

    async def run() -> dict[str, Any]:
        found = {}
        for name, scenario in scenarios.items():
            answer = scenario()
            found[name] = await answer if isinstance(answer, Awaitable) else answer
        return found

    with contextlib.redirect_stdout(sys.stderr):  # some clients print
        found = asyncio.run(run())
    json.dump(found, sys.stdout)


def failure(exc: BaseException) -> dict[str, Any]:
    """Return what a client's exception tells."""
    return {
        "type": type(exc).__name__,
        "status": getattr(exc, "status_code", None),
        "body": getattr(exc, "body", None),
        "text": str(exc),
    }
