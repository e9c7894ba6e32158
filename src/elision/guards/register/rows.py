"""Targets to rows and back: what is personal goes sealed, the rest in columns."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import orjson
from sqlalchemy import Connection, Row, Select, select

from elision.crypto.vault import Sealed, Vault
from elision.errors import NotFoundError
from elision.guards.lifecycle import due_at
from elision.guards.register.schema import target_keys, targets
from elision.guards.scope import EVERYWHERE, Scope
from elision.guards.targets import ForgetTarget, Phrase

ID = re.compile(r"ft_[0-9a-z]{20}")

COLUMNS = (
    "id", "tenant", "kind", "action", "state", "created_at", "effective_at", "expires_at",
    "review_at", "revoked_at", "requested_by", "approved_by",
)  # fmt: skip
"""Fields of a target that stand in clear; every other one is sealed."""

_LISTS = ("names", "probes", "passages", "answers", "exceptions")
_NOTES = ("case_ref", "legal_basis")
_PLAIN = {field.name: field.default for field in fields(Phrase) if field.name != "text"}

WHOLE: Select[Any] = select(targets, target_keys.c.wrapped).join_from(
    targets, target_keys, target_keys.c.target == targets.c.id, isouter=True
)
"""Selects targets with their wrapped keys."""


def columns_of(target: ForgetTarget) -> dict[str, Any]:
    """Return the columns of *target* that stand in clear, the next due time among them."""
    columns = {name: getattr(target, name) for name in COLUMNS}
    due = due_at(target.state, effective_at=target.effective_at, expires_at=target.expires_at)
    return columns | {"due": due}


def body_of(target: ForgetTarget) -> bytes:
    """Return what of *target* is to be sealed, as JSON."""
    body: dict[str, Any] = {"title": target.title, "phrases": [*map(_phrase_body, target.phrases)]}
    body |= {key: kept for key in (*_LISTS, *_NOTES) if (kept := getattr(target, key))}
    if target.scope != EVERYWHERE:
        body["scope"] = target.scope.to_body()
    return orjson.dumps(body)


def target_of(row: Row[Any], vault: Vault) -> ForgetTarget:
    """Return the target that a row of `WHOLE` keeps; of a purged one, the columns alone.

    Raises:
        GuardError: If what is sealed cannot be opened.
    """
    clear: dict[str, Any] = {name: getattr(row, name) for name in COLUMNS}
    if row.body is None:
        return ForgetTarget(title="", **clear)
    sealed = Sealed(row.body, row.wrapped or b"")
    plain = vault.open(sealed, tenant=row.tenant, target_id=row.id)
    return ForgetTarget(**clear, **_unsealed(orjson.loads(plain)))


def find(connection: Connection, tenant: str, target_id: str) -> Row[Any]:
    """Return one target's row of `WHOLE`.

    Raises:
        NotFoundError: If this tenant has no target of that id.
    """
    query = WHOLE.where(targets.c.tenant == tenant, targets.c.id == target_id)
    row = connection.execute(query).one_or_none() if ID.fullmatch(target_id) else None
    if row is None:
        raise NotFoundError("this tenant has no forget target of that id", code="target_not_found")
    return row


def _unsealed(body: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {key: tuple(body[key]) for key in _LISTS if key in body}
    kept |= {key: body[key] for key in _NOTES if key in body}
    return kept | {
        "title": body["title"],
        "scope": Scope.from_body(body["scope"]) if "scope" in body else EVERYWHERE,
        "phrases": tuple(
            Phrase(text=item) if isinstance(item, str) else Phrase(**item)
            for item in body["phrases"]
        ),
    }


def _phrase_body(phrase: Phrase) -> str | dict[str, Any]:
    """Return the text alone where all else is default: most phrases, at a third of the size."""
    set_ = {name: getattr(phrase, name) for name in _PLAIN if getattr(phrase, name) != _PLAIN[name]}
    return {"text": phrase.text, **set_} if set_ else phrase.text
