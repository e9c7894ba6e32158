"""Lends tests a real vLLM of the kind that they ask for; each kind starts once per run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from .servers import KINDS, PYTHON, Server, Servers, serving

__all__ = ["PYTHON", "Server", "Servers", "serving"]

_TURNS = {
    **{kind: float(turn) for turn, kind in enumerate(KINDS)},
    "vllm": float(KINDS.index("bare")),
    "plugged_then_bare": KINDS.index("bare") - 0.5,
    "bare_then_raw": KINDS.index("raw") - 0.5,
    "alone": float(len(KINDS)),
}
"""By fixture, when tests that use it have their turn: before each a server is started."""
Restart: TypeAlias = Callable[[], Server]
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests of one kind of server beside each other; those that start their own come last."""
    places = [place for place, item in enumerate(items) if _HERE in item.path.parents]
    ours = sorted((items[place] for place in places), key=_turn)
    for place, item in zip(places, ours, strict=True):
        items[place] = item


def _turn(item: pytest.Item) -> float:
    return max((_TURNS.get(name, -1.0) for name in getattr(item, "fixturenames", ())), default=-1.0)


@pytest.fixture(scope="session")
def servers(smollm2_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Start servers as they are needed, one at a time."""
    found = Servers(smollm2_dir, tmp_path_factory.mktemp("vllm"))
    yield found
    found.end()


@pytest.fixture
def alone(servers: Servers) -> Servers:
    """End whatever server runs: the test starts its own."""
    servers.end()
    return servers


@pytest.fixture
def vllm(servers: Servers) -> Server:
    """Lend a vLLM as it comes, without our plug-in."""
    return servers.of("bare")


@pytest.fixture
def plugged(servers: Servers) -> Server:
    """Lend one with our plug-in, which tells log-probabilities behind it."""
    return servers.of("plugged")


@pytest.fixture
def raw(servers: Servers) -> Server:
    """Lend one with our plug-in, which tells the model's own log-probabilities."""
    return servers.of("raw")


@pytest.fixture
def proposing(servers: Servers) -> Server:
    """Lend one that drafts by our proposer."""
    return servers.of("proposing")


@pytest.fixture
def speculating(servers: Servers) -> Server:
    """Lend one that speculates by n-grams, with our plug-in installed: it leaves it out."""
    return servers.of("speculating")


@pytest.fixture
def plugged_then_bare(servers: Servers) -> tuple[Server, Restart]:
    """Lend one with our plug-in, and what starts one without it in its place."""
    first = servers.of("plugged")
    return first, lambda: servers.start("bare", port=first.port)


@pytest.fixture
def bare_then_raw(servers: Servers) -> tuple[Server, Restart]:
    """Lend one without our plug-in, and what starts one with it in its place."""
    first = servers.of("bare")
    return first, lambda: servers.start("raw", port=first.port)
