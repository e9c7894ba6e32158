"""Forget targets: what a register keeps and a guard enforces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self, TypeAlias, get_args

from elision.errors import PermissionDeniedError, TargetError
from elision.guards.fields import (
    check_choice,
    check_count,
    check_keys,
    check_line,
    check_tenant,
    check_text,
    items_of,
    kind_of,
    moment_of,
)
from elision.guards.phrase import MAX_PHRASE_CHARS, Boundary, Mode, Phrase, check_letters
from elision.guards.scope import EVERYWHERE, Scope

__all__ = ["Action", "Boundary", "ForgetTarget", "Kind", "Mode", "Phrase", "Scope", "State"]

Kind: TypeAlias = Literal[
    "person", "organisation", "work", "fact", "passage", "topic", "pii", "string"
]
Action: TypeAlias = Literal["restrict", "refuse", "redact", "observe"]
State: TypeAlias = Literal[
    "draft", "previewed", "pending_approval", "scheduled", "active",
    "suspended", "expired", "revoked", "purged",
]  # fmt: skip
"""Where a target stands in its life; `elision.guards.lifecycle` draws the ways between."""

MAX_TITLE_CHARS = 200
MAX_PHRASES = 50_000
"""Most phrases of one target, and likewise most names, probes, answers and exceptions."""
MAX_PASSAGE_CHARS = 1_000_000
MAX_NOTE_CHARS = 200


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
        probes: Questions and prompts that ask for the subject; the gate compares prompts to them.
        passages: Long texts of which no longer run may be repeated word for word.
        answers: What must not be said in other words either; sentences are compared to them.
        exceptions: Prompts about somebody or something else: one that is nearer to an exception
            than to any probe does not concern this target. They never switch a phrase off.
        action: What is done about a phrase: `restrict` masks it, `redact` replaces it, `refuse`
            ends the answer, `observe` only counts.
        scope: For which models and keys it holds.
        state: Only active targets are enforced.
        created_at: Seconds since 1970, UTC.
        effective_at: Likewise: not enforced before; None: as soon as it may be.
        expires_at: Likewise: not enforced from then on; None: never expires.
        review_at: Likewise: when somebody means to look at it again.
        revoked_at: Likewise; None unless revoked.
        case_ref: The operator's own reference.
        legal_basis: Why it is suppressed, in the operator's words.
        requested_by: Who registered it.
        approved_by: Who approved it; empty if nobody had to.
    """

    title: str = field(repr=False)
    phrases: tuple[Phrase, ...] = field(default=(), repr=False)
    id: str = ""
    tenant: str = "default"
    kind: Kind = "string"
    names: tuple[str, ...] = field(default=(), repr=False)
    probes: tuple[str, ...] = field(default=(), repr=False)
    passages: tuple[str, ...] = field(default=(), repr=False)
    answers: tuple[str, ...] = field(default=(), repr=False)
    exceptions: tuple[str, ...] = field(default=(), repr=False)
    action: Action = "restrict"
    scope: Scope = EVERYWHERE
    state: State = "active"
    created_at: float = 0.0
    effective_at: float | None = None
    expires_at: float | None = None
    review_at: float | None = None
    revoked_at: float | None = None
    case_ref: str = field(default="", repr=False)
    legal_basis: str = field(default="", repr=False)
    requested_by: str = field(default="", repr=False)
    approved_by: str = field(default="", repr=False)

    @classmethod
    def from_body(cls, body: object, *, tenant: str) -> Self:
        """Read the body of ``POST /v1/forget``.

        Args:
            body: The parsed JSON: ``title``, something to enforce, and if wanted the rest. Times
                are ISO 8601 with a zone, or seconds since 1970.
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
        given: dict[str, Any] = {key: items_of(body, key) for key in _LISTS}
        given |= {key: moment_of(body, key) for key in _MOMENTS}
        given |= {key: body[key] for key in ("kind", "action", *_NOTES) if key in body}
        target = cls(
            title=body["title"],
            tenant=tenant,
            phrases=tuple(Phrase.from_body(item, f"phrases[{n}]") for n, item in phrases),
            scope=Scope.from_body(body["scope"]) if "scope" in body else EVERYWHERE,
            **given,
        )
        target.validate()
        return target

    def to_body(self) -> dict[str, Any]:
        """Return the target as the wire writes it, every field spelled out.

        Without the fields that the register gives (`GIVEN`) it is a body that `from_body` reads
        back.
        """
        return {
            "id": self.id,
            "state": self.state,
            "created_at": iso(self.created_at),
            "revoked_at": iso(self.revoked_at),
            "requested_by": self.requested_by,
            "approved_by": self.approved_by,
            "tenant": self.tenant,
            "title": self.title,
            "kind": self.kind,
            "phrases": [phrase.to_body() for phrase in self.phrases],
            **{key: [*getattr(self, key)] for key in _LISTS},
            "action": self.action,
            "scope": self.scope.to_body(),
            **{key: iso(getattr(self, key)) for key in _MOMENTS},
            **{key: getattr(self, key) for key in _NOTES},
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
        if not any((self.phrases, self.names, self.probes, self.passages, self.answers)):
            raise TargetError(
                "there is nothing to enforce: phrases, names, probes, passages and answers are all "
                "empty; write the texts that must not be said into phrases",
                param="phrases",
            )
        self.scope.validate()
        check_count(self.phrases, "phrases", most=MAX_PHRASES)
        for n, phrase in enumerate(self.phrases):
            _phrase(phrase, f"phrases[{n}]").validate(f"phrases[{n}]")
        for key in _LISTS:
            most = MAX_PASSAGE_CHARS if key == "passages" else MAX_PHRASE_CHARS
            check_count(getattr(self, key), key, most=MAX_PHRASES)
            for n, text in enumerate(getattr(self, key)):
                check_text(text, f"{key}[{n}]", most=most)
                if key == "passages":
                    check_letters(text, f"{key}[{n}]")
        for key in (note for note in _NOTES if getattr(self, note) != ""):
            check_line(getattr(self, key), key, most=MAX_NOTE_CHARS)
        self._check_times()

    def _check_times(self) -> None:
        if self.expires_at is not None and self.expires_at <= (self.effective_at or 0):
            raise TargetError(
                "expires_at is not after effective_at; write a later time", param="expires_at"
            )


_LISTS = ("names", "probes", "passages", "answers", "exceptions")
_MOMENTS = ("effective_at", "expires_at", "review_at")
_NOTES = ("case_ref", "legal_basis")
_BODY_KEYS = ("title", "kind", "phrases", *_LISTS, "action", "scope", *_MOMENTS, *_NOTES, "tenant")
GIVEN = ("id", "state", "created_at", "revoked_at", "requested_by", "approved_by")
"""Fields of a body that the register gives; a caller cannot write them."""


def _phrase(item: object, where: str) -> Phrase:
    if not isinstance(item, Phrase):
        raise TargetError(f"{where} is {kind_of(item)}; write Phrase(text=...)", param=where)
    return item


def iso(seconds: float | None) -> str | None:
    """Return a moment as the wire writes it: ISO 8601, UTC, milliseconds."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
