"""Partitions in files: only ever a shortcut, so that the store's rows need not be read again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from elision.memory.index.columns import Columns
from elision.memory.index.index import IVF_FROM, VectorIndex
from elision.memory.index.partition import Partition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elision.memory.index.facets import Values

_FORMAT: Final = 1
_CHUNK: Final = 1 << 19
_TYPES: Final = frozenset({"<i8", "<i4", "<f4", "<f8"})


class _Array(BaseModel):
    """One array in the file, after those named before it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: str
    dtype: str
    shape: tuple[int, ...]


class _Manifest(BaseModel):
    """What must hold for the file to be believed.

    Attributes:
        sha256: Of the rest of the manifest, and the numbers after it.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    format: int
    identity: str
    tenant: str
    generation: int
    stamp: int
    n: int
    dim: int
    names: tuple[str, ...]
    arrays: tuple[_Array, ...]
    sha256: str = ""

    def hashed(self) -> bytes:
        """Return what comes first under the hash."""
        return self.model_dump_json(exclude={"sha256"}).encode()


class Snapshots:
    """Each partition in two files: numbers, and a manifest that says what they are.

    The numbers are vectors, ids, codes and times; no text, and nothing that is run (no pickle).
    Whatever is not exactly what the manifest says, or of another moment, tenant or identity than
    is asked for, is unlinked; it is made anew from the store.

    Args:
        folder: Where they lie; made when needed.
        identity: See `Partitions`.
    """

    def __init__(self, folder: Path, *, identity: str = "") -> None:
        self._folder = folder
        self._identity = identity

    def save(self, tenant: str, partition: Partition, *, stamp: int) -> bool:
        """Write *partition*, and return whether that worked; if not, none is left.

        Args:
            tenant: Whose.
            partition: What.
            stamp: Of the change that it is as new as; see `Source.stamp`.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(tenant, partition, stamp)
        except OSError:
            self.unlink(tenant)
            return False
        return True

    def load(
        self, tenant: str, moment: tuple[int, int], values: Values, *, ivf_from: int = IVF_FROM
    ) -> Partition | None:
        """Return the partition as of a generation and its stamp; None if no file is that."""
        try:
            manifest, arrays = self._read(tenant, moment)
            return _partition(manifest, arrays, values, ivf_from)
        except (OSError, ValueError, KeyError, ValidationError):
            self.unlink(tenant)
            return None

    def unlink(self, tenant: str) -> int:
        """Remove the tenant's files, half-written ones too, and return how many there were."""
        n_unlinked = 0
        for file in self._folder.glob(f"{_digest(tenant)}.*"):
            with suppress(FileNotFoundError):
                file.unlink()
                n_unlinked += 1
        return n_unlinked

    def _write(self, tenant: str, partition: Partition, stamp: int) -> None:
        arrays, names = partition.arrays()
        told = _Manifest(
            format=_FORMAT,
            identity=self._identity,
            tenant=_digest(tenant),
            generation=partition.generation,
            stamp=stamp,
            n=len(arrays["rid"]),
            dim=arrays["vectors"].shape[1] if "vectors" in arrays else 0,
            names=tuple(names),
            arrays=tuple(
                _Array(name=name, dtype=_little(array).str, shape=array.shape)
                for name, array in arrays.items()
            ),
        )
        hashed = hashlib.sha256(told.hashed())
        manifest, numbers = self._files(tenant)
        with suppress(FileNotFoundError):
            manifest.unlink()
        _replace(numbers, [_bytes(array) for array in arrays.values()], hashed)
        told = told.model_copy(update={"sha256": hashed.hexdigest()})
        _replace(manifest, [told.model_dump_json().encode()])
        _sync(self._folder)

    def _read(
        self, tenant: str, moment: tuple[int, int]
    ) -> tuple[_Manifest, dict[str, NDArray[Any]]]:
        file, numbers = self._files(tenant)
        manifest = _Manifest.model_validate_json(file.read_bytes())
        told = (manifest.format, manifest.identity, manifest.tenant)
        now = (manifest.generation, manifest.stamp)
        if told != (_FORMAT, self._identity, _digest(tenant)) or now != moment:
            raise ValueError("of something else")
        return manifest, _arrays(numbers, manifest)

    def _files(self, tenant: str) -> tuple[Path, Path]:
        stem = _digest(tenant)
        return self._folder / f"{stem}.json", self._folder / f"{stem}.numbers"


def _partition(
    manifest: _Manifest, arrays: Mapping[str, NDArray[Any]], values: Values, ivf_from: int
) -> Partition:
    columns = Columns.of(arrays, manifest.names)
    index = None
    if "vectors" in arrays:
        index = VectorIndex.of(arrays["ids"], arrays["vectors"], arrays, ivf_from=ivf_from)
        if (index.dim, len(index)) != (manifest.dim, len(arrays["ids"])):
            raise ValueError("of another width, or with an id twice")
    if len(columns) != manifest.n:
        raise ValueError("with a row twice, or without one")
    return Partition.of(columns, index, values, generation=manifest.generation, ivf_from=ivf_from)


def _arrays(file: Path, manifest: _Manifest) -> dict[str, NDArray[Any]]:
    hashed, arrays = hashlib.sha256(manifest.hashed()), dict[str, Any]()
    with file.open("rb", buffering=0) as numbers:
        size = sum(_size(array) for array in manifest.arrays)
        if os.fstat(numbers.fileno()).st_size != size:
            raise ValueError("of another size")
        for told in manifest.arrays:
            array = np.empty(told.shape, dtype=told.dtype)
            whole = _bytes(array)
            for start in range(0, len(whole), _CHUNK):  # hashed while it is in the cache
                some = whole[start : start + _CHUNK]
                if numbers.readinto(some) != len(some):
                    raise ValueError("cut short")
                hashed.update(some)
            arrays[told.name] = array
    if hashed.hexdigest() != manifest.sha256:
        raise ValueError("of other content")
    return arrays


def _size(told: _Array) -> int:
    if told.dtype not in _TYPES or any(n < 0 for n in told.shape):
        raise ValueError("of another type")
    return int(np.dtype(told.dtype).itemsize * np.prod(told.shape, dtype=object))


def _bytes(array: NDArray[Any]) -> memoryview:
    whole: Any = np.ascontiguousarray(array, dtype=_little(array))
    return memoryview(whole).cast("B")


def _little(array: NDArray[Any]) -> np.dtype[Any]:
    return array.dtype.newbyteorder("<")


def _replace(file: Path, parts: Sequence[memoryview | bytes], hashed: Any = None) -> None:
    """Write *parts* to *file* in one step, telling *hashed* what they are."""
    new = file.with_name(f"{file.name}.new")
    with suppress(FileNotFoundError):
        new.unlink()
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as stream:
        for part in parts:
            stream.write(part)
            if hashed is not None:
                hashed.update(part)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(tenant: str) -> str:
    return hashlib.sha256(tenant.encode()).hexdigest()[:32]
