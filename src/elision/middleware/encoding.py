"""The sentence encoder, loaded when the first target needs one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from elision.contract import Erasable
from elision.errors import EngineError

if TYPE_CHECKING:
    from elision.encoders import Encoder
    from elision.middleware.models.progress import Progress


class EncoderSource:
    """Loads one encoder at the first call, pulled first if need be; the same one afterwards.

    A register of phrases and passages alone never calls it, so whoever has no use for an encoder
    waits for none. A load that failed is tried again at the next call.

    Args:
        name: An alias, a hub id or a folder.
        cache: Where pulled models live.
        threads: Compute threads of its thread.
        progress: Hears of a pull.

    Attributes:
        name: As given.
    """

    def __init__(
        self, name: str, *, cache: Path, threads: int = 1, progress: Progress | None = None
    ) -> None:
        self.name = name
        self._cache = cache
        self._threads = threads
        self._progress = progress
        self._encoder: Encoder | None = None
        self._closed = False
        self._lock = Lock()

    def __call__(self) -> Encoder:
        """Return the encoder.

        Raises:
            PullError: If it is not here and cannot be fetched.
            MissingExtraError: If sentence-transformers is not installed.
            ConfigError: If it is no sentence encoder.
            EngineError: If the source was closed.
        """
        with self._lock:
            if self._closed:
                raise EngineError("the sentence encoder is closed")
            if self._encoder is None:
                self._encoder = self._load()
            return self._encoder

    def _load(self) -> Encoder:
        from elision.encoders import SentenceEncoder
        from elision.middleware.models.pull import pull

        folder = pull(self.name, cache=self._cache, progress=self._progress)
        return SentenceEncoder.load(folder, name=self.name, threads=self._threads)

    def erase(self, tenant: str, *, texts: Sequence[str] | None = None) -> int:
        """Drop the vectors kept for *tenant*; return how many. See `Erasable`."""
        encoder = self._encoder
        return encoder.erase(tenant, texts=texts) if isinstance(encoder, Erasable) else 0

    def close(self) -> None:
        """Free the encoder. Idempotent."""
        with self._lock:
            self._closed = True
            if self._encoder is not None:
                self._encoder.close()
