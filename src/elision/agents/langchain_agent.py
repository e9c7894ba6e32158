"""Elision within LangChain's agents: tools are guarded, runs are learned from."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, NotRequired, TypeAlias

from elision.agents.atlas.config import AtlasConfig
from elision.agents.atlas.injection import with_advice
from elision.errors import ConfigError, MissingExtraError
from elision.memory.records import Scope

try:
    from langchain.agents.middleware import (
        AgentMiddleware,
        AgentState,
        ModelRequest,
        ModelResponse,
    )
    from langchain.agents.middleware.types import (
        OmitFromInput,
        PrivateStateAttr,
        ToolCallRequest,
        TracePolicy,
        omit_payload,
    )
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
    from langgraph.runtime import Runtime
    from langgraph.types import Command

    from elision.agents.langchain_guarding import GuardClient, MessageGuard, withheld
    from elision.agents.langchain_learning import Runs
except ImportError as exc:
    raise MissingExtraError("langchain", extra="agents") from exc

if TYPE_CHECKING:
    from elision.agents.atlas.distil import Distiller
    from elision.agents.atlas.experience import Experience
    from elision.agents.atlas.rewarding import Checker
    from elision.memory.memory import Memory

Result: TypeAlias = "ToolMessage | Command[Any]"
Where: TypeAlias = "Scope | Callable[[Runtime[Any]], Scope]"

DEFAULT_SCOPE: Final = Scope("default", ("agents",))


class ElisionState(AgentState[Any]):
    """What the middleware adds to an agent's state.

    Attributes:
        atlas: Of the last run: ``episode``, for a later reward; None if nothing was remembered.
        atlas_advice: What memory said, while the run lasts.
    """

    atlas: NotRequired[Annotated[dict[str, Any] | None, OmitFromInput]]
    atlas_advice: NotRequired[Annotated[str, PrivateStateAttr]]


class ElisionMiddleware(AgentMiddleware[ElisionState, Any, Any]):
    """Guards what an agent's tools are told and return, and learns from its runs.

    A call whose arguments hold something that must not be said is not made: the model is told so.
    What a tool returns is read by the model with forbidden phrases cut out, or not at all. The
    model's reply is held to the same, whole; streamed pieces of a model that is not Elision's own
    are not.
    A guard that breaks ends the run.

    With a memory each run is an episode of ATLAS: what earlier ones taught stands at the end of
    the system message, and what the run came to counts. Memory that breaks ends nothing.

    Args:
        client: Whose register holds; None guards nothing.
        memory: Where runs are remembered, such as ``client.memory``; None remembers nothing.
        reward: Compares a run's answer with the truth, 0 to 1; None: see `record_reward`.
        distiller: Finds what is to be learned of runs; None weighs what is known already.
        scope: Which part of memory, or what tells it of a run; None: the client's tenant's.
        config: How much is shown and learned; see `AtlasConfig`. There is no teacher: every run is
            of the lane ``auto``.
        experience: Shared by middlewares of the same memory; None: one of its own.

    Raises:
        ConfigError: If there is neither a client nor a memory.
    """

    state_schema = ElisionState
    trace_policy = TracePolicy(process_inputs=omit_payload, process_outputs=omit_payload)

    def __init__(
        self,
        client: GuardClient | None = None,
        *,
        memory: Memory | None = None,
        reward: Checker | None = None,
        distiller: Distiller | None = None,
        scope: Where | None = None,
        config: AtlasConfig | None = None,
        experience: Experience | None = None,
    ) -> None:
        super().__init__()
        if client is None and memory is None:
            raise ConfigError("this middleware has neither a client to guard by nor a memory")
        self.tools = ()
        self._guard = None if client is None else MessageGuard(client)
        self._config = config or AtlasConfig()
        tenant = getattr(client, "tenant", DEFAULT_SCOPE.tenant)
        self._scope: Where = scope or Scope(tenant, DEFAULT_SCOPE.namespace)
        self._runs: Runs | None = None
        if memory is not None:
            self._runs = Runs(
                memory, self._config, reward=reward, distiller=distiller, experience=experience
            )

    @property
    def counts(self) -> Mapping[str, int]:
        """How often what of memory broke, by place and class of error."""
        return {} if self._runs is None else dict(self._runs.counts)

    # --- memory ----------------------------------------------------------------------------------

    def before_agent(self, state: ElisionState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Recall what earlier runs taught, and write down that one begins."""
        if self._runs is None:
            return None
        begun = self._runs.begin(state["messages"], lambda: self._scope_of(runtime))
        if begun is None:
            return {"atlas": None, "atlas_advice": ""}
        episode, advice = begun
        return {"atlas": {"episode": episode}, "atlas_advice": advice}

    async def abefore_agent(
        self, state: ElisionState, runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """Async twin of `before_agent`."""
        return await asyncio.to_thread(self.before_agent, state, runtime)

    def after_agent(self, state: ElisionState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Write down what the run came to, and forget the advice."""
        told = state.get("atlas")
        if self._runs is None or not told:
            return None
        self._runs.end(told["episode"], state["messages"], lambda: self._scope_of(runtime))
        return {"atlas_advice": ""}

    async def aafter_agent(
        self, state: ElisionState, runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """Async twin of `after_agent`."""
        return await asyncio.to_thread(self.after_agent, state, runtime)

    def record_reward(
        self,
        episode: str,
        score: float,
        *,
        success: bool | None = None,
        tenant: str | None = None,
    ) -> bool:
        """Say how good an earlier run was; return whether that counts.

        Args:
            episode: ``result["atlas"]["episode"]`` of the run.
            score: 0 to 1.
            success: Whether it counts as done; None: from the config's ``success_from`` on.
            tenant: Whose run it was; None: the scope's, where that is the same for all.

        Raises:
            ConfigError: If there is no memory, or nothing tells whose run it was.
            NotFoundError: If there is no such episode.
            RequestError: If it is no reward.
        """
        whose = tenant or (self._scope.tenant if isinstance(self._scope, Scope) else None)
        if self._runs is None or whose is None:
            raise ConfigError("this middleware has no memory, or must be told whose run it was")
        return self._runs.reward(whose, episode, score, success=success)

    async def arecord_reward(self, episode: str, score: float, **options: Any) -> bool:
        """Async twin of `record_reward`."""
        return await asyncio.to_thread(self.record_reward, episode, score, **options)

    def settled(self) -> None:
        """Wait until what is learned behind the answers so far is learned."""
        if self._runs is not None:
            self._runs.settled()

    def close(self) -> None:
        """Wait for what is being learned; client and memory stay their owners'. Idempotent."""
        if self._runs is not None:
            self._runs.close()

    def _scope_of(self, runtime: Runtime[Any]) -> Scope:
        return self._scope if isinstance(self._scope, Scope) else self._scope(runtime)

    # --- the model -------------------------------------------------------------------------------

    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        """Add the advice to the system message, and check the model's reply."""
        return self._checked(handler(self._advised(request)))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Async twin of `wrap_model_call`."""
        advised = await asyncio.to_thread(self._advised, request)
        return await asyncio.to_thread(self._checked, await handler(advised))

    def _advised(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        advice = str(request.state.get("atlas_advice") or "")
        if not advice or (self._guard is not None and not self._guard.texts.may_pass([advice])):
            return request
        if self._config.advice.role == "user":
            return request.override(messages=[HumanMessage(advice), *request.messages])
        return request.override(system_message=_with_advice(request.system_message, advice))

    def _checked(self, response: ModelResponse[Any]) -> ModelResponse[Any]:
        if self._guard is None:
            return response
        messages = [self._read(message) for message in response.result]
        same = all(new is old for new, old in zip(messages, response.result, strict=True))
        if same and self._guard.may_answer(response.structured_response):
            return response
        return ModelResponse(result=messages)  # what was parsed of it goes with it

    def _read(self, message: Any) -> Any:
        assert self._guard is not None, "asked only with a guard"
        if isinstance(message, ToolMessage):
            return self._guard.result(message)
        if not isinstance(message, AIMessage):
            return message
        return self._guard.reply(message)

    # --- tools -----------------------------------------------------------------------------------

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Result]
    ) -> Result:
        """Make a call whose arguments may be told, and return what of its result may be read."""
        refusal = self._refusal(request)
        return self._passed(handler(request)) if refusal is None else refusal

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Result]]
    ) -> Result:
        """Async twin of `wrap_tool_call`."""
        refusal = await asyncio.to_thread(self._refusal, request)
        if refusal is not None:
            return refusal
        return await asyncio.to_thread(self._passed, await handler(request))

    def _refusal(self, request: ToolCallRequest) -> ToolMessage | None:
        call = request.tool_call
        if self._guard is None or self._guard.may_call(call["name"], call["args"]):
            return None
        return withheld(call["name"], call["id"])

    def _passed(self, result: Result) -> Any:
        return result if self._guard is None else self._guard.returned(result)


def _with_advice(system: SystemMessage | None, advice: str) -> SystemMessage:
    if system is None:
        return SystemMessage(advice)
    if isinstance(system.content, str):
        return SystemMessage(with_advice(system.content, advice))
    return SystemMessage([*system.content, {"type": "text", "text": advice}])
