"""One gated step of entropy shaping at the vocabulary of a large model."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from elision.contract import Context, Here, Recipe
from elision.evaluation.bench import Setup
from elision.evaluation.figures import Figure, Goal, of
from elision.lexicon import TokenizerLexicon
from elision.middleware.interventions.entropy import EntropyMinimisation, TargetEntropy

VOCAB = 151_936
THREADS = 2


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


def _rows(n: int) -> Iterator[Tensor]:
    """Yield rows like a model's: a broad bulk, a few tokens that stand out."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(n):
        row = torch.randn(VOCAB, generator=generator) * 2
        peaks = torch.randint(VOCAB, (40,), generator=generator)
        row[peaks] += 10 + 3 * torch.rand(40, generator=generator)
        yield row


def _step(recipe: Recipe, row: Tensor) -> float:
    session = recipe.begin(Context(lexicon=TokenizerLexicon([]), vocab_size=VOCAB))
    here = Here(row)
    start = time.perf_counter()
    shaped = session.adjust(row, here)
    took = (time.perf_counter() - start) * 1e3
    assert shaped is not row, "the row was not gated"
    return took
