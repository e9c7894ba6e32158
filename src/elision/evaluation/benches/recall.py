"""Searching memory: how long it takes and what it finds, and what a start costs."""

from __future__ import annotations

import ast
import random
import re
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from elision.evaluation.bench import Setup
from elision.evaluation.benches.encoder import ENCODER, bench_encoder
from elision.evaluation.figures import Figure, Goal, of, percentile
from elision.memory.filters import parse
from elision.memory.index.partition import Partition, Row
from elision.memory.records import Draft, Scope
from elision.memory.store import Store

if TYPE_CHECKING:
    from elision.memory.index.vectors import Vectors

TENANT: Final = "bench"
K: Final = 10
N_SPACES: Final = 4
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")
_GOAL: Final = {10_000: 1.0, 100_000: 5.0}


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield the figures of an index, on real and on random vectors, then those of a store."""
    n_real = setup.repeats(10_000, 1_000)
    real = _encoded(setup, n_real)
    n_queries = setup.repeats(1_000, 300)
    made: dict[str, Callable[[int], _Vectors]] = {
        "real": lambda n: _drawn(real, n, n_queries),
        "random": lambda n: _random(n, real.shape[1], n_queries),
    }
    with _one_thread():
        for n in _GOAL:
            for kind, make in made.items():
                yield from _index(make(n), n, "" if kind == "real" else "_random")
        for n in _GOAL:
            yield from _store(made["real"](setup.repeats(n, min(n, 20_000))), n)


# --- vectors -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Vectors:
    """What is stored, what is asked, both unit rows, and what they are."""

    held: Vectors
    queries: Vectors
    what: str


def _encoded(setup: Setup, n: int) -> Vectors:
    """Return the vectors of *n* different sentences from the docstrings of Python's own library."""
    encoder, sentences = bench_encoder(setup), _sentences(n)
    parts = [
        encoder.embed(sentences[start : start + 256], tenant=TENANT).result()
        for start in range(0, len(sentences), 256)
    ]
    return np.concatenate(parts)


def _sentences(n: int) -> list[str]:
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("**/*.py"))
    random.Random(0).shuffle(files)  # noqa: S311 -- a sample, not a secret
    found = dict[str, None]()
    for file in files:
        found |= dict.fromkeys(_said(file))
        if len(found) >= n:
            break
    return [*found][:n]


