"""OpenAI's wire, seen from the client: a request as a body, chunks as deltas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import orjson

from elision.contract import Delta, Finish, Request, Usage
from elision.errors import CapabilityError, RequestError, UpstreamError
from elision.middleware.engines.upstream.errors import in_stream

LengthField: TypeAlias = Literal["max_tokens", "max_completion_tokens"]

DONE = b"[DONE]"

_OURS = frozenset({
    "model", "messages", "prompt", "stream", "stream_options", "n", "stop", "echo", "elision",
    "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "seed",
    "frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias",
})  # fmt: skip
_UNGUARDED_FIELDS = MappingProxyType(
    {
        "tools": "guarded tool calls",
        "functions": "guarded tool calls",
        "logprobs": "TOP_LOGPROBS",
        "top_logprobs": "TOP_LOGPROBS",
        "prompt_logprobs": "TOP_LOGPROBS",
        "audio": "guarded speech",
    }
)
_UNGUARDED_PARTS = ("tool_calls", "function_call", "audio")

_FINISH: Mapping[str, Finish] = MappingProxyType(
    {
        "stop": "stop",
        "eos_token": "stop",  # text-generation-inference
        "stop_sequence": "stop",  # text-generation-inference
        "length": "length",
        "model_length": "length",  # Mistral
        "repetition": "length",  # vLLM cut a loop short
        "content_filter": "content_filter",
    }
)


def check(request: Request, *, engine: str) -> None:
    """Refuse what a text-only upstream cannot serve under guard.

    Raises:
        CapabilityError: For log-probabilities, the score of an answer, tools, token ids as the
            prompt (no guard could read where the reply begins), a reply to be continued, or a draw
            that needs the scores.
    """
    unguarded = {k: v for k, v in _UNGUARDED_FIELDS.items() if request.extra.get(k)}
    needs = (
        (request.logprobs is not None, "logprobs", "TOP_LOGPROBS"),
        (request.answer is not None, "score", "LOGITS"),
        (not isinstance(request.prompt, str), "prompt", "TOKEN_IDS"),
        (request.continue_final, "continue_final_message", "CONTINUE"),
        (bool(request.sampling.top_n_sigma), "top_n_sigma", "LOGITS"),
        (request.sampling.rng == "torch", "rng", "LOGITS"),
        *((True, field, missing) for field, missing in unguarded.items()),
    )
    for asked, field, missing in needs:
        if asked:
            raise CapabilityError(field, engine=engine, missing=missing, param=field)


def body_of(request: Request, *, model: str, length_field: LengthField = "max_tokens") -> bytes:
    """Return the JSON body that asks an upstream for a stream of *request*.

    Fields at their neutral value are left out, so that an upstream which does not know them is not
    bothered. ``extra`` travels as it is, but for names that are a request's own; the ``elision``
    object stays here.

    Args:
        request: What the caller wants.
        model: The upstream's name for the model.
        length_field: What the upstream calls the reply's bound.

    Raises:
        RequestError: If the request holds what JSON cannot carry.
    """
    body: dict[str, Any] = {k: v for k, v in request.extra.items() if k not in _OURS}
    body |= _subject(request, model)
    body |= _sampling(request)
    if request.max_tokens is not None:
        body[length_field] = request.max_tokens
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


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError


class ReplyReader:
    """Reads the chunks of one reply. Lives for one response.

    Attributes:
        done: Whether the upstream has said that nothing follows.
    """

    def __init__(self, request: Request) -> None:
        self.done = False
        self._chat = request.kind == "chat"
        self._n = request.n
        self._finished: set[int] = set()
        self._usage: Usage | None = None

    def read(self, data: bytes) -> Iterator[Delta]:
        """Yield what one event adds to the reply; nothing after the end.

        Raises:
            UpstreamError: If the event is an error, is not a chunk, or says something that no guard
                of ours reads: a tool call, speech.
        """
        if self.done or not data:
            return
        if data.startswith(DONE):
            self.done = True
            return
        chunk = _chunk(data)
        self._usage = _usage(chunk.get("usage")) or self._usage
        for choice in chunk.get("choices") or ():
            yield from self._choice(choice)

    def last(self, *, engine: str) -> Delta:
        """Return the request's last delta.

        Raises:
            UpstreamError: If a choice has not ended: the stream was cut off.
        """
        if len(self._finished) < self._n:
            raise UpstreamError(
                f"the upstream's stream ended with {len(self._finished)} of {self._n} choices "
                "finished",
                retryable=True,
            )
        report = {"engine": engine, "usage_from_upstream": self._usage is not None}
        return Delta(usage=self._usage or Usage(), report=report)

    def _choice(self, choice: object) -> Iterator[Delta]:
        if not isinstance(choice, dict):
            raise _malformed("a choice", choice)
        index = self._index(choice)
        text = _chat_text(choice) if self._chat else _string(choice.get("text"), "text")
        finish = _finish(choice.get("finish_reason"))
        if index in self._finished:
            if text:
                raise UpstreamError(f"the upstream wrote on after choice {index} had ended")
            return
        if finish is not None:
            self._finished.add(index)
        if text or finish is not None:
            yield Delta(choice=index, text=text, finish=finish)

    def _index(self, choice: Mapping[str, Any]) -> int:
        index = choice.get("index") or 0
        if not isinstance(index, int):
            raise _malformed("a choice's index", index)
        if not 0 <= index < self._n:
            raise UpstreamError(f"the upstream wrote choice {index} of {self._n}")
        return index


def _chunk(data: bytes) -> dict[str, Any]:
    try:
        chunk = orjson.loads(data)
    except orjson.JSONDecodeError:
        chunk = None
    if not isinstance(chunk, dict):
        raise UpstreamError(f"the upstream sent an event of {len(data)} bytes that is no chunk")
    if chunk.get("error") or chunk.get("object") == "error":
        raise in_stream(chunk)
    if not isinstance(chunk.get("choices") or [], list):
        raise _malformed("choices", chunk["choices"])
    return chunk


def _chat_text(choice: Mapping[str, Any]) -> str:
    if choice.get("message"):
        raise UpstreamError("the upstream sent a whole message instead of a stream's delta")
    delta = choice.get("delta") or {}
    if not isinstance(delta, dict):
        raise _malformed("a delta", delta)
    for part in _UNGUARDED_PARTS:
        if delta.get(part):
            raise UpstreamError(f"the upstream answered with {part!r}, which is not guarded")
    content = _string(delta.get("content"), "content")
    return content + _string(delta.get("refusal"), "refusal")


def _string(value: object, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _malformed(what, value)
    return value


def _finish(reason: object) -> Finish | None:
    if reason is None or reason == "":
        return None
    finish = _FINISH.get(reason) if isinstance(reason, str) else None
    if finish is None:
        raise UpstreamError("the upstream ended a choice for a reason that is not known here")
    return finish


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    return Usage(
        prompt_tokens=_count(value.get("prompt_tokens")),
        completion_tokens=_count(value.get("completion_tokens")),
        cached_tokens=_count(details.get("cached_tokens")) if isinstance(details, dict) else 0,
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _malformed(what: str, value: object) -> UpstreamError:
    return UpstreamError(f"the upstream sent {what} as {type(value).__name__}")
