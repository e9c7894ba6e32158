"""Memory behind a pipeline: opened at first need, screened by the register."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING

from elision.errors import StoreError
from elision.middleware.screening import RegisterScreen

if TYPE_CHECKING:
    from elision.agents.atlas.config import AtlasConfig
    from elision.contract import Erasable
    from elision.encoders import Encoder
    from elision.guards.register.register import Register
    from elision.memory.memory import Memory
    from elision.memory.store import Store
    from elision.settings import Settings


class MemorySource:
    """Opens one memory at the first call; the same one afterwards.

    Whoever never asks an agent never has a database of what was said to one.

    Args:
        open_: Makes it.
    """

    def __init__(self, open_: Callable[[], Memory]) -> None:
        self._open = open_
        self._memory: Memory | None = None
        self._closed = False
        self._lock = Lock()

    def __call__(self) -> Memory:
        """Return the memory.

        Raises:
            ConfigError: If it cannot be opened.
            StoreError: If the source was closed.
        """
        with self._lock:
            if self._closed:
                raise StoreError("memory is closed; open it again")
            if self._memory is None:
                self._memory = self._open()
            return self._memory

    def close(self) -> None:
        """Close the memory, if it was opened. Idempotent."""
        with self._lock:
            self._closed = True
            if self._memory is not None:
                self._memory.close()


def open_memory(
    settings: Settings,
    register: Register,
    encoder: Callable[[], Encoder] | None = None,
    *,
    erasables: tuple[Erasable, ...] = (),
    encodes: bool = True,
) -> Memory:
    """Open the memory that *settings* name, screened by *register*.

    Bundles that a killed process left on their way in or out are removed.

    Args:
        settings: ``home``, ``key_folder``, ``memory_url`` and ``memory_sealed`` are read.
        register: What must not be kept or shown.
        encoder: Loads the sentence encoder; None compares texts by their spelling.
        erasables: Caches elsewhere that hold what is erased.
        encodes: Whether texts are to be compared or written; else no encoder is loaded.

    Raises:
        ConfigError: If it cannot be opened, or was written with another encoder.
    """
    from elision.memory.memory import Memory
    from elision.middleware.staging import discard_staged

    discard_staged(settings.home)
    store = open_store(settings, register, encoder, encodes=encodes)
    return Memory(store, erasables=erasables, folders=(settings.home,))


def open_store(
    settings: Settings,
    register: Register,
    encoder: Callable[[], Encoder] | None = None,
    *,
    encodes: bool = True,
    reembedding: bool = False,
) -> Store:
    """Open the records alone; see `open_memory`.

    Args:
        settings: Likewise.
        register: Likewise.
        encoder: Likewise.
        encodes: Likewise.
        reembedding: Whether the encoder is to take another's place; see `Store.reembed`.

    Raises:
        ConfigError: As `open_memory`; not for the encoder's sake where it takes another's place.
    """
    from elision.memory.store import Store

    url = settings.memory_url
    return Store(
        settings.home / "memory.db" if url is None else url.get_secret_value(),
        encoder=_encoder(encoder) if encodes else None,
        keys=settings.key_folder or settings.home / "keys",
        sealed=settings.memory_sealed,
        screen=RegisterScreen(register),
        folder=settings.home / "memory",
        reembedding=reembedding,
    )


def _encoder(source: Callable[[], Encoder] | None) -> Encoder:
    from elision.encoders.hashing import HashingEncoder

    return HashingEncoder() if source is None else source()


def atlas_config(settings: Settings) -> AtlasConfig:
    """Return how episodes run, as *settings* say in ``atlas`` and ``learning``.

    Raises:
        ConfigError: If something there is unknown or out of range; which, never what it was.
    """
    from elision.agents.atlas.config import AtlasConfig
    from elision.settings import read_config

    given = {"learning": settings.learning, **settings.atlas}
    return read_config(AtlasConfig, given, name="atlas", page="docs/atlas.md")
