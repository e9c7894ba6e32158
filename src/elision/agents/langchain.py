"""Elision as a chat model of LangChain."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from elision.contract import Delta
from elision.errors import EngineError, MissingExtraError, RequestError

try:
    from langchain_core.caches import BaseCache
    from langchain_core.callbacks import (
        AsyncCallbackManagerForLLMRun,
        CallbackManagerForLLMRun,
    )
    from langchain_core.language_models import (
        BaseChatModel,
        LangSmithParams,
        LanguageModelInput,
        ModelProfile,
    )
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
    from langchain_core.runnables import Runnable

    from elision.agents.langchain_asking import ChatClient as ChatClient
    from elision.agents.langchain_asking import aask, ask
    from elision.agents.langchain_binding import ToolChoice, ToolLike, chosen, described
    from elision.agents.langchain_chunks import Chunks, whole
    from elision.agents.langchain_messages import to_messages
    from elision.agents.langchain_output import Method, Schema, asked_for, bound, parser_of
except ImportError as exc:
    raise MissingExtraError("langchain-core", extra="agents") from exc


class ChatElision(BaseChatModel):
    """A chat model whose replies passed Elision's pipeline, streamed or not.

    ``response_metadata`` of a reply holds ``finish_reason``, ``model_name`` and ``elision``, the
    report of what ran. Tools, formats and images go to the engine in OpenAI's form; what it does
    not do is refused by name.

    LangChain uses the name ``profile`` for facts about a model, so ours is kept in
    ``elision_profile``; ``ChatElision(profile="guarded")`` sets it all the same.

    Attributes:
        client: What `elision.load` or `elision.connect` returned.
        owns_client: Whether `close`, or leaving a ``with`` block, closes the client too.
        model: ``ALIAS`` or ``ALIAS@PROFILE`` to ask for; None: the client's own. A call may name
            another one; what the client does not serve is refused.
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
    owns_client: bool = Field(default=False, exclude=True, repr=False)
    model: str | None = None
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

    # --- what it is ------------------------------------------------------------------------------

    @property
    def model_name(self) -> str:
        """Name of the model that is asked, without a profile."""
        return _alias(self.model or self.client.model)

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

    # --- tools and formats -----------------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[ToolLike],
        *,
        tool_choice: ToolChoice = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model, with *tools* that it may call.

        Args:
            tools: Functions, Pydantic classes, LangChain's tools, or OpenAI's descriptions.
            tool_choice: ``any``, ``required`` or true: it must call one; a name: that one;
                ``auto``, ``none``.
            strict: Whether OpenAI's strict mode is asked for; a model of this machine always
                keeps to a tool's schema.
            **kwargs: Further options, such as ``parallel_tool_calls``.

        Raises:
            RequestError: If *tool_choice* names a tool that is not there.
        """
        known = described(tools, strict=strict)
        choice = chosen(tool_choice, known)
        asked = {"tools": known or None, "tool_choice": choice}
        return self.bind(**{k: v for k, v in asked.items() if v is not None}, **kwargs)

    def with_structured_output(
        self,
        schema: Schema | None = None,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Return this model, with replies read into objects.

        Args:
            schema: A Pydantic class, whose objects come back; or a ``TypedDict``, JSON schema or
                OpenAI tool, by which plain dicts do. None only with ``json_mode``.
            method: ``json_schema``; ``function_calling``: by the arguments of a call;
                ``json_mode``: any JSON object, and the prompt has to say which.
            include_raw: Whether ``{"raw", "parsed", "parsing_error"}`` come back, and a reply
                that does not fit is no error.
            strict: See `bind_tools`.
            **kwargs: Further options.

        Raises:
            ConfigError: If there is no schema and *method* needs one.
        """
        asked = asked_for(schema, method, strict=strict)
        parser = parser_of(schema, method)
        return bound(self.bind(**asked, **kwargs), parser, include_raw=include_raw)

    # --- asking ----------------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        options = self._options(stop, kwargs)
        return self._result([*self._ask(messages, options)], options)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        options = self._options(stop, kwargs)
        return self._result([delta async for delta in self._aask(messages, options)], options)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        options = _single(self._options(stop, kwargs))
        chunks = self._chunks(options)
        with closing(self._ask(messages, options)) as deltas:
            for delta in deltas:
                for chunk in chunks.of(delta):
                    yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        options = _single(self._options(stop, kwargs))
        chunks = self._chunks(options)
        async with aclosing(self._aask(messages, options)) as deltas:
            async for delta in deltas:
                for chunk in chunks.of(delta):
                    yield ChatGenerationChunk(message=chunk)

    def _ask(
        self, messages: list[BaseMessage], options: Mapping[str, Any]
    ) -> Generator[Delta, None, None]:
        return ask(self.client, to_messages(messages), options, retries=self.max_retries)

    def _aask(
        self, messages: Sequence[BaseMessage], options: Mapping[str, Any]
    ) -> AsyncGenerator[Delta, None]:
        return aask(self.client, to_messages(messages), options, retries=self.max_retries)

    def _options(self, stop: list[str] | None, call: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the client is told: this model's settings, overruled by the *call*'s."""
        own = {
            "model": self.model,
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
        return {name: value for name, value in options.items() if value is not None}

    def _chunks(self, options: Mapping[str, Any]) -> Chunks:
        return Chunks(self._named(options), blocks=self.output_version == "v1")

    def _named(self, options: Mapping[str, Any]) -> str:
        return _alias(options.get("model", self.model_name))

    def _result(self, deltas: list[Delta], options: Mapping[str, Any]) -> ChatResult:
        messages = whole(self._named(options), deltas)
        if not messages:
            raise EngineError(f"the client of {self.model_name!r} ended without a reply")
        return ChatResult(generations=[ChatGeneration(message=message) for message in messages])

    # --- life ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the client if it is this model's own. Idempotent."""
        if self.owns_client:
            cast("Any", self.client).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _alias(model: str) -> str:
    return model.partition("@")[0]


def _single(options: dict[str, Any]) -> dict[str, Any]:
    if options.get("n", 1) != 1:
        raise RequestError(f"n is {options['n']}; a stream carries one reply", param="n")
    return options
