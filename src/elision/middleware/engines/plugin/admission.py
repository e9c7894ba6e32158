"""Admission: which requests a vLLM with the plug-in takes. Runs where requests come in.

Pure over what looks like vLLM's ``SamplingParams``, so nothing of vLLM is imported.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from elision.errors import RequestError, TargetError
from elision.guards.carried import Carried
from elision.middleware.engines.plugin.orders import KEY, SEAL, Order, is_sealed

SECRET: Final = "ELISION_VLLM_SECRET"  # noqa: S105 - where the secret stands
"""Environment: what orders are sealed with."""
REQUIRE: Final = "ELISION_VLLM_REQUIRE"
"""Environment: whether a request without an order is refused."""
UNTESTED: Final = "ELISION_VLLM_UNTESTED"
"""Environment: whether orders are carried out where nobody has tested that."""

TESTED: Final = "0.32."
"""How the versions of vLLM begin that this was tested with."""
_GREEDY: Final = 1e-5
"""Below this temperature vLLM takes the best token."""
MOST_LOGPROBS: Final = 20
"""Alternatives told under a guard, as many as OpenAI tells: who sees all sees what is missing."""
FORBIDDEN: Final[Mapping[str, str]] = {
    "prompt_logprobs": "tells the model's own scores of the prompt",
    "prompt_logprob_token_ids": "tells the model's own scores of the prompt",
    "logprob_token_ids": "tells which tokens are forbidden",
    "trace_decode_token_ids": "chooses tokens behind the guard",
    "thinking_token_budget": "forces tokens behind the guard",
}
"""Fields of vLLM's that show or choose what no mask has seen."""
_SPECIAL: Final = frozenset("<>[]{}|\uff5c")
"""Of what the names of special tokens are made; the stop token is one."""


def secret_of(environ: Mapping[str, str]) -> str | None:
    """Return what orders are sealed with; None if they need no seal."""
    return environ.get(SECRET) or None


def is_set(name: str, environ: Mapping[str, str]) -> bool:
    """Return whether the environment says yes under *name*: anything but nothing, 0, false, no."""
    return environ.get(name, "").strip().lower() not in ("", "0", "false", "no")


def order_of(extra: Mapping[str, Any] | None, secret: str | None) -> Order | None:
    """Return the order that stands in a request's extra arguments, if one does.

    Raises:
        RequestError: If it cannot be read, or has not the seal that it must have.
    """
    given = extra or {}
    if KEY not in given:
        if SEAL in given:
            raise RequestError("there is a seal and no order; send both", param=SEAL)
        return None
    text = given[KEY]
    if secret is not None and not (
        isinstance(text, str) and is_sealed(text, given.get(SEAL), secret)
    ):
        raise RequestError("the order is not sealed with this server's secret", param=SEAL)
    return Order.loads(text)


def admit(params: Any, environ: Mapping[str, str]) -> None:
    """Raise unless a request may come in.

    Args:
        params: A ``SamplingParams``.
        environ: The process's environment; see `SECRET` and `REQUIRE`.

    Raises:
        RequestError: What is wrong. Nothing of the order is repeated.
    """
    order = order_of(params.extra_args, secret_of(environ))
    if order is not None:
        _check_time(order, environ)
        _check(order, params)
    elif is_set(REQUIRE, environ):
        raise RequestError("this server takes requests from its gateway alone", param=KEY)


def taking(params: Any) -> dict[str, Any]:
    """Return how tokens are taken from a request's rows, as `Row.open` wants it.

    Nothing is promised where probabilities are told, or where vLLM puts penalties of its own
    behind us: then every score counts.
    """
    tells = params.logprobs is not None or params.logprob_token_ids
    penalises = params.frequency_penalty or params.presence_penalty
    if tells or penalises or params.repetition_penalty != 1:
        return {}
    is_greedy = params.temperature < _GREEDY
    return {"best_only": True} if is_greedy else {"temperature": params.temperature}


def _check_time(order: Order, environ: Mapping[str, str]) -> None:
    if order.until is None and secret_of(environ) is not None:
        raise RequestError("the order does not say until when it holds", param=KEY)
    if order.until is not None and order.until < time.time():
        raise RequestError("the order is too old: it was kept, or the clocks differ", param=KEY)


def _check(order: Order, params: Any) -> None:
    if order.guard or order.bans:
        _check_shown(params)
    if (order.guard or order.stop is not None) and getattr(params, "min_tokens", None):
        raise _overruling("min_tokens")
    if order.stop is not None:
        _check_stop(order.stop, params)
    if order.learn is not None:
        _check_masks(order, order.learn)


def _check_shown(params: Any) -> None:
    for name, why in FORBIDDEN.items():
        if getattr(params, name, None) is not None:
            raise RequestError(f"{name} {why}; a guard does not go with it", param=name)
    if params.logprobs is not None and not 0 <= params.logprobs <= MOST_LOGPROBS:
        raise RequestError(
            f"under a guard at most {MOST_LOGPROBS} logprobs are told", param="logprobs"
        )


def _check_stop(stop: int, params: Any) -> None:
    """Refuse what would keep a row that is dead from being stopped: its other tokens are, too."""
    if stop not in (params.stop_token_ids or ()):
        raise RequestError("the order's stop token is not among stop_token_ids", param=KEY)
    allowed = getattr(params, "allowed_token_ids", None)
    if allowed is not None and stop not in allowed:
        raise _overruling("allowed_token_ids")
    ids = getattr(params, "bad_words_token_ids", None) or ()
    if any(stop in one for one in ids) or _name_specials(getattr(params, "bad_words", None) or ()):
        raise _overruling("bad_words")


def _name_specials(words: Sequence[str]) -> bool:
    """Return whether one of *words* may name a special token; there is no tokenizer to ask here."""
    return any(not _SPECIAL.isdisjoint(word) for word in words)


def _overruling(field: str) -> RequestError:
    return RequestError(f"{field} would overrule the token by which a reply is ended", param=field)


def _check_masks(order: Order, body: str) -> None:
    carried = Carried.loads(body)
    if order.guard not in ("", carried.digest):
        raise RequestError("the masks to learn are not those that the order names", param=KEY)
    try:
        carried.compile()
    except TargetError as exc:
        raise RequestError(f"the masks to learn are malformed: {exc}", param=KEY) from None
