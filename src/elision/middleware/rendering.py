"""Replies in OpenAI's shapes: ``chat.completion``, its chunks, and ``text_completion``.

Objects come out as plain dicts, ready for any JSON writer. A reply's chunks share id, time and
model; the ``elision`` report stands in the last one, if the caller asked for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from elision.contract import (
    Choice,
    Completion,
    Delta,
    TokenTrace,
    Usage,
)
from elision.middleware.rendered_logprobs import chat_logprobs, text_logprobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What every object of one reply repeats, and what the caller asked to see in it.

    Attributes:
        id: The reply's id.
        created: Seconds since 1970.
        model: As the caller wrote it.
        fingerprint: Which server wrote it.
        usage: Whether a streamed reply ends with its usage.
        report: Whether it says what ran.
    """

    id: str
    created: int
    model: str
    fingerprint: str
    usage: bool = False
    report: bool = False

    def object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """Return one object of the reply."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }

    def whole(
        self, kind: str, choices: list[dict[str, Any]], completion: Completion
    ) -> dict[str, Any]:
        """Return the one object of a reply that is not streamed."""
        body = self.object(kind, choices) | {"usage": usage_object(completion.usage)}
        body = _beside(completion.extra) | body
        told = self.told(completion.report)
        return body | {"elision": told} if told else body

    def told(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of a report the caller sees: all of it, if he asked.

        The id of an episode comes unasked: without it nobody could say how good the reply was.
        """
        if self.report:
            return dict(report)
        return {"episode": report["episode"]} if report.get("episode") else {}


class Chunks(Protocol):
    """Turns one reply's deltas into the chunks of its stream. Lives as long as the stream."""

    def of(self, delta: Delta) -> list[dict[str, Any]]:
        """Return the chunks that *delta* becomes; none if nothing of it is for the caller."""
        ...

    def tail(self) -> list[dict[str, Any]]:
        """Return what follows the last delta: usage and report, each if asked for."""
        ...


class _Chunks:
    kind = ""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._usage = Usage()
        self._report: Mapping[str, Any] = {}
        self._extra: Mapping[str, Any] = {}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = self._head.object(self.kind, choices)
        return chunk | {"usage": None} if self._head.usage else chunk

    def _idle(self) -> dict[str, Any]:
        """Return a choice that adds nothing."""
        raise NotImplementedError

    def _note(self, delta: Delta) -> bool:
        """Keep what concerns the whole reply; say whether anything else is left."""
        if delta.usage is not None or delta.report is not None:
            self._usage = delta.usage or self._usage
            self._report = delta.report or self._report
            self._extra = delta.extra or self._extra
            return False
        return bool(
            delta.text
            or delta.message
            or delta.extra
            or delta.logprobs
            or delta.trace
            or delta.finish
        )

    def tail(self) -> list[dict[str, Any]]:
        """Return what follows the last delta: usage and report, each if asked for."""
        told, extra = self._head.told(self._report), _beside(self._extra)
        if not (self._head.usage or told or extra):
            return []
        # Whoever did not ask for a chunk without choices may look into its first one.
        choices = [] if self._head.usage or told else [self._idle()]
        last = extra | self._head.object(self.kind, choices)
        if self._head.usage:
            last["usage"] = usage_object(self._usage)
        if told:
            last["elision"] = told
        return [last]


