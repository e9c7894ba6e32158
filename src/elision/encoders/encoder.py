"""Sentence encoders: texts in, unit vectors out, on one thread of their own."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Thread, current_thread
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, cast

from elision.encoders.pieces import Pieces
from elision.encoders.vector_cache import ENTRIES, Digest, VectorCache, digest
from elision.errors import BusyError, ConfigError, EngineError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

Embed: TypeAlias = "Callable[[Sequence[str]], NDArray[np.float32]]"
Format: TypeAlias = Literal["auto", "float32", "bfloat16"]

BATCH = 64
"""Most texts of one forward, and of a request that goes before longer ones."""
MAX_WAITING = 256
"""Requests that may wait for the thread; one more is refused."""
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Job:
    """A request on its way: what is missing, and the vectors found so far."""

    texts: Sequence[str] = field(repr=False)
    keys: Sequence[Digest]
    tenant: str
    vectors: list[Any]
    missing: list[int]
    future: Future[Any] = field(default_factory=Future)
    started: bool = False

    def is_wanted(self) -> bool:
        """Return whether anybody still waits; from the first call on it cannot be cancelled."""
        if not self.started:
            self.started = self.future.set_running_or_notify_cancel()
        return self.started

    def fail(self, error: Exception) -> None:
        if self.is_wanted():
            self.future.set_exception(error)


class SentenceEncoder:
    """A sentence encoder on one daemon thread, with a bounded queue and a cache per tenant.

    Requests that wait together share a forward. Short ones go before long ones, and a long one
    gives way after every `BATCH` texts, so that compiling a register does not hold up prompts.

    Args:
        embed: Returns unit vectors, shape ``(len(texts), dim)``; called on that thread only.
        name: The model's alias, for reports.
        dim: Numbers per vector.
        threads: Compute threads of torch on that thread; None leaves torch alone.
        entries: Vectors kept; see `elision.encoders.vector_cache.ENTRIES`.
        pieces: Its tokens, if it tells them.
    """

    def __init__(
        self,
        embed: Embed,
        *,
        name: str,
        dim: int,
        threads: int | None = None,
        entries: int = ENTRIES,
        pieces: Pieces | None = None,
    ) -> None:
        self.name = name
        self.dim = dim
        self.pieces = pieces
        self._embed: Embed | None = embed
        self._threads = threads
        self._cache = VectorCache(entries)
        self._short: deque[_Job] = deque()
        self._long: deque[_Job] = deque()
        self._wake = Condition()
        self._closed = False
        self._thread = Thread(target=self._run, name=f"encoder {name}", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        name: str,
        threads: int = 1,
        dtype: Format = "auto",
        entries: int = ENTRIES,
    ) -> Self:
        """Load a sentence-transformers folder onto the processor.

        Args:
            folder: Where the model lies; nothing is fetched.
            name: The model's alias, for reports.
            threads: Compute threads of torch.
            dtype: Number format of the matrix products; ``auto`` takes bfloat16 where the
                processor multiplies in it. Models other than BERT run in float32.
            entries: Vectors kept.

        Raises:
            MissingExtraError: If sentence-transformers is not installed.
            ConfigError: If the folder does not hold a sentence encoder.
        """
        embed, dim, pieces = _load(folder, dtype)
        return cls(embed, name=name, dim=dim, threads=threads, entries=entries, pieces=pieces)

    def __repr__(self) -> str:
        return f"SentenceEncoder({self.name!r}, dim={self.dim})"

    def embed(self, texts: Sequence[str], *, tenant: str) -> Future[NDArray[np.float32]]:
        """Return, in time, one unit vector per text; see `Encoder`.

        Raises:
            EngineError: In the future, if the encoder breaks or is closed.
            BusyError: Likewise, if too many requests wait.
        """
        keys = [digest(text) for text in texts]
        vectors = self._cache.get(tenant, keys)
        missing = [index for index, vector in enumerate(vectors) if vector is None]
        job = _Job(tuple(texts), keys, tenant, vectors, missing)
        with self._wake:
            error = self._refusal()
            if error is None and missing:
                (self._short if len(missing) <= BATCH else self._long).append(job)
                self._wake.notify()
        if error is not None:
            job.fail(error)
        elif not missing:
            self._deliver(job)
        return job.future

    def _refusal(self) -> Exception | None:
        if self._closed:
            return EngineError(f"the encoder {self.name!r} is closed")
        if len(self._short) + len(self._long) >= MAX_WAITING:
            return BusyError(f"{MAX_WAITING} requests wait for the encoder {self.name!r}")
        return None

    def erase(self, tenant: str, *, texts: Sequence[str] | None = None) -> int:
        """Drop *tenant*'s vectors and return how many there were.

        With *texts* all of them go as well: what is kept does not tell what its text held.
        """
        return self._cache.erase(tenant)

    def close(self) -> None:
        """Free the model and end its thread; whoever still waits gets an error. Idempotent."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not current_thread():
            self._thread.join(timeout=5)

    # --- on the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        if self._threads is not None:
            import torch

            torch.set_num_threads(self._threads)
        while jobs := self._next():
            self._serve(jobs)
        for job in (*self._short, *self._long):
            job.fail(EngineError(f"the encoder {self.name!r} was closed"))
        self._embed = None

    def _next(self) -> list[_Job]:
        """Wait for work; return the short jobs that fit into one forward, or the next long one."""
        with self._wake:
            self._wake.wait_for(lambda: self._closed or self._short or self._long)
            if self._closed:
                return []
            if not self._short:
                return [self._long[0]]
            taken, room = [self._short.popleft()], BATCH
            room -= len(taken[0].missing)
            while self._short and len(self._short[0].missing) <= room:
                taken.append(self._short.popleft())
                room -= len(taken[-1].missing)
            return taken

    def _serve(self, jobs: list[_Job]) -> None:
        wanted = [job for job in jobs if job.is_wanted()]
        try:
            if wanted:
                self._advance(wanted)
        except Exception as exc:
            # The thread serves everybody: jobs that share a forward are tried again one by one.
            if len(wanted) > 1:
                for job in wanted:
                    self._serve([job])
                return
            _log.error("the encoder %s broke on a request: %s", self.name, type(exc).__name__)
            wanted[0].missing.clear()
            wanted[0].fail(EngineError(f"the encoder {self.name!r} broke ({type(exc).__name__})"))
        self._retire(jobs)

    def _retire(self, jobs: list[_Job]) -> None:
        if self._long and self._long[0] in jobs:
            job = self._long[0]
            if not (job.started and job.missing):
                self._long.popleft()
        for job in jobs:
            if job.started and not job.missing and not job.future.done():
                self._deliver(job)

    def _advance(self, jobs: list[_Job]) -> None:
        """Embed what is missing, up to `BATCH` texts in all."""
        asked = [(job, index) for job in jobs for index in job.missing[:BATCH]]
        embed = cast("Embed", self._embed)
        vectors = embed([job.texts[index] for job, index in asked])
        if vectors.shape != (len(asked), self.dim):
            raise ValueError(f"{vectors.shape} is not ({len(asked)}, {self.dim})")
        for (job, index), vector in zip(asked, vectors, strict=True):
            job.vectors[index] = vector.copy()  # a view would keep the whole batch alive
        for job in jobs:
            done, job.missing = job.missing[:BATCH], job.missing[BATCH:]
            self._cache.put(job.tenant, [job.keys[n] for n in done], [job.vectors[n] for n in done])

    def _deliver(self, job: _Job) -> None:
        import numpy as np

        if job.is_wanted():
            rows = np.array(job.vectors, dtype=np.float32).reshape(len(job.texts), self.dim)
            job.future.set_result(rows)


