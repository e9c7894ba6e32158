"""Threads and processes that share a register, and processes that die in the middle of a change."""

from __future__ import annotations

import itertools
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase

SECRET = "Zyxwv Qponm"


def target(text: str = SECRET, *, tenant: str = "default") -> ForgetTarget:
    return ForgetTarget(title="A title", phrases=(Phrase(text=text),), tenant=tenant)


@pytest.fixture
def register(tmp_path: Path) -> Iterator[Register]:
    with Register.open(tmp_path / "state") as register:
        yield register


def test_threads_get_epochs_of_their_own(register: Register) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: register.add(target(f"phrase {n}")), range(80)))
    assert sorted(m.epoch for m in made) == list(range(1, 81))
    in_order = sorted(made, key=lambda m: m.epoch)
    assert register.list("default") == tuple(m.target for m in in_order)


def test_registers_that_change_at_once_wait_for_each_other(
    register: Register, tmp_path: Path
) -> None:
    ids = [register.add(target()).target.id for _ in range(60)]
    with Register.open(tmp_path / "state") as other, ThreadPoolExecutor(2) as pool:
        revoking = [
            pool.submit(
                lambda one, mine: [one.revoke("default", i, reason="r").epoch for i in mine],
                one,
                mine,
            )
            for one, mine in ((register, ids[::2]), (other, ids[1::2]))
        ]
        epochs = [epoch for future in revoking for epoch in future.result()]
    assert sorted(epochs) == list(range(61, 121))
    assert register.active("default") == ()


def test_a_reader_never_sees_targets_older_than_the_epoch_it_read_before(
    register: Register,
) -> None:
    done = threading.Event()

    def write() -> None:
        for n in range(100):
            register.add(target(f"phrase {n}"))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        epoch = register.epoch("default")
        assert len(register.active("default")) >= epoch
    writer.join()


_WRITER = """
import sys
from pathlib import Path
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase

register = Register.open(Path(sys.argv[1]))
print("ready", flush=True)
for line in sys.stdin:
    n = int(line)
    while n:
        made = register.add(ForgetTarget(title="t", phrases=(Phrase(text=f"phrase {n}"),)))
        print(made.target.id, flush=True)
        n -= 1
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Return what starts a process that adds as many targets as it is told (-1: without end)."""
    running: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path / "state")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def _tell(process: subprocess.Popen[str], n: int) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{n}\n")
    process.stdin.flush()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_another_processs_change_is_seen_at_the_next_call(
    register: Register, writer: Callable[[], subprocess.Popen[str]]
) -> None:
    other = writer()
    assert _line(other) == "ready"
    for n in range(1, 11):
        assert register.epoch("default") == n - 1
        _tell(other, 1)
        target_id = _line(other)
        assert register.epoch("default") == n
        assert register.active("default")[-1].id == target_id


@pytest.mark.parametrize("n_kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_what_was_acknowledged_survives_a_kill_at_any_moment(
    tmp_path: Path, writer: Callable[[], subprocess.Popen[str]], n_kills: int
) -> None:
    chance, acknowledged = random.Random(7), list[str]()
    for _ in range(n_kills):
        process = writer()
        assert _line(process) == "ready"
        _tell(process, -1)
        acknowledged.append(_line(process))
        time.sleep(chance.uniform(0, 0.15))
        process.kill()
        rest, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
        acknowledged += [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    with Register.open(tmp_path / "state") as register:
        kept = [found.id for found in register.list("default")]
        assert {line.strip() for line in acknowledged} <= set(kept)
        assert len(kept) - len(acknowledged) <= n_kills  # one per kill: kept, but not yet told
        assert register.epoch("default") == len(kept)
        seen = register.audit.verify()
        assert (seen.ok, seen.count) == (True, len(kept) + 1)
        assert [e.object_id for e in register.audit.entries("default", limit=10**6)] == kept
        register.add(target())
    with sqlite3.connect(tmp_path / "state" / "register.db") as direct:
        assert direct.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    direct.close()


def test_processes_that_open_a_new_register_at_once_all_get_it(
    tmp_path: Path, writer: Callable[[], subprocess.Popen[str]]
) -> None:
    processes = [writer() for _ in range(3)]
    assert [_line(process) for process in processes] == ["ready"] * 3
    for process in processes:
        _tell(process, 3)
    ids = {_line(process) for process, _ in itertools.product(processes, range(3))}
    with Register.open(tmp_path / "state") as register:
        assert {found.id for found in register.list("default")} == ids
        assert register.epoch("default") == 9
