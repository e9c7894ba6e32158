"""The store: durable writes, many at once, killed in the middle, and opened again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from elision.encoders.hashing import HashingEncoder
from elision.evaluation.bench import Setup
from elision.evaluation.figures import Figure, Goal, of, percentile
from elision.memory.records import Draft, Scope
from elision.memory.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

HERE: Final = Scope("tenant", ("agent", "domain"))
_DIM: Final = 384
_DISK: Final = "SQLite, synchronous=FULL, each commit on the disk"
_WRITER: Final = """
import sys
from pathlib import Path
from elision.encoders.hashing import HashingEncoder
from elision.memory.records import Draft, Scope
from elision.memory.store import Store

with Store.open(Path(sys.argv[1]), encoder=HashingEncoder(64)) as store:
    for n in range(10**6):
        print(store.put(Scope("tenant", ("a",)), Draft(text=f"{sys.argv[2]} {n}")).id, flush=True)
"""


class RandomEncoder:
    """Random unit vectors at no cost: what is measured here is the store."""

    name, dim = "random", _DIM

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str], *, tenant: str) -> Future[NDArray[np.float32]]:
        """Return one vector per text."""
        with self._lock:
            rows = self._rng.standard_normal((len(texts), _DIM), dtype=np.float32)
        future: Future[NDArray[np.float32]] = Future()
        future.set_result(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        return future

    def close(self) -> None:
        """Do nothing."""


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield what writing costs, alone and together, and what killing leaves."""
    with tempfile.TemporaryDirectory() as home:
        yield from _writes(setup, Path(home))
    with tempfile.TemporaryDirectory() as home:
        yield from _together(setup, Path(home))
    with tempfile.TemporaryDirectory() as home:
        yield from _large(setup, Path(home))
    with tempfile.TemporaryDirectory() as home:
        yield _killed(setup, Path(home))


def _writes(setup: Setup, home: Path) -> Iterator[Figure]:
    n = setup.repeats(4000, 800)
    with Store.open(home, encoder=RandomEncoder()) as store:
        for threads in (1, 8):
            goal = Goal(value=500, sense=">=") if threads == 8 else None
            begun = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda k, who=threads: _put(store, f"{who} {k}"), range(n)))
            rate = n / (time.perf_counter() - begun)
            name = "store.writes_per_s" if threads == 8 else "store.writes_alone_per_s"
            yield of(
                name, [rate], "/s", goal=goal, threads=threads, writes=n, database=_DISK,
                dimensions=_DIM,
            )  # fmt: skip


def _together(setup: Setup, home: Path) -> Iterator[Figure]:
    """Eight write and eight read until time is over; count errors and what is missing."""
    seconds, over = setup.repeats(60, 5), threading.Event()
    with Store.open(home, encoder=RandomEncoder()) as store:
        _put(store, "first")

        def write(who: int) -> list[str]:
            ids = list[str]()
            while not over.is_set():
                ids.append(_put(store, f"{who} {len(ids)}"))
            return ids

        def read(_: int) -> int:
            n_read = 0
            while not over.is_set():
                assert store.search(HERE, "anything", 5).hits
                n_read += 1
            return n_read

        with ThreadPoolExecutor(16) as pool:
            writers = [pool.submit(write, who) for who in range(8)]
            readers = [pool.submit(read, who) for who in range(8)]
            time.sleep(seconds)
            over.set()
        running: list[Future[Any]] = [*writers, *readers]
        errors = sum(one.exception() is not None for one in running)
        ids = [id_ for one in writers if one.exception() is None for id_ in one.result()]
        lost = len(ids) - len(store.find("tenant", ids))
        n_read = sum(one.result() for one in readers if one.exception() is None)
    yield of(
        "store.lost_or_failed", [float(errors + lost)], "count", goal=Goal(value=0, sense="<="),
        writers=8, readers=8, seconds=seconds, writes=len(ids), searches=n_read,
    )  # fmt: skip


def _large(setup: Setup, home: Path) -> Iterator[Figure]:
    """Rebuild a large tenant from SQL, and start with the index that is there."""
    n, batch = setup.repeats(100_000, 10_000), 5000
    with Store.open(home, encoder=RandomEncoder(), snapshots=False) as store:
        begun = time.perf_counter()
        for start in range(0, n, batch):
            store.put_many(HERE, [Draft(text=f"text {k}") for k in range(start, start + batch)])
        rate = n / (time.perf_counter() - begun)
        yield of("store.bulk_writes_per_s", [rate], "/s", records=n, per_commit=batch)
    for name, most, snapshots in (
        ("rebuild", 3.0, False),
        ("rebuild", 3.0, True),
        ("start", 0.5, True),
    ):
        with Store.open(home, encoder=RandomEncoder(), snapshots=snapshots) as store:
            begun = time.perf_counter()
            store.search(HERE, "anything")
            seconds = time.perf_counter() - begun
            if snapshots and name == "rebuild":
                continue  # it leaves the snapshot
            yield of(
                f"store.{name}_s", [seconds], "s", goal=Goal(value=most, sense="<="), records=n,
                dimensions=_DIM, what="first search",
            )  # fmt: skip
            if snapshots:
                yield _search(setup, store, n)


def _search(setup: Setup, store: Store, n: int) -> Figure:
    """Return what a search takes beyond its index: namespaces, filters, records read anew."""
    vectors = RandomEncoder().embed(["x"] * setup.repeats(500, 200), tenant="tenant").result()
    partition, beyond = store.partitions.at("tenant"), list[float]()
    for vector in vectors:
        begun = time.perf_counter()
        partition.search(vector, 10)
        bare = time.perf_counter()
        store.search(HERE, vector, 10)
        beyond.append((time.perf_counter() - bare - (bare - begun)) * 1e3)
    return of(
        "store.search_beyond_index_ms", beyond, "ms", records=n,
        p99=round(percentile(beyond, 0.99), 3),
    )  # fmt: skip


def _killed(setup: Setup, home: Path) -> Figure:
    """Kill a writer again and again; count what it had acknowledged and is not there."""
    chance, n_kills, missing = random.Random(0), setup.repeats(100, 5), 0  # noqa: S311
    kept = set[str]()
    for n in range(n_kills):
        kept |= _killed_once(home, f"writer {n}", chance.uniform(0, 0.3))
        with Store.open(home, encoder=HashingEncoder(64)) as store:
            there = {record.id for record in store.list(Scope("tenant"), limit=10**7)}
            partition = store.partitions.at("tenant")
            found = partition.search(np.eye(64, dtype=np.float32)[0], 10**7)
            missing += len(kept - there) + abs(len(found) - len(there))
    return of(
        "store.killed_missing", [float(missing)], "records", goal=Goal(value=0, sense="<="),
        kills=n_kills, acknowledged=len(kept), signal="SIGKILL",
    )  # fmt: skip


def _killed_once(home: Path, name: str, after_s: float) -> set[str]:
    run = [sys.executable, "-c", _WRITER, str(home), name]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as writer:  # noqa: S603
        assert writer.stdout is not None
        said = [writer.stdout.readline()]
        time.sleep(after_s)
        os.kill(writer.pid, signal.SIGKILL)
        said += writer.stdout.readlines()
    return {line.strip() for line in said if line.endswith("\n")}


def _put(store: Store, text: str) -> str:
    return store.put(HERE, Draft(text=text)).id
