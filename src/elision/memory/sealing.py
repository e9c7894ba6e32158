"""The data keys of a sealed store: one per namespace, in files outside of the database.

Neither the database nor its write-ahead log nor a backup of either holds a key, so what is sealed
there is gone once the key's file is.
"""

from __future__ import annotations

import os
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from elision.crypto.vault import KEY_BYTES, Sealed, Vault
from elision.errors import StoreError

_NONCE: Final = 12
_WRAPPED: Final = _NONCE + KEY_BYTES + 16
"""Bytes of a wrapped key, and of a sealed one: nonce, key, tag."""
_MOST: Final = 1024
"""Data keys held unwrapped in memory."""
_SPOILT: Final = (
    "something sealed was altered or moved, or its key is another; restore the database and its "
    "keys from the same backup"
)


class Keyring:
    """Makes, reads and destroys data keys; thread-safe.

    Args:
        folder: Where they lie, ``<key_id>.key``, each wrapped by the master key; made if absent.
        vault: Holds the master key.
    """

    def __init__(self, folder: Path, vault: Vault) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self._vault = vault
        self._open: OrderedDict[str, AESGCM] = OrderedDict()
        self._lock = Lock()

    def make(self, tenant: str) -> str:
        """Return the id of a new key; its file is on the disk when this returns."""
        key_id, key = secrets.token_hex(16), secrets.token_bytes(KEY_BYTES)
        sealed = self._vault.seal(key, tenant=tenant, target_id=key_id)
        path = self._path(key_id)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(sealed.wrapped + sealed.body)
            file.flush()
            os.fsync(file.fileno())
        _sync(self.folder)
        return key_id

    def seal(self, plain: bytes, *, tenant: str, key_id: str, place: bytes) -> bytes:
        """Encrypt *plain*, bound to *place*.

        Raises:
            StoreError: If there is no such key.
        """
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._cipher(tenant, key_id).encrypt(nonce, plain, place)

    def open(self, sealed: bytes, *, tenant: str, key_id: str, place: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            StoreError: If there is no such key, or *sealed* was altered or belongs elsewhere.
        """
        cipher = self._cipher(tenant, key_id)
        try:
            return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], place)
        except (InvalidTag, ValueError) as exc:
            raise StoreError(_SPOILT) from exc

    def destroy(self, key_ids: Iterable[str]) -> int:
        """Overwrite and unlink keys; return how many were there. Idempotent.

        Raises:
            StoreError: If the files of some cannot be; the others are destroyed.
        """
        n_destroyed, failed = 0, list[OSError]()
        for key_id in key_ids:
            with self._lock:
                self._open.pop(key_id, None)
            try:
                n_destroyed += _shred(self._path(key_id))
            except OSError as exc:
                failed.append(exc)
        try:
            _sync(self.folder)
        except OSError as exc:
            failed.append(exc)
        if failed:
            raise StoreError(
                "retired keys of the store cannot be destroyed "
                f"({type(failed[0]).__name__}); make the folder of its keys writable"
            ) from failed[0]
        return n_destroyed

    def has(self, key_id: str) -> bool:
        """Return whether there is such a key."""
        return self._path(key_id).exists()

    def _path(self, key_id: str) -> Path:
        return self.folder / f"{key_id}.key"

    def _cipher(self, tenant: str, key_id: str) -> AESGCM:
        with self._lock:
            if (known := self._open.get(key_id)) is not None:
                self._open.move_to_end(key_id)
                return known
        cipher = AESGCM(self._read(tenant, key_id))
        with self._lock:
            self._open[key_id] = cipher
            if len(self._open) > _MOST:
                self._open.popitem(last=False)
        return cipher

    def _read(self, tenant: str, key_id: str) -> bytes:
        try:
            data = self._path(key_id).read_bytes()
        except OSError as exc:
            raise StoreError(
                f"a key of the store cannot be read ({type(exc).__name__}), and what it sealed "
                "cannot either; restore the keys from a backup"
            ) from exc
        sealed = Sealed(body=data[_WRAPPED:], wrapped=data[:_WRAPPED])
        return self._vault.open(sealed, tenant=tenant, target_id=key_id)


def _shred(path: Path) -> int:
    try:
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    except FileNotFoundError:
        return 0
    return 1


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
