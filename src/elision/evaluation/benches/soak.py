"""Five hundred streams at once for a minute: whether any fails, and whether memory grows."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator

from elision.evaluation.bench import Setup
from elision.evaluation.benches.proxy import targets
from elision.evaluation.figures import Figure, Goal, percentile
from elision.evaluation.proxying.client import Load, Seen
from elision.evaluation.proxying.processes import Client, Server, client, elision, upstream
from elision.evaluation.proxying.script import MODEL

N_STREAMS = 500
N_PIECES = 16
GAP_MS = 200.0
THINK_MS = 100.0
N_TARGETS = 100
WARM_SHARE = 0.25
"""Of the time, before memory is compared: connections open, caches fill."""


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield errors and growth of memory, handed on and guarded."""
    seconds = setup.repeats(60, 8)
    with client() as asking, upstream(n_pieces=N_PIECES, gap_ms=GAP_MS) as far:
        for profile, n_targets in (("passthrough", 0), ("guarded", N_TARGETS)):
            with elision(far, profile=profile) as ours:
                if n_targets:
                    ours.post("/forget/batch", {"targets": targets(n_targets)})
                _soak(asking, ours, max(5.0, seconds / 6))  # every connection opened once
                seen, sizes = _soak(asking, ours, seconds)
            yield from _figures(profile, n_targets, seconds, seen, sizes)


def _soak(asking: Client, ours: Server, seconds: float) -> tuple[Seen, list[float]]:
    """Return what the client saw, and the server's size in MB, taken four times a second."""
    sizes, over = list[float](), threading.Event()

    def watch() -> None:
        while not over.wait(0.25):
            sizes.append(ours.rss_mb())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        load = Load(
            url=ours.url, model=MODEL, n_streams=N_STREAMS, seconds=seconds, think_ms=THINK_MS,
            n_pieces=N_PIECES,
        )  # fmt: skip
        return asking.run(load), sizes
    finally:
        over.set()
        watching.join()


def _figures(
    profile: str, n_targets: int, seconds: float, seen: Seen, sizes: list[float]
) -> Iterator[Figure]:
    conditions = {
        "streams": N_STREAMS, "seconds": seconds, "targets": n_targets,
        "reply": f"{N_PIECES} chunks, {GAP_MS:g} ms apart", "replies": len(seen.total_ms),
        "first_event_p50_ms": round(percentile(seen.first_ms, 0.5), 1) if seen.first_ms else None,
        "first_event_p99_ms": round(percentile(seen.first_ms, 0.99), 1) if seen.first_ms else None,
    }  # fmt: skip
    n_errors = sum(seen.errors.values()) if seen.total_ms else 1
    yield Figure(
        figure=f"soak.{profile}.errors", value=n_errors, unit="replies",
        goal=Goal(value=0, sense="<="), conditions=conditions | {"kinds": seen.errors},
    )  # fmt: skip
    warm = sizes[int(len(sizes) * WARM_SHARE) :]
    part = max(1, len(warm) // 4)
    before, after = statistics.median(warm[:part]), statistics.median(warm[-part:])
    yield Figure(
        figure=f"soak.{profile}.rss_growth", value=round(100 * (after / before - 1), 2), unit="%",
        goal=Goal(value=5, sense="<="), spread=(round(min(warm), 1), round(max(warm), 1)),
        conditions=conditions | {
            "what": "median size of the last quarter against the first, after warming up",
            "mb": round(after, 1), "spread_in": "MB",
        },
    )  # fmt: skip