def _said(file: Path) -> Iterator[str]:
    """Yield the sentences of a module's docstrings."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # the library has files that are wrong on purpose
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            for sentence in _SENTENCE.split(" ".join((ast.get_docstring(node) or "").split())):
                if 4 <= len(sentence.split()) <= 60:
                    yield sentence


def _drawn(real: Vectors, n: int, n_queries: int) -> _Vectors:
    """Return *n* vectors and queries: the real ones as far as they go, then blends of three.

    ``a + (b - c) / 2`` of real vectors has their mean, spread and main directions. Queries are
    real vectors that are not stored, or blends of them.
    """
    source = np.random.default_rng(0)
    apart = max(50, len(real) // 10)
    known, asked = real[:-apart], real[-apart:]
    more = _blends(known, max(0, n - len(known)), source)
    queries = np.concatenate([asked, _blends(asked, max(0, n_queries - apart), source)])
    what = f"{ENCODER} of {len(known)} sentences, then blends of three"
    return _Vectors(np.concatenate([known[:n], more]), queries[:n_queries], what)


def _blends(rows: Vectors, n: int, source: np.random.Generator) -> Vectors:
    a, b, c = (rows[source.integers(len(rows), size=n)] for _ in range(3))
    blends: Any = a + (b - c) / 2
    return _unit(blends)


def _random(n: int, dim: int, n_queries: int) -> _Vectors:
    source = np.random.default_rng(0)
    rows = _unit(source.standard_normal(size=(n + n_queries, dim), dtype=np.float32))
    return _Vectors(rows[:n], rows[n:], "uniformly random")


def _unit(rows: Vectors) -> Vectors:
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    scaled: Vectors = (rows / lengths[:, None]).astype(np.float32)
    return scaled


# --- an index alone ------------------------------------------------------------------------------


def _index(vectors: _Vectors, n: int, suffix: str) -> Iterator[Figure]:
    partition = _partition(vectors.held)
    conditions: dict[str, Any] = {
        "n": n, "dim": vectors.held.shape[1], "k": K, "threads": 1, "vectors": vectors.what,
        "exact": partition.exact,
    }  # fmt: skip
    took, filtered = _race(partition, vectors.queries)
    name = f"recall.{n // 1000}k{suffix}"
    yield of(
        f"{name}_p99_ms", took, "ms", pick=_p99, goal=Goal(value=_GOAL[n], sense="<="),
        **conditions, statistic="p99", median_ms=round(percentile(took, 0.5), 3),
    )  # fmt: skip
    recall, n_asked = _recall(partition, vectors)
    yield Figure(
        figure=f"{name}_at_{K}", value=round(recall, 4), unit="share",
        goal=Goal(value=0.98, sense=">="),
        conditions={"queries": n_asked, "truth": "numpy, every vector", **conditions},
    )  # fmt: skip
    for what, samples in filtered.items():
        yield Figure(
            figure=f"{name}_{what}_x", value=round(_p99(samples) / _p99(took), 3), unit="x",
            goal=Goal(value=2, sense="<="),
            conditions={
                **conditions, "what": "filtered over unfiltered, p99, the filter asked before",
                "p99_ms": round(_p99(samples), 3), "first_ms": round(samples[0], 2),
            },
        )  # fmt: skip


def _partition(held: Vectors) -> Partition:
    values = [_value(rid) for rid in range(len(held))]
    partition = Partition(
        lambda rids: ((rid, values[rid]) for rid in (range(len(values)) if rids is None else rids))
    )
    partition.fill(_row(rid, vector) for rid, vector in enumerate(held))
    return partition


def _row(rid: int, vector: Vectors) -> Row:
    return Row(rid, rid % N_SPACES, "note", "", 3, None, vector)


def _value(rid: int) -> dict[str, Any]:
    return {"colour": ("red", "green")[rid % 7 % 2], "page": rid % 100}


_FILTERS: Final[dict[str, dict[str, Any]]] = {
    "space": {"spaces": (1,)},
    "field": {"where": parse({"colour": "red"})},
    "rare": {"where": parse({"page": 17})},
}
"""A quarter of the rows, four in seven, and one in a hundred."""


def _race(partition: Partition, queries: Vectors) -> tuple[list[float], dict[str, list[float]]]:
    """Return the milliseconds of each search, unfiltered and under each filter, interleaved.

    The first of each filter is the one that reads the fields; `_p99` leaves it out.
    """
    plain = list[float]()
    filtered: dict[str, list[float]] = {name: [] for name in _FILTERS}
    for query in queries:
        plain.append(_timed(partial(_searched, partition, query, {})))
        for name, asked in _FILTERS.items():
            filtered[name].append(_timed(partial(_searched, partition, query, asked)))
    return plain, filtered


def _searched(partition: Partition, query: Vectors, asked: dict[str, Any]) -> object:
    return partition.search(query, K, partition.select(now=0.0, **asked))


def _recall(partition: Partition, vectors: _Vectors) -> tuple[float, int]:
    """Return the share of the true nearest that was found, and for how many queries."""
    asked, hits = vectors.queries[:200], 0
    for query, scores in zip(asked, asked @ vectors.held.T, strict=True):
        true = set(np.argpartition(scores, -K)[-K:].tolist())
        hits += len(true & {rid for rid, _ in partition.search(query, K)})
    return hits / (K * len(asked)), len(asked)


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1e3


def _p99(samples: Sequence[float]) -> float:
    """Return the p99 of all but the first, which warms up."""
    return percentile(samples[1:], 0.99)


# --- a store -------------------------------------------------------------------------------------


class _Given:
    """Hands out vectors that were made before, by the number that a text ends in."""

    name = "given"

    def __init__(self, rows: Vectors) -> None:
        self.dim = rows.shape[1]
        self._rows = rows

    def embed(self, texts: Sequence[str], *, tenant: str) -> Future[Vectors]:
        """Return the rows that *texts* name."""
        done: Future[Vectors] = Future()
        done.set_result(self._rows[[int(text.rsplit(" ", 1)[1]) for text in texts]])
        return done

    def close(self) -> None:
        """Nothing is held."""


def _store(vectors: _Vectors, n: int) -> Iterator[Figure]:
    """Yield what a store of *n* takes; measured with fewer and scaled, if there are fewer."""
    n_held = len(vectors.held)
    name = f"{n // 1000}k"
    conditions: dict[str, Any] = {"n": n_held, "threads": 1, "database": "SQLite"}
    with tempfile.TemporaryDirectory() as folder:
        encoder, home = _Given(vectors.held), Path(folder)
        with Store.open(home, encoder=encoder) as store:
            _fill(store, n_held)
            rebuilt = _timed(lambda: store.partitions.at(TENANT))
        scale = n / n_held / 1e3
        goals = {100_000: (3.0, 0.5)}.get(n, (None, None))
        yield _seconds(f"recall.rebuild_{name}_s", rebuilt * scale, goals[0], conditions)
        with Store.open(home, encoder=encoder) as store:
            started = _timed(lambda: store.partitions.at(TENANT))
            yield _seconds(f"recall.start_{name}_s", started * scale, goals[1], conditions)
            search = partial(store.search, Scope(TENANT), k=K)
            took = [_timed(partial(search, query)) for query in vectors.queries]
            yield of(
                f"recall.{name}_store_p99_ms", took, "ms", pick=_p99, **conditions, statistic="p99",
                median_ms=round(percentile(took, 0.5), 3), what="records read and checked as well",
            )  # fmt: skip


def _fill(store: Store, n: int, batch: int = 2_000) -> None:
    for start in range(0, n, batch):
        rids = range(start, min(n, start + batch))
        drafts = [Draft(text=f"sentence {rid}", value=_value(rid)) for rid in rids]
        store.put_many(Scope(TENANT, (str(start // batch % N_SPACES),)), drafts)


def _seconds(name: str, value: float, goal: float | None, conditions: dict[str, Any]) -> Figure:
    return Figure(
        figure=name, value=round(value, 3), unit="s", conditions=conditions,
        goal=None if goal is None else Goal(value=goal, sense="<="),
    )  # fmt: skip


@contextmanager
def _one_thread() -> Iterator[None]:
    faiss, pools = import_module("faiss"), import_module("threadpoolctl")
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        with pools.threadpool_limits(1):
            yield
    finally:
        faiss.omp_set_num_threads(before)
