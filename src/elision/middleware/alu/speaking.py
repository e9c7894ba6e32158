"""How the roles of ALU speak with the engine behind the pipeline: raw, as the caller sampled."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Final

from elision.agents.speaking import Said, heard
from elision.contract import (
    Capability,
    Delta,
    Engine,
    Lexicon,
    Message,
    Plan,
    Request,
    Sampling,
    in_order,
)
from elision.errors import CapabilityError, RequestError
from elision.middleware.asks import check_asks
from elision.middleware.profiles import sampling_recipes

_LEAST_S: Final = 0.001


class EngineVoice:
    """Speaks through an engine without guards: whatever comes of it passes them on its way out.

    Args:
        engine: Stays the caller's; it is not closed here.
        request: The caller's. Of it the deadline is kept, and if *as_asked* all the sampling.
        tenant: Whose caches apply.
        until: When the whole reply must stand, by `time.monotonic`; None: the engine's deadline.
        as_asked: Whether it writes as the caller asked, but for what `say` is told.

    Attributes:
        name: The engine's.
    """

    def __init__(
        self,
        engine: Engine,
        request: Request,
        *,
        tenant: str,
        until: float | None = None,
        as_asked: bool = False,
    ) -> None:
        self.name = engine.name
        self._engine = engine
        self._begun = replace(request, n=1, logprobs=None, options={})
        if not as_asked:
            self._begun = Request(model=request.model)
        self._tenant = tenant
        self._until = until

    async def say(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Said:
        """See `Speaker.say`. Cancelled, it ends the engine's stream."""
        sampling = replace(self._begun.sampling, temperature=temperature, seed=seed)
        asked = replace(
            self._begun,
            messages=tuple(messages),
            max_tokens=max_tokens,
            sampling=sampling,
            timeout_s=self._left_s(),
        )
        return await heard(self._engine, self._plan(asked))

    def _plan(self, asked: Request) -> Plan:
        plan = Plan(request=asked, tenant=self._tenant, profile="alu")
        if Capability.LOGITS not in self._engine.capabilities:
            return plan
        # Here a temperature is a recipe: without it every role would draw at 1.
        return replace(plan, recipes=in_order(sampling_recipes(_filled(asked.sampling))))

    def _left_s(self) -> float | None:
        return None if self._until is None else max(_LEAST_S, self._until - time.monotonic())


def check_fits(request: Request) -> None:
    """Raise unless agents can audit the reply to *request*: a chat, in and out nothing but text.

    Raises:
        RequestError: Naming the field.
    """
    if request.kind != "chat" or request.continue_final:
        raise _unfit("takes chats, and continues none")
    if not request.messages or request.messages[-1].get("role") != "user":
        raise _unfit("takes chats that end with a user's text")
    if request.logprobs is not None:
        raise _unfit("reports no log-probabilities, for a reply may be another than was drafted")
    check_asks(request, _TEXT_ONLY)


def _unfit(what: str) -> RequestError:
    message = f"a profile whose replies agents audit {what}; choose another, such as guarded"
    return RequestError(message, param="model", code="unsupported_parameter")


def _filled(sampling: Sampling) -> Sampling:
    return sampling if sampling.temperature is not None else replace(sampling, temperature=1.0)


class _TextOnly:
    """What agents read and write, whatever the engine could."""

    name = "alu"
    capabilities: Capability = Capability.NONE
    lexicon: Lexicon | None = None

    def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        raise CapabilityError("a role", engine=self.name, missing="PASSES")

    async def aclose(self) -> None:
        """Do nothing."""


_TEXT_ONLY: Final[Engine] = _TextOnly()
