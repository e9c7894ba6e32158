"""Elision as a chat model of LangChain."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from typing import Any, Protocol, runtime_checkable

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt

from elision.contract import Delta, Message
from elision.errors import BusyError, ElisionError, EngineError, MissingExtraError, RequestError

try:
    from langchain_core.caches import BaseCache
    from langchain_core.callbacks import (
        AsyncCallbackManagerForLLMRun,
        CallbackManagerForLLMRun,
    )
    from langchain_core.language_models import BaseChatModel, LangSmithParams, ModelProfile
    from langchain_core.messages import (
        AIMessageChunk,
        BaseMessage,
        message_chunk_to_message,
    )
    from langchain_core.messages.ai import UsageMetadata, add_ai_message_chunks
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

    from elision.agents.langchain_messages import to_messages
except ImportError as exc:
    raise MissingExtraError("langchain-core", extra="agents") from exc

_TOOL_OPTIONS = ("tools", "tool_choice", "functions", "function_call")
_RETRY_S = 0.5
"""Wait before a new try where the error names none; openai-python's first wait."""


@runtime_checkable
class ChatClient(Protocol):
    """What `ChatElision` speaks through: what ``elision.load`` and ``elision.connect`` return.

    Attributes:
        model: Name of the model behind it.
    """

    model: str

    def stream(self, messages: Sequence[Message], **options: Any) -> Iterator[Delta]:
        """Yield a guarded reply to *messages*; the options go by OpenAI's names."""
        ...

    def astream(self, messages: Sequence[Message], **options: Any) -> AsyncIterator[Delta]:
        """Yield the same without blocking the event loop."""
        ...


