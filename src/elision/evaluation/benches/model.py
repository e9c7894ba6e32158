"""The real model that benches run on, loaded once per process."""

from __future__ import annotations

from functools import lru_cache

import torch

from elision.evaluation.bench import Setup
from elision.middleware.engines.causal import CausalModel
from elision.middleware.models.progress import RichProgress
from elision.middleware.models.pull import pull

PROMPTS = (
    "Write a short story about a lighthouse keeper and her dog.",
    "Explain how a bicycle stays upright, for a curious child.",
    "Describe the history of Rome from its founding to the empire.",
    "List ten ideas for a rainy afternoon and say why each is fun.",
    "What makes bread rise, and what can go wrong?",
    "Tell me how tides work and why there are two a day.",
)
"""Plain questions whose answers run past a hundred tokens."""


@lru_cache(maxsize=2)
def _load(name: str, cache: str, dtype: str) -> CausalModel:
    from pathlib import Path

    with RichProgress() as progress:
        folder = pull(name, cache=Path(cache), progress=progress)
    return CausalModel.load(folder, name=name, dtype=getattr(torch, dtype))


def bench_model(setup: Setup, dtype: str = "float32") -> CausalModel:
    """Return the model under test in *dtype*."""
    settings = setup.settings
    return _load(settings.model, str(settings.cache), dtype)
