"""How long ``import elision`` takes, in fresh processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from elision.evaluation.bench import Setup
from elision.evaluation.figures import Figure, Goal, of

HEAVY = ("torch", "transformers", "faiss", "vllm", "langchain_core", "fastapi", "numpy")

_SCRIPT = f"""
import sys, time
start = time.perf_counter()
import elision
took = time.perf_counter() - start
print(took * 1e3, *[name for name in {HEAVY!r} if name in sys.modules])
"""


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield the import time, best of five, and how many heavy packages it pulled in."""
    runs = [_import() for _ in range(5)]
    heavy = {name for _, names in runs for name in names}
    yield of(
        "startup.import_ms", [ms for ms, _ in runs], "ms", goal=Goal(value=150, sense="<="),
        pick=min, statistic="best of 5",
    )  # fmt: skip
    yield Figure(
        figure="startup.heavy_packages",
        value=len(heavy),
        unit="packages",
        goal=Goal(value=0, sense="<="),
        conditions={"looked_for": ", ".join(HEAVY)},
    )


def _import() -> tuple[float, list[str]]:
    done = subprocess.run(  # noqa: S603 -- our own constant
        [sys.executable, "-c", _SCRIPT], check=True, capture_output=True, text=True
    )
    ms, *heavy = done.stdout.split()
    return float(ms), heavy