class ChatElision(BaseChatModel):
    """A chat model whose replies passed Elision's pipeline, streamed or not.

    ``response_metadata`` of a reply holds ``finish_reason``, ``model_name`` and ``elision``, the
    report of what ran. Text only: tools, tool messages and images are refused.

    LangChain uses the name ``profile`` for facts about a model, so ours is kept in
    ``elision_profile``; ``ChatElision(profile="guarded")`` sets it all the same.

    Attributes:
        client: What `elision.load` or `elision.connect` returned.
        elision_profile: Composition to run; None takes the client's.
        temperature: Divides the scores; 0 is greedy.
        max_tokens: Most tokens to write.
        top_p: Nucleus mass in (0, 1].
        seed: Makes the draw repeatable.
        stop: Texts that end the reply, unless the call brings its own.
        n: Replies per prompt; ``invoke`` returns the first, ``generate`` all.
        timeout: Deadline of a request in seconds.
        max_retries: New tries while the client is busy or its upstream away, as long as nothing
            of the reply has come; 2 as in openai-python.
        streaming: Whether ``invoke`` streams inside, so that callbacks hear each token.
        model_kwargs: Further options for the client.
        cache: Off by default, also where LangChain has a global one: a cached reply would outlive
            a forget target that was registered after it.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    client: ChatClient = Field(exclude=True, repr=False)
    elision_profile: str | None = None
    temperature: float | None = Field(default=None, ge=0)
    max_tokens: PositiveInt | None = None
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = None
    stop: list[str] | None = None
    n: PositiveInt = 1
    timeout: PositiveFloat | None = None
    max_retries: NonNegativeInt = 2
    streaming: bool = False
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    cache: BaseCache | bool | None = Field(default=False, exclude=True)

    def __init__(
        self, *, client: ChatClient, profile: ModelProfile | str | None = None, **settings: Any
    ) -> None:
        """Check *settings*; a *profile* that is a name is ours, any other is LangChain's.

        LangChain's own conformance suite hands every model a key and more; so a setting that does
        not exist is warned of, not refused.
        """
        for name in sorted(settings.keys() - type(self).model_fields.keys()):
            warnings.warn(f"ChatElision has no setting {name!r}; it is left out", stacklevel=2)
            del settings[name]
        if isinstance(profile, str):
            settings["elision_profile"], profile = profile, None
        settings.update(client=client, profile=profile)
        super().__init__(**settings)

    @property
    def model_name(self) -> str:
        """Name of the model behind the client."""
        return self.client.model

    @property
    def _llm_type(self) -> str:
        return "elision"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, **self._options(None, {})}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = "elision"
        return params

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._result(list(self._ask(messages, self._options(stop, kwargs))))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        deltas = self._aask(messages, self._options(stop, kwargs))
        return self._result([delta async for delta in deltas])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with closing(self._ask(messages, _single(self._options(stop, kwargs)))) as deltas:
            for delta in deltas:
                yield ChatGenerationChunk(message=self._chunk(delta))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        options = _single(self._options(stop, kwargs))
        async with aclosing(self._aask(messages, options)) as deltas:
            async for delta in deltas:
                yield ChatGenerationChunk(message=self._chunk(delta))

    def _ask(
        self, messages: Sequence[BaseMessage], options: Mapping[str, Any]
    ) -> Generator[Delta, None, None]:
        """Yield the client's deltas; ask again while it is busy and nothing has come yet."""
        asked = to_messages(messages)
        for left in range(self.max_retries, -1, -1):
            said = False
            with _closing(self.client.stream(asked, **options)) as deltas:
                try:
                    for delta in deltas:
                        said = True
                        yield delta
                    return
                except ElisionError as error:
                    wait_s = _wait_s(error, final=said or not left)
            time.sleep(wait_s)

    async def _aask(
        self, messages: Sequence[BaseMessage], options: Mapping[str, Any]
    ) -> AsyncGenerator[Delta, None]:
        asked = to_messages(messages)
        for left in range(self.max_retries, -1, -1):
            said = False
            async with _aclosing(self.client.astream(asked, **options)) as deltas:
                try:
                    async for delta in deltas:
                        said = True
                        yield delta
                    return
                except ElisionError as error:
                    wait_s = _wait_s(error, final=said or not left)
            await asyncio.sleep(wait_s)

    def _options(self, stop: list[str] | None, call: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the client is told: this model's settings, overruled by the *call*'s."""
        own = {
            "profile": self.elision_profile,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": stop or self.stop or None,
            "n": self.n if self.n > 1 else None,
            "timeout_s": self.timeout,
        }
        options = {**own, **self.model_kwargs, **call}
        options.pop("stream", None)  # LangChain's word to itself: stream or not
        for name in _TOOL_OPTIONS:
            if options.get(name):
                raise RequestError(f"{name!r} was given; only text is guarded here", param=name)
        return {name: value for name, value in options.items() if value is not None}

    def _chunk(self, delta: Delta) -> AIMessageChunk:
        """Return *delta* as a piece of a message; the one that carries usage is the last."""
        finish = {} if delta.finish is None else {"finish_reason": delta.finish}
        if delta.usage is None:
            return AIMessageChunk(content=delta.text, response_metadata=finish)
        return AIMessageChunk(
            content=delta.text,
            response_metadata={
                **finish,
                "model_name": self.model_name,
                "model_provider": "elision",
                "elision": dict(delta.report or {}),
            },
            usage_metadata=UsageMetadata(
                input_tokens=delta.usage.prompt_tokens,
                output_tokens=delta.usage.completion_tokens,
                total_tokens=delta.usage.total_tokens,
            ),
            chunk_position="last",
        )

    def _result(self, deltas: Sequence[Delta]) -> ChatResult:
        """Join *deltas* by the rules that LangChain joins a stream by, so both read the same."""
        chunks: dict[int, list[AIMessageChunk]] = {}
        for delta in deltas:
            chunks.setdefault(delta.choice, []).append(self._chunk(delta))
        if not chunks:
            raise EngineError(f"the client of {self.model_name!r} ended without a reply")
        whole = (add_ai_message_chunks(*chunks[choice]) for choice in sorted(chunks))
        messages = (message_chunk_to_message(message) for message in whole)
        return ChatResult(generations=[ChatGeneration(message=message) for message in messages])


def _single(options: dict[str, Any]) -> dict[str, Any]:
    if options.get("n", 1) != 1:
        raise RequestError(f"n is {options['n']}; a stream carries one reply", param="n")
    return options


def _wait_s(error: ElisionError, *, final: bool) -> float:
    """Return how long to wait before asking again; raise *error* if that would not help."""
    if final or not error.retryable:
        raise error
    return error.retry_after_s if isinstance(error, BusyError) else _RETRY_S


@contextmanager
def _closing(deltas: Iterator[Delta]) -> Iterator[Iterator[Delta]]:
    """Lend *deltas* and close them, so that a reader who leaves early ends the request."""
    try:
        yield deltas
    finally:
        close = getattr(deltas, "close", None)
        if close is not None:
            close()


@asynccontextmanager
async def _aclosing(deltas: AsyncIterator[Delta]) -> AsyncIterator[AsyncIterator[Delta]]:
    try:
        yield deltas
    finally:
        close = getattr(deltas, "aclose", None)
        if close is not None:
            await close()
