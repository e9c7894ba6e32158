"""What is to be kept, checked before anything is written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from elision.errors import RequestError
from elision.memory.bodies import dumped, packed
from elision.memory.records import LONGEST_KEY, LONGEST_LABEL, Trust, check_label

if TYPE_CHECKING:
    from elision.contract import Screen
    from elision.crypto.vault import Vault
    from elision.memory.records import Draft, Record, Scope

_CODE: Final = re.compile(r"[a-z][a-z0-9_.-]{0,31}")
_LONE: Final = re.compile("[\ud800-\udfff]")
_DEEPEST: Final = 64
"""Levels of a value."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A draft that may be written.

    Attributes:
        draft: It.
        key: Its name in the namespace, given or made of its content.
        key_digest: Keyed digest of that.
        content: Keyed digest of kind, text and value.
        plain: Its body in clear.
    """

    draft: Draft
    key: str = field(repr=False)
    key_digest: str
    content: str
    plain: bytes = field(repr=False)


def checked(draft: Draft, tenant: str, vault: Vault) -> Checked:
    """Check *draft* and name it.

    Raises:
        RequestError: If a field cannot be kept as it is.
    """
    check_draft(draft)
    content = content_digest(draft, tenant, vault)
    key = content if draft.key is None else draft.key
    plain = packed(key, draft.text, dict(draft.value), draft.ttl_s)
    return Checked(draft, key, key_digest(key, tenant, vault), content, plain)


def check_draft(draft: Draft) -> None:
    """Check the fields of *draft*, before its text is encoded.

    Raises:
        RequestError: If one cannot be kept as it is.
    """
    check_code(draft.kind, "kind")
    if draft.state:
        check_code(draft.state, "state")
    if draft.key is not None:
        check_label(draft.key, "key", most=LONGEST_KEY)
    if not isinstance(draft.text, str) or not isinstance(draft.value, Mapping):
        raise RequestError("a record's text is a text and its value a mapping", param="value")
    if _LONE.search(draft.text):
        raise RequestError("a text holds a lone surrogate", param="value")
    _check_links(draft)
    check_ttl(draft.ttl_s)
    for _ in texts(dict(draft.value)):
        pass


def _check_links(draft: Draft) -> None:
    """Check whom *draft* is about, what it was made from and how far it is to be followed.

    Raises:
        RequestError: If that cannot be kept.
    """
    for subject in draft.subjects:
        check_label(subject, "subject", most=LONGEST_KEY)
    for parent in draft.parents:
        check_label(parent, "parent", most=LONGEST_LABEL)
    if draft.trust not in list(Trust):
        raise RequestError(
            f"a trust is {min(Trust):d} to {max(Trust):d}; see `Trust`", param="trust"
        )


def key_digest(key: str, tenant: str, vault: Vault) -> str:
    """Return the keyed digest by which a record is found by its key."""
    return vault.digest("memory key", tenant, key.encode())


def content_digest(what: Draft | Record, tenant: str, vault: Vault) -> str:
    """Return the keyed digest of a record's kind, text and value."""
    return vault.digest("memory content", tenant, dumped([what.kind, what.text, dict(what.value)]))


def check_ttl(ttl_s: float | None) -> None:
    """Check a time to live.

    Raises:
        RequestError: If it is not above 0.
    """
    if ttl_s is not None and not (isfinite(ttl_s) and ttl_s > 0):
        raise RequestError(f"a time to live is {ttl_s} s; it must be above 0", param="ttl_s")


def check_code(code: str, param: str) -> None:
    """Check a kind or a state: they stand in clear, so they are codes and no words of anybody.

    Raises:
        RequestError: If it is none.
    """
    if not _CODE.fullmatch(code):
        raise RequestError(
            f"a {param} must be 1 to 32 of a-z, 0-9, '_', '.', '-', beginning with a letter",
            param=param,
        )


def admit(screen: Screen | None, scope: Scope, *words: Any) -> None:
    """Ask *screen* about every text in *words* and the labels of *scope*.

    Raises:
        RequestError: If one of them may not be kept (``code="screened"``).
    """
    if screen is None:
        return
    for text in (*scope.namespace, *texts(words)):
        if not screen.may_write(scope.tenant, text):
            raise RequestError("this may not be remembered", code="screened")


def may_show(screen: Screen | None, tenant: str, *words: Any) -> bool:
    """Return whether *screen* lets every text in *words* be read."""
    return screen is None or all(screen.may_read(tenant, text) for text in texts(words))


def may_show_record(screen: Screen | None, record: Record) -> bool:
    """Return whether *screen* lets all of *record* be read, and the labels above it."""
    if screen is None:
        return True
    words = (record.scope.namespace, record.key, record.text, dict(record.value))
    return may_show(screen, record.scope.tenant, *words)


def texts(value: Any) -> Iterator[str]:
    """Yield every text within *value* that is not empty, keys of mappings too.

    Raises:
        RequestError: If something in it would not come back from JSON as it is.
    """
    waiting = [(value, 0)]
    while waiting:
        one, depth = waiting.pop()
        if isinstance(one, str):
            if one:
                yield one
        elif isinstance(one, dict | list | tuple):
            if depth > _DEEPEST:
                raise RequestError(f"a value is more than {_DEEPEST} levels deep", param="value")
            parts = (*one, *one.values()) if isinstance(one, dict) else one
            waiting += [(part, depth + 1) for part in parts]
        elif isinstance(one, float) and not isfinite(one):
            raise RequestError("a value holds a number that is not finite", param="value")
