"""What a response counts: tokens, log-probabilities, errors, each in its own shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from elision.contract import Delta, Usage
from elision.middleware.rendered_logprobs import LOGPROB_FLOOR, chat_logprobs
from elision.middleware.rendering import usage_object

if TYPE_CHECKING:
    from elision.middleware.gateway.errors import Failure


def response_usage(usage: Usage) -> dict[str, Any]:
    """Return *usage* as a response writes it; what else an upstream counted stands beside it."""
    chat = usage_object(usage)
    prompt, written = (
        chat.pop(f"{kind}_tokens_details", None) or {} for kind in ("prompt", "completion")
    )
    read = {"cached_tokens": 0, "cache_write_tokens": 0} | _counts(prompt)
    wrote = {"reasoning_tokens": 0} | _counts(written)
    for key in ("prompt_tokens", "completion_tokens", "total_tokens"):
        del chat[key]
    return chat | {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": read,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": wrote,
        "total_tokens": usage.total_tokens,
    }


def _counts(details: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in details.items() if value is not None}


def logprobs_of(delta: Delta) -> list[dict[str, Any]]:
    """Return the log-probabilities of *delta*'s tokens as a response writes them."""
    entries: list[dict[str, Any]] = chat_logprobs(delta.logprobs)["content"]
    for entry in entries:
        for one in (entry, *entry["top_logprobs"]):
            if one["logprob"] is None:  # no number was told; a response must have one
                one["logprob"] = LOGPROB_FLOOR
    return entries


def error_of(failure: Failure) -> dict[str, str]:
    """Return what a response says of a failure; its codes are a closed set."""
    code = "rate_limit_exceeded" if failure.status == 429 else "server_error"
    return {"code": code, "message": failure.message}
