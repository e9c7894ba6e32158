"""Signed checkpoints: how far a log had come at a time, so that a cut tail is seen."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import rfc8785

from elision.crypto.signing import Signer, is_signed
from elision.errors import ConfigError

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Where a log stood, signed.

    Attributes:
        log_id: Which log.
        seq: Place of its last entry then.
        hash: That entry's hash.
        count: Entries then, the genesis included.
        ts: When, RFC 3339, UTC, milliseconds.
        signature: Ed25519 over the canonical JSON of the other fields, in base64.
    """

    log_id: str
    seq: int
    hash: str
    count: int
    ts: str
    signature: str

    @classmethod
    def signed(cls, signer: Signer, *, log_id: str, seq: int, hash_: str, ts: str) -> Self:
        """Return the checkpoint of a log whose last entry is *seq*."""
        marked = {"log_id": log_id, "seq": seq, "hash": hash_, "count": seq + 1, "ts": ts}
        return cls(**marked, signature=signer.sign(rfc8785.dumps(marked)))  # type: ignore[arg-type]

    @classmethod
    def from_body(cls, body: object) -> Self:
        """Read a checkpoint as `to_body` wrote it.

        Raises:
            ConfigError: If it is none.
        """
        kinds = {
            field.name: int if field.name in ("seq", "count") else str for field in fields(cls)
        }
        if (
            not isinstance(body, Mapping)
            or body.keys() != kinds.keys()
            or not all(type(body[key]) is kind for key, kind in kinds.items())
        ):
            raise ConfigError(f"this is no checkpoint; write an object with {', '.join(kinds)}")
        return cls(**body)

    def to_body(self) -> dict[str, Any]:
        """Return the checkpoint as the wire writes it."""
        return asdict(self)

    def is_genuine(self, public_key: str) -> bool:
        """Return whether the owner of *public_key* (PEM) signed it as it stands.

        Raises:
            ConfigError: If the public key is not an Ed25519 key in PEM.
        """
        marked = {key: value for key, value in self.to_body().items() if key != "signature"}
        counted = self.count == self.seq + 1
        return counted and is_signed(rfc8785.dumps(marked), self.signature, public_key)


def append(path: Path, checkpoint: Checkpoint) -> None:
    """Add *checkpoint* as a line of the file at *path*, on the disk when this returns.

    A file that cannot be written is logged and otherwise passed over: the change that the
    checkpoint speaks of has already been made, and the register keeps the checkpoint too.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(rfc8785.dumps(checkpoint.to_body()) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        _logger.error("checkpoint %d was not written to the file: %s", checkpoint.seq, exc.strerror)
