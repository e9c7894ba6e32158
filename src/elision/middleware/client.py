"""The SDK's client: a pipeline with a friendly face, for blocking and for async code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from elision.contract import Completion, Delta, Message, Request, collect
from elision.errors import ConfigError
from elision.guards.targets import ForgetTarget
from elision.middleware.looping import LoopThread
from elision.middleware.scoring import Score
from elision.middleware.screening import RegisterScreen
from elision.middleware.wire import parse_chat, parse_completion

if TYPE_CHECKING:
    from types import TracebackType

    from elision.guards.register.register import Registered
    from elision.memory.memory import Memory
    from elision.middleware.agentic.speaking import ClientSpeaker
    from elision.middleware.pipeline import Pipeline

T = TypeVar("T")

_CARRIED = ("deterministic", "guidance", "memory", "rng", "session", "speculation", "trace")
"""Options of ours that travel in the ``elision`` object of OpenAI's body."""
_OWN = (*_CARRIED, "profile", "timeout_s")
"""All that are no field of that body."""


class Client:
    """Talks to one model through one pipeline; what `load`, `wrap` and `connect` return.

    Every method has an async twin whose name begins with ``a``. Options are OpenAI's fields
    (``temperature``, ``max_tokens``, ``stop``, ``seed``, ``n``, ``logprobs`` ...) plus ``profile``,
    ``deterministic``, ``guidance``, ``memory``, ``rng``, ``session``, ``speculation``,
    ``timeout_s`` and ``trace``. Close it, or use it in a ``with`` block, to free the model.

    Attributes:
        model: The model's alias.
        profile: Used by calls that name none.
        tenant: Whose register applies.
    """

    def __init__(self, pipeline: Pipeline, *, profile: str | None = None) -> None:
        self._pipeline = pipeline
        self._loop = LoopThread()
        self.model = pipeline.models()[0]
        self.profile = profile or pipeline.profile
        self.tenant = pipeline.tenant

    # --- writing ---------------------------------------------------------------------------------

    def chat(self, messages: str | Sequence[Message], **options: Any) -> Completion:
        """Return the reply to *messages*, a conversation or a single question.

        Raises:
            RequestError: If an option is wrong; the message names it.
            BusyError: If the engine's queue is full.
            GuardError: If a guard broke.
        """
        return self._loop.run(self._collect(self._chat(messages, options), options))

    async def achat(self, messages: str | Sequence[Message], **options: Any) -> Completion:
        """Async twin of `chat`."""
        work = self._collect(self._chat(messages, options), options)
        return await self._loop.arun(work)

    def complete(self, prompt: str | Sequence[int], **options: Any) -> Completion:
        """Return what follows *prompt*, raw text or token ids, without a chat template.

        Raises:
            RequestError: If an option is wrong; the message names it.
            BusyError: If the engine's queue is full.
        """
        return self._loop.run(self._collect(self._text(prompt, options), options))

    async def acomplete(self, prompt: str | Sequence[int], **options: Any) -> Completion:
        """Async twin of `complete`."""
        work = self._collect(self._text(prompt, options), options)
        return await self._loop.arun(work)

    def stream(self, messages: str | Sequence[Message], **options: Any) -> Iterator[Delta]:
        """Yield the reply to *messages* piece by piece; the last delta carries usage and report.

        Raises:
            RequestError: If an option is wrong; the message names it.
            BusyError: If the engine's queue is full.
        """
        yield from self._loop.iterate(self._deltas(self._chat(messages, options), options))

    async def astream(
        self, messages: str | Sequence[Message], **options: Any
    ) -> AsyncGenerator[Delta, None]:
        """Async twin of `stream`."""
        work = self._deltas(self._chat(messages, options), options)
        async with aclosing(self._loop.aiterate(work)) as deltas:
            async for delta in deltas:
                yield delta

    # --- scoring ---------------------------------------------------------------------------------

    def score(
        self, messages: str | Sequence[Message], answer: str | Sequence[int], **options: Any
    ) -> Score:
        """Return how likely *answer* is as the reply to *messages*, guarded and not.

        Nothing is written: the answer's tokens are read under the chain that would have written
        them.

        Args:
            messages: A conversation or a single question.
            answer: Text, scored with its end token; or token ids, scored as they stand.
            **options: As of `chat`. What only concerns the draw (temperature, truncation, seed)
                changes nothing.

        Raises:
            RequestError: If an option is wrong, or the answer empty.
            CapabilityError: If the engine does not tell log-probabilities.
        """
        return self._loop.run(self._score(messages, answer, options))

    async def ascore(
        self, messages: str | Sequence[Message], answer: str | Sequence[int], **options: Any
    ) -> Score:
        """Async twin of `score`."""
        return await self._loop.arun(self._score(messages, answer, options))

    # --- forgetting ------------------------------------------------------------------------------

    def forget(
        self, title: str, phrases: Sequence[str | Mapping[str, Any]], **fields: Any
    ) -> Registered:
        """Register a forget target; it holds from the next request on.

        Args:
            title: What the operator calls it.
            phrases: Texts that must not be emitted; see `Phrase` for the long form.
            **fields: ``kind``, ``names``, ``action``.

        Raises:
            TargetError: If it cannot be registered as given; the message says why.
        """
        body = {"title": title, "phrases": list(phrases), **fields}
        target = ForgetTarget.from_body(body, tenant=self.tenant)
        registered = self._pipeline.register.add(target)
        self._pipeline.flush(self.tenant)
        return registered

    async def aforget(
        self, title: str, phrases: Sequence[str | Mapping[str, Any]], **fields: Any
    ) -> Registered:
        """Async twin of `forget`."""
        return await asyncio.to_thread(lambda: self.forget(title, phrases, **fields))

    def revoke(self, target_id: str, *, reason: str = "unspecified") -> None:
        """Stop enforcing a target from the next request on.

        Args:
            target_id: The target's id.
            reason: Why, for the register's own record.

        Raises:
            NotFoundError: If there is no such target.
        """
        self._pipeline.register.revoke(self.tenant, target_id, reason=reason)
        self._pipeline.flush(self.tenant)

    def targets(self) -> tuple[ForgetTarget, ...]:
        """Return the targets in force."""
        return tuple(self._pipeline.register.active(self.tenant))

    def may_say(self, text: str) -> bool:
        """Return whether *text* holds no phrase and no passage of a target in force.

        For texts that no model wrote as they stand: put together, or read out of JSON.
        """
        return RegisterScreen(self._pipeline.register).may_leave(self.tenant, text)

    # --- remembering -----------------------------------------------------------------------------

    @property
    def memory(self) -> Memory:
        """What is remembered, in the client's home; opened at first use, closed with the client.

        Raises:
            ConfigError: If it cannot be opened.
        """
        if self._pipeline.agentic is None:
            raise ConfigError("this pipeline was built without memory")
        return self._loop.run(self._pipeline.agentic.memory())

    def reward(self, episode: str, reward: float, *, success: bool | None = None) -> bool:
        """Say how good a reply of the profile ``agentic`` was; return whether that was taken.

        Args:
            episode: The ``episode`` of the reply's report.
            reward: 0 to 1.
            success: Whether it counts as done; None: from the settings' ``atlas.success_from`` on.

        Raises:
            NotFoundError: If there is no such episode.
            RequestError: If it is no reward.
        """
        from elision.memory.learning.outcomes import check_reward

        episodes = self.memory.episodes
        check_reward(reward, "human")
        if success is None and self._pipeline.agentic is not None:
            success = reward >= self._pipeline.agentic.config.success_from
        return episodes.reward(self.tenant, episode, reward, success=success, by="human")

    def speaker(self, *, profile: str = "guarded") -> ClientSpeaker:
        """Return this client as the voice of an agent's role: ``Atlas(client.speaker(), memory)``.

        Args:
            profile: Under which it speaks.
        """
        from elision.middleware.agentic.speaking import ClientSpeaker

        return ClientSpeaker(self, profile=profile)

    # --- life ------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all requests and free the model. Idempotent."""
        if self._loop.open:
            self._loop.close(self._pipeline.aclose())

    async def aclose(self) -> None:
        """Async twin of `close`."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    # --- inside ----------------------------------------------------------------------------------

    def _chat(self, messages: str | Sequence[Message], options: Mapping[str, Any]) -> Request:
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        parsed = parse_chat(self._body(options, messages=list(turns)))
        return replace(parsed.request, timeout_s=options.get("timeout_s"))

    def _text(self, prompt: str | Sequence[int], options: Mapping[str, Any]) -> Request:
        whole = prompt if isinstance(prompt, str) else list(prompt)
        parsed = parse_completion(self._body(options, prompt=whole))
        return replace(parsed.request, timeout_s=options.get("timeout_s"))

    def _body(self, options: Mapping[str, Any], **own: Any) -> dict[str, Any]:
        body = {k: v for k, v in options.items() if k not in _OWN and v is not None}
        elision = dict(body.pop("elision", {}))
        elision |= {k: options[k] for k in _CARRIED if options.get(k) is not None}
        return {"model": self.model, **body, **own, "elision": elision}

    def _deltas(self, request: Request, options: Mapping[str, Any]) -> AsyncGenerator[Delta, None]:
        profile = options.get("profile") or self.profile
        return self._pipeline.run(request, profile=profile, tenant=self.tenant)

    async def _score(
        self,
        messages: str | Sequence[Message],
        answer: str | Sequence[int],
        options: Mapping[str, Any],
    ) -> Score:
        given = answer if isinstance(answer, str) else tuple(answer)
        request = replace(self._chat(messages, options), answer=given)
        return Score.of(await self._collect(request, options), model=self.model)

    async def _collect(self, request: Request, options: Mapping[str, Any]) -> Completion:
        return await collect(self._deltas(request, options))
