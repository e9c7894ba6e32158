"""Opening a store: its database, its keys, its encoder, and what is derived from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from elision.crypto.vault import Keys
from elision.errors import ConfigError, StoreError
from elision.memory.bodies import Bodies
from elision.memory.committing import Commits
from elision.memory.database import MemoryDatabase
from elision.memory.drafts import key_digest
from elision.memory.identity import (
    REEMBED,
    encoder_of,
    name_of,
    settle_encoder,
    settle_keys,
    settle_retired,
    settle_sealing,
)  # fmt: skip
from elision.memory.index.index import IVF_FROM
from elision.memory.index.partitions import Partitions
from elision.memory.naming import Names
from elision.memory.reading import Reader
from elision.memory.rows import Parts
from elision.memory.sealing import Keyring
from elision.memory.searching import Searching
from elision.memory.source import SqlSource
from elision.memory.spaces import Spaces
from elision.memory.writing import Writing

if TYPE_CHECKING:
    from types import TracebackType

    from sqlalchemy import Connection

    from elision.contract import Screen
    from elision.encoders.protocol import Encoder
    from elision.memory.index.vectors import Vectors


class Opened:
    """An open store: its parts, its transactions, its end.

    Attributes:
        database: Where it is kept.
        keys: What seals and what signs.
        keys_folder: Where they lie; None: in the environment.
        folder: Where snapshots of indexes lie; None: there are none.
        encoder: Turns texts into vectors; None: records are found by key and filter only.
        screen: May this be written, may this be read?
        clock: Tells the time in seconds since 1970.
        sealed: Whether bodies and vectors are encrypted, under one key per namespace.
        bodies: Seals and opens.
        partitions: The indexes, one per tenant.
    """

    def __init__(
        self,
        where: str | Path,
        *,
        encoder: Encoder | None = None,
        keys: Path | None = None,
        sealed: bool | None = None,
        screen: Screen | None = None,
        clock: Callable[[], float] = time.time,
        folder: Path | None = None,
        snapshots: bool = True,
        ivf_from: int = IVF_FROM,
        reembedding: bool = False,
    ) -> None:
        """Open the store, made or migrated if need be.

        Args:
            where: A path, or a URL: ``sqlite:////PATH`` or ``postgresql+psycopg://HOST/DATABASE``.
            encoder: See `Opened`; always the one that the store was made with.
            keys: The folder of its keys, made if absent; None: ``keys`` beside an SQLite file, and
                for a server the environment.
            sealed: Whether it is sealed; None: as it is, and a new one on a server only.
            screen: See `Opened`.
            clock: Likewise.
            folder: Where snapshots lie; None: beside the SQLite file, in a folder of its name.
            snapshots: Whether there are any; there are none of a sealed store, nor of one on a
                server, whose replicas would each keep some that an erasure by another leaves.
            ivf_from: See `elision.memory.index.VectorIndex`.
            reembedding: Whether *encoder* is to take another's place; see `Store.reembed`.

        Raises:
            ConfigError: If it cannot be opened, a newer Elision wrote it, its keys or its encoder
                are others, or it is sealed and there is no folder for keys.
            MissingExtraError: If the URL is PostgreSQL's and psycopg is not installed.
        """
        self.encoder, self.screen, self.clock = encoder, screen, clock
        self.database = MemoryDatabase(where)
        try:
            self._settle(keys, sealed, reembedding=reembedding)
        except BaseException:
            self.database.close()
            raise
        self.folder = self._snapshots_in(folder) if snapshots and not self.sealed else None
        source = SqlSource(self.database, self.bodies)
        self.partitions = Partitions(
            source, folder=self.folder, ivf_from=ivf_from, identity=self.identity
        )
        self.spaces = Spaces(self.database, self.bodies)
        self._parts = Parts(self.bodies, self.keys.vault, screen, Names(), self.identity)
        self._reader = Reader(self.database, self.bodies, clock)
        self._searching = Searching(self.partitions, self._reader, self.spaces, screen, clock)
        self._commits = Commits(self.writing)

    @property
    def identity(self) -> str:
        """Whose vectors the store has, as ``name:dim``."""
        return "" if self.encoder is None else name_of(self.encoder)

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """Open a transaction as the only writer; indexes follow once it is committed."""
        with self.database.writing() as connection:
            writing = Writing(connection, self._parts, now=self.clock())
            yield writing
            writing.finish()
        for tenant in writing.rooms.left:
            self.spaces.forget(tenant)
        if writing.rooms.retired and self.bodies.keyring is not None:
            with suppress(StoreError):  # it is written; the keys are noted, and tried again
                self.bodies.keyring.destroy(writing.rooms.retired)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that sees what any process has written by now."""
        with self.database.reading() as connection:
            yield connection

    def encoded(self, tenant: str, texts: Sequence[str]) -> Vectors | None:
        """Return the vectors of *texts*, shape ``(N, D)``; None if the store has none.

        Computed before a transaction, for `Writing.put` and `Writing.change`.

        Raises:
            ConfigError: If the store has vectors and was opened without an encoder.
            EngineError: If the encoder breaks; then nothing is written.
        """
        if self.encoder is None:
            self._refuse_without_encoder()
            return None
        from elision.memory.index.vectors import unit

        if not texts:
            return None
        return unit(self.encoder.embed(list(texts), tenant=tenant).result(), dim=self.encoder.dim)

    def key_digest(self, tenant: str, key: str) -> str:
        """Return the keyed digest by which a record is found by its key."""
        return key_digest(key, tenant, self.keys.vault)

    def close(self) -> None:
        """Write snapshots and let go of the database; may be called twice, nothing else after."""
        if not self._closed:
            self._closed = True
            self.partitions.close()
            self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    _closed = False

    def _settle(self, keys: Path | None, sealed: bool | None, *, reembedding: bool) -> None:
        """Bring the schema, the keys and the store's own settings in order."""
        beside = self.database.folder and self.database.folder / "keys"
        self.keys_folder = keys or beside
        self.keys = Keys.load(self.keys_folder, make=not self.database.is_made())
        self.database.upgrade()
        on_server = self.database.folder is None
        with self.database.writing() as connection:
            settle_keys(connection, self.keys.vault)
            self.sealed = settle_sealing(connection, sealed, default=on_server)
            self.bodies = Bodies(self._keyring() if self.sealed else None)
            settle_retired(connection, self.bodies.keyring)
            if not reembedding:
                settle_encoder(connection, self.encoder)

    def _keyring(self) -> Keyring:
        if self.keys_folder is None:
            raise ConfigError(
                "a sealed memory keeps a key per namespace in files; name a folder for its keys "
                "(one that all replicas share), or make the memory with sealed=False"
            )
        return Keyring(self.keys_folder / "memory", self.keys.vault)

    def _snapshots_in(self, folder: Path | None) -> Path | None:
        path = self.database.path
        return None if path is None else folder or path.with_suffix("")

    def _refuse_without_encoder(self) -> None:
        with self.database.reading() as connection:
            known = encoder_of(connection)
        if known is not None:
            raise ConfigError(
                f"the memory's texts are encoded by {known!r}, and it was opened without an "
                f"encoder; open it with that one, or change it: {REEMBED}"
            )
