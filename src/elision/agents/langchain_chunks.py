"""Elision's deltas as LangChain's chunks of messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, Final

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ToolCallChunk,
    message_chunk_to_message,
)
from langchain_core.messages.ai import (
    InputTokenDetails,
    OutputTokenDetails,
    UsageMetadata,
    add_ai_message_chunks,
)
from langchain_core.utils.json import parse_partial_json

from elision.contract import Alternative, Delta, TokenLogprob, Usage, joined

_THOUGHTS: Final = ("reasoning_content", "reasoning")
_TOLD: Final = ("system_fingerprint", "service_tier")
_LOWEST: Final = -9999.0
"""Stands for the logarithm of nought, as in OpenAI's API."""
_CUT_OFF: Final = ("length", "content_filter")
_TAILS: Final = tuple(quotes + bracket for quotes in ("", '"', '""') for bracket in ("", "]", "}"))
"""What may follow JSON that breaks off: one of them leaves every string and mismatches."""


class Chunks:
    """Turns the deltas of one choice into chunks. Lives as long as the reply.

    A chunk carries one kind of thing: a thought, text, or pieces of calls; so each comes to rest in
    a content block of its own. The chunk with the usage is the last.

    LangChain completes arguments that break off and calls that a call. So a bracket that belongs
    to nothing is added to them at the end: then they are among the ``invalid_tool_calls``.

    Args:
        model: Name that ``response_metadata`` gives the model.
        blocks: Whether content comes as LangChain's standard blocks (``output_version="v1"``).
    """

    def __init__(self, model: str, *, blocks: bool = False) -> None:
        self._model = model
        self._blocks = blocks
        self._beside: dict[str, Any] = {}
        self._n_calls = 0
        self._arguments: dict[int, str] = {}

    def of(self, delta: Delta) -> Iterator[AIMessageChunk]:
        """Yield the chunks that *delta* becomes; one at least."""
        if delta.usage is not None or delta.report is not None:
            yield from self._spoilt(None)
            yield self._last(delta)
            return
        pieces = [*self._pieces(delta)]
        if delta.finish is not None:
            pieces += self._spoilt(delta.finish)
        pieces = pieces or [self._empty()]
        told = pieces[-1].response_metadata
        if delta.finish is not None:
            told["finish_reason"] = delta.finish
            pieces[-1].additional_kwargs |= self._beside
        if delta.logprobs:
            told["logprobs"] = {"content": [_token_told(one) for one in delta.logprobs]}
        yield from pieces

    def _pieces(self, delta: Delta) -> Iterator[AIMessageChunk]:
        message = dict(delta.message)
        message.pop("role", None)
        thoughts = [message.pop(name, None) for name in _THOUGHTS]
        calls = message.pop("tool_calls", None)
        refusal = message.pop("refusal", None)
        self._beside = joined(self._beside, message)
        if thought := next((one for one in thoughts if one and isinstance(one, str)), None):
            yield self._thought(thought)
        if delta.text:
            yield self._text(delta.text)
        if calls:
            yield self._calls([self._call(call) for call in calls])
        if refusal:
            yield self._empty(additional_kwargs={"refusal": refusal})

    def _empty(self, **fields: Any) -> AIMessageChunk:
        return self._chunk([], **fields) if self._blocks else AIMessageChunk(content="", **fields)

    def _chunk(self, blocks: list[Any], **fields: Any) -> AIMessageChunk:
        told = {"output_version": "v1", **fields.pop("response_metadata", {})}
        return AIMessageChunk(content=blocks, response_metadata=told, **fields)

    def _thought(self, text: str) -> AIMessageChunk:
        if not self._blocks:
            return AIMessageChunk(content="", additional_kwargs={"reasoning_content": text})
        return self._chunk([{"type": "reasoning", "reasoning": text, "index": "lc_rs_0"}])

    def _text(self, text: str) -> AIMessageChunk:
        if not self._blocks:
            return AIMessageChunk(content=text)
        return self._chunk([{"type": "text", "text": text, "index": "lc_txt_0"}])

    def _calls(self, calls: list[ToolCallChunk]) -> AIMessageChunk:
        if not self._blocks:
            return AIMessageChunk(content="", tool_call_chunks=calls)
        blocks = [{**call, "index": f"lc_tc_{call['index']}"} for call in calls]
        return self._chunk(blocks, tool_call_chunks=calls)

    def _call(self, call: Mapping[str, Any]) -> ToolCallChunk:
        """Return a piece of a call; one that says not which is a call of its own."""
        function = call.get("function") or {}
        index = call.get("index")
        index = index if isinstance(index, int) else self._n_calls
        self._n_calls = max(self._n_calls, index + 1)
        arguments = function.get("arguments")
        self._arguments[index] = self._arguments.get(index, "") + (arguments or "")
        return ToolCallChunk(
            name=function.get("name") or None,
            args=arguments,
            id=call.get("id") or None,
            index=index,
            type="tool_call_chunk",
        )

    def _spoilt(self, finish: str | None) -> Iterator[AIMessageChunk]:
        """Yield what keeps calls whose arguments are no whole JSON from being read as calls."""
        tails = {
            index: _tail(raw)
            for index, raw in self._arguments.items()
            if not _is_whole(raw, cut_off=finish in _CUT_OFF)
        }
        self._arguments.clear()
        if calls := [_piece(index, tail) for index, tail in tails.items() if tail]:
            yield self._calls(calls)

    def _last(self, delta: Delta) -> AIMessageChunk:
        return self._empty(
            response_metadata={
                "model_name": self._model,
                "model_provider": "elision",
                "elision": dict(delta.report or {}),
                **{name: delta.extra[name] for name in _TOLD if delta.extra.get(name)},
            },
            usage_metadata=usage_told(delta.usage or Usage()),
            chunk_position="last",
        )


