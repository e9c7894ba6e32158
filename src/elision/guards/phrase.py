"""Phrases: texts that must not be emitted, as the operator writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self, TypeAlias, get_args

from elision.errors import TargetError
from elision.guards.fields import (
    check_choice,
    check_flag,
    check_keys,
    check_share,
    check_text,
    kind_of,
)
from elision.guards.phrases.normal import N

Mode: TypeAlias = Literal["hard", "soft"]
Boundary: TypeAlias = Literal["auto", "yes", "no"]

MAX_PHRASE_CHARS = 10_000


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
        check_letters(self.text, f"{where}.text")
        check_choice(self.mode, get_args(Mode), f"{where}.mode")
        check_choice(self.boundary, get_args(Boundary), f"{where}.boundary")
        check_flag(self.allow_echo, f"{where}.allow_echo")
        check_share(self.beta, f"{where}.beta")


def check_letters(text: str, where: str) -> None:
    """Raise `TargetError` unless something is left of *text* in its normal form."""
    if not N(text):
        raise TargetError(
            f"{where} has no letters or digits, and only these are compared; "
            "leave it out or write it in words",
            param=where,
        )
