"""Log-probabilities in OpenAI's two shapes: a chat's, token by token, and a completion's lists."""

from __future__ import annotations

from math import inf, log
from typing import Any

from elision.contract import Alternative, TokenLogprob

LOGPROB_FLOOR = -9999.0
"""Stands for the logarithm of nought, which JSON cannot write; OpenAI's own value."""

SCORE_FLOOR = log(1e-10)
"""Stands for it where the token was given, not written: sums over a text stay comparable."""


def chat_logprobs(items: tuple[TokenLogprob, ...]) -> dict[str, Any]:
    """Return the log-probabilities of a chat's tokens."""
    return {"content": [_chat_token(item) for item in items], "refusal": None}


def text_logprobs(items: tuple[TokenLogprob, ...], offset: int) -> dict[str, Any]:
    """Return the log-probabilities of a completion's tokens.

    Args:
        items: The tokens; one without log-probability (NaN, a prompt's first) gets null, a given
            one that the guard blocks gets `SCORE_FLOOR` and is not named among the alternatives.
        offset: Characters of the reply before the first of them.
    """
    offsets = []
    for item in items:
        offsets.append(offset)
        offset += len(item.token)
    return {
        "tokens": [item.token for item in items],
        "token_logprobs": [_floored(item) for item in items],
        "top_logprobs": [_ranking(item) for item in items],
        "text_offset": offsets,
    }


def _chat_token(item: TokenLogprob) -> dict[str, Any]:
    return _token(item) | {"top_logprobs": [_token(other) for other in item.top]}


def _token(item: TokenLogprob | Alternative) -> dict[str, Any]:
    return {"token": item.token, "logprob": _finite(item.logprob), "bytes": list(item.data)}


def _ranking(item: TokenLogprob) -> dict[str, float | None] | None:
    """Return the alternatives and the token itself, best first; null without log-probability."""
    if _finite(item.logprob) is None:
        return None
    ranking = {other.token: _finite(other.logprob) for other in reversed(item.top)}
    if not _is_blocked(item):
        ranking.setdefault(item.token, _finite(item.logprob))
    return dict(sorted(ranking.items(), key=lambda pair: -(pair[1] or 0.0)))


def _is_blocked(item: TokenLogprob) -> bool:
    """Return whether *item* is a given token that could not have been written."""
    return item.plain is not None and item.logprob == -inf


def _floored(item: TokenLogprob) -> float | None:
    return SCORE_FLOOR if _is_blocked(item) else _finite(item.logprob)


def _finite(logprob: float) -> float | None:
    return None if logprob != logprob else max(logprob, LOGPROB_FLOOR)
