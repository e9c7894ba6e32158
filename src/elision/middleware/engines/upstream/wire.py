"""OpenAI's wire, seen from the client: chunks as deltas.

What a chunk says of a choice becomes one delta, so nothing changes its order; nothing is lost but
the envelope (ids, times, names) and padding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

from elision.contract import Delta, Finish, Request, TokenLogprob, Usage
from elision.errors import UpstreamError
from elision.middleware.engines.upstream.calls import Calls, written
from elision.middleware.engines.upstream.chances import read_logprobs
from elision.middleware.engines.upstream.errors import in_stream

DONE = b"[DONE]"

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_HEAD: Final = frozenset(
    "id object created model choices usage system_fingerprint obfuscation error elision".split()
)
_CHOICE: Final = frozenset("index delta message text finish_reason logprobs elision".split())
_MESSAGE: Final = frozenset({"role", "content", "elision"})
_USAGE: Final = frozenset("prompt_tokens completion_tokens total_tokens elision".split())
"""What is not handed on as it came; ``elision`` is where we speak."""
_MOST: Final = 2**31

_FINISH: Final[Mapping[str, Finish]] = MappingProxyType(
    {
        "stop": "stop",
        "eos_token": "stop",  # text-generation-inference
        "stop_sequence": "stop",  # text-generation-inference
        "end_turn": "stop",  # Anthropic's, through thin adapters
        "eos": "stop",
        "complete": "stop",  # Cohere
        "finish_reason_stop": "stop",
        "length": "length",
        "max_tokens": "length",  # Anthropic, Gemini
        "max_output_tokens": "length",
        "model_context_window_exceeded": "length",  # Anthropic
        "model_length": "length",  # Mistral
        "repetition": "length",  # vLLM cut a loop short
        "content_filter": "content_filter",
        "safety": "content_filter",  # Gemini
        "recitation": "content_filter",  # Gemini
        "blocklist": "content_filter",  # Gemini
        "prohibited_content": "content_filter",  # Gemini
        "refusal": "content_filter",  # Anthropic
        "sensitive": "content_filter",  # Zhipu
        "tool_calls": "tool_calls",
        "tool_use": "tool_calls",  # Anthropic
        "function_call": "function_call",
    }
)


_BROKEN: Final = frozenset({"error", "insufficient_system_resource", "malformed_function_call"})
"""Reasons that say that something went wrong: OpenRouter's, DeepSeek's, Gemini's."""
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z_]{0,31}")


