"""Number format and threads, chosen once per machine and model by measuring.

Two compute threads beside a busy core can cost forty times one thread, and bfloat16 may be faster
or slower than float32 from one processor to the next. So nothing is assumed: every candidate
decodes a few tokens, with and without drafts, on the idle machine and beside a busy core, and the
one with the smallest geometric mean of the two medians wins.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from elision.middleware.engines.packing import LAYOUT

BUDGET_S = 1.5
"""Longest time spent on one candidate under one condition."""
N_STEPS = 12
N_ROWS = (1, 8)
"""What is timed: a token, and a small draft."""
LARGE_BYTES = 4 * 2**30
"""Models whose weights take more than this on disk are tried in bfloat16 only."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen and what it was measured at.

    Attributes:
        dtype: ``float32`` or ``bfloat16``.
        n_threads: Compute threads.
        idle_ms: Median milliseconds per forward on the idle machine.
        busy_ms: The same beside one busy core.
    """

    dtype: str
    n_threads: int
    idle_ms: float
    busy_ms: float

    @property
    def cost(self) -> float:
        """Geometric mean of both medians: how busy the machine will be is not known."""
        return math.sqrt(self.idle_ms * self.busy_ms)


def fingerprint(folder: Path) -> str:
    """Return a digest of what a measurement depends on: processor, torch, packing, model."""
    config = (folder / "config.json").read_bytes()
    machine = f"{_processor()}/{os.cpu_count()}/{torch.__version__}/{LAYOUT}"
    return hashlib.sha256(machine.encode() + config).hexdigest()[:16]


def recall(file: Path, key: str) -> Choice | None:
    """Return the choice stored under *key* in *file*; None if there is none."""
    try:
        return Choice(**json.loads(file.read_text())[key])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(file: Path, key: str, choice: Choice) -> None:
    """Store *choice* under *key* in *file*, whole or not at all."""
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        known = {}
    known[key] = asdict(choice)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(known, indent=1))
    draft.replace(file)


def number_formats(folder: Path) -> tuple[str, ...]:
    """Return the formats worth trying for the model in *folder*."""
    n_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return ("bfloat16",) if n_bytes > LARGE_BYTES else ("float32", "bfloat16")


def thread_counts() -> tuple[int, ...]:
    """Return the thread counts worth trying: powers of two up to the number of cores."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return tuple(2**k for k in range(n_cores.bit_length()) if 2**k <= n_cores)


@contextmanager
def threads(n_threads: int) -> Iterator[None]:
    """Let torch compute with *n_threads* for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(model: Any, *, dtype: str, n_threads: int) -> Choice:
    """Time decoding steps of *model* with *n_threads*, idle and beside a busy core."""
    with threads(n_threads):
        idle = _median_ms(model)
        with _busy_core():
            busy = _median_ms(model)
    return Choice(dtype, n_threads, round(idle, 2), round(busy, 2))


def _median_ms(model: Any) -> float:
    from transformers import DynamicCache

    cache, took = DynamicCache(config=model.config), list[float]()
    token = torch.zeros((1, 1), dtype=torch.long)
    end = time.perf_counter() + BUDGET_S
    with torch.inference_mode():
        model(input_ids=token.repeat(1, 32), past_key_values=cache, use_cache=True)
        while len(took) < N_STEPS and (time.perf_counter() < end or len(took) < 2):
            start = time.perf_counter()
            for n in N_ROWS:
                model(input_ids=token.repeat(1, n), past_key_values=cache, use_cache=True)
            took.append((time.perf_counter() - start) / len(N_ROWS))
    return statistics.median(took) * 1e3


@contextmanager
def _busy_core() -> Iterator[None]:
    """Keep one core busy with a process of our own, which ends by itself if we are killed."""
    code = f"import time; end = time.time() + {2 * BUDGET_S + 10}\nwhile time.time() < end: pass"
    process = subprocess.Popen([sys.executable, "-c", code])  # noqa: S603 -- our own constant
    try:
        time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("model name", "flags"))), "")
