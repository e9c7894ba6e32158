"""What another gateway asks of our guards, read into one noun."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar, get_args

from elision.errors import RequestError
from elision.middleware.fields import TYPE, VALUE, Fields, reject

if TYPE_CHECKING:
    from elision.contract import Message

Streaming: TypeAlias = Literal["block_only", "incremental_diff"]
"""What the client does with a rewritten text on a stream: drops it, or sends it."""

Requests: TypeAlias = Literal["off", "redact", "block"]
"""What becomes of a phrase in what a caller writes."""

STREAMING_HEADER: Final = "x-elision-streaming-transform-mode"
REQUESTS_HEADER: Final = "x-elision-check-requests"

_OURS: Final = "elision"
_ARGUMENTS: Final = "arguments"
_FIXED: Final = frozenset(
    {"id", "type", "function", "name", _ARGUMENTS, "index", "custom", "input"}
)
"""What the wire itself says: nobody's words."""
_DEEPEST: Final = 32
MOST_CHARACTERS: Final = 200_000
"""Of one question's texts and calls: reading them takes tens of microseconds each."""
_T = TypeVar("_T", bound=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A string somewhere in an object.

    Attributes:
        text: The string.
        is_json: Whether it is JSON source: the arguments of a call.
    """

    text: str = field(repr=False)
    is_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question: may this text reach the model, or its reader?

    Attributes:
        is_response: Whether a model has written it.
        call: Names the call that it is part of; the same for every question about one reply.
        model: The model's name, for targets with a scope.
        texts: In their order.
        messages: The conversation, so far as it was sent along.
        leaves: Every string of calls, tools and links; of these none can be rewritten.
        streaming: What the client does with a rewritten text; see `Streaming`.
        requests: See `Requests`.
    """

    is_response: bool
    call: str = ""
    model: str = ""
    texts: tuple[str, ...] = field(default=(), repr=False)
    messages: tuple[Message, ...] = field(default=(), repr=False)
    leaves: tuple[Leaf, ...] = field(default=(), repr=False)
    streaming: Streaming = "block_only"
    requests: Requests = "off"


def asked_of(body: object, headers: Mapping[str, str]) -> Asked:
    """Read the body of LiteLLM's Generic Guardrail API.

    How strict we are is read from the headers, which only the gateway's operator sets: LiteLLM lets
    callers write into ``additional_provider_specific_params``, so nothing there counts.

    Args:
        body: What the JSON parser returned.
        headers: The request's, by names in any case.

    Raises:
        RequestError: If a field that counts is not what it must be. Unknown fields are ignored.
    """
    fields = Fields(body)
    _refuse_options(fields.take("additional_provider_specific_params"))
    kinds = ("request", "response")
    asked = Asked(
        is_response=_one_of(fields.need("input_type"), kinds, "input_type") == "response",
        call=_name(fields, "litellm_call_id"),
        model=_name(fields, "model"),
        texts=_strings(fields.take("texts"), "texts"),
        messages=_messages(fields.take("structured_messages")),
        leaves=(
            *leaves_of(fields.take("tool_calls"), "tool_calls"),
            *leaves_of(fields.take("tools"), "tools"),
            *_links(_strings(fields.take("images"), "images")),
        ),
        streaming=_option(headers, STREAMING_HEADER, get_args(Streaming), "block_only"),
        requests=_option(headers, REQUESTS_HEADER, get_args(Requests), "off"),
    )
    if sum(map(len, (*asked.texts, *(leaf.text for leaf in asked.leaves)))) > MOST_CHARACTERS:
        raise reject("texts", f"and calls must hold at most {MOST_CHARACTERS} characters in all")
    return asked


def leaves_of(value: object, path: str, *, depth: int = 0) -> Iterator[Leaf]:
    """Yield every string in *value*, keys of objects included.

    Raises:
        RequestError: If it is nested too deeply to be read.
    """
    if depth > _DEEPEST:
        raise reject(path, f"must not be nested more than {_DEEPEST} deep")
    if isinstance(value, str):
        if value and value not in _FIXED:
            yield Leaf(text=value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key == _ARGUMENTS and isinstance(item, str):
                yield Leaf(text=item, is_json=True)
                continue
            yield from leaves_of(key, path)
            yield from leaves_of(item, path, depth=depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from leaves_of(item, path, depth=depth + 1)


def _links(urls: Iterable[str]) -> Iterator[Leaf]:
    """Yield the addresses of images; one that is sent whole has none."""
    return (Leaf(text=url) for url in urls if not url.startswith("data:"))


def _refuse_options(params: object) -> None:
    if isinstance(params, Mapping) and _OURS in params:
        raise RequestError(
            f"callers can write into 'additional_provider_specific_params', so 'elision' is not "
            f"read there; set the headers {STREAMING_HEADER} and {REQUESTS_HEADER}",
            param=f"additional_provider_specific_params.{_OURS}",
            code=VALUE,
        )


def _name(fields: Fields, key: str) -> str:
    value = fields.take(key)
    if not isinstance(value, str | None):
        raise reject(key, "must be a string", TYPE)
    return value or ""


def _strings(value: object, param: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise reject(param, "must be a list of strings", TYPE)


def _messages(value: object) -> tuple[Message, ...]:
    if value is None:
        return ()
    if isinstance(value, list) and all(map(_is_message, value)):
        return tuple(value)
    raise reject("structured_messages", "must be a list of objects with role and content", TYPE)


def _is_message(item: object) -> bool:
    if not isinstance(item, Mapping) or not isinstance(item.get("role"), str):
        return False
    content = item.get("content")
    if isinstance(content, list):
        return all(isinstance(part, Mapping) for part in content)
    return content is None or isinstance(content, str)


def _option(headers: Mapping[str, str], name: str, known: tuple[_T, ...], absent: _T) -> _T:
    sent = headers.get(name)
    return absent if sent is None else _one_of(sent.strip().lower(), known, name)


def _one_of(value: object, known: tuple[_T, ...], param: str) -> _T:
    for one in known:
        if one == value:
            return one
    raise reject(param, f"must be one of {', '.join(known)}")
