"""What memory keeps: records in namespaces, with who said it and what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Literal, TypeAlias

from elision.errors import RequestError

Namespace: TypeAlias = tuple[str, ...]
"""Labels from the widest to the narrowest; compared label by label, never as one text."""

LONGEST_LABEL: Final = 128
LONGEST_KEY: Final = 512
DEEPEST: Final = 16
"""Labels of a namespace."""


class Trust(IntEnum):
    """How far the words of a record may be followed; a derived one has the least of its parents.

    The order is that of the OWASP LLM Top-10 working group (atlas_memory.md 2.9). No model raises
    it: what a model infers is trusted as its inputs are.
    """

    UNKNOWN = 0
    EXTERNAL = 1
    """A document, or a tool that reads what strangers write."""
    TOOL = 2
    """A tool of one's own."""
    USER = 3
    OPERATOR = 4


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose memory, and which part of it.

    Attributes:
        tenant: Exact, never a prefix.
        namespace: Exact for writing; in a search, whatever lies below it is meant too.

    Raises:
        RequestError: If a label is empty, too long or holds control characters, or there are more
            than `DEEPEST`.
    """

    tenant: str
    namespace: Namespace = ()

    def __post_init__(self) -> None:
        if len(self.namespace) > DEEPEST:
            raise RequestError(
                f"a namespace has {len(self.namespace)} labels; the most are {DEEPEST}",
                param="namespace",
            )
        for label in (self.tenant, *self.namespace):
            check_label(label, "namespace", most=LONGEST_LABEL)

    def holds(self, other: Scope) -> bool:
        """Return whether *other* is this scope or lies below it."""
        n = len(self.namespace)
        return self.tenant == other.tenant and other.namespace[:n] == self.namespace


def check_label(label: str, param: str, *, most: int) -> None:
    """Check one label or key.

    Raises:
        RequestError: If it is no text of 1 to *most* characters without control characters and
            lone surrogates.
    """
    if not isinstance(label, str) or not 1 <= len(label) <= most:
        raise RequestError(f"a {param} must be a text of 1 to {most} characters", param=param)
    if any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in label):
        raise RequestError(f"a {param} holds a control character", param=param)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is to be kept.

    Attributes:
        text: What it says: encoded, searched and shown. Empty: found by key and filter only.
        value: Anything else, as JSON; filters read it.
        key: Its name in the namespace: the same key again replaces. None: named by its content,
            so that the same kind, text and value are kept once.
        kind: ``note``, ``item`` (a framework's), ``advice``, ``episode`` ...
        state: Of those kinds that have states; see `elision.memory.learning.states`.
        trust: See `Trust`; lowered to that of its parents.
        ttl_s: Seconds until it expires; None: never.
        subjects: Ids of the persons it is about, for erasure; only keyed digests are kept.
        parents: Ids of the records that it was made from; erased with any of them.
    """

    text: str = field(default="", repr=False)
    value: Mapping[str, Any] = field(default_factory=dict, repr=False)
    key: str | None = field(default=None, repr=False)
    kind: str = "note"
    state: str = ""
    trust: Trust = Trust.USER
    ttl_s: float | None = None
    subjects: frozenset[str] = field(default=frozenset(), repr=False)
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is kept; a value, never changed in place.

    Attributes:
        id: 1 to 24 of ``a-z 0-9 _``; given once, never again.
        scope: Where it lies; exact.
        key: Its name there.
        kind: See `Draft`, as for those that follow.
        text: What it says.
        value: Anything else.
        state: Where it stands.
        trust: How far it may be followed.
        version: From 1; rises with every change.
        created_at: Seconds since 1970.
        updated_at: Likewise.
        expires_at: Likewise; None: never.
    """

    id: str
    scope: Scope = field(repr=False)
    key: str = field(repr=False)
    kind: str
    text: str = field(repr=False)
    value: Mapping[str, Any] = field(repr=False)
    state: str
    trust: Trust
    version: int
    created_at: float
    updated_at: float
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a draft.

    Attributes:
        id: The record's.
        version: Its version now.
        status: ``same``: nothing was written, because the very same content stood there.
    """

    id: str
    version: int
    status: Literal["created", "replaced", "same"]


@dataclass(frozen=True, slots=True)
class Hit:
    """A record that was found.

    Attributes:
        record: It.
        similarity: Cosine to the query; None where nothing was compared.
    """

    record: Record
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a search.

    Attributes:
        hits: Most similar first; ties by id.
        code: ``ok``; or why there are none: the namespace was never written to, it is empty, the
            filters let nothing through, or nothing is similar enough.
        n_scanned: Records that the filters let through.
        took_ms: Milliseconds.
    """

    hits: tuple[Hit, ...]
    code: Literal["ok", "unknown_scope", "empty_scope", "filtered_out", "nothing_similar"] = "ok"
    n_scanned: int = 0
    took_ms: float = 0.0
