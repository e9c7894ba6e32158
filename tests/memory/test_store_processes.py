"""Several threads and processes on one file: nothing is lost, whoever dies when."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from elision.encoders.hashing import HashingEncoder
from elision.memory.records import Draft, Scope
from elision.memory.store import Store

ENCODER = HashingEncoder(32)
HERE = Scope("tenant", ("a",))

_WRITER = """
import sys
from pathlib import Path
from elision.encoders.hashing import HashingEncoder
from elision.memory.records import Draft, Scope
from elision.memory.store import Store

with Store.open(Path(sys.argv[1]), encoder=HashingEncoder(32)) as store:
    for n in range(int(sys.argv[3])):
        text = f"{sys.argv[2]} {n}"
        stored = store.put(Scope("tenant", ("a",)), Draft(text=text, key=text))
        print(stored.id, flush=True)
        if n % 5 == 4:
            store.remove("tenant", [stored.id])
            print("-" + stored.id, flush=True)
"""


def test_two_processes_write_at_once_and_see_each_others_records(tmp_path: Path) -> None:
    with Store.open(tmp_path, encoder=ENCODER) as store:
        run = [sys.executable, "-c", _WRITER, str(tmp_path), "theirs", "60"]
        with subprocess.Popen(run, stdout=subprocess.DEVNULL) as other:
            for n in range(60):
                store.put(HERE, Draft(text=f"mine {n}"))
                store.search(HERE, "theirs")
            assert other.wait(timeout=60) == 0
        assert store.search(HERE, "theirs 7").hits[0].record.text == "theirs 7"
        assert store.search(HERE, "x").n_scanned == len(store.list(HERE, limit=999)) == 60 + 48


def test_eight_writers_and_eight_readers_lose_nothing(tmp_path: Path) -> None:
    over = threading.Event()
    with Store.open(tmp_path, encoder=ENCODER) as store:
        store.put(HERE, Draft(text="first", key="k"))

        def write(who: int) -> list[str]:
            ids = list[str]()
            while not over.is_set():
                ids.append(store.put(HERE, Draft(text=f"text {who} {len(ids)}")).id)
            return ids

        def read(who: int) -> int:
            n_read = 0
            while not over.is_set():
                found = store.search(HERE, f"text {who}", 5)
                assert [hit.similarity for hit in found.hits] == sorted(
                    (hit.similarity for hit in found.hits), reverse=True
                )
                assert store.get(HERE, "k") is not None
                n_read += 1
            return n_read

        with ThreadPoolExecutor(16) as pool:
            writers = [pool.submit(write, who) for who in range(8)]
            readers = [pool.submit(read, who) for who in range(8)]
            time.sleep(0.8)
            over.set()
        ids = [id_ for one in writers for id_ in one.result()]
        assert len(ids) >= 8
        assert all(one.result() for one in readers)
        assert len(store.find("tenant", ids)) == len(set(ids)) == len(ids)
        assert store.search(HERE, "x").n_scanned == len(ids) + 1


def _killed(home: Path, name: str, after_s: float) -> tuple[set[str], set[str]]:
    """Kill a writer after a while; return what it said was there, and what it said was removed."""
    run = [sys.executable, "-c", _WRITER, str(home), name, "100000"]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline()]
        time.sleep(after_s)
        os.kill(writer.pid, signal.SIGKILL)
        said += writer.stdout.readlines()
    whole = [line.strip() for line in said if line.endswith("\n")]
    gone = {line[1:] for line in whole if line.startswith("-")}
    return {line for line in whole if not line.startswith("-")}, gone


@pytest.mark.parametrize(
    "n_kills", [1, pytest.param(12, marks=pytest.mark.slow)], ids=["once", "often"]
)
def test_what_was_acknowledged_is_there_whenever_the_writer_was_killed(
    tmp_path: Path, n_kills: int
) -> None:
    chance = random.Random(0)
    kept, gone, last = set[str](), set[str](), set[str]()
    for n in range(n_kills):
        new, removed = _killed(tmp_path, f"writer {n}", chance.uniform(0, 0.3))
        kept, gone = kept | new, gone | removed
        last.add(max(new))  # it may have been removed without a word
        with Store.open(tmp_path, encoder=ENCODER) as store:
            assert store.database.rows("PRAGMA integrity_check") == [("ok",)]
            there = {record.id for record in store.list(HERE, limit=10**6)}
            assert kept - gone - last <= there
            assert not gone & there
            found = {hit.record.id for hit in store.search(HERE, "writer", 10**6).hits}
            assert found == there
