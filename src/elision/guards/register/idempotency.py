"""Idempotency keys: a registration that is sent twice is made once.

Kept for a day. Neither the key nor the body is stored, only digests that the master key makes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import orjson
from sqlalchemy import delete, insert, select

from elision.crypto.vault import Vault
from elision.errors import ConflictError
from elision.guards.fields import check_line
from elision.guards.register.schema import idempotency
from elision.guards.register.writing import Writing

KEPT_S = 24 * 3600
MAX_KEY_CHARS = 255


@dataclass(frozen=True, slots=True)
class Once:
    """A request that is to be carried out once.

    Attributes:
        tenant: Whose.
        key: Digest of its idempotency key.
        body: Digest of what it asks for.
    """

    tenant: str
    key: str = field(repr=False)
    body: str = field(repr=False)

    @classmethod
    def of(cls, key: str, body: object, *, tenant: str, vault: Vault) -> Self:
        """Return the request of this idempotency *key*, asking for *body* (anything JSON writes).

        Raises:
            TargetError: If the key is empty, too long or not one line.
        """
        check_line(key, "idempotency_key", most=MAX_KEY_CHARS)
        asked = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        return cls(
            tenant,
            vault.digest("idempotency key", tenant, key.encode()),
            vault.digest("idempotency body", tenant, asked),
        )

    def recall(self, writing: Writing) -> Any:
        """Return what was answered the first time; None if this is the first time.

        Raises:
            ConflictError: If the key was used for something else.
        """
        old = writing.now - KEPT_S
        writing.connection.execute(delete(idempotency).where(idempotency.c.at <= old))
        mine = (idempotency.c.tenant == self.tenant) & (idempotency.c.key == self.key)
        row = writing.connection.execute(select(idempotency).where(mine)).one_or_none()
        if row is None:
            return None
        if row.body != self.body:
            raise ConflictError(
                "this idempotency key came with another body before; take a new key",
                code="idempotency_conflict",
            )
        return orjson.loads(row.answer)

    def remember(self, writing: Writing, answer: object) -> None:
        """Keep *answer* (anything JSON writes, nothing personal) for the next time."""
        row = {"tenant": self.tenant, "key": self.key, "body": self.body, "at": writing.now}
        writing.connection.execute(insert(idempotency), row | {"answer": orjson.dumps(answer)})
