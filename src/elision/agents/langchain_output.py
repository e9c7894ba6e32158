"""Structured output: how it is asked for, and how a reply is read into it.

No error quotes the reply: LangChain's own parsers do, and their errors end up in logs.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from operator import itemgetter
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.json import parse_partial_json
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, ValidationError
from pydantic.v1 import ValidationError as ValidationErrorV1

from elision.agents.langchain_binding import chosen, described
from elision.errors import ConfigError

Method: TypeAlias = Literal["json_schema", "function_calling", "json_mode"]
Schema: TypeAlias = "dict[str, Any] | type"

_NOT_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_-]")
_NAME: Final = "reply"


def schema_of(schema: Schema, *, strict: bool | None = None) -> dict[str, Any]:
    """Return the JSON schema of *schema*.

    Args:
        schema: A Pydantic class, a ``TypedDict``, a JSON schema, or a tool in OpenAI's form.
        strict: Whether all that it names is required and nothing else allowed, as OpenAI's own
            strict mode demands.
    """
    if isinstance(schema, Mapping):
        named = schema.get("json_schema", schema)
        if isinstance(named.get("schema"), Mapping):  # OpenAI's response_format, whole or within
            schema = {"title": named.get("name", _NAME), **named["schema"]}
        elif "function" in schema or "parameters" in schema:
            return convert_to_json_schema(dict(schema), strict=strict)
        return convert_to_json_schema({"title": _NAME, **schema}, strict=True) if strict else schema
    if strict or not is_basemodel_subclass(schema):
        return convert_to_json_schema(schema, strict=strict)
    # LangChain's own conversion writes references out, which a schema that holds itself ends badly
    if issubclass(schema, BaseModel):
        return schema.model_json_schema()
    return dict(cast("Any", schema).schema())


def response_format(schema: Schema, *, strict: bool | None = None) -> dict[str, Any]:
    """Return OpenAI's ``response_format`` for *schema*; ``strict`` is said only where it is."""
    name = _NOT_IN_NAMES.sub("_", _name_of(schema))[:64]
    told: dict[str, Any] = {"name": name, "schema": schema_of(schema, strict=strict)}
    if strict is not None:
        told["strict"] = strict
    return {"type": "json_schema", "json_schema": told}


def _name_of(schema: Schema) -> str:
    if not isinstance(schema, Mapping):
        return schema.__name__
    named = schema.get("json_schema") or schema.get("function") or schema
    return str(named.get("name") or named.get("title") or _NAME)


def asked_for(schema: Schema | None, method: Method, *, strict: bool | None) -> dict[str, Any]:
    """Return what a model is asked for, so that its reply has the form of *schema*.

    Raises:
        ConfigError: If there is no schema and *method* needs one.
    """
    if method not in get_args(Method):
        raise ConfigError(f"method is {method!r}; it must be one of {get_args(Method)}")
    if schema is None and method != "json_mode":
        raise ConfigError(f"{method!r} needs a schema")
    asked: dict[str, Any] = {"response_format": {"type": "json_object"}}
    if method == "function_calling":
        (tool,) = described([schema], strict=strict)  # type: ignore[list-item]
        asked = {"tools": [tool], "tool_choice": chosen(tool["function"]["name"], [tool])}
    elif schema is not None and method == "json_schema":
        asked = {"response_format": response_format(schema, strict=strict)}
    if schema is not None:
        told = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
        asked["ls_structured_output_format"] = told
    return asked


def parser_of(schema: Schema | None, method: Method) -> StructuredOutput:
    """Return what reads a reply that was asked for so."""
    call = None
    if schema is not None and method == "function_calling":
        call = described([schema])[0]["function"]["name"]
    return StructuredOutput(
        model_class=schema if isinstance(schema, type) and is_basemodel_subclass(schema) else None,
        call=call,
    )


def bound(
    model: Runnable[Any, Any], parser: StructuredOutput, *, include_raw: bool
) -> Runnable[Any, Any]:
    """Return *model* with its replies parsed; or, so asked, beside what was parsed."""
    if not include_raw:
        return model | parser
    read = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    unread = RunnablePassthrough.assign(parsed=lambda _: None)
    parsed = read.with_fallbacks([unread], exception_key="parsing_error")
    return RunnableMap(raw=model) | parsed


class StructuredOutput(JsonOutputParser):
    """Reads a reply's text, or the arguments of its call, into an object.

    While it streams, it yields what there is so far: of a Pydantic class as soon as it is valid.

    Attributes:
        model_class: Pydantic class, of either version, to read into; None: plain values.
        call: Name of the tool whose arguments count; None: the text counts.
    """

    model_class: Any = None
    call: str | None = None

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Return the object; of what is not all there yet, None if nothing can be told.

        Raises:
            OutputParserException: If a whole reply was refused or cut off, or does not fit.
        """
        message = _message(result[0])
        if partial:
            try:
                return self._read(message, parse_partial_json)
            except OutputParserException:
                return None
        _check_end(message)
        return self._read(message, json.loads)

    def _read(self, message: AIMessage, parse: Any) -> Any:
        if self.call is not None:
            return self._made(_arguments(message, self.call))
        try:
            value = parse(str(message.text))
        except ValueError:
            raise _misfit("the reply is no JSON") from None
        return self._made(value)

    def _made(self, value: Any) -> Any:
        if self.model_class is None:
            return value
        if not isinstance(value, dict):
            raise _misfit("the reply is no JSON object")
        try:
            if issubclass(self.model_class, BaseModel):
                return self.model_class.model_validate(value)
            return self.model_class.parse_obj(value)
        except (ValidationError, ValidationErrorV1) as error:
            n_errors, name = len(error.errors()), self.model_class.__name__
        raise _misfit(f"the reply does not fit {name!r}: {n_errors} of its fields are at fault")

    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:  # noqa: A002
        seen: list[str | BaseMessage] = []
        yield from super()._transform(_kept(input, seen))
        self._check(seen)

    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Any]:  # noqa: A002
        seen: list[str | BaseMessage] = []
        async for parsed in super()._atransform(_akept(input, seen)):
            yield parsed
        self._check(seen)

    def _check(self, seen: list[str | BaseMessage]) -> None:
        """Raise at a stream's end what a whole reply would have raised."""
        chunks = [one for one in seen if isinstance(one, AIMessageChunk)]
        if chunks:
            self.parse_result([ChatGeneration(message=add_ai_message_chunks(*chunks))])

    @property
    def _type(self) -> str:
        return "elision_structured_output"


def _kept(items: Iterator[Any], seen: list[Any]) -> Iterator[Any]:
    for item in items:
        seen.append(item)
        yield item


async def _akept(items: AsyncIterator[Any], seen: list[Any]) -> AsyncIterator[Any]:
    async for item in items:
        seen.append(item)
        yield item


def _message(generation: Generation) -> AIMessage:
    if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
        return generation.message
    return AIMessage(generation.text)


def _check_end(message: AIMessage) -> None:
    finish = message.response_metadata.get("finish_reason")
    if finish == "length":
        raise _misfit("the reply was cut off at max_tokens")
    if finish == "content_filter" or message.additional_kwargs.get("refusal"):
        raise _misfit("the reply was refused")


def _arguments(message: AIMessage, name: str) -> dict[str, Any]:
    for call in message.tool_calls:
        if call["name"] == name:
            return call["args"]
    raise _misfit(
        "the arguments of the call are no JSON object"
        if message.invalid_tool_calls
        else f"the reply does not call {name!r}"
    )


def _misfit(words: str) -> OutputParserException:
    return OutputParserException(words)