def _load(folder: Path, dtype: Format) -> tuple[Embed, int, Pieces | None]:
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging
    except ImportError as exc:
        raise MissingExtraError(exc.name or "sentence_transformers", extra="local") from exc
    cast("Any", transformers_logging).disable_progress_bar()
    if not (folder / "modules.json").is_file():
        raise ConfigError(f"{folder} is not a sentence encoder: it has no modules.json")
    try:
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{folder} is not a sentence encoder: {exc}") from exc
    model.eval()
    embed = _packed(model, dtype) or _stock(model)
    return embed, int(model.get_embedding_dimension() or 0), Pieces.of(model)


def _packed(model: SentenceTransformer, dtype: Format) -> Embed | None:
    import torch

    from elision.encoders.packed_bert import PackedBert, native_format

    if not PackedBert.fits(model):
        return None
    bert = PackedBert(model, dtype=native_format() if dtype == "auto" else getattr(torch, dtype))
    return lambda texts: bert.embed([_whole(text) for text in texts]).numpy()


def _stock(model: SentenceTransformer) -> Embed:
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        return model.encode(
            [_whole(text) for text in texts],
            batch_size=BATCH,
            normalize_embeddings=True,
            show_progress_bar=False,
        )

    return embed


def _whole(text: str) -> str:
    """Return *text* without halves of characters, which tokenizers refuse."""
    return text.encode("utf-8", "replace").decode()
