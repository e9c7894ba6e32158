"""What the model is to read, as OpenAI's bodies write it: messages, or raw prompts.

Messages may hold what only some engines take, images and tool calls; `asks` knows which.
"""

from __future__ import annotations

from elision.contract import Message
from elision.errors import RequestError
from elision.middleware.fields import TYPE, Fields, check_text, reject

N_PROMPTS = 256
TOKEN_ID_MAX = 2**31 - 1

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_INSTEAD = ("tool_calls", "function_call", "refusal", "audio")
"""What an assistant may have said instead of content."""


def read_messages(value: object) -> tuple[Message, ...]:
    """Return a conversation as it was sent, every message checked.

    Raises:
        RequestError: If it is empty, or a message is malformed.
    """
    if not isinstance(value, list):
        raise reject("messages", "must be an array of messages", TYPE)
    if not value:
        raise reject("messages", "must hold at least one message", "empty_array")
    for index, message in enumerate(value):
        _check_message(Fields(message, f"messages[{index}]"))
    return tuple(value)


def _check_message(message: Fields) -> None:
    role = message.need("role")
    check_text(role, message.param("role"))
    if role not in _ROLES:
        raise reject(message.param("role"), f"must be one of {', '.join(_ROLES)}")
    message.word("name", 256)
    instead = [key for key in _INSTEAD if message.take(key) not in (None, [])]
    if role == "assistant" and instead and message.take("content") is None:
        return
    _check_content(message.need("content"), message.param("content"))


def _check_content(content: object, param: str) -> None:
    if isinstance(content, str):
        check_text(content, param)
        return
    if not isinstance(content, list):
        raise reject(param, "must be a string or an array of parts", TYPE)
    if not content:
        raise reject(param, "must hold at least one part", "empty_array")
    for index, part in enumerate(content):
        _check_part(Fields(part, f"{param}[{index}]"))


def _check_part(part: Fields) -> None:
    kind = part.need("type")
    check_text(kind, part.param("type"))
    if kind == "text":
        check_text(part.need("text"), part.param("text"))


def read_prompts(value: object) -> tuple[str | tuple[int, ...], ...]:
    """Return the prompts of a completion: texts as they are, arrays of token ids as tuples.

    Raises:
        RequestError: If there is none, one is empty, or texts and ids are mixed within one.
    """
    if isinstance(value, str):
        return (_prompt(value, "prompt"),)
    if not isinstance(value, list):
        raise reject("prompt", "must be a string, an array of strings or arrays of token ids", TYPE)
    if not value:
        raise reject("prompt", "must not be empty", "empty_array")
    if type(value[0]) is int:
        return (_prompt(value, "prompt"),)
    if len(value) > N_PROMPTS:
        raise reject("prompt", f"must hold at most {N_PROMPTS} prompts")
    return tuple(_prompt(item, f"prompt[{index}]") for index, item in enumerate(value))


def _prompt(value: object, param: str) -> str | tuple[int, ...]:
    if not isinstance(value, (str, list)):
        raise reject(param, "must be a string or an array of token ids", TYPE)
    if not value:
        raise RequestError(f"{param!r} must not be empty", param=param, code="empty_string")
    if isinstance(value, str):
        check_text(value, param)
        return value
    if not all(type(token) is int and 0 <= token <= TOKEN_ID_MAX for token in value):
        raise reject(param, "must hold token ids only, or prompts only", TYPE)
    return tuple(value)
