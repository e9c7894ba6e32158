"""Forget targets: what a register keeps and a guard enforces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "person", "organisation", "work", "fact", "passage", "topic", "pii", "string"
]
Action: TypeAlias = Literal["restrict", "refuse", "redact", "observe"]
Mode: TypeAlias = Literal["hard", "soft"]
Boundary: TypeAlias = Literal["auto", "yes", "no"]
Status: TypeAlias = Literal["active", "revoked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """A text that must not be emitted, in any spelling of the same normal form.

    Attributes:
        text: The phrase as written by the operator.
        mode: ``hard`` forbids its completion; ``soft`` makes it unlikely.
        boundary: Whether it must stand between word boundaries: ``auto`` decides by length.
        allow_echo: Whether a caller who wrote the phrase himself may hear it back.
        beta: Share of the phrase whose completion already counts, in (0, 1]; below 1 for secrets
            of which not even the greater part may leave.
    """

    text: str
    mode: Mode = "hard"
    boundary: Boundary = "auto"
    allow_echo: bool = False
    beta: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetTarget:
    """A subject to be suppressed at inference time.

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

    title: str
    phrases: tuple[Phrase, ...]
    id: str = ""
    tenant: str = "default"
    kind: Kind = "string"
    names: tuple[str, ...] = ()
    action: Action = "restrict"
    status: Status = "active"
    created_at: float = 0.0
    revoked_at: float | None = None
