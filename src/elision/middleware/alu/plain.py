"""What of a request agents hand on where nothing may tell who is registered: nothing that names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from elision.contract import Message, Request
from elision.errors import RequestError

_DROPPED: Final = frozenset(
    "audio function_call functions include_stop_str_in_output metadata modalities "
    "parallel_tool_calls prompt_cache_key response_format safety_identifier service_tier store "
    "stream_options tool_choice tools user web_search_options".split()
)
"""Fields that make no difference to a text; what asks for more than text was refused before."""
_NUMBERS: Final = frozenset(
    "ignore_eos length_penalty min_tokens skip_special_tokens top_a typical_p".split()
)
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "reasoning_effort": ("none", "minimal", "low", "medium", "high", "xhigh"),
    "verbosity": ("low", "medium", "high"),
}


def plainly_asked(request: Request) -> Request:
    """Return *request* with nothing in it that could name somebody but the text of its messages.

    A name is hidden in text alone. In any other field it would meet what stands in for it, or the
    model's knowledge; so such a field is dropped where it makes no difference, else refused,
    whomever it names.

    Raises:
        RequestError: Naming the field.
    """
    if request.sampling.logit_bias:
        raise _refused("logit_bias")
    messages = tuple(map(_plain, request.messages))
    return replace(request, messages=messages, extra=dict(_kept(request.extra)))


def _kept(extra: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in extra.items():
        if value is None or key in _DROPPED:
            continue
        is_number = key in _NUMBERS and isinstance(value, bool | int | float)
        if not is_number and value not in _WORDS.get(key, ()):
            raise _refused(key)
        yield key, value


def _plain(message: Message) -> Message:
    content = message.get("content")
    if isinstance(content, list | tuple):
        content = [{"type": "text", "text": part.get("text", "")} for part in content]
    return {"role": message.get("role"), "content": content}


def _refused(key: str) -> RequestError:
    message = f"the profile takes no {key}: in it somebody could be named; choose another profile"
    return RequestError(message, param=key, code="unsupported_parameter")
