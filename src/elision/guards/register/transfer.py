"""Targets out of a register and into another: lines of JSON, and a signed manifest behind them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import rfc8785
from sqlalchemy import Connection, Row

from elision.crypto.signing import Signer, is_signed
from elision.crypto.vault import Vault
from elision.errors import ConflictError, PermissionDeniedError, TargetError
from elision.guards.fields import check_choice, check_line, moment_of
from elision.guards.register.rows import ID, WHOLE, target_of
from elision.guards.register.schema import targets
from elision.guards.targets import GIVEN, ForgetTarget, State

FORMAT = "elision-forget-export/1"
_MAX_ACTOR_CHARS = 128


def export_lines(
    tenant: str, kept: Iterable[ForgetTarget], signer: Signer
) -> Iterator[dict[str, Any]]:
    """Yield each target as an object, then the manifest: their count, hash and a signature."""
    digest, count = hashlib.sha256(), 0
    for target in kept:
        body = {"object": "target", **target.to_body()}
        _count(digest, body)
        count += 1
        yield body
    manifest: dict[str, Any] = {
        "object": "manifest",
        "format": FORMAT,
        "tenant": tenant,
        "count": count,
    }
    manifest |= {"sha256": digest.hexdigest(), "key_id": signer.key_id}
    yield manifest | {"signature": signer.sign(rfc8785.dumps(manifest))}


def import_lines(
    tenant: str, lines: Iterable[str | bytes | Mapping[str, Any]], public_key: str
) -> tuple[ForgetTarget, ...]:
    """Read what `export_lines` yielded, and check it as a whole.

    Raises:
        TargetError: If a line is no target, or the manifest is missing, forged, or of other lines.
        PermissionDeniedError: If a line is of another tenant.
        ConfigError: If the public key cannot be read.
    """
    bodies = [_parsed(line, n) for n, line in enumerate(lines, start=1) if line]
    if not bodies or bodies[-1].get("object") != "manifest":
        raise TargetError("the manifest is missing; an export ends with it")
    _check_manifest(bodies[-1], bodies[:-1], public_key)
    if bodies[-1].get("tenant") != tenant:
        raise PermissionDeniedError("the export is of another tenant than the key is bound to")
    return tuple(_target(body, tenant, f"line {n}") for n, body in enumerate(bodies[:-1], start=1))


def unknown(
    connection: Connection, vault: Vault, tenant: str, given: Sequence[ForgetTarget]
) -> tuple[ForgetTarget, ...]:
    """Return those of *given* that *tenant* does not have yet.

    Raises:
        ConflictError: If one is kept with another content or state, or is given twice.
    """
    kept = {row.id: row for row in _kept(connection, given)}
    new = {target.id: target for target in given}
    for target_id, row in kept.items():
        if row.tenant == tenant and target_of(row, vault) == new[target_id]:
            del new[target_id]
    if new.keys() & kept.keys() or len({target.id for target in given}) < len(given):
        raise ConflictError(
            "a target of the export is kept here with another content or state, or comes twice; "
            "import into an empty register",
            code="target_exists",
        )
    return tuple(new.values())


def _kept(connection: Connection, given: Sequence[ForgetTarget]) -> Iterator[Row[Any]]:
    ids = [target.id for target in given]
    for start in range(0, len(ids), 500):  # SQLite binds 999 values at least, not any number
        yield from connection.execute(WHOLE.where(targets.c.id.in_(ids[start : start + 500])))


def _parsed(line: str | bytes | Mapping[str, Any], n: int) -> Mapping[str, Any]:
    if not isinstance(line, Mapping):
        try:
            line = json.loads(line)
        except ValueError as exc:
            raise TargetError(f"line {n} is no JSON; write one object a line") from exc
    if not isinstance(line, Mapping):
        raise TargetError(f"line {n} is no object; write one object a line")
    return line


def _count(digest: Any, body: Mapping[str, Any]) -> None:
    digest.update(rfc8785.dumps(dict(body)) + b"\n")


def _check_manifest(
    manifest: Mapping[str, Any], bodies: Sequence[Mapping[str, Any]], public_key: str
) -> None:
    signed = {key: value for key, value in manifest.items() if key != "signature"}
    signature = manifest.get("signature")
    try:
        genuine = isinstance(signature, str) and is_signed(
            rfc8785.dumps(signed), signature, public_key
        )
        digest = hashlib.sha256()
        for body in bodies:
            _count(digest, body)
    except rfc8785.CanonicalizationError as exc:
        raise TargetError("the export cannot be written as canonical JSON") from exc
    if not genuine or manifest.get("format") != FORMAT:
        raise TargetError(
            "the manifest's signature is not this register's; give the public key of the register "
            "that made the export"
        )
    if (manifest.get("count"), manifest.get("sha256")) != (len(bodies), digest.hexdigest()):
        raise TargetError("the manifest does not fit the lines before it; export once more")


def _target(body: Mapping[str, Any], tenant: str, where: str) -> ForgetTarget:
    state, target_id = body.get("state"), body.get("id")
    check_choice(state, get_args(State), f"{where}: state")
    if not isinstance(target_id, str) or not ID.fullmatch(target_id):
        raise TargetError(f"{where}: id is no target's id")
    given: dict[str, Any] = {
        "id": target_id,
        "state": state,
        "created_at": moment_of(body, "created_at") or 0.0,
        "revoked_at": moment_of(body, "revoked_at"),
    }
    for key in ("requested_by", "approved_by"):
        given[key] = body.get(key, "")
        if given[key]:
            check_line(given[key], f"{where}: {key}", most=_MAX_ACTOR_CHARS)
    asked = {key: body[key] for key in body if key not in GIVEN and key != "object"}
    return replace(_content(asked, tenant, purged=state == "purged"), **given)


def _content(asked: dict[str, Any], tenant: str, *, purged: bool) -> ForgetTarget:
    if not purged:
        asked = {key: value for key, value in asked.items() if value != ""}
        return ForgetTarget.from_body(asked, tenant=tenant)
    moments = ("effective_at", "expires_at", "review_at")
    times: dict[str, Any] = {key: moment_of(asked, key) for key in moments}
    kind, action = asked.get("kind", "string"), asked.get("action", "restrict")
    return ForgetTarget(title="", tenant=tenant, kind=kind, action=action, **times)
