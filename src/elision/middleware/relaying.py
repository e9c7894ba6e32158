"""When an upstream's answer may be handed on as it comes: while there is nothing to keep back."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from elision.contract import Engine, Request
    from elision.middleware.engines.upstream.relaying import Relayed
    from elision.middleware.pipeline import Pipeline

_audit = logging.getLogger("elision.audit")

_HARMLESS = frozenset({"profile", "tenant", "timeout_s", "report"})
"""Options that a relayed answer honours (``report`` only where it is false)."""


class Relay(Protocol):
    """The method of an engine that can hand on its upstream's bytes."""

    def __call__(
        self,
        body: Mapping[str, Any],
        *,
        kind: Literal["chat", "text"],
        stream: bool,
        timeout_s: float | None,
        tenant: str | None = None,
    ) -> Relayed:
        """See `RemoteEngine.relay`."""
        ...


async def relayed(
    pipeline: Pipeline,
    request: Request,
    *,
    body: Mapping[str, Any],
    stream: bool,
    tenant: str,
    key: str = "",
) -> Relayed | None:
    """Return the answer to be handed on as it comes; None if it must take the guarded way.

    Nothing has been asked of the upstream yet: whoever gets the answer opens and closes it.

    Args:
        pipeline: What resolves model and profile, and knows what is enforced.
        request: *body*, read.
        body: As the caller sent it; only ``model`` and ``elision`` will differ upstream.
        stream: Whether the caller wants a stream.
        tenant: Whose register applies.
        key: Name of the caller's key.

    Raises:
        NotFoundError: If there is no such model or profile.
        GuardError: If the register cannot be read.
    """
    engine, chosen = pipeline.resolve(request)
    if not (chosen.relay and _is_plain(request)) or (relay := _relay_of(engine)) is None:
        return None
    rules = await pipeline.rules(tenant, engine.name, key)
    if rules.targets:
        return None
    timeout_s = request.timeout_s or pipeline.timeout_s
    answer = relay(body, kind=request.kind, stream=stream, timeout_s=timeout_s, tenant=tenant)
    answer.epoch = rules.epoch
    facts = f"tenant={tenant} profile={chosen.name} engine={engine.name} epoch={rules.epoch}"
    answer.when_closed(partial(_note, facts, time.monotonic()))
    return answer


def _relay_of(engine: Engine) -> Relay | None:
    """Return how *engine* hands on an answer; None if it cannot."""
    relay: Relay | None = getattr(engine, "relay", None)  # `isinstance` costs ten times this
    return relay


def _is_plain(request: Request) -> bool:
    """Whether *request* asks us for nothing that its upstream cannot say."""
    return _HARMLESS.issuperset(request.options) and not request.options.get("report")


def _note(facts: str, began: float, answer: Relayed) -> None:
    ms = (time.monotonic() - began) * 1e3
    _audit.info("request %s targets=0 outcome=%s ms=%.0f", facts, answer.outcome, ms)
