"""A ledger that several write to: threads, processes, a server that the register shares."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from elision.guards.register.register import Register
from elision.middleware.gateway.limits.budgets import Books
from elision.middleware.gateway.limits.ledger import Ledger, place_of
from elision.settings import Settings

ENTRY = ("t", "k", "total")

# The register's tests start the server that these use too.
_spec = spec_from_file_location(
    "register_places_for_limits", Path(__file__).parents[2] / "guards" / "register" / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_places = sys.modules[_spec.name] = module_from_spec(_spec)
_spec.loader.exec_module(_places)
postgres_server, postgres_url = _places.postgres_server, _places.postgres_url

_ADDS = """
import sys
from elision.middleware.gateway.limits.ledger import Ledger
ledger = Ledger(sys.argv[1])
for _ in range(20):
    ledger.add({("t", "k", "total"): 1})
ledger.close()
"""

_SPENDS = """
import asyncio, sys
from elision.middleware.gateway.limits.budgets import Books
from elision.middleware.gateway.limits.ledger import Ledger

async def spend():
    account = Books(Ledger(sys.argv[1])).open("t", "k", 1000, "total")
    await account.refresh()
    account.hold(70)
    account.settle(70, 70)
    print("spent", flush=True)
    await asyncio.sleep(60)

asyncio.run(spend())
"""


@pytest.mark.slow
def test_threads_and_processes_add_up(tmp_path: Path) -> None:
    place = tmp_path / "ledger.db"
    ledger = Ledger(place)
    others = [subprocess.Popen([sys.executable, "-c", _ADDS, str(place)]) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ledger.add({ENTRY: 1}), range(40)))
    assert [other.wait(30) for other in others] == [0, 0]
    assert ledger.spent(ENTRY) == 80
    ledger.close()


@pytest.mark.slow
def test_a_killed_process_has_written_what_it_spent_half_a_second_ago(tmp_path: Path) -> None:
    place = tmp_path / "ledger.db"
    ledger = Ledger(place)
    with subprocess.Popen(
        [sys.executable, "-c", _SPENDS, str(place)], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"spent\n"
        end = time.monotonic() + 10
        while not ledger.spent(ENTRY) and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(other.pid, signal.SIGKILL)
    assert ledger.spent(ENTRY) == 70
    ledger.close()


@pytest.mark.postgres
async def test_budgets_lie_in_the_registers_own_database_on_a_server(
    postgres_url: str, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, register_url=postgres_url)  # type: ignore[arg-type]
    assert place_of(settings) == postgres_url
    with Register(postgres_url, keys=tmp_path / "keys") as register:
        ours, theirs = Books(Ledger.of(settings)), Books(Ledger.of(settings))
        one, other = (books.open("t", "k", 100, "total") for books in (ours, theirs))
        await one.refresh()
        assert one.hold(60)
        one.settle(60, 45)
        await ours.aclose()
        await other.refresh()
        assert other.left == 55
        other.hold(5)
        other.settle(5, 5)
        await theirs.save()
        assert other.left == 50
        await theirs.aclose()
        assert register.epoch("t") == 0
    again = Ledger.of(settings)
    assert again.spent(ENTRY) == 50
    again.close()
