"""OpenAI's wire, seen from the client: a request as a body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import orjson

from elision.contract import Capability, Request
from elision.errors import CapabilityError, RequestError
from elision.middleware.engines.upstream.offers import Offers

LengthField: TypeAlias = Literal["max_tokens", "max_completion_tokens"]

_OURS = frozenset({
    "model", "messages", "prompt", "stream", "stream_options", "n", "stop", "echo", "elision",
    "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "seed",
    "frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias",
    "continue_final_message", "add_generation_prompt",
})  # fmt: skip


def check(request: Request, *, engine: str, offers: Offers | None) -> None:
    """Refuse what an upstream cannot do; what it is not known about is for it to refuse.

    Args:
        request: What is asked.
        engine: Who is asked, for the error.
        offers: What it was seen to do; None: it was not asked.

    Raises:
        CapabilityError: For the score of an answer, a draw that needs scores, a reply to be
            continued or token ids as the prompt where they may be misread, and for
            log-probabilities and a bias that are known to be ignored.
    """
    known = offers or Offers(n_logprobs=1, n_text_logprobs=1, logit_bias=True)
    n_logprobs = known.n_logprobs if request.kind == "chat" else known.n_text_logprobs
    needs = (
        (request.answer is not None, "score", Capability.LOGITS),
        (bool(request.sampling.top_n_sigma), "top_n_sigma", Capability.LOGITS),
        (request.sampling.rng == "torch", "rng", Capability.LOGITS),
        (request.continue_final and not known.continues, "continue_final_message",
         Capability.CONTINUE),
        (not isinstance(request.prompt, str) and not known.prompt_ids, "prompt",
         Capability.TOKEN_IDS),
        (request.logprobs is not None and not n_logprobs, "logprobs", Capability.TOP_LOGPROBS),
        (bool(request.sampling.logit_bias) and not known.logit_bias, "logit_bias",
         Capability.LOGIT_BIAS),
    )  # fmt: skip
    for lacking, field, missing in needs:
        if lacking:
            raise CapabilityError(field, engine=engine, missing=str(missing.name), param=field)


def body_of(request: Request, *, model: str, length_field: LengthField = "max_tokens") -> bytes:
    """Return the JSON body that asks an upstream for a stream of *request*.

    Fields at their neutral value are left out, so that an upstream which does not know them is not
    bothered. ``extra`` travels as it is, but for names that are a request's own; the ``elision``
    object stays here.

    Args:
        request: What the caller wants.
        model: The upstream's name for the model.
        length_field: What the upstream calls the bound of a chat's reply.

    Raises:
        RequestError: If the request holds what JSON cannot carry.
    """
    body: dict[str, Any] = {k: v for k, v in request.extra.items() if k not in _OURS}
    body |= _subject(request, model)
    body |= _sampling(request)
    body |= _logprobs(request)
    if request.max_tokens is not None:
        body[length_field if request.kind == "chat" else "max_tokens"] = request.max_tokens
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    try:
        return orjson.dumps(body, default=_plain)
    except TypeError:
        fault = RequestError("the request holds a value that JSON cannot carry")
    raise fault


def _subject(request: Request, model: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"model": model}
    if request.kind == "chat":
        fields["messages"] = request.messages
    else:
        fields["prompt"] = request.prompt
        fields |= {"echo": True} if request.echo else {}
    if request.continue_final:
        fields |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.stop:
        fields["stop"] = request.stop
    if request.n != 1:
        fields["n"] = request.n
    return fields


def _sampling(request: Request) -> dict[str, Any]:
    s = request.sampling
    optional = {
        "temperature": s.temperature,
        "top_p": s.top_p,
        "top_k": s.top_k,
        "min_p": s.min_p,
        "seed": s.seed,
        "frequency_penalty": s.frequency_penalty or None,
        "presence_penalty": s.presence_penalty or None,
        "repetition_penalty": s.repetition_penalty if s.repetition_penalty != 1 else None,
        "logit_bias": {str(token): bias for token, bias in s.logit_bias.items()} or None,
    }
    return {name: value for name, value in optional.items() if value is not None}


def _logprobs(request: Request) -> dict[str, Any]:
    n = request.logprobs
    if n is None:
        return {}
    if request.kind == "text":
        return {"logprobs": n}
    return {"logprobs": True, "top_logprobs": n} if n else {"logprobs": True}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError
