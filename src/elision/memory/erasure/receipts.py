"""Receipts: signed statements of what an erasure reached, without a word of what was erased."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import orjson
import rfc8785

from elision.crypto.signing import is_signed
from elision.errors import RequestError

if TYPE_CHECKING:
    from elision.crypto.signing import Signer

TYPE: Final = "erasure-receipt"
POLICY: Final = "1"
"""Version of what a receipt says and how; it changes with the fields."""
LIMITS: Final = (
    "file-system blocks that held former versions of the files",
    "spare blocks of solid-state disks",
    "snapshots and backups that were not registered",
    "swap space and memory dumps",
    "logs outside of the store",
    "caches of processes that were not told",
    "copies at model providers",
    "weights of models trained on it",
)
"""What no erasure of this store reaches: it is gone from the store's files, not from the disk."""
POSTGRES_SEALED: Final = (
    "the server's write-ahead log, dead blocks and backups: there only the keys that sealed it "
    "were destroyed"
)
POSTGRES_CLEAR: Final = (
    "the server's write-ahead log, dead blocks and backups: the store is not sealed, so nothing "
    "covers them"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What an erasure did; a value, and signed.

    Attributes:
        id: Of the erasure.
        tenant: Whose memory.
        at: When it was asked for, ISO 8601, UTC.
        issued_at: When this was signed, likewise.
        actor: Who asked; ``subject`` if it was the person whom it is about.
        reason: A code.
        selector: Keyed digest of what was asked for.
        state: ``verified``: every step was done and nothing was found left; ``pending``: not yet.
        unfinished: Codes of what stands in the way: ``reader`` (an open reader, or a full disk,
            keeps the log from being emptied), ``residual``, ``unreadable``, ``backups``,
            ``caches``, ``rows``, ``index``, ``keys`` (an old data key's file is there still).
        counts: Rows erased per table; ``episodes`` keep their figures and lose their task and how
            their lane was chosen, ``spaces`` their row or, where episodes stand in them, their
            labels.
        caches: What the caches elsewhere dropped.
        keys_destroyed: Data keys of a sealed store.
        scan: Of the byte scan: ``files``, ``bytes``, ``windows`` looked for, ``residual`` (found,
            and in no live row), ``ambiguous`` (found, and a live row holds the same),
            ``too_short`` (texts that are not looked for in UTF-8), ``unreadable`` files,
            ``searched`` (erased vectors that were searched for).
        backups: ``rewritten``, ``deleted``, ``unreachable``.
        limits: What is not covered.
        key_id: Of the key that signed.
        signature: Over the canonical JSON (RFC 8785) of all else.
    """

    id: str
    tenant: str
    at: str
    issued_at: str
    actor: str
    reason: str
    selector: str
    state: Literal["verified", "pending"]
    unfinished: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    caches: int = 0
    keys_destroyed: int = 0
    scan: Mapping[str, int] = field(default_factory=dict)
    backups: Mapping[str, int] = field(default_factory=dict)
    limits: tuple[str, ...] = LIMITS
    policy_version: str = POLICY
    type: str = TYPE
    key_id: str = ""
    signature: str = ""

    @property
    def residual_found(self) -> int:
        """Windows of what was erased that were found in files, and in no live row."""
        return self.scan.get("residual", 0)

    def signed(self, signer: Signer) -> Self:
        """Return it with the signature of *signer*."""
        body = {**self.to_body(), "key_id": signer.key_id}
        del body["signature"]
        return type(self).from_body({**body, "signature": signer.sign(rfc8785.dumps(body))})

    def to_body(self) -> dict[str, Any]:
        """Return it as JSON's objects."""
        body = asdict(self)
        return body | {name: list(body[name]) for name in ("unfinished", "limits")}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        """Return the receipt that `to_body` wrote.

        Raises:
            RequestError: If it is none.
        """
        if set(body) != {field.name for field in fields(cls)}:
            raise RequestError("this is no erasure receipt", param="receipt")
        given = dict(body)
        for name in ("unfinished", "limits"):
            if not isinstance(given[name], list):
                raise RequestError("this is no erasure receipt", param="receipt")
            given[name] = tuple(given[name])
        return cls(**given)


def verify_receipt(receipt: Receipt | Mapping[str, Any] | bytes | str, public_key: str) -> bool:
    """Return whether *receipt* is, to the last byte, what the holder of the key has signed.

    Args:
        receipt: As issued, or its body, or the JSON of that.
        public_key: The store's Ed25519 key in PEM.

    Returns:
        False also for whatever is no receipt at all, or was signed with another key.

    Raises:
        ConfigError: If the public key cannot be read.
    """
    body = _parsed(receipt)
    signature = body.pop("signature", None)
    if body.get("type") != TYPE or not isinstance(signature, str) or not _is_plain(signature):
        return False
    try:
        data = rfc8785.dumps(body)
    except rfc8785.CanonicalizationError:
        return False
    return is_signed(data, signature, public_key)


def iso(at: float) -> str:
    """Return seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _parsed(receipt: Receipt | Mapping[str, Any] | bytes | str) -> dict[str, Any]:
    if isinstance(receipt, Receipt):
        return receipt.to_body()
    if isinstance(receipt, Mapping):
        return dict(receipt)
    try:
        body = orjson.loads(receipt)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _is_plain(signature: str) -> bool:
    """Whether it is the one spelling of its bytes: base 64 has spare bits at its end."""
    try:
        return b64encode(b64decode(signature, validate=True)).decode() == signature
    except ValueError:
        return False
