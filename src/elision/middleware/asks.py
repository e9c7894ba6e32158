"""What of a request an engine cannot do: tools, images, formats it has no way to write or read.

An engine that hands a request on takes all of it; one that decodes here holds its replies to a form
(`elision.middleware.forms`) as far as its model's chat template goes; one that speaks text takes
text. What is asked for and cannot be done is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from elision.contract import Capability, Engine, Request
from elision.errors import RequestError
from elision.middleware.fields import UNSUPPORTED, unsupported
from elision.middleware.forms.dialects import KNOWN, dialect_for
from elision.middleware.forms.form import Form, form_of

_HARMLESS: Final[Mapping[str, tuple[object, ...]]] = MappingProxyType(
    {
        "tools": ([],),
        "functions": ([],),
        "tool_choice": ("none", "auto"),
        "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},),
        "modalities": (["text"],),
        "audio": (),
        "web_search_options": (),
    }
)
_ASKS_FOR: Final[Mapping[str, str]] = MappingProxyType(
    {
        "tools": "tool calls are",
        "functions": "function calls are",
        "tool_choice": "tool calls are",
        "function_call": "function calls are",
        "response_format": 'a response_format other than {"type": "text"} is',
        "modalities": "output other than text is",
        "audio": "audio output is",
        "web_search_options": "web search is",
    }
)
_FORMS: Final = frozenset({"tools", "tool_choice", "response_format"})
_CALLS: Final = ("tool_calls", "function_call")


def check_asks(request: Request, engine: Engine) -> None:
    """Raise if *request* asks *engine* for more than it writes, or has it read more than text.

    Raises:
        RequestError: Naming the field; unless the engine hands such things on.
    """
    if Capability.PASSES in engine.capabilities:
        return
    decodes = engine.lexicon is not None and Capability.LOGITS in engine.capabilities
    for fault in _faults(request, engine, decodes=decodes):
        raise fault


def check_speaks(request: Request, profile: str) -> None:
    """Raise if *request* may be answered by calls of tools, which the agent of *profile* does not.

    Raises:
        RequestError: Naming the field.
    """
    if form_of(request).callable:
        instead = "choose another profile, such as guarded, or set tool_choice to 'none'"
        raise _refusal("tools", f"the profile {profile} calls no tools; {instead}")


def check_text(request: Request, profile: str) -> None:
    """Raise if *request* asks for calls or JSON, which the agents of *profile* do not write.

    Raises:
        RequestError: Naming the field.
    """
    check_speaks(request, profile)
    if form_of(request).schema is not None:
        instead = "choose another profile, such as guarded, or leave it out"
        raise _refusal("response_format", f"the profile {profile} answers in text; {instead}")


def _faults(request: Request, engine: Engine, *, decodes: bool) -> Iterator[RequestError]:
    for key, harmless in _HARMLESS.items():
        value = request.extra.get(key)
        if value is not None and value not in harmless and not (decodes and key in _FORMS):
            yield unsupported(key, _ASKS_FOR[key])
    takes_tools = decodes and dialect_for(engine).takes_tools
    if decodes:
        yield from _of_form(request, engine, form_of(request), takes_tools=takes_tools)
    for index, message in enumerate(request.messages):
        yield from _of_message(message, f"messages[{index}]", takes_tools=takes_tools)


def _of_form(
    request: Request, engine: Engine, form: Form, *, takes_tools: bool
) -> Iterator[RequestError]:
    """Yield what of *form* a reply that is decoded here cannot have."""
    if form.is_free:
        return
    if not getattr(engine, "holds_forms", True):
        yield _refusal(
            "tools" if form.tools else "response_format",
            f"{engine.name!r} shows only the likeliest tokens, so its replies hold to no form "
            "under this profile; choose one that needs no scores, such as guarded",
        )
    param = "response_format" if form.calls == "none" else "tools"
    if form.callable and not takes_tools:
        yield _refusal(
            "tools",
            f"the chat template of {engine.name!r} takes no tools; leave them out, set "
            f"tool_choice to 'none', use response_format, or choose a model whose template takes "
            f"them ({KNOWN}) or an upstream",
        )
    if request.kind != "chat":
        yield _refusal(param, f"{param!r} is for chats; use /v1/chat/completions")
    if request.answer is not None:
        yield _refusal(param, f"{param!r} is for replies, not for answers that are scored")
    if form.callable and request.continue_final:
        yield _refusal(param, "a beginning that is continued calls no tools; leave one of them out")


def _refusal(param: str, message: str) -> RequestError:
    return RequestError(message, param=param, code=UNSUPPORTED)


def _of_message(
    message: Mapping[str, Any], where: str, *, takes_tools: bool
) -> Iterator[RequestError]:
    role = message.get("role")
    if role == "function" or (role == "tool" and not takes_tools):
        yield unsupported(f"{where}.role", "tool messages are")
    for key in _CALLS:
        is_read = takes_tools and key == "tool_calls"
        if message.get(key) not in (None, []) and not is_read:
            yield unsupported(f"{where}.{key}", "tool calls are")
    content = message.get("content")
    if content is None and not (takes_tools and message.get("tool_calls")):
        yield unsupported(f"{where}.content", "messages without text are")
    if isinstance(content, list | tuple):
        for n, part in enumerate(content):
            if part.get("type") != "text":
                yield unsupported(f"{where}.content[{n}].type", "parts other than text are")
