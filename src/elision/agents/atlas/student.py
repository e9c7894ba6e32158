"""Who does the work: a student attempts a task under a brief."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, model_validator

from elision.agents.atlas import prompts
from elision.agents.atlas.brief import Attempt as Attempt
from elision.agents.atlas.brief import Brief as Brief
from elision.agents.atlas.ledger import Allowance, Role, Spent, spent_on
from elision.agents.atlas.plans import PlanReply, TaskPlan
from elision.agents.atlas.task import Task
from elision.agents.atlas.tools import Action, Tool, use
from elision.agents.speaking import Guarded, Said, Speaker, ask, understood
from elision.contract import Message

_FORBIDDEN: Final = "something in it must not be said"
MOST_STEPS: Final = 8
"""Tool calls of one attempt."""


@dataclass(frozen=True, slots=True)
class Drafted:
    """A plan and what it cost to draft it.

    Attributes:
        plan: Empty where none could be drafted.
        spent: By whom, and how much.
    """

    plan: TaskPlan
    spent: tuple[Spent, ...] = ()


class Student(Protocol):
    """Does the work. One that can plan is a `Planner` too."""

    async def attempt(self, task: Task, brief: Brief) -> Attempt:
        """Attempt *task*, or ``brief.step`` of it, or its end once all steps are ``brief.done``.

        Raises:
            ElisionError: If it cannot answer at all; the episode is aborted then.
        """
        ...


@runtime_checkable
class Planner(Protocol):
    """A student that can draft a plan; of one that cannot, the whole task is the only step."""

    async def plan(self, task: Task, brief: Brief) -> Drafted:
        """Draft a plan."""
        ...


class _Move(BaseModel):
    """What a student with tools replies: a call or an answer."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    tool: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    args: dict[str, Any] = Field(default_factory=dict)
    answer: str | None = None

    @model_validator(mode="after")
    def _one_of_the_two(self) -> _Move:
        if (self.tool is None) == (self.answer is None):
            raise ValueError("either a tool or an answer")
        return self


class SpeakerStudent:
    """A student that is a model behind a prompt, with tools if it is given any.

    Without tools a reply is the answer, as it stands. With tools each reply is one JSON object: a
    call or the answer. A reply that is neither is asked for once more; a text that is no JSON
    then is the answer, and a call is only ever made of JSON that fits the tool's schema.

    Args:
        speaker: The model.
        tools: What it may call; each name once.
        most_steps: Most calls of one attempt; after them it must answer.
        max_tokens: Most tokens of one reply.
        temperature: See `Sampling`.
        seed: See `Sampling`.
        system: Its instructions; the advice stands behind them.
        advice_role: ``system``, or ``user`` for models that obey whatever is in a system message.
    """

    def __init__(
        self,
        speaker: Speaker,
        tools: Sequence[Tool[Any]] = (),
        most_steps: int = MOST_STEPS,
        *,
        max_tokens: int = 512,
        temperature: float = 0.0,
        seed: int | None = None,
        system: str = prompts.STUDENT,
        advice_role: prompts.AdviceRole = "system",
    ) -> None:
        self.speaker = speaker
        self.tools = {tool.name: tool for tool in tools}
        self._most_steps = most_steps
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._seed = seed
        self._system = system
        self._advice_role: prompts.AdviceRole = advice_role

    async def attempt(self, task: Task, brief: Brief) -> Attempt:
        """See `Student.attempt`; without budget it makes no call and has no answer."""
        if not brief.allowance.open:
            return Attempt("")
        told = [tool.told for tool in self.tools.values()]
        messages = prompts.to_student(task, brief, self._system, told, self._advice_role)
        if not self.tools:
            spent: list[Spent] = []
            said = await self._say(messages, brief.allowance)
            self._onto(spent, brief)(said)
            return Attempt(said.text, (), tuple(spent))
        return await self._work(messages, brief)

    async def plan(self, task: Task, brief: Brief) -> Drafted:
        """See `Planner.plan`; a reply that is no plan twice is none, nor is one without budget."""
        if not brief.allowance.open:
            return Drafted(TaskPlan())
        spent: list[Spent] = []
        messages = prompts.for_plan(task, brief, self._system, self._advice_role)
        reply = await ask(
            self.speaker,
            messages,
            PlanReply,
            spend=self._onto(spent, brief),
            max_tokens=brief.allowance.reply(self._max_tokens),
            temperature=self._temperature,
            seed=self._seed,
            again=lambda: brief.allowance.after(spent).open,
        )
        return Drafted(reply.plan if reply else TaskPlan(), tuple(spent))

    async def _work(self, messages: list[Message], brief: Brief) -> Attempt:
        """Call tools until there is an answer, the calls are used up, or the budget is."""
        actions: list[Action] = []
        spent: list[Spent] = []
        spend = self._onto(spent, brief)
        n_malformed = 0
        while brief.allowance.after(spent).open:
            said = await self._say(messages, brief.allowance.after(spent))
            spend(said)
            move = await self._understood(said.text)
            if isinstance(move, str):
                if (n_malformed := n_malformed + 1) > 1:
                    output = "" if move == _FORBIDDEN else said.text
                    return Attempt(output, tuple(actions), tuple(spent))
                messages = prompts.mended(messages, said.text, move)
                continue
            if move.tool is None or len(actions) == self._most_steps:
                return Attempt(move.answer or "", tuple(actions), tuple(spent))
            n_malformed = 0
            actions.append(await use(self.tools, move.tool, move.args, step=len(actions) + 1))
            last = len(actions) == self._most_steps
            messages = prompts.observed(messages, said.text, actions[-1], last=last)
        return Attempt("", tuple(actions), tuple(spent))

    async def _understood(self, reply: str) -> _Move | str:
        """Return the move that *reply* says, or what is wrong with it; see `Guarded`."""
        move = understood(reply, _Move)
        if isinstance(move, str) or not isinstance(self.speaker, Guarded):
            return move
        told = "\n".join([move.tool or "", move.answer or "", *strings(move.args)])
        return move if await self.speaker.passes(told) else _FORBIDDEN

    async def _say(self, messages: Sequence[Message], allowance: Allowance) -> Said:
        return await self.speaker.say(
            messages,
            max_tokens=allowance.reply(self._max_tokens),
            temperature=self._temperature,
            seed=self._seed,
        )

    def _onto(self, spent: list[Spent], brief: Brief) -> Callable[[Said], None]:
        return noting("student", self.speaker.name, spent, brief)


def noting(role: Role, model: str, spent: list[Spent], brief: Brief) -> Callable[[Said], None]:
    """Return what puts a call of *role* onto *spent*, and tells `Brief.spend` of it at once."""

    def spend(said: Said) -> None:
        spent.append(spent_on(role, model, said))
        brief.spend(spent[-1])

    return spend


def joined(parts: Sequence[Attempt], output: str) -> Attempt:
    """Return one attempt that did what *parts* did, one after the other, and came to *output*."""
    actions = [action for part in parts for action in part.actions]
    numbered = tuple(replace(action, step=n) for n, action in enumerate(actions, 1))
    return Attempt(output, numbered, tuple(row for part in parts for row in part.spent))


def strings(value: object) -> Iterator[str]:
    """Yield every text in JSON's *value*, names of fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield str(name)
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)
