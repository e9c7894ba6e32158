"""What is personal, sealed: one key per text, so that destroying the key destroys the text.

Each body is encrypted with AES-256-GCM under a key of its own; that key is kept wrapped by
the master key. The master key lies in ``keys/master.key``, or comes in ``ELISION_MASTER_KEY``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import rfc8785
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from elision.crypto.signing import Signer
from elision.errors import ConfigError, ElisionError, StoreError

KEY_BYTES = 32
_NONCE_BYTES = 12
_FORMAT = 1
"""Version of the sealed form; it is part of the associated data."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A body that nobody reads without its key, and that key, wrapped by the master key."""

    body: bytes = field(repr=False)
    wrapped: bytes = field(repr=False)


class Vault:
    """Seals and opens bodies, and makes digests that only it can repeat.

    Args:
        master: The master key, 32 bytes.
        failure: What is raised where something does not open.
    """

    def __init__(self, master: bytes, *, failure: type[ElisionError] = StoreError) -> None:
        self._failure = failure
        self._master = AESGCM(master)
        self._digests = hmac.digest(master, b"elision digests", "sha256")

    def seal(self, plain: bytes, *, tenant: str, target_id: str) -> Sealed:
        """Encrypt *plain* under a new key; what comes out opens for this tenant and id only."""
        place, key = _place("body", tenant, target_id), secrets.token_bytes(KEY_BYTES)
        return Sealed(_encrypt(AESGCM(key), plain, place), _encrypt(self._master, key, place))

    def open(self, sealed: Sealed, *, tenant: str, target_id: str) -> bytes:
        """Return what was sealed.

        Raises:
            StoreError: If body or key were altered, moved, or sealed under another master key.
        """
        place = _place("body", tenant, target_id)
        return self._decrypt(self._key(sealed.wrapped, place), sealed.body, place)

    def seal_note(self, note: str, wrapped: bytes, *, tenant: str, target_id: str) -> bytes:
        """Encrypt a remark about a target under the target's own key: it dies with it.

        Raises:
            StoreError: As `open`.
        """
        key = self._key(wrapped, _place("body", tenant, target_id))
        return _encrypt(key, note.encode(), _place("note", tenant, target_id))

    def open_note(self, sealed: bytes, wrapped: bytes, *, tenant: str, target_id: str) -> str:
        """Return a remark that `seal_note` sealed.

        Raises:
            StoreError: As `open`.
        """
        key = self._key(wrapped, _place("body", tenant, target_id))
        return self._decrypt(key, sealed, _place("note", tenant, target_id)).decode()

    def digest(self, purpose: str, tenant: str, data: bytes) -> str:
        """Return HMAC-SHA256 of *data* in hex, under a key for this purpose and tenant.

        Without the master key nobody can tell by trying which text a digest is of.
        """
        key = hmac.digest(self._digests, rfc8785.dumps([purpose, tenant]), "sha256")
        return hmac.digest(key, data, "sha256").hex()

    def _key(self, wrapped: bytes, place: bytes) -> AESGCM:
        return AESGCM(self._decrypt(self._master, wrapped, place))

    def _decrypt(self, key: AESGCM, sealed: bytes, place: bytes) -> bytes:
        try:
            return key.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place)
        except (InvalidTag, ValueError) as exc:
            raise self._failure(
                "something sealed was altered, or sealed under another master key; restore the "
                "database and its keys from the same backup"
            ) from exc


def _place(what: str, tenant: str, target_id: str) -> bytes:
    return rfc8785.dumps([what, _FORMAT, tenant, target_id])


def _encrypt(key: AESGCM, plain: bytes, place: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + key.encrypt(nonce, plain, place)


@dataclass(frozen=True, slots=True)
class Keys:
    """The two keys of an installation: what seals, and what signs."""

    vault: Vault = field(repr=False)
    signer: Signer = field(repr=False)

    @classmethod
    def load(
        cls,
        folder: Path | None,
        *,
        make: bool = True,
        failure: type[ElisionError] = StoreError,
    ) -> Self:
        """Read the keys; the environment's come before those of the folder.

        ``ELISION_MASTER_KEY`` and ``ELISION_SIGNING_KEY`` hold 32 bytes in base64, as do the files
        ``master.key`` and ``signing.key``.

        Args:
            folder: Where the files lie; None: the environment has both.
            make: Whether to make what is missing, readable by the owner only.
            failure: What the vault raises where something does not open.

        Raises:
            ConfigError: If a key is missing and may not be made, or cannot be read.
        """
        master = _load("master", folder, make=make)
        return cls(Vault(master, failure=failure), Signer(_load("signing", folder, make=make)))


def _load(name: str, folder: Path | None, *, make: bool) -> bytes:
    variable = f"ELISION_{name.upper()}_KEY"
    if variable in os.environ:
        return _decoded(os.environ[variable], variable)
    if folder is None:
        raise ConfigError(f"there is no {name} key; name a keys folder or set {variable}")
    path = folder / f"{name}.key"
    try:
        if make and not path.exists():
            _make(path)
        return _decoded(path.read_text("ascii"), str(path))
    except FileNotFoundError as exc:
        raise ConfigError(
            f"the {name} key {str(path)!r} is gone, and without it what it sealed cannot be read; "
            "restore it from a backup"
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"the key {str(path)!r} cannot be used ({type(exc).__name__})") from exc


def _make(path: Path) -> None:
    """Write a new key; of two processes that do so at once, one wins and both read its key."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(f".{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _decoded(text: str, where: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{where!r} is no key; write {KEY_BYTES} bytes in base64")
    return key


def fingerprint(data: bytes) -> str:
    """Return the SHA-256 of sealed bytes in hex: safe to show, for their text cannot be guessed."""
    return hashlib.sha256(data).hexdigest()
