"""Records out of a store: what may be read, what was learned of it, and what it was made from."""

from __future__ import annotations

import heapq
import os
import re
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from sqlalchemy import select

from elision.errors import ConfigError
from elision.memory.reading import chunks
from elision.memory.records import Scope
from elision.memory.schema import spaces
from elision.memory.transfer.bundle import START, Manifest
from elision.memory.transfer.gathering import gathered, parents_of
from elision.memory.transfer.lines import (
    AnyLine,
    EndLine,
    ManifestLine,
    RecordLine,
    next_sum,
    signed,
    written,
)

if TYPE_CHECKING:
    from elision.memory.store import Store

_BATCH: Final = 200
"""Records of one read transaction."""
_PAGE: Final = 1000


def export_to(
    store: Store,
    scope: Scope | None,
    file: Path,
    *,
    kinds: Collection[str] = (),
    vectors: bool = False,
) -> Manifest:
    """Write what lies in *scope* and below it to *file*, in place of what was there.

    What has expired or may not be read stays out. The bundle is in clear, whether the store is
    sealed or not, and readable by its owner only; no erasure reaches it, so keep account of it.
    Episodes go as records: their figures and the ledger stay.

    Records are read in transactions of some hundreds: one that is written meanwhile is in the
    bundle or not, never half.

    Args:
        store: Where they lie; its key signs.
        scope: Which; None: those of every tenant.
        file: Where to; complete when this returns, and untouched if it raises. Killed meanwhile,
            it leaves a draft beside *file*, which the next export to *file* removes.
        kinds: Only these; none: any.
        vectors: Whether vectors go too: from them a text can be guessed as from its words.

    Raises:
        ConfigError: If the file cannot be written.
        StoreError: If the database fails, or something in it is damaged.
    """
    with _replacing(file) as out:
        bundle = _Writer(out)
        bundle.write(
            ManifestLine(encoder=store.identity or None, vault=vault_of(store), vectors=vectors)
        )
        for one in [scope] if scope else _tenants(store):
            for ids in chunks(_in_order(store, one, kinds), _BATCH):
                bundle.write_all(gathered(store, one.tenant, ids, with_vectors=vectors))
        return bundle.end(store)


def vault_of(store: Store) -> str:
    """Return a digest that two stores share if their digests of subjects mean the same."""
    return store.keys.vault.digest("memory transfer", "", b"vault")


class _Writer:
    """Writes lines and keeps their sum."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._sum = START
        self._n_records = 0
        self._first: ManifestLine | None = None

    def write(self, line: AnyLine) -> None:
        data = written(line)
        self._out.write(data)
        self._sum = next_sum(self._sum, data)
        self._n_records += isinstance(line, RecordLine)
        self._first = line if isinstance(line, ManifestLine) else self._first

    def write_all(self, lines: Iterable[AnyLine]) -> None:
        for line in lines:
            self.write(line)

    def end(self, store: Store) -> Manifest:
        signer, sum_, first = store.keys.signer, self._sum.hex(), self._first
        assert first is not None, "it is written first"
        pem = signer.public_key()
        signature = signer.sign(signed(self._n_records, sum_, pem))
        line = EndLine(records=self._n_records, sha256=sum_, public_key=pem, signature=signature)
        self._out.write(written(line))
        return Manifest(
            n_records=self._n_records,
            encoder=first.encoder,
            vectors=first.vectors,
            vault=first.vault,
            sha256=sum_,
            key_id=signer.key_id,
            public_key=pem,
        )


@contextmanager
def _replacing(file: Path) -> Iterator[BinaryIO]:
    """Lend a new file that takes *file*'s place once it is on the disk."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}.tmp")
    try:
        _discard_drafts(file)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    except OSError as exc:
        raise ConfigError(f"the bundle cannot be written ({type(exc).__name__})") from exc
    finally:
        with suppress(OSError):  # it took the file's place, or what hinders this was raised
            draft.unlink()


def _discard_drafts(file: Path) -> None:
    """Unlink what a killed process left of *file*, in clear: nobody else would know of it."""
    of_it = re.compile(rf"\.{re.escape(file.name)}\.[0-9a-f]{{16}}\.tmp")
    for path in file.parent.iterdir():
        if of_it.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _tenants(store: Store) -> list[Scope]:
    with store.reading() as connection:
        found = connection.scalars(select(spaces.c.tenant).distinct().order_by(spaces.c.tenant))
        return [Scope(tenant) for tenant in found]


def _in_order(store: Store, scope: Scope, kinds: Collection[str]) -> list[str]:
    """Return the ids of what is exported; parents before children, else by id.

    So the order does not depend on the store, and an importer seldom has to wait for a parent.
    """
    ids: list[str] = []
    while page := store.list(scope, kinds=kinds, after=ids[-1] if ids else None, limit=_PAGE):
        ids += [record.id for record in page]
    with store.reading() as connection:
        parents = {
            child: of for some in chunks(ids) for child, of in parents_of(connection, some).items()
        }
    return _sorted(ids, parents)


def _sorted(ids: Sequence[str], parents: Mapping[str, Collection[str]]) -> list[str]:
    """Return *ids* with parents first; those in a circle come last, by id."""
    known = set(ids)
    waits = {id_: len(known.intersection(parents.get(id_, ()))) for id_ in ids}
    children = defaultdict[str, list[str]](list)
    for child in ids:
        for parent in known.intersection(parents.get(child, ())):
            children[parent].append(child)
    ready, done = [id_ for id_ in ids if not waits[id_]], list[str]()
    heapq.heapify(ready)
    while ready:
        done.append(heapq.heappop(ready))
        for child in children[done[-1]]:
            waits[child] -= 1
            if not waits[child]:
                heapq.heappush(ready, child)
    return done + sorted(known.difference(done))