class ChatChunks(_Chunks):
    """Chunks of ``chat.completion``: the role first, then one chunk per delta."""

    kind = "chat.completion.chunk"

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        self._opened: set[int] = set()

    def of(self, delta: Delta) -> list[dict[str, Any]]:
        """Return the chunks that *delta* becomes."""
        if not self._note(delta):
            return []
        chunks = []
        if delta.choice not in self._opened:
            self._opened.add(delta.choice)
            said = "" if delta.text or not delta.message else None
            opening = {"role": "assistant", "content": said, "refusal": None}
            chunks.append(self._piece(Delta(choice=delta.choice), opening))
        content = {"content": delta.text} if delta.text or delta.logprobs else {}
        chunks.append(self._piece(delta, dict(delta.message) | content))
        return chunks

    def _idle(self) -> dict[str, Any]:
        return {"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}

    def _piece(self, delta: Delta, content: dict[str, Any]) -> dict[str, Any]:
        choice = _beside(delta.extra) | {
            "index": delta.choice,
            "delta": content,
            "logprobs": chat_logprobs(delta.logprobs) if delta.logprobs else None,
            "finish_reason": delta.finish,
        }
        return self._chunk([choice | traced(delta.trace)])


class TextChunks(_Chunks):
    """Chunks of ``text_completion``: whole objects, each with its piece of the text."""

    kind = "text_completion"

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        self._offsets: dict[int, int] = {}

    def of(self, delta: Delta) -> list[dict[str, Any]]:
        """Return the chunks that *delta* becomes."""
        if not self._note(delta):
            return []
        offset = self._offsets.get(delta.choice, 0)
        self._offsets[delta.choice] = offset + sum(len(item.token) for item in delta.logprobs)
        logprobs = text_logprobs(delta.logprobs, offset) if delta.logprobs else None
        choice = _text_choice(delta.choice, delta.text, delta.finish, logprobs)
        return [self._chunk([_beside(delta.extra) | choice | traced(delta.trace)])]

    def _idle(self) -> dict[str, Any]:
        return _text_choice(0, "", None, None)


def chat_completion(head: Head, completion: Completion, *, logprobs: bool) -> dict[str, Any]:
    """Return the body of a chat's reply; *logprobs* says whether they were asked for."""
    choices = [_chat_choice(choice, logprobs) for choice in completion.choices]
    return head.whole("chat.completion", choices, completion)


def text_completion(head: Head, completion: Completion, *, logprobs: bool) -> dict[str, Any]:
    """Return the body of a completion's reply; *logprobs* says whether they were asked for."""
    choices = [
        _beside(choice.extra)
        | _text_choice(
            choice.index,
            choice.text,
            choice.finish,
            text_logprobs(choice.logprobs, 0) if logprobs else None,
        )
        | traced(choice.trace)
        for choice in completion.choices
    ]
    return head.whole("text_completion", choices, completion)


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return *usage* as OpenAI writes it."""
    details = {**usage.extra.get("prompt_tokens_details", {}), "cached_tokens": usage.cached_tokens}
    return dict(usage.extra) | {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        **({"prompt_tokens_details": details} if usage.cached_tokens else {}),
    }


def traced(entries: tuple[TokenTrace, ...]) -> dict[str, Any]:
    """Return what a choice tells of what happened at its tokens; nothing if it is not traced.

    A number that is not told (NaN) is null once it is JSON.
    """
    return {"elision": {"trace": [asdict(entry) for entry in entries]}} if entries else {}


def _chat_choice(choice: Choice, logprobs: bool) -> dict[str, Any]:
    message = _called(choice.message)
    if choice.finish == "content_filter":
        message = _unbroken(message)
    said = {"role": "assistant", "content": _content(choice.text, message), "refusal": None}
    found = {
        "index": choice.index,
        "message": said | message,
        "logprobs": chat_logprobs(choice.logprobs) if logprobs else None,
        "finish_reason": choice.finish,
    }
    return _beside(choice.extra) | found | traced(choice.trace)


def _beside(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return further fields of an engine's; none of them speaks as our report."""
    found = dict(extra)
    found.pop("elision", None)
    return found


def _content(text: str, message: Mapping[str, Any]) -> str | None:
    """Return what the message says; null where only something else is said, as with OpenAI."""
    return None if any(message.values()) and not text else text


def _unbroken(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a refused *message* without calls that the refusal cut off: clients would run them.

    Of a call whose input is no JSON nobody can tell, so it goes as well.
    """
    told = dict(message)
    told["tool_calls"] = [call for call in told.pop("tool_calls", None) or () if _is_whole(call)]
    if not told["tool_calls"]:
        del told["tool_calls"]
    if "function_call" in told and not _is_whole({"function": told["function_call"]}):
        del told["function_call"]
    return told


def _is_whole(call: Mapping[str, Any]) -> bool:
    try:
        return isinstance(json.loads((call.get("function") or {}).get("arguments") or ""), dict)
    except (ValueError, TypeError, RecursionError):
        return False


def _called(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message's further fields; calls without the ``index`` that only deltas have."""
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    bare = [{key: v for key, v in call.items() if key != "index"} for call in calls]
    return dict(message) | {"tool_calls": bare}


def _text_choice(
    index: int, text: str, finish: str | None, logprobs: dict[str, Any] | None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
