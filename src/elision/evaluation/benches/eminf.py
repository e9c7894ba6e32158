"""One gated step of entropy shaping: a row of a large vocabulary, many rows of a small one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from elision.contract import Context, Here, Recipe
from elision.evaluation.bench import Setup
from elision.evaluation.figures import Figure, Goal, of
from elision.lexicon import TokenizerLexicon
from elision.middleware.interventions.entropy import EntropyMinimisation, TargetEntropy
from elision.middleware.interventions.entropy.rows import minimise_entropies_

VOCAB = 151_936
THREADS = 2
ROWS, SMALL_VOCAB, TEMPERATURE = 16, 49_152, 0.1


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield milliseconds per gated row for each form; their calls take turns."""
    torch.set_num_threads(THREADS)
    recipes: dict[str, tuple[Recipe, float]] = {
        "eminf.adam_step_ms": (EntropyMinimisation(), 5),
        "eminf.gd_step_ms": (EntropyMinimisation(method="gd", lr=1.0), 5),
        "eminf.temperature_step_ms": (TargetEntropy(nats=0.3), 3),
    }
    took: dict[str, list[float]] = {name: [] for name in recipes}
    for row in _rows(setup.repeats(60, 20)):
        for name, (recipe, _) in recipes.items():
            took[name].append(_step(recipe, row))
    for name, (_, goal) in recipes.items():
        yield of(
            name, took[name][5:], "ms", goal=Goal(value=goal, sense="<="), vocab=VOCAB,
            threads=THREADS, rows="random, entropy 2 to 4 nats, every one gated",
        )  # fmt: skip
    yield from _batch(setup)


def _batch(setup: Setup) -> Iterator[Figure]:
    """Yield what a batch costs on one core, as in a vLLM, beside its rows one by one; in turns."""
    torch.set_num_threads(1)
    try:
        took = [_both(n) for n in range(setup.repeats(40, 8))]
    finally:
        torch.set_num_threads(THREADS)
    told: dict[str, Any] = {
        "rows": ROWS, "vocab": SMALL_VOCAB, "threads": 1, "temperature": TEMPERATURE,
    }  # fmt: skip
    yield of("eminf.batch_ms", [batch for batch, _ in took[2:]], "ms", **told)
    yield of("eminf.batch_share", [batch / alone for batch, alone in took[2:]], "x",
             what="beside the same rows one by one", **told)  # fmt: skip


def _both(seed: int) -> tuple[float, float]:
    """Return how long a batch takes, and its rows one by one, in ms."""
    rows = torch.stack([*_rows(ROWS, SMALL_VOCAB, seed)])
    start = time.perf_counter()
    acted = minimise_entropies_(
        rows.clone(), range(ROWS), EntropyMinimisation(), temperature=TEMPERATURE
    )
    took = (time.perf_counter() - start) * 1e3
    assert all(acted.values()), "a row was not gated"
    return took, sum(_step(EntropyMinimisation(), row) for row in rows)


def _rows(n: int, vocab: int = VOCAB, seed: int = 0) -> Iterator[Tensor]:
    """Yield rows like a model's: a broad bulk, a few tokens that stand out."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n):
        row = torch.randn(vocab, generator=generator) * 2
        peaks = torch.randint(vocab, (40,), generator=generator)
        row[peaks] += 10 + 3 * torch.rand(40, generator=generator)
        yield row


def _step(recipe: Recipe, row: Tensor) -> float:
    session = recipe.begin(Context(lexicon=TokenizerLexicon([]), vocab_size=len(row)))
    here = Here(row)
    start = time.perf_counter()
    shaped = session.adjust(row, here)
    took = (time.perf_counter() - start) * 1e3
    assert shaped is not row, "the row was not gated"
    return took
