"""What a key may use, as a settings file grants it."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_Count: TypeAlias = Annotated[int, Field(ge=1, le=2**53)] | None


class Limits(BaseModel):
    """What one key may use; what is not said is unlimited, or for a key as for all keys.

    Attributes:
        requests_per_minute: Requests for text or vectors; as many may come at once.
        tokens_per_minute: Of prompts and replies together; likewise.
        token_budget: Of prompts and replies together, in each period. Kept over restarts.
        budget_period: A day, a calendar month, both in UTC, or all of time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: _Count = None
    tokens_per_minute: _Count = None
    token_budget: _Count = None
    budget_period: Literal["day", "month", "total"] = "month"

    @property
    def is_none(self) -> bool:
        """Whether nothing is limited."""
        return not (self.requests_per_minute or self.tokens_per_minute or self.token_budget)

    def over(self, default: Limits) -> Self:
        """Return these limits; what they leave unsaid is *default*'s, and null says unlimited."""
        said = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**default.model_dump(), **said})


def _exact(origin: str) -> str:
    parts = urlsplit(origin)
    written = f"{parts.scheme}://{parts.netloc}"
    plain = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    if not plain or "*" in origin or origin != written or origin != origin.lower():
        raise ValueError("write an origin as browsers send it: https://HOST or https://HOST:PORT")
    return origin


Origin: TypeAlias = Annotated[str, AfterValidator(_exact)]
"""Scheme, host and, if it is not the scheme's own, port; in lower case, no path and no ``*``."""
