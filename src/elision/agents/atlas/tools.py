"""What a student may call, and how a call is checked before it is made."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from elision.memory.records import Trust

LONGEST_OBSERVATION: Final = 4_000
"""Characters of what a tool says that a student is shown."""

Arguments = TypeVar("Arguments", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a student did.

    Attributes:
        step: Its place among the attempt's actions, from 1.
        tool: The tool's name; None where no tool was meant.
        args: What it was called with, or was to be called with.
        ok: Whether it did what it should.
        observation: What came back; never an instruction, whoever wrote it.
        trust: How far what came back may be followed.
    """

    step: int
    tool: str | None
    args: Mapping[str, Any] = field(default_factory=dict, repr=False)
    ok: bool = True
    observation: str = field(default="", repr=False)
    trust: Trust = Trust.TOOL


@dataclass(frozen=True, slots=True)
class Tool(Generic[Arguments]):
    """Something that a student may call.

    Attributes:
        name: What the model calls it by.
        description: What it does, in one or two sentences.
        schema: What its arguments must be; a call that does not fit is not made.
        call: Is given the checked arguments; a plain function runs on a thread of its own.
        trust: Of what it says: `Trust.EXTERNAL` where strangers write it.
    """

    name: str
    description: str
    schema: type[Arguments]
    call: Callable[[Arguments], str | Awaitable[str]] = field(repr=False)
    trust: Trust = Trust.TOOL

    @property
    def told(self) -> str:
        """One line for a prompt: name, description and the schema of the arguments."""
        schema = json.dumps(self.schema.model_json_schema(), sort_keys=True, ensure_ascii=False)
        return f"- {self.name}: {self.description} Arguments: {schema}"


async def use(
    tools: Mapping[str, Tool[Any]], name: str, args: Mapping[str, Any], *, step: int
) -> Action:
    """Call a tool, if there is one of that name and the arguments fit.

    Whatever goes wrong is an observation for the student, and not the end of the episode.
    """
    tool = tools.get(name)
    if tool is None:
        known = ", ".join(sorted(tools)) or "none"
        return Action(step, name, args, False, f"There is no such tool. Tools: {known}.")
    try:
        given = tool.schema.model_validate(args)
    except ValidationError as error:
        return Action(step, name, args, False, f"The call was not made: {_faults(error)}.")
    try:
        said = await _called(tool, given)
    # A tool is its owner's code: what it raises is news for the student, not a fault of ours.
    except Exception as error:
        told = f"The tool failed ({type(error).__name__}): {error}"
        return Action(step, name, args, False, told[:LONGEST_OBSERVATION], tool.trust)
    return Action(step, name, args, True, said[:LONGEST_OBSERVATION], tool.trust)


async def _called(tool: Tool[Any], given: BaseModel) -> str:
    if inspect.iscoroutinefunction(tool.call):
        return str(await tool.call(given))
    said = await asyncio.to_thread(tool.call, given)
    return str(await said if inspect.isawaitable(said) else said)


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in faults[:5])
