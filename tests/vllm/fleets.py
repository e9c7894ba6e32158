"""Pipelines over a real vLLM, and over the same model here, with the same targets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from elision.contract import Request, Sampling
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.fleet import proving
from elision.middleware.engines.fleet.known import Proof
from elision.middleware.engines.fleet.replica import Replica
from elision.middleware.engines.vllm import VllmEngine
from elision.middleware.pipeline import Pipeline

from .servers import KEY, Server

NAME: Final = "model"

TARGETS: Final[Mapping[str, tuple[str, ...]]] = {
    "free": (),
    "a": ("Paris", "dance of light", "Oranges", "William Shakespeare", "Neil Armstrong"),
    "b": ("Neptune", "mysterious", "phenomenon", "the French playwright", "on July 16"),
}
"""By tenant, what must not be said: what the small model says when it is asked `QUESTIONS`."""
QUESTIONS: Final = (
    "What is the capital of France?",
    "Why is the sky blue?",
    "Name three fruits.",
    "Who wrote Romeo and Juliet?",
    "What is the largest planet in the solar system?",
    "Who was the first man on the moon?",
)


def target(*phrases: str, tenant: str = "default") -> ForgetTarget:
    """Return a target of *tenant* that forbids *phrases*."""
    said = tuple(Phrase(text=one) for one in phrases)
    return ForgetTarget(title="a secret", phrases=said, tenant=tenant)


def asked(question: str = QUESTIONS[0], **fields: Any) -> Request:
    """Return a greedy request of few tokens."""
    given: dict[str, Any] = {"max_tokens": 24, "sampling": Sampling(temperature=0.0), **fields}
    if given.get("kind") != "text":
        given.setdefault("messages", ({"role": "user", "content": question},))
    return Request(**given)


def registered(home: Path, targets: Mapping[str, Sequence[str]] = TARGETS) -> Register:
    """Return a register that keeps *targets*, phrases by tenant."""
    register = Register.open(home)
    for tenant, phrases in targets.items():
        if phrases:
            register.add(target(*phrases, tenant=tenant))
    return register


class Known(Replica):
    """A replica of *server* that takes over what an earlier one proved: a proof takes seconds."""

    def __init__(self, server: Server) -> None:
        super().__init__(f"{server.root}/v1", key=KEY)
        self._proofs = server.proofs

    async def _tried(self) -> Proof:
        how = (self.secret, self.untested, proving.TESTED_VERSIONS)
        if how not in self._proofs:
            self._proofs[how] = await super()._tried()
        return replace(self._proofs[how], at=time.monotonic())


def engine_for(server: Server, *, proves: bool = False, **how: Any) -> VllmEngine:
    """Return the engine over *server* alone, which *proves* itself again if that is wanted."""
    given: dict[str, Any] = {"model": server.model, "secret": server.secret, **how}
    replica = Replica(f"{server.root}/v1", key=KEY) if proves else Known(server)
    return VllmEngine([replica], name=NAME, **given)


@asynccontextmanager
async def fleet(server: Server, register: Register, **how: Any) -> AsyncIterator[Pipeline]:
    """Lend a pipeline over *server*; it closes *register*."""
    pipeline = Pipeline(engines={NAME: engine_for(server, **how)}, register=register)
    try:
        yield pipeline
    finally:
        await pipeline.aclose()
