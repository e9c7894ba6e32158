"""Ed25519 signatures: receipts, checkpoints and exports carry them."""

from __future__ import annotations

import base64
import binascii
import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from elision.errors import ConfigError


class Signer:
    """Signs with a private key, which it never shows.

    Attributes:
        key_id: First 16 hex digits of the SHA-256 of the raw public key.
    """

    def __init__(self, seed: bytes) -> None:
        """Make a signer of a private key's 32 bytes."""
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.key_id = _key_id(self._private.public_key())

    def sign(self, data: bytes) -> str:
        """Return the signature of *data* in base64."""
        return base64.b64encode(self._private.sign(data)).decode()

    def public_key(self) -> str:
        """Return the public key in PEM, as openssl reads it."""
        pem = self._private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return pem.decode()


def is_signed(data: bytes, signature: str, public_key: str) -> bool:
    """Return whether *signature* (base64) is that of *data* by the owner of *public_key* (PEM).

    Raises:
        ConfigError: If the public key is not an Ed25519 key in PEM.
    """
    key = _public(public_key)
    try:
        key.verify(base64.b64decode(signature, validate=True), data)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def key_id_of(public_key: str) -> str:
    """Return the `Signer.key_id` that belongs to a public key in PEM.

    Raises:
        ConfigError: If it is not an Ed25519 key in PEM.
    """
    return _key_id(_public(public_key))


def _public(pem: str) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ConfigError("the public key cannot be read; give an Ed25519 key in PEM") from exc
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError("the public key is of another kind; give an Ed25519 key in PEM")
    return key


def _key_id(key: Ed25519PublicKey) -> str:
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]
