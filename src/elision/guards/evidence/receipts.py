"""Receipts: signed statements that a target is suppressed, without a word of the target."""

from __future__ import annotations

import secrets
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import orjson
import rfc8785

from elision.crypto.signing import is_signed
from elision.errors import ConflictError
from elision.guards.evidence.selftest import SelfTest, self_test
from elision.guards.phrases.normal import N
from elision.guards.targets import iso

if TYPE_CHECKING:
    from elision.crypto.signing import Signer
    from elision.guards.register.register import Register
    from elision.guards.targets import ForgetTarget

STATEMENT = "suppression at inference time"
POLICY = "1"
"""Version of what a receipt says and how; it changes with the fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What stands in a receipt beside the target.

    Attributes:
        commitment: See `commitment`.
        epoch: The tenant's epoch when it was issued.
        audit_seq: Sequence number of the audit log's newest entry then.
        audit_hash: That entry's hash, hexadecimal.
        self_test: The phrases' spellings, tried on the guard.
    """

    commitment: str
    epoch: int
    audit_seq: int
    audit_hash: str
    self_test: SelfTest


def receipt_for(register: Register, tenant: str, target_id: str) -> dict[str, Any]:
    """Issue a receipt for a target, its phrases tried on the guard now.

    Raises:
        NotFoundError: If this tenant has no target of that id.
        ConflictError: If it was purged: there is nothing left to commit to.
        GuardError: If the register fails.
    """
    epoch = register.epoch(tenant)
    target = register.get(tenant, target_id)
    if target.state == "purged":
        raise ConflictError("the target was purged, so no receipt can be issued for it any more")
    head = register.audit.checkpoint()
    evidence = Evidence(
        commitment=commitment(target, register),
        epoch=epoch,
        audit_seq=head.seq,
        audit_hash=head.hash,
        self_test=self_test(target),
    )
    return issue_receipt(target, evidence, signer=register.signer, now=time.time())


def issue_receipt(
    target: ForgetTarget, evidence: Evidence, *, signer: Signer, now: float
) -> dict[str, Any]:
    """Return a signed receipt for *target*.

    Args:
        target: As the register keeps it.
        evidence: What stands in it beside the target.
        signer: The register's.
        now: Seconds since 1970.
    """
    receipt = {
        "type": "suppression-receipt",
        "receipt_id": f"fr_{secrets.token_hex(12)}",
        "tenant": target.tenant,
        "target_id": target.id,
        "target_commitment": evidence.commitment,
        "kind": target.kind,
        "action": target.action,
        "state": target.state,
        "case_ref": _nameless(target.case_ref, target),
        "scope": target.scope.to_body(),
        "effective_at": iso(target.effective_at),
        "expires_at": iso(target.expires_at),
        "revoked_at": iso(target.revoked_at),
        "epoch": evidence.epoch,
        "policy_version": POLICY,
        "guard_versions": {"code": version("elision")},
        "self_test": evidence.self_test.to_body(),
        "audit_head": {"seq": evidence.audit_seq, "hash": evidence.audit_hash},
        "statement": STATEMENT,
        "issued_at": iso(now),
        "key_id": signer.key_id,
    }
    return receipt | {"signature": signer.sign(canonical(receipt))}


def commitment(target: ForgetTarget, register: Register) -> str:
    """Return the HMAC-SHA256 of everything that *target* holds against an output, hexadecimal.

    Of the normal forms of its phrases, names, probes, passages and answers, each list sorted and
    without repetition. Whoever has the register's keys and the target can show that a receipt is
    about it; whoever has the receipt alone cannot try names on it.
    """
    lists: dict[str, Sequence[str]] = {
        "phrases": [phrase.text for phrase in target.phrases],
        "names": target.names,
        "probes": target.probes,
        "passages": target.passages,
        "answers": target.answers,
    }
    forms = {name: sorted({N(text) for text in texts}) for name, texts in lists.items()}
    return register.commitment(target.tenant, "receipt", canonical(forms))


def canonical(body: Mapping[str, Any]) -> bytes:
    """Return *body* as the one JSON that RFC 8785 allows for it."""
    return rfc8785.dumps(dict(body))


def verify_receipt(receipt: Mapping[str, Any] | bytes | str, public_key: str) -> bool:
    """Return whether *receipt* is, to the last byte, what the holder of the key has signed.

    Args:
        receipt: As issued, or the JSON of it.
        public_key: The register's Ed25519 key in PEM.

    Returns:
        False also for whatever is no receipt at all, or was signed with another key.

    Raises:
        ConfigError: If the public key cannot be read.
    """
    body = _parsed(receipt)
    if body.get("type") != "suppression-receipt" or not _is_plain(body.get("signature")):
        return False
    try:
        signed = canonical({key: body[key] for key in body if key != "signature"})
    except rfc8785.CanonicalizationError:
        return False
    return is_signed(signed, str(body["signature"]), public_key)


def _parsed(receipt: Mapping[str, Any] | bytes | str) -> Mapping[str, Any]:
    if isinstance(receipt, Mapping):
        return receipt
    try:
        body = orjson.loads(receipt)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _is_plain(signature: object) -> bool:
    """Whether it is the one spelling of its bytes: base 64 has spare bits at its end."""
    try:
        return b64encode(b64decode(str(signature), validate=True)).decode() == signature
    except ValueError:
        return False


def _nameless(reference: str, target: ForgetTarget) -> str | None:
    """Return the operator's reference; None if it holds a word of the target itself."""
    form = N(reference)
    words = (target.title, *target.names, *(phrase.text for phrase in target.phrases))
    if any(N(word) and N(word) in form for word in words):
        return None
    return reference or None
