"""The real sentence encoder that benches run on, loaded once per process."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from elision.encoders import SentenceEncoder
from elision.evaluation.bench import Setup
from elision.middleware.models.progress import RichProgress
from elision.middleware.models.pull import pull

ENCODER = "all-minilm-l6-v2"


@lru_cache(maxsize=1)
def _load(cache: str, threads: int) -> SentenceEncoder:
    with RichProgress() as progress:
        folder = pull(ENCODER, cache=Path(cache), progress=progress)
    return SentenceEncoder.load(folder, name=ENCODER, threads=threads, entries=400_000)


def bench_encoder(setup: Setup, *, threads: int = 1) -> SentenceEncoder:
    """Return the encoder under test, with room for every vector of a bench."""
    return _load(str(setup.settings.cache), threads)
