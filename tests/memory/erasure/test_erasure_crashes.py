"""Erasing processes that are killed: after each step, and at any moment."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from elision.encoders.hashing import HashingEncoder
from elision.memory.erasure.eraser import Eraser
from elision.memory.erasure.selector import Selector
from elision.memory.records import Draft, Scope
from elision.memory.store import Store

SECRETS = [f"Zyxwv Qponm did thing number {n} on a day in May" for n in range(20)]
STATES = ("planned", "deleted", "swept", "verified")

_FORKING = """
import os, signal, sys
from elision.encoders.hashing import HashingEncoder
from elision.memory.erasure.eraser import Eraser
from elision.memory.erasure.selector import Selector
from elision.memory.store import Store

def die_at(state, home):
    store = Store.open(home, encoder=HashingEncoder(32))
    def told(reached):
        if reached == state:
            os.kill(os.getpid(), signal.SIGKILL)
    eraser = Eraser(store, on_state=told)
    eraser.erase(Selector(tenant="me"), reason="r", actor="a")

from pathlib import Path
for argument in sys.argv[1:]:
    state, home = argument.split("=", 1)
    child = os.fork()
    if not child:
        die_at(state, Path(home))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
"""

_ERASER = """
import sys
from pathlib import Path
from elision.encoders.hashing import HashingEncoder
from elision.memory.erasure.eraser import Eraser
from elision.memory.erasure.selector import Selector
from elision.memory.store import Store

store = Store.open(Path(sys.argv[1]), encoder=HashingEncoder(32))
eraser = Eraser(store)
print("ready", flush=True)
sys.stdin.readline()
eraser.erase(Selector(tenant="me"), reason="r", actor="a")
"""


@pytest.fixture(scope="session")
def filled(
    tmp_path_factory: pytest.TempPathFactory, empty_homes: dict[bool, Path]
) -> dict[bool, Path]:
    """Return homes with secrets in rows and index files, and a neighbour; clear and sealed."""
    homes = {}
    for sealed in (False, True):
        path = homes[sealed] = tmp_path_factory.mktemp("filled") / "home"
        shutil.copytree(empty_homes[sealed], path)
        with Store.open(path, encoder=HashingEncoder(32)) as store:
            for tenant in ("me", "other"):
                drafts = [Draft(text=f"{tenant}: {text}") for text in SECRETS]
                store.put_many(Scope(tenant, ("notes",)), drafts)
                store.search(Scope(tenant), "May")
    return homes


@pytest.fixture
def home(tmp_path: Path, filled: dict[bool, Path]) -> Callable[[str, bool], Path]:
    """Return what makes such a home."""

    def make(name: str, sealed: bool) -> Path:
        return Path(shutil.copytree(filled[sealed], tmp_path / name))

    return make


def check_erased(home: Path) -> None:
    """Assert that the next process finishes the job, and that nothing is left or lost."""
    with Store.open(home, encoder=HashingEncoder(32)) as store:
        eraser = Eraser(store)
        eraser.resume()
        [receipt] = eraser.receipts("me")
        assert receipt.state == "verified"
        assert eraser.verify(receipt)
        assert receipt.counts["records"] == len(SECRETS)
        assert eraser.resume() == ()
        assert store.list(Scope("me")) == ()
        left = store.list(Scope("other"))
        assert [record.text for record in left] == [f"other: {text}" for text in SECRETS]
        found = store.search(Scope("other"), f"other: {SECRETS[7]}", k=1).hits
        assert found[0].record.text == f"other: {SECRETS[7]}"
    files = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    for text in SECRETS:
        for code in ("utf-8", "utf-16-le", "utf-16-be"):
            assert not any(f"me: {text}".encode(code) in data for data in files)
    rows = HashingEncoder(32).embed([f"me: {text}" for text in SECRETS], tenant="x").result()
    assert not any(row.astype("<f4").tobytes() in data for row in rows for data in files)


@pytest.mark.parametrize("sealed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_erasure_that_is_killed_after_any_step_is_finished_by_the_next_process(
    home: Callable[[str, bool], Path], sealed: bool
) -> None:
    homes = {state: home(state, sealed) for state in STATES}
    told = [f"{state}={path}" for state, path in homes.items()]
    subprocess.run([sys.executable, "-c", _FORKING, *told], check=True, timeout=120)
    for state, path in homes.items():
        with Store.open(path, encoder=HashingEncoder(32)) as store:
            there = len(store.list(Scope("me")))
            assert there == (len(SECRETS) if state == "planned" else 0)
        check_erased(path)


@pytest.mark.slow
@pytest.mark.parametrize("sealed", [False, True])
def test_an_erasure_that_is_killed_at_any_moment_is_finished_by_the_next_process(
    home: Callable[[str, bool], Path], sealed: bool
) -> None:
    chance = random.Random(3)
    for n in range(10):
        path = home(str(n), sealed)
        process = subprocess.Popen(
            [sys.executable, "-c", _ERASER, str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(chance.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with Store.open(path, encoder=HashingEncoder(32)) as store:
            eraser = Eraser(store)
            eraser.resume()
            if not eraser.receipts("me"):  # killed before it was written down
                eraser.erase(Selector(tenant="me"), reason="r", actor="a")
        check_erased(path)
