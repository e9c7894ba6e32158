"""Our fastest configuration against the fastest of ``transformers.generate``."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from elision.evaluation.bench import Setup
from elision.evaluation.benches.racing import Course, Runs, opened, race
from elision.evaluation.benches.ratios import Ratios, listed, overall, rate_of_all
from elision.evaluation.benches.rivals import Generate, original
from elision.evaluation.figures import Figure
from elision.middleware.engines.calibration import thread_counts

DTYPES = ("float32", "bfloat16")
N_FINALISTS = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One configuration of ``generate``.

    Attributes:
        dtype: Number format.
        n_threads: Compute threads.
        lookup: Whether it drafts by prompt lookup.
    """

    dtype: str
    n_threads: int
    lookup: bool

    def __str__(self) -> str:
        return f"{self.dtype} x{self.n_threads}{' lookup' if self.lookup else ''}"

    def contestant(self, setup: Setup) -> Generate:
        """Return it as a contestant."""
        model = original(setup, self.dtype)
        return Generate(original=model, n_threads=self.n_threads, lookup=self.lookup)


def against_best(setup: Setup, course: Course) -> Figure:
    """Race our engine in bfloat16, at every thread count, against the two best entries of `heats`.

    On both sides the fastest over all questions counts, not the fastest of each.
    """
    found = heats(setup, course.shorter(1, 48))
    best = sorted(found, key=lambda entry: found[entry], reverse=True)[:N_FINALISTS]
    final = course.shorter(setup.repeats(2, 1))
    with ExitStack() as stack:
        stables = [
            stack.enter_context(opened(_with(setup, n), "bfloat16")) for n in thread_counts()
        ]
        entries = {f"ours x{s.n_threads}": s.ours("auto", "best") for s in stables}
        results = race({**entries, **{str(e): e.contestant(setup) for e in best}}, final)
        theirs = fastest({str(e): results[str(e)] for e in best})
        ours = fastest({name: results[name] for name in entries})
        ratios = Ratios.of(results[ours], results[theirs])
        about = {**stables[0].about(final), "threads": entries[ours].n_threads}
        return overall(
            "speed.vs_best_generate", ratios, goal=1.5, **about, theirs=theirs,
            ours_per_s=round(rate_of_all(results[ours]), 1),
            theirs_per_s=round(rate_of_all(results[theirs]), 1),
            groups=listed(ratios.groups), heats=listed({str(e): r for e, r in found.items()}),
        )  # fmt: skip


def _with(setup: Setup, n_threads: int) -> Setup:
    return replace(setup, settings=setup.settings.model_copy(update={"threads": n_threads}))


def heats(setup: Setup, course: Course) -> dict[Entry, float]:
    """Return the tokens per second of every format, thread count and way over *course*."""
    entries = [
        Entry(dtype, n_threads, lookup)
        for dtype in DTYPES
        for n_threads in thread_counts()
        for lookup in (False, True)
    ]
    results = race({str(entry): entry.contestant(setup) for entry in entries}, course)
    return {entry: rate_of_all(results[str(entry)]) for entry in entries}


def fastest(results: dict[str, Runs]) -> str:
    """Return whose runs give most tokens per second, all groups together."""
    return max(results, key=lambda name: rate_of_all(results[name]))
