"""Records into a store: surveyed first, then written in batches, each of them whole."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from elision.crypto.signing import key_id_of
from elision.errors import ConflictError, RequestError
from elision.memory.lineage import link
from elision.memory.records import Trust
from elision.memory.transfer.arriving import OnConflict, Terms, fate_of, standing_of
from elision.memory.transfer.bundle import Bundle, Entry
from elision.memory.transfer.exporting import vault_of
from elision.memory.transfer.placing import Kinship, learn, place, stands_for
from elision.memory.transfer.report import Fate, ImportReport, Tally

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from elision.memory.index.vectors import Vectors
    from elision.memory.store import Store
    from elision.memory.writing import Writing

_BATCH: Final = 100
"""Records of one transaction."""
_WRITTEN: Final = (Fate.CREATED, Fate.REPLACED)
_REFUSED: Final = (Fate.BURIED, Fate.SCREENED)


def import_from(
    store: Store,
    file: Path,
    *,
    on_conflict: OnConflict = "skip",
    revive: bool = False,
    dry_run: bool = False,
    trust: Iterable[str] = (),
    most_trust: Trust = Trust.OPERATOR,
    tenant: str | None = None,
    vectors: bool = False,
    without_subjects: bool = False,
) -> ImportReport:
    """Keep what a bundle holds, as it was: ids, versions, times, lineage, evidence.

    A bundle is believed in nothing but what its signature covers, and only if the key is this
    store's own or one of *trust*. What was erased here stays away, with all that was made from it,
    as does what a forget target forbids. Importing the same bundle again changes nothing; one that
    was cut short is finished by importing it again.

    Args:
        store: Where to.
        file: The bundle; see `elision.memory.transfer.exporting.export_to`.
        on_conflict: Where an id or a key is taken: ``skip`` leaves what is there, ``overwrite``
            puts the bundle's in its place, ``new_ids`` gives every record a new id, made of the
            bundle's sum and the old one, and where need be a new key.
        revive: Whether what was erased here may come back.
        dry_run: Whether only to tell what would happen; of an unknown key too.
        trust: Public keys (PEM) of other stores whose bundles are taken. Whoever names one
            vouches for the trust, states and evidence that its bundles claim.
        most_trust: No record is trusted more, whatever the bundle says.
        tenant: Whose the records become; for a bundle of one tenant. None: whose they were. What
            was erased from either stays away.
        vectors: Whether to take the bundle's vectors, if it has any and they are of this store's
            encoder; else texts are encoded anew.
        without_subjects: Whether to go on although it can no longer be told whom records are
            about, because the bundle comes from a store with another master key or from another
            tenant. Then they are not found when that person is to be erased.

    Raises:
        RequestError: If it is no bundle or was altered (code ``invalid_bundle``), its key is
            unknown (``unknown_signer``), a record cannot be kept as it is, or *tenant* is given
            for a bundle of several.
        ConflictError: If subjects would be lost (code ``subjects_lost``).
        ConfigError: If the file cannot be read or a key in *trust* is none.
    """
    with Bundle(file) as bundle:
        is_known = _is_known(store, bundle, trust)
        tells_persons = _tells_persons(store, bundle, tenant)
        n_lost = 0 if tells_persons else bundle.n_with_subjects
        if not dry_run:
            _check(bundle, is_known=is_known, n_lost=0 if without_subjects else n_lost)
        if tenant is not None and len(bundle.tenants) > 1:
            raise RequestError("the bundle is of several tenants", param="tenant")
        terms = Terms(on_conflict, revive, most_trust, tenant, bundle.manifest.sha256)
        importer = _Importer(store, bundle, terms, vectors=vectors, subjects=tells_persons)
        importer.tally.n_subjects_lost = n_lost
        importer.survey()
        if not dry_run:
            importer.write()
        return importer.tally.report(bundle.manifest, is_known=is_known, dry_run=dry_run)


def _check(bundle: Bundle, *, is_known: bool, n_lost: int) -> None:
    """Refuse a bundle of a stranger, and one whose persons could no longer be told."""
    if not is_known:
        raise RequestError(
            f"the bundle is signed with the key {bundle.manifest.key_id}, which is not this "
            "store's; if you know whose it is, import with that public key in trust",
            code="unknown_signer",
        )
    if n_lost:
        raise ConflictError(
            f"{n_lost} records are about persons who can no longer be told: the bundle is of "
            "another master key or another tenant; import with without_subjects to go on",
            code="subjects_lost",
        )


def _tells_persons(store: Store, bundle: Bundle, tenant: str | None) -> bool:
    """Return whether the bundle's digests of persons mean the same here: each is a tenant's own."""
    stays = tenant is None or bundle.tenants <= {tenant}
    return stays and bundle.manifest.vault == vault_of(store)


def _is_known(store: Store, bundle: Bundle, trust: Iterable[str]) -> bool:
    key_ids = {key_id_of(pem): pem.strip() for pem in (store.keys.signer.public_key(), *trust)}
    return key_ids.get(bundle.manifest.key_id) == bundle.manifest.public_key.strip()


class _Importer:
    """One import."""

    def __init__(
        self, store: Store, bundle: Bundle, terms: Terms, *, vectors: bool, subjects: bool
    ) -> None:
        self.tally = Tally()
        self._store = store
        self._bundle = bundle
        self._terms = terms
        self._kin = Kinship()
        self._fates: dict[str, Fate] = {}
        self._done: set[str] = set()
        self._own_vectors = vectors and bundle.manifest.encoder == (store.identity or None)
        self._subjects = subjects

    def survey(self) -> None:
        """Tell what becomes of every record, and of what was made from those that are refused."""
        children: dict[str, list[str]] = {}
        places = set[tuple[str, ...]]()
        for batch in _batches(self._bundle.entries()):
            with self._store.reading() as connection:
                for entry in batch:
                    self._fates[entry.record.id] = self._foreseen(connection, entry, places)
                    for parent in entry.record.parents:
                        children.setdefault(parent, []).append(entry.record.id)
        waiting = [id_ for id_, fate in self._fates.items() if fate in _REFUSED]
        while waiting:
            parent = waiting.pop()
            for child in children.get(parent, ()):
                if self._fates[child] not in _REFUSED:
                    self._fates[child] = self._fates[parent]
                    waiting.append(child)
        self.tally.fates.update(self._fates.values())

    def write(self) -> None:
        """Write what is to be written."""
        self.tally.fates.clear()
        for batch in _batches(self._bundle.entries()):
            vectors = self._vectors(batch)
            with self._store.writing() as writing:
                for entry in batch:
                    fate = self._written(writing, entry, vectors)
                    self.tally.fates[fate] += 1

    def _foreseen(self, connection: Connection, entry: Entry, places: set[tuple[str, ...]]) -> Fate:
        one = standing_of(self._store, connection, self._terms, entry.record)
        fate = fate_of(self._store, connection, self._terms, one)
        scope = one.arrival.scope
        where = (scope.tenant, *scope.namespace, one.item.key)
        if fate in _WRITTEN and where in places:
            return Fate.REPLACED if self._terms.on_conflict == "overwrite" else Fate.SKIPPED
        places.add(where)
        return fate

    def _written(self, writing: Writing, entry: Entry, vectors: dict[str, Vectors | None]) -> Fate:
        line = entry.record
        fate = self._fates[line.id]
        self._done.add(line.id)
        if fate in (*_REFUSED, Fate.EXPIRED, Fate.FOREIGN):
            return fate
        one = standing_of(self._store, writing.connection, self._terms, line)
        fate = fate_of(self._store, writing.connection, self._terms, one)
        if fate in _WRITTEN:
            if line.id not in vectors:
                raise ConflictError("the store was changed meanwhile; import once more")
            parents = self._parents(writing, one.arrival.scope.tenant, entry)
            rid = place(writing, one, parents, vectors[line.id])
            if self._subjects and line.subjects:
                link(writing.connection, rid, (), line.subjects)
            learn(writing, rid, entry)
        self._settle(writing, one.arrival.scope.tenant, line.id, stands_for(one, fate))
        return fate

    def _parents(self, writing: Writing, tenant: str, entry: Entry) -> list[str]:
        """Return the parents' ids here; who is still to come is waited for."""
        found = []
        for parent in entry.record.parents:
            here = self._kin.here.get(parent)
            if parent not in self._bundle.ids and writing.rid_of(tenant, parent) is not None:
                here = parent
            if here is not None:
                found.append(here)
            elif parent in self._bundle.ids and parent not in self._done:
                self._kin.wait(parent, tenant, self._terms.id_of(entry.record.id))
            else:
                self.tally.orphans.add(parent)
        return found

    def _settle(self, writing: Writing, tenant: str, id_: str, here: str | None) -> None:
        if here is not None:
            self._kin.here[id_] = here
            rid = writing.rid_of(tenant, here)
            if rid is not None:
                self._kin.join(writing, id_, rid)

    def _vectors(self, batch: Iterable[Entry]) -> dict[str, Vectors | None]:
        """Return the vectors of what is to be written, by the bundle's id."""
        found: dict[str, Vectors | None] = {}
        to_encode: dict[str, list[tuple[str, str]]] = {}
        for entry in batch:
            line = entry.record
            if self._fates[line.id] in _WRITTEN:
                found[line.id] = self._given(line.vector)
                if line.text and found[line.id] is None:
                    tenant = self._terms.tenant or line.tenant
                    to_encode.setdefault(tenant, []).append((line.id, line.text))
        for tenant, told in to_encode.items():
            rows = self._store.encoded(tenant, [text for _, text in told])
            if rows is not None:
                found |= zip((id_ for id_, _ in told), rows, strict=True)
                self.tally.n_embedded += len(told)
        return found

    def _given(self, data: str | None) -> Vectors | None:
        from elision.memory.index.vectors import from_bytes

        encoder = self._store.encoder
        if data is None or encoder is None or not self._own_vectors:
            return None
        try:
            rows = from_bytes(base64.b64decode(data, validate=True), encoder.dim)
        except (binascii.Error, ValueError) as exc:
            raise RequestError("a vector of the bundle is none", code="invalid_bundle") from exc
        return rows[0] if len(rows) == 1 else None


def _batches(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    while batch := list(islice(entries, _BATCH)):
        yield batch