class ReplyReader:
    """Reads the chunks of one reply. Lives for one response.

    Attributes:
        done: Whether the upstream has said that nothing follows.
    """

    def __init__(self, request: Request) -> None:
        self.done = False
        self._n = request.n
        self._finished: set[int] = set()
        self._usage: Usage | None = None
        self._extra: dict[str, Any] = {}
        self._calls: dict[int, Calls] = {}

    def read(self, data: bytes) -> list[Delta]:
        """Return what one event adds to the reply; nothing after the end.

        Raises:
            UpstreamError: If the event is an error or is not a chunk.
        """
        if self.done or not data:
            return []
        if data.startswith(DONE):
            self.done = True
            return []
        return self._chunk(_object(data))

    def whole(self, body: bytes) -> list[Delta]:
        """Return the deltas of a reply that came as one JSON object, the stream unasked for.

        Raises:
            UpstreamError: If it is an error or no reply.
        """
        self.done = True
        return self._chunk(_object(body))

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
        return Delta(usage=self._usage or Usage(), report=report, extra=self._extra or _NOTHING)

    def _chunk(self, chunk: dict[str, Any]) -> list[Delta]:
        if (usage := chunk.get("usage")) is not None:
            self._usage = _usage(usage) or self._usage
        choices = chunk.get("choices")
        if "choices" in chunk:
            for key in chunk.keys() - _HEAD:
                if chunk[key] is not None:
                    self._extra[key] = chunk[key]
        if not choices:
            return []
        if not isinstance(choices, list):
            raise _malformed("choices", choices)
        deltas = map(self._choice, choices)
        return [delta for delta in deltas if delta is not None]

    def _choice(self, choice: Any) -> Delta | None:
        """Return what a chunk says of a choice; None if it says nothing."""
        if not isinstance(choice, dict):
            raise _malformed("a choice", choice)
        index = self._index(choice)
        text, message = self._said(index, choice)
        reason, logprobs = choice.get("finish_reason"), choice.get("logprobs")
        rows: tuple[TokenLogprob, ...] = read_logprobs(logprobs) if logprobs else ()
        extra = _further(choice, _CHOICE)
        finish = _finish(reason) if reason else None
        if finish is not None and _is_unknown(reason):
            extra = {**extra, "upstream_finish_reason": reason}
        if index in self._finished:
            if text or message:
                raise UpstreamError(f"the upstream wrote on after choice {index} had ended")
            return None
        if finish is not None:
            self._finished.add(index)
        if text or message or rows or extra or finish is not None:
            return Delta(
                choice=index, text=text, message=message, extra=extra, logprobs=rows, finish=finish
            )
        return None

    def _index(self, choice: Mapping[str, Any]) -> int:
        index = choice.get("index") or 0
        if not isinstance(index, int):
            raise _malformed("a choice's index", index)
        if not 0 <= index < self._n:
            raise UpstreamError(f"the upstream wrote choice {index} of {self._n}")
        return index

    def _said(self, index: int, choice: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        """Return a choice's text, and its message's further pieces."""
        said = choice.get("delta") or choice.get("message")
        if not said:
            text = choice.get("text")
            return text if isinstance(text, str) else _content(text)[0], _NOTHING
        if not isinstance(said, dict):
            raise _malformed("a delta", said)
        content = said.get("content")
        parts: list[Any] = []
        if not isinstance(content, str):
            content, parts = _content(content)
        message = _further(said, _MESSAGE)
        if "tool_calls" in message:
            calls = self._calls.setdefault(index, Calls())
            message = {**message, "tool_calls": calls.indexed(message["tool_calls"])}
        if "function_call" in message:
            message = {**message, "function_call": written(message["function_call"])}
        return content, {**message, "content_parts": parts} if parts else message


def _object(data: bytes) -> dict[str, Any]:
    try:
        chunk = orjson.loads(data)
    except orjson.JSONDecodeError:
        chunk = None
    if not isinstance(chunk, dict):
        raise UpstreamError(f"the upstream sent an event of {len(data)} bytes that is no chunk")
    if chunk.get("error") or chunk.get("object") == "error":
        raise in_stream(chunk)
    return chunk


def _further(value: Mapping[str, Any], known: frozenset[str]) -> Mapping[str, Any]:
    """Return the entries of *value* that are not *known* and say something."""
    keys = value.keys() - known
    if not keys:
        return _NOTHING
    return {key: value[key] for key in value if key in keys and _says(value[key])}


def _says(value: object) -> bool:
    return bool(value) or isinstance(value, int | float)


def _content(value: object) -> tuple[str, list[Any]]:
    """Return the text of a content that is no string, and those of its parts that are no text."""
    if value is None:
        return "", []
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        raise _malformed("content", value)
    texts = [part.get("text") for part in value if part.get("type") == "text"]
    if not all(isinstance(text, str) for text in texts):
        raise _malformed("a part's text", value)
    return "".join(map(str, texts)), [part for part in value if part.get("type") != "text"]


def _finish(reason: object) -> Finish:
    if not isinstance(reason, str):
        raise _malformed("a finish reason", reason)
    if reason.lower() in _BROKEN:
        raise UpstreamError("the upstream broke off a choice with an error")
    return _FINISH.get(reason.lower(), "stop")


def _is_unknown(reason: object) -> bool:
    """Return whether *reason* is a name that says more than what it is taken for."""
    is_name = isinstance(reason, str) and _NAME.fullmatch(reason) is not None
    return is_name and str(reason).lower() not in _FINISH


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    extra = _further(value, _USAGE)
    if details == {"cached_tokens": cached}:
        extra = {key: extra[key] for key in extra if key != "prompt_tokens_details"}
    return Usage(
        prompt_tokens=_count(value.get("prompt_tokens")),
        completion_tokens=_count(value.get("completion_tokens")),
        cached_tokens=_count(cached),
        extra=extra,
    )


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value < _MOST else 0


def _malformed(what: str, value: object) -> UpstreamError:
    return UpstreamError(f"the upstream sent {what} as {type(value).__name__}")
