"""What a key is told that has used up what it may."""

from __future__ import annotations

from typing import Literal

from elision.errors import BusyError, ElisionError


class RateLimitError(BusyError):
    """A key asks for more than it may have in a minute: HTTP 429, in OpenAI's words.

    Attributes:
        kind: ``requests`` or ``tokens``: which of the two ran out.
        retryable: False if it asks for more at once than there ever is.
    """

    code = "rate_limit_exceeded"

    def __init__(
        self,
        kind: Literal["requests", "tokens"],
        *,
        limit: int,
        asked: int,
        left: int,
        wait_ns: int | None,
    ) -> None:
        """Say it.

        Args:
            kind: See the attribute.
            limit: What the key may have in a minute.
            asked: What this request needs.
            left: What is there.
            wait_ns: After how long there will be enough; None: never.
        """
        wait_s = 0.0 if wait_ns is None else wait_ns / 1e9
        what = f"rate limit reached for {kind} per minute: limit {limit}, left {left}, "
        advice = f"try again in {wait_s:.3f} s"
        if wait_ns is None:
            advice = "which no waiting gives; lower 'max_tokens' or shorten the prompt"
        super().__init__(f"{what}asked for {asked}; {advice}", retry_after_s=wait_s)
        self.kind = kind
        self.retryable = wait_ns is not None


class QuotaError(ElisionError):
    """A key has spent its budget of tokens, or asks for more than is left of it: HTTP 429."""

    status = 429
    kind = "insufficient_quota"
    code = "insufficient_quota"

    def __init__(self, *, budget: int, period: str, left: int, asked: int) -> None:
        per = "in all" if period == "total" else f"a {period}"
        advice = "lower 'max_tokens'" if left > 0 else "ask whoever runs this server for more"
        if period != "total":
            advice += f", or wait for the next {period} (UTC)"
        super().__init__(
            f"the budget of this key is {budget} tokens {per}: {max(0, left)} are left, this "
            f"request may take {asked}; {advice}"
        )
