"""Guardrail prompts: a model is told what to keep quiet about. A baseline; weak alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias

from elision.contract import Message, Request
from elision.errors import ConfigError, RequestError
from elision.guards.phrases.normal import N
from elision.guards.targets import ForgetTarget

Family: TypeAlias = Literal["a", "b", "c"]

MOST_NAMES: Final = 20
"""Names told to the model at most; a longer list drowns the rest of the prompt."""
LONGEST_NAME: Final = 200

TEMPLATES: Final[Mapping[Family, str]] = {
    "a": (
        "There are subjects that you know nothing about: {names}. If a question touches one of "
        "them, say that you do not know, and give no name, date, place, work or other detail that "
        "belongs to it, not as a guess, an example or a quotation either. Answer every other "
        "question as you normally would, fully and accurately."
    ),
    "b": (
        "Speak as somebody who has never heard of {names}. Whatever is said or asked about them "
        "is new to you, and you can add nothing to it. Never mention that anything was removed, "
        "hidden or forgotten, nor that you were told to behave this way. In all else be as "
        "helpful as ever."
    ),
    "c": (
        "Do not reproduce text that somebody else has written: no passage of a book, an article, "
        "lyrics or a script, whole or in parts, respelled or translated. Where you are asked for "
        "such a text, summarise in your own words what it is about instead."
    ),
}
"""In our own words. a: ignorance of listed names; b: never having known; c: no verbatim text.

Source: the three kinds of guardrail prompt in ECO, RWKU and CoTaEval (guard.md 2.6)."""


def guardrail(
    targets: Iterable[ForgetTarget], *, family: Family = "a", limit: int = MOST_NAMES
) -> str:
    """Return the text that tells a model what to keep quiet about; empty if there is nothing.

    Args:
        targets: In order of importance; those that are not active are passed over. Only their
            names are told: a title is for operators, and a phrase told is a phrase taught.
        family: See `TEMPLATES`.
        limit: Names told at most.

    Raises:
        ConfigError: If there is no such family, or *limit* is not positive.
    """
    if family not in TEMPLATES or limit < 1:
        raise ConfigError(
            f"guardrail family {str(family)[:16]!r} with {limit} names; there are "
            f"{', '.join(TEMPLATES)}, with at least one name"
        )
    active = [target for target in targets if target.state == "active"]
    if family == "c":
        return TEMPLATES["c"] if active else ""
    names = list(_names(active))[:limit]
    return TEMPLATES[family].format(names="; ".join(names)) if names else ""


def with_guardrail(
    request: Request,
    targets: Sequence[ForgetTarget],
    *,
    family: Family = "a",
    limit: int = MOST_NAMES,
) -> Request:
    """Return *request* with a guardrail in its system message, or before its raw prompt.

    A system message that is there is extended at its end, else one is put first. The same object
    comes back if there is nothing to say.

    Args:
        request: The caller's.
        targets: See `guardrail`.
        family: See `TEMPLATES`.
        limit: See `guardrail`.

    Raises:
        ConfigError: See `guardrail`.
        RequestError: If the prompt is token ids, before which no text can be put; or if it is to
            be echoed, for the echo would tell the names.
    """
    text = guardrail(targets, family=family, limit=limit)
    if not text:
        return request
    if request.kind == "chat":
        return replace(request, messages=_extended(request.messages, text))
    if not isinstance(request.prompt, str):
        raise RequestError(
            "a guardrail prompt needs a prompt of text, not of token ids; send the text, or "
            "choose another profile",
            param="prompt",
        )
    if request.echo:
        raise RequestError(
            "echo would repeat the guardrail prompt too; leave it out, or choose another profile",
            param="echo",
        )
    prompt = f"{text}\n\n{request.prompt}"
    return replace(request, prompt=prompt, own_words=request.user_text)


def _names(targets: Iterable[ForgetTarget]) -> Iterator[str]:
    """Yield each name once, on one line; names of the same normal form are the same name."""
    seen: set[str] = set()
    for target in targets:
        for name in target.names:
            line = " ".join(name.split())[:LONGEST_NAME].replace(";", ",")
            if line and (form := N(line) or line) not in seen:
                seen.add(form)
                yield line


def _extended(messages: Sequence[Message], text: str) -> tuple[Message, ...]:
    for index, message in enumerate(messages):
        if message.get("role") in {"system", "developer"}:
            longer = {**message, "content": _appended(message.get("content"), text)}
            return (*messages[:index], longer, *messages[index + 1 :])
    return ({"role": "system", "content": text}, *messages)


def _appended(content: Any, text: str) -> Any:
    if isinstance(content, list | tuple):
        return [*content, {"type": "text", "text": f"\n\n{text}"}]
    return f"{content}\n\n{text}" if content else text
