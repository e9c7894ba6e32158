"""Whether replies tell who is registered: listed names against names that never existed."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Final, TypeAlias

from elision.contract import Completion, Request, Sampling, collect
from elision.evaluation.alu.classifier import Auc, features, separated
from elision.evaluation.alu.people import World, asked
from elision.middleware.alu.alu import Alu
from elision.middleware.alu.speaking import EngineVoice
from elision.middleware.enforcement import Enforcement
from elision.middleware.profiles import profile_named

if TYPE_CHECKING:
    from elision.agents.alu.config import AluConfig
    from elision.contract import Engine
    from elision.encoders import Encoder
    from elision.guards.targets import ForgetTarget

Ask: TypeAlias = Callable[[str], Awaitable[str]]
"""Returns the reply to a question."""
TENANT: Final = "membership"


@dataclass(frozen=True, slots=True)
class Heard:
    """A reply to a question about somebody.

    Attributes:
        name: Who was asked about.
        reply: What was said.
        seconds: How long it took.
    """

    name: str = field(repr=False)
    reply: str = field(repr=False)
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What replies tell of who is registered.

    Attributes:
        auc: Of the classifier that tells listed from never existing; .5 is chance.
        listed_s: Median time of replies about listed names, in seconds.
        never_s: Likewise of names that never existed.
        heard: All replies: about listed names, then about the others.
    """

    auc: Auc
    listed_s: float
    never_s: float
    heard: tuple[tuple[Heard, ...], tuple[Heard, ...]] = field(repr=False)

    @property
    def latency_ratio(self) -> float:
        """The larger median over the smaller."""
        return max(self.listed_s, self.never_s) / min(self.listed_s, self.never_s)


async def membership(ask: Ask, world: World, *, seed: int = 0) -> Membership:
    """Ask about everybody in *world*, in random order one after the other, and compare.

    Both kinds are asked about with the same questions. The first three are asked once more than
    they count: whatever is compiled or warmed up is no one's difference.
    """
    questions = [
        (kind, name, asked(name, n))
        for kind, names in enumerate((world.listed, world.never))
        for n, name in enumerate(names)
    ]
    Random(seed).shuffle(questions)  # noqa: S311 -- an experiment, not a secret
    for _, _, question in questions[:3]:
        await ask(question)
    heard: tuple[list[Heard], list[Heard]] = ([], [])
    for kind, name, question in questions:
        begun = time.perf_counter()
        reply = await ask(question)
        heard[kind].append(Heard(name, reply, time.perf_counter() - begun))
    listed, never = tuple(heard[0]), tuple(heard[1])
    return Membership(
        auc=separated(_rows(listed), _rows(never), seed=seed),
        listed_s=median(one.seconds for one in listed),
        never_s=median(one.seconds for one in never),
        heard=(listed, never),
    )


def _rows(heard: Sequence[Heard]) -> list[list[float]]:
    return [features(one.reply, one.name) for one in heard]


def unguarded(engine: Engine, *, temperature: float = 0.0, max_tokens: int = 64) -> Ask:
    """Return what asks *engine* itself: the control, by which one sees what could be told."""

    async def ask(question: str) -> str:
        request = Request(messages=({"role": "user", "content": question},))
        voice = EngineVoice(engine, request, tenant=TENANT, as_asked=True)
        said = await voice.say(
            request.messages, max_tokens=max_tokens, temperature=temperature, seed=0
        )
        return said.text

    return ask


class Audited:
    """An engine behind ALU, asked as the pipeline asks it; what a guard would do is left out.

    Args:
        engine: Plays all roles.
        targets: The register.
        config: See `AluConfig`.
        profile: ``discreet`` or ``alu``.
        encoder: Of the gate, and of questions' meaning; None: there is neither.
        temperature: Of the drafts.
        max_tokens: Likewise.

    Attributes:
        rules: What is enforced.
    """

    def __init__(
        self,
        engine: Engine,
        targets: Sequence[ForgetTarget],
        config: AluConfig,
        *,
        profile: str = "discreet",
        encoder: Encoder | None = None,
        temperature: float = 0.0,
        max_tokens: int = 64,
    ) -> None:
        source = None if encoder is None else (lambda: encoder)
        self.rules = Enforcement(targets, tenant=TENANT, epoch=1, encoder=source)
        self._alu = Alu(config, commitment=_commitment, encoder=source)
        chosen = profile_named(profile)
        self._profile = chosen if encoder else replace(chosen, fail_mode="phrases")
        self._engine = engine
        sampling = Sampling(temperature=temperature, seed=0)
        self._request = Request(max_tokens=max_tokens, sampling=sampling)

    async def reply(self, question: str) -> Completion:
        """Return the whole reply to *question*."""
        request = replace(self._request, messages=({"role": "user", "content": question},))
        deltas = self._alu.run(self._engine, request, self.rules, profile=self._profile)
        async with aclosing(deltas) as source:
            return await collect(source)

    async def ask(self, question: str) -> str:
        """Return what is said to *question*."""
        return (await self.reply(question)).text


def _commitment(tenant: str, purpose: str, data: bytes) -> str:
    return hmac.digest(f"{tenant}/{purpose}".encode(), data, hashlib.sha256).hex()
