"""Where a target holds: for which models and for which callers' keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from elision.errors import TargetError
from elision.guards.fields import check_count, check_keys, check_line, items_of, kind_of

MAX_ENTRIES = 64
_MAX_CHARS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where a target holds; empty lists hold everywhere.

    Attributes:
        models: Aliases of models, without a profile.
        keys: Names of callers' keys, as the settings give them.
    """

    models: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    @classmethod
    def from_body(cls, body: object) -> Self:
        """Read a scope as the wire writes it.

        Raises:
            TargetError: If it is no object of lists of names.
        """
        if not isinstance(body, Mapping):
            raise TargetError(
                f"scope is {kind_of(body)}; write an object with models or keys", param="scope"
            )
        check_keys(body, ("models", "keys"), "scope")
        return cls(models=items_of(body, "models"), keys=items_of(body, "keys"))

    def to_body(self) -> dict[str, Any]:
        """Return the scope as the wire writes it."""
        return {"models": [*self.models], "keys": [*self.keys]}

    def validate(self) -> None:
        """Raise unless every entry is a short line of text.

        Raises:
            TargetError: Where it is not, and what to write.
        """
        for what, entries in (("scope.models", self.models), ("scope.keys", self.keys)):
            check_count(entries, what, most=MAX_ENTRIES)
            for n, entry in enumerate(entries):
                check_line(entry, f"{what}[{n}]", most=_MAX_CHARS)

    def covers(self, *, model: str, key: str = "") -> bool:
        """Return whether a request to *model* by the caller named *key* lies within."""
        return (not self.models or model in self.models) and (not self.keys or key in self.keys)


EVERYWHERE = Scope()
