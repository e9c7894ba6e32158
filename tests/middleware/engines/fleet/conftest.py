"""Scripted vLLM servers with the plug-in's own code in them, and engines over several."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from elision.middleware.engines.fleet.replica import Replica
from elision.middleware.engines.vllm import VllmEngine
from elision.testing.script import FactTable
from elision.testing.scripted import ScriptedEngine
from elision.testing.upstream import ScriptedUpstream
from elision.testing.upstream_plugin import ScriptedPlugin

FACTS = FactTable(
    facts={"capital": "The capital is Paris indeed.", "river": "It is the Seine."},
    otherwise="I do not know anything.",
)
Fleet = tuple[VllmEngine, list[ScriptedUpstream]]


@pytest.fixture(scope="session")
def scripted_model() -> ScriptedEngine:
    """What every server of the fleet decodes with."""
    return ScriptedEngine(FACTS)


@pytest.fixture
async def fleet(scripted_model: ScriptedEngine) -> AsyncIterator[Callable[..., Awaitable[Fleet]]]:
    """Make an engine over one server for each plug-in given; all are closed in the end."""
    async with AsyncExitStack() as stack:

        async def make(
            *plugins: ScriptedPlugin | None,
            faults: tuple[str | None, ...] = (),
            **more: Any,
        ) -> Fleet:
            servers = []
            for n, plugin in enumerate(plugins):
                fault = faults[n] if faults else None
                server = ScriptedUpstream(
                    scripted_model, dialect="vllm", plugin=plugin, fault=fault, key="sk-fleet"
                )
                servers.append(await stack.enter_async_context(server))
            replicas = [Replica(one.url, key="sk-fleet", model="scripted") for one in servers]
            engine = VllmEngine(replicas, name="m", **more)
            stack.push_async_callback(engine.aclose)
            return engine, servers

        yield make
