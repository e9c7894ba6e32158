"""Which records are to be erased: as the caller says it, and as a job may keep it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import rfc8785

from elision.errors import RequestError
from elision.memory.drafts import check_code
from elision.memory.records import LONGEST_LABEL, Scope, check_label

if TYPE_CHECKING:
    from elision.crypto.vault import Vault
    from elision.memory.records import Namespace

_REASON: Final = re.compile(r"[a-z0-9][a-z0-9_.:-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """What is to be erased of one tenant: the records that meet every condition.

    None sets no condition, so a selector of a tenant alone means all that the tenant has; an empty
    ``ids`` or ``kinds`` means no record at all.

    Attributes:
        tenant: Exact.
        namespace: This one and whatever lies below it.
        ids: Of records.
        subject: The id of a person whom records are about.
        kinds: Of records.
        older_than_s: Seconds for which a record has not been changed.
        matching: Says of a text whether a record with it is meant: text, key, each text in the
            value, each label of the namespace. Not kept: a job that was cut short goes on with
            what it chose before.

    Raises:
        RequestError: If a label or an age is none.
    """

    tenant: str
    namespace: Namespace | None = field(default=None, repr=False)
    ids: tuple[str, ...] | None = None
    subject: str | None = field(default=None, repr=False)
    kinds: tuple[str, ...] | None = None
    older_than_s: float | None = None
    matching: Callable[[str], bool] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        Scope(self.tenant, self.namespace or ())
        for kind in self.kinds or ():
            check_code(kind, "kind")
        age = self.older_than_s
        if age is not None and not (isfinite(age) and age >= 0):
            raise RequestError(f"an age is {age} s; it must be at least 0", param="older_than_s")

    @property
    def is_scope(self) -> bool:
        """Whether it means all of a tenant or of a namespace, whatever lies there."""
        conditions = (self.ids, self.subject, self.kinds, self.older_than_s, self.matching)
        return all(condition is None for condition in conditions)

    def digest(self, vault: Vault) -> str:
        """Return a keyed digest of it: whoever holds the keys can show what was asked for."""
        said: dict[str, Any] = {
            "namespace": None if self.namespace is None else list(self.namespace),
            "ids": None if self.ids is None else sorted(self.ids),
            "subject": self.subject,
            "kinds": None if self.kinds is None else sorted(self.kinds),
            "older_than_s": self.older_than_s,
            "matching": self.matching is not None,
        }
        return vault.digest("erasure selector", self.tenant, rfc8785.dumps(said))


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """A selector without a word of its own: ids, codes, keyed digests and times.

    Attributes:
        tenant: Exact.
        spaces: Ids of the namespaces meant; None: all.
        rids: Records that the matcher chose; None: there was no matcher.
        ids: See `Selector`.
        subject: Keyed digest of the person's id.
        kinds: See `Selector`.
        before: Last change, in seconds since 1970.
        scope: See `Selector.is_scope`.
    """

    tenant: str
    spaces: tuple[int, ...] | None = None
    rids: tuple[int, ...] | None = None
    ids: tuple[str, ...] | None = None
    subject: str | None = None
    kinds: tuple[str, ...] | None = None
    before: float | None = None
    scope: bool = False


def check_reason(reason: str, actor: str) -> None:
    """Check why and by whom something is erased: both stand in the receipt.

    Raises:
        RequestError: If the reason is no code, or the actor no label.
    """
    if not _REASON.fullmatch(reason):
        raise RequestError(
            "a reason must be a code of 1 to 64 of a-z, 0-9, '_', '.', ':', '-': it stands in the "
            "receipt, where nothing may tell of whom or what was erased",
            param="reason",
        )
    check_label(actor, "actor", most=LONGEST_LABEL)
