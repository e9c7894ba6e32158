"""Forget targets: what a register keeps and a guard enforces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal, Self, TypeAlias, get_args

from elision.errors import PermissionDeniedError, TargetError
from elision.guards.fields import (
    check_choice,
    check_count,
    check_flag,
    check_keys,
    check_line,
    check_share,
    check_tenant,
    check_text,
    items_of,
    kind_of,
)
from elision.guards.normal import N

Kind: TypeAlias = Literal[
    "person", "organisation", "work", "fact", "passage", "topic", "pii", "string"
]
Action: TypeAlias = Literal["restrict", "refuse", "redact", "observe"]
Mode: TypeAlias = Literal["hard", "soft"]
Boundary: TypeAlias = Literal["auto", "yes", "no"]
Status: TypeAlias = Literal["active", "revoked"]

MAX_TITLE_CHARS = 200
MAX_PHRASE_CHARS = 10_000
MAX_PHRASES = 50_000
"""Most phrases of one target, and likewise most names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """A text that must not be emitted, in any spelling of the same normal form.

    Its ``repr`` leaves the text out, so that no log line has it by accident.

    Attributes:
        text: The phrase as written by the operator.
        mode: ``hard`` forbids its completion; ``soft`` makes it unlikely.
        boundary: Whether it must stand between word boundaries: ``auto`` decides by length.
        allow_echo: Whether a caller who wrote the phrase himself may hear it back.
        beta: Share of the phrase whose completion already counts, in (0, 1]; below 1 for secrets
            of which not even the greater part may leave.
    """

    text: str = field(repr=False)
    mode: Mode = "hard"
    boundary: Boundary = "auto"
    allow_echo: bool = False
    beta: float = 1.0

    @classmethod
    def from_body(cls, body: object, where: str = "phrase") -> Self:
        """Read a phrase as the wire writes it: its text, or an object with a ``text``.

        Args:
            body: What stood in the JSON.
            where: Its place in the request, for messages: ``phrases[3]``.

        Raises:
            TargetError: If it is neither. The message names the place, never the text.
        """
        if isinstance(body, str):
            return cls(text=body)
        if not isinstance(body, Mapping):
            raise TargetError(
                f"{where} is {kind_of(body)}; write a string, or an object with a text",
                param=where,
            )
        check_keys(body, [f.name for f in fields(cls)], where)
        if "text" not in body:
            raise TargetError(
                f"{where}.text is missing; write the phrase there", param=f"{where}.text"
            )
        return cls(**body)

    def to_body(self) -> dict[str, Any]:
        """Return the phrase as the wire writes it, every field spelled out."""
        return asdict(self)

    def validate(self, where: str = "phrase") -> None:
        """Raise unless a guard can enforce this phrase as it stands.

        Args:
            where: Its place, for messages; they never repeat the phrase.

        Raises:
            TargetError: If a field has a wrong type or value, or no letter or digit is left of
                the text in its normal form.
        """
        check_text(self.text, f"{where}.text", most=MAX_PHRASE_CHARS)
        if not N(self.text):
            raise TargetError(
                f"{where}.text has no letters or digits, and only these are compared; "
                "leave it out or write it in words",
                param=f"{where}.text",
            )
        check_choice(self.mode, get_args(Mode), f"{where}.mode")
        check_choice(self.boundary, get_args(Boundary), f"{where}.boundary")
        check_flag(self.allow_echo, f"{where}.allow_echo")
        check_share(self.beta, f"{where}.beta")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetTarget:
    """A subject to be suppressed at inference time; its ``repr`` leaves every word of it out.

    Attributes:
        id: Given by the register; empty before registration.
        tenant: Whose requests it governs.
        title: What the operator calls it; shown to operators only.
        kind: What sort of subject it is.
        names: Surface names, for detection only: a name is not a phrase.
        phrases: Texts that never leave.
        action: What is done about a phrase: `restrict` masks it, `redact` replaces it, `refuse`
            ends the answer, `observe` only counts.
        status: Only active targets are enforced.
        created_at: Seconds since 1970, UTC.
        revoked_at: Likewise; None while active.
    """

    title: str = field(repr=False)
    phrases: tuple[Phrase, ...] = field(repr=False)
    id: str = ""
    tenant: str = "default"
    kind: Kind = "string"
    names: tuple[str, ...] = field(default=(), repr=False)
    action: Action = "restrict"
    status: Status = "active"
    created_at: float = 0.0
    revoked_at: float | None = None

    @classmethod
    def from_body(cls, body: object, *, tenant: str) -> Self:
        """Read the body of ``POST /v1/forget``.

        Args:
            body: The parsed JSON: ``title`` and ``phrases`` or ``names``, and if wanted ``kind``,
                ``action`` and ``tenant``.
            tenant: The tenant that the caller's key is bound to.

        Raises:
            TargetError: If a key is unknown, or `validate` would raise.
            PermissionDeniedError: If the body names another tenant.
        """
        if not isinstance(body, Mapping):
            raise TargetError(f"the body is {kind_of(body)}; write an object with a title")
        check_keys(body, _BODY_KEYS)
        if body.get("tenant", tenant) != tenant:
            raise PermissionDeniedError(
                "the body names another tenant than the key is bound to; leave tenant out"
            )
        if "title" not in body:
            raise TargetError("title is missing; write what to call the target", param="title")
        phrases = enumerate(items_of(body, "phrases"))
        target = cls(
            title=body["title"],
            tenant=tenant,
            names=items_of(body, "names"),
            phrases=tuple(Phrase.from_body(item, f"phrases[{n}]") for n, item in phrases),
            **{key: body[key] for key in ("kind", "action") if key in body},
        )
        target.validate()
        return target

    def to_body(self) -> dict[str, Any]:
        """Return the target as the wire writes it, every field spelled out.

        Without ``id``, ``status``, ``created_at`` and ``revoked_at`` (ISO 8601, UTC) it is a body
        that `from_body` reads back.
        """
        return {
            "id": self.id,
            "status": self.status,
            "created_at": _iso(self.created_at),
            "revoked_at": None if self.revoked_at is None else _iso(self.revoked_at),
            "tenant": self.tenant,
            "title": self.title,
            "kind": self.kind,
            "names": [*self.names],
            "phrases": [phrase.to_body() for phrase in self.phrases],
            "action": self.action,
        }

    def validate(self) -> None:
        """Raise unless this target can be registered.

        Raises:
            TargetError: What is wrong, where, and what to write instead. No message repeats the
                title, a name or a phrase.
        """
        check_tenant(self.tenant)
        check_line(self.title, "title", most=MAX_TITLE_CHARS)
        check_choice(self.kind, get_args(Kind), "kind")
        check_choice(self.action, get_args(Action), "action")
        if not self.phrases and not self.names:
            raise TargetError(
                "there is nothing to enforce: phrases and names are both empty; "
                "write the texts that must not be said into phrases",
                param="phrases",
            )
        check_count(self.names, "names", most=MAX_PHRASES)
        check_count(self.phrases, "phrases", most=MAX_PHRASES)
        for n, name in enumerate(self.names):
            check_text(name, f"names[{n}]", most=MAX_PHRASE_CHARS)
        for n, phrase in enumerate(self.phrases):
            _phrase(phrase, f"phrases[{n}]").validate(f"phrases[{n}]")


_BODY_KEYS = ("title", "kind", "names", "phrases", "action", "tenant")


def _phrase(item: object, where: str) -> Phrase:
    if not isinstance(item, Phrase):
        raise TargetError(f"{where} is {kind_of(item)}; write Phrase(text=...)", param=where)
    return item


def _iso(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