def whole(model: str, deltas: Iterable[Delta]) -> list[AIMessage]:
    """Return the choices that *deltas* spell, in order of their index; none if there is nothing.

    Joined by the rules that LangChain joins a stream by, so that both read the same.
    """
    chunks: dict[int, list[AIMessageChunk]] = {}
    makers: dict[int, Chunks] = {}
    for delta in deltas:
        own = makers.setdefault(delta.choice, Chunks(model))
        chunks.setdefault(delta.choice, []).extend(own.of(delta))
        if delta.usage is not None or delta.report is not None:
            for choice, maker in makers.items():
                if choice != delta.choice:
                    chunks[choice].extend(map(_uncounted, maker.of(delta)))
    return [_joined(chunks[choice]) for choice in sorted(chunks)]


def _uncounted(chunk: AIMessageChunk) -> AIMessageChunk:
    """Return *chunk* without a usage: it counts all choices, and stands with one of them."""
    return chunk.model_copy(update={"usage_metadata": None})


def _piece(index: int, arguments: str) -> ToolCallChunk:
    return ToolCallChunk(name=None, args=arguments, id=None, index=index, type="tool_call_chunk")


def _is_whole(raw: str, *, cut_off: bool) -> bool:
    """Return whether arguments are JSON. None at all are those of a tool that takes none."""
    if not raw:
        return not cut_off
    try:
        json.loads(raw, strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def _tail(raw: str) -> str:
    """Return what has to follow *raw* for LangChain not to read it as arguments."""
    return next(tail for tail in _TAILS if not _is_completed(raw + tail))


def _is_completed(raw: str) -> bool:
    if not raw:
        return True  # LangChain takes nothing for no arguments
    try:
        return isinstance(parse_partial_json(raw), dict)
    except (ValueError, RecursionError):
        return False


def _joined(chunks: Sequence[AIMessageChunk]) -> AIMessage:
    message = message_chunk_to_message(add_ai_message_chunks(*chunks))
    assert isinstance(message, AIMessage), "a chunk of an AI's message becomes one"
    return message


def usage_told(usage: Usage) -> UsageMetadata:
    """Return *usage* as LangChain counts it; details only where they were told."""
    told = UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
    )
    read, written = _details(usage, "prompt"), _details(usage, "completion")
    cached = usage.cached_tokens or read.get("cached_tokens")
    if said := _known(
        cache_read=cached,
        cache_creation=read.get("cache_write_tokens"),
        audio=read.get("audio_tokens"),
    ):
        told["input_token_details"] = InputTokenDetails(**said)  # type: ignore[typeddict-item]
    if said := _known(reasoning=written.get("reasoning_tokens"), audio=written.get("audio_tokens")):
        told["output_token_details"] = OutputTokenDetails(**said)  # type: ignore[typeddict-item]
    return told


def _details(usage: Usage, of: str) -> Mapping[str, Any]:
    details = usage.extra.get(f"{of}_tokens_details")
    return details if isinstance(details, Mapping) else {}


def _known(**counts: Any) -> dict[str, int]:
    return {name: n for name, n in counts.items() if isinstance(n, int) and n > 0}


def _token_told(item: TokenLogprob) -> dict[str, Any]:
    return _token(item) | {"top_logprobs": [_token(other) for other in item.top]}


def _token(item: TokenLogprob | Alternative) -> dict[str, Any]:
    logprob = item.logprob if isfinite(item.logprob) else _LOWEST
    return {"token": item.token, "logprob": logprob, "bytes": list(item.data)}
