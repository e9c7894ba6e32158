"""Log-probabilities as OpenAI's two routes write them, read into the nouns of the contract."""

from __future__ import annotations

from math import nan
from typing import Any

from elision.contract import Alternative, TokenLogprob
from elision.errors import UpstreamError


def read_logprobs(value: Any) -> tuple[TokenLogprob, ...]:
    """Return what a choice's ``logprobs`` say of its content.

    Args:
        value: A chat's form (``content``) or a completion's (``tokens``); None says nothing. A
            token without bytes has those of its text, one without log-probability has NaN.

    Raises:
        UpstreamError: If it has neither form.
    """
    if not value:
        return ()
    try:
        if "tokens" in value:
            return tuple(_of_completion(value))
        return tuple(_of_chat(item) for item in value.get("content") or ())
    except (TypeError, KeyError, ValueError, AttributeError, IndexError):
        fault = UpstreamError("the upstream sent log-probabilities in a form that is not known")
    raise fault


def _of_chat(item: dict[str, Any]) -> TokenLogprob:
    token = _text(item["token"])
    top = tuple(
        Alternative(_text(one["token"]), float(one["logprob"]), _data(one))
        for one in item.get("top_logprobs") or ()
    )
    return TokenLogprob(token, _number(item.get("logprob")), _data(item), top)


def _data(item: dict[str, Any]) -> bytes:
    data = item.get("bytes")
    return str(item["token"]).encode("utf-8", "replace") if data is None else bytes(data)


def _of_completion(value: dict[str, Any]) -> list[TokenLogprob]:
    tokens = value["tokens"]
    tops = value.get("top_logprobs") or [None] * len(tokens)
    rows = zip(tokens, value["token_logprobs"], tops, strict=True)
    return [
        TokenLogprob(_text(token), _number(logprob), token.encode("utf-8", "replace"), _ranked(top))
        for token, logprob, top in rows
    ]


def _ranked(top: dict[str, float] | None) -> tuple[Alternative, ...]:
    ranked = sorted((top or {}).items(), key=lambda pair: -pair[1])
    return tuple(Alternative(t, float(v), t.encode("utf-8", "replace")) for t, v in ranked)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: Any) -> float:
    return nan if value is None else float(value)
