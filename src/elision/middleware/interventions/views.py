"""Views: what the other prompt of a contrast is, told by how it differs from the request's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from elision.contract import Context, Message, Reader, Request, text_of
from elision.errors import ConfigError, RequestError

_SYSTEM = frozenset({"system", "developer"})


@dataclass(frozen=True, slots=True)
class LastToken:
    """Nothing but the prompt's last token: classifier-free guidance as its paper's benchmarks."""

    def ids(self, context: Context) -> tuple[int, ...]:
        """Return the other prompt's tokens.

        Raises:
            RequestError: If the prompt is empty.
        """
        if not context.prompt_ids:
            raise RequestError("the prompt has no last token; give the other prompt as a text")
        return context.prompt_ids[-1:]


@dataclass(frozen=True, slots=True)
class Tokens:
    """These tokens."""

    tokens: tuple[int, ...] = field(repr=False)

    def ids(self, context: Context) -> tuple[int, ...]:
        """Return the other prompt's tokens.

        Raises:
            RequestError: If there is none, or one that the model does not have.
        """
        if not self.tokens or not all(0 <= t < context.vocab_size for t in self.tokens):
            raise RequestError("the other prompt must be tokens of the model's vocabulary")
        return self.tokens


@dataclass(frozen=True, slots=True)
class System:
    """The same conversation under another system message; of a raw prompt, *text* in its place.

    A developer's message counts as one: it goes too.
    """

    text: str = field(repr=False)

    def ids(self, context: Context) -> tuple[int, ...]:
        """Return the other prompt's tokens."""
        return _reader(context).prompt_after(self._change)

    def _change(self, request: Request) -> Request:
        if request.kind == "text":
            return replace(request, prompt=self.text)
        rest = tuple(m for m in request.messages if m.get("role") not in _SYSTEM)
        system: Message = {"role": "system", "content": self.text}
        return replace(request, messages=(system, *rest))


@dataclass(frozen=True, slots=True)
class Without:
    """The same prompt, less a *passage* that stands in it."""

    passage: str = field(repr=False)

    def __post_init__(self) -> None:
        _check_passage(self.passage)

    def ids(self, context: Context) -> tuple[int, ...]:
        """Return the other prompt's tokens.

        Raises:
            RequestError: If the passage does not stand in the prompt, or is all of it.
        """
        return _reader(context).prompt_after(self._change)

    def _change(self, request: Request) -> Request:
        changed = _edited(request, lambda text: text.replace(self.passage, ""))
        if changed == request:
            raise RequestError("the context to leave out does not stand in the prompt, as written")
        if changed.kind == "text" and not changed.prompt:
            raise RequestError("the context to leave out is the whole prompt")
        return changed


@dataclass(frozen=True, slots=True)
class After:
    """The same prompt, with a *passage* in front of what the caller last said."""

    passage: str = field(repr=False)

    def __post_init__(self) -> None:
        _check_passage(self.passage)

    def ids(self, context: Context) -> tuple[int, ...]:
        """Return the other prompt's tokens."""
        return _reader(context).prompt_after(self._change)

    def _change(self, request: Request) -> Request:
        if request.kind == "text":
            return _edited(request, lambda text: self.passage + text)
        users = [i for i, m in enumerate(request.messages) if m.get("role") == "user"]
        if not users:
            raise RequestError("no message of the user stands in the prompt to put a passage to")
        messages = list(request.messages)
        said = messages[users[-1]]
        messages[users[-1]] = {**said, "content": f"{self.passage}\n\n{text_of(said)}"}
        return replace(request, messages=tuple(messages))


View: TypeAlias = LastToken | Tokens | System | Without | After


def _reader(context: Context) -> Reader:
    if context.reader is None:
        raise ConfigError(
            "another prompt needs a tokenizer to be written with; give it as tokens: "
            "Tokens(ids), or pass tokenizer="
        )
    return context.reader


def _check_passage(passage: str) -> None:
    if not passage:
        raise ConfigError("the passage is empty; a contrast needs something to differ in")


def _edited(request: Request, edit: Callable[[str], str]) -> Request:
    """Return *request* with *edit* done to its prompt, or to every message's text."""
    if request.kind == "text":
        if not isinstance(request.prompt, str):
            raise RequestError("the prompt is tokens; a passage can be found in text alone")
        return replace(request, prompt=edit(request.prompt))
    messages = tuple(_edited_message(message, edit) for message in request.messages)
    return replace(request, messages=messages)


def _edited_message(message: Message, edit: Callable[[str], str]) -> Message:
    text = text_of(message)
    return message if edit(text) == text else {**message, "content": edit(text)}
