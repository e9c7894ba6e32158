"""What a recipe may have the local engine read when it opens a session; see `Reader`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from elision.contract import Request
from elision.middleware.engines.hesitation import exceeded

if TYPE_CHECKING:
    from elision.middleware.engines.causal import CausalModel


@dataclass(frozen=True, slots=True)
class RequestReader:
    """Reads for one request.

    Attributes:
        model: Makes tokens of text.
        request: What `prompt_after` changes.
    """

    model: CausalModel
    request: Request = field(repr=False)

    def encode(self, text: str) -> tuple[int, ...]:
        """See `Reader.encode`."""
        ids = self.model.tokenizer(text, add_special_tokens=False)["input_ids"]
        return tuple(cast("list[int]", ids))

    def prompt_after(self, change: Callable[[Request], Request]) -> tuple[int, ...]:
        """See `Reader.prompt_after`."""
        return self.model.render(change(self.request)).ids

    def entropy_exceeded(self, share: float) -> float:
        """See `Reader.entropy_exceeded`; measured when first asked for, on `SAMPLE`."""
        return exceeded(self.model.entropies, share)
