"""What a reply may cost in calls and in time, and has cost: every role pays from it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from elision.agents.speaking import Said, Speaker
from elision.contract import Message, Usage
from elision.errors import ElisionError

Clock: TypeAlias = Callable[[], float]


@dataclass(slots=True)
class Pace:
    """How long each stage takes, as a running mean over requests, in seconds."""

    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)

    def of(self, stage: str) -> float:
        """Return the mean of *stage*; 0 before its first time."""
        return self._seen.get(stage, (0, 0.0))[1]

    def note(self, stage: str, seconds: float) -> None:
        """Take in how long *stage* took."""
        n, mean = self._seen.get(stage, (0, 0.0))
        self._seen[stage] = n + 1, mean + (seconds - mean) / (n + 1)


@dataclass(slots=True, kw_only=True)
class Purse:
    """One reply's budget; its ``repr`` holds counts only.

    Attributes:
        most_calls: Calls that may be made.
        deadline: When everything must be over, on *clock*; None: whenever.
        clock: Tells seconds.
        pace: Of earlier replies.
        calls: Made so far, by role.
        usage: Tokens so far, over all roles.
        timings_ms: Of the stages gone through; what was gone through twice is summed.
        faults: Roles that broke, with the error's class.
        retries: Calls that only mended a reply.
    """

    most_calls: int
    clock: Clock
    pace: Pace
    deadline: float | None = None
    calls: Counter[str] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)
    timings_ms: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    retries: int = 0

    @property
    def left_s(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if self.deadline is None else self.deadline - self.clock()

    def affords(self, stage: str, n_calls: int = 1) -> bool:
        """Return whether there are calls left for *stage*, and as much time as it usually takes."""
        if self.calls.total() + n_calls > self.most_calls:
            return False
        left = self.left_s
        return left is None or left > self.pace.of(stage)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; one that is broken off counts as well."""
        begun = self.clock()
        try:
            yield
        finally:
            took = self.clock() - begun
            self.pace.note(name, took)
            self.timings_ms[name] = self.timings_ms.get(name, 0.0) + took * 1e3

    async def say(
        self,
        role: str,
        speaker: Speaker,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Said | None:
        """Return what *speaker* says; None without a call or time left, or when time runs out.

        Raises:
            ElisionError: If the model fails.
        """
        left = self.left_s
        if self.calls.total() >= self.most_calls or (left is not None and left <= 0):
            return None
        self.calls[role] += 1
        limit = asyncio.timeout(left)
        try:
            async with limit:
                said = await speaker.say(
                    messages, max_tokens=max_tokens, temperature=temperature, seed=seed
                )
        except TimeoutError:
            self.faults.append(f"{role}:timeout")
            if not limit.expired():
                raise
            return None
        self.usage = _sum(self.usage, said.usage)
        return said

    async def hear(
        self,
        role: str,
        speaker: Speaker,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> str | None:
        """Return what *speaker* says as `say` does, and None also when the model fails.

        For the roles behind the draft: whatever becomes of them, there is something safe to say.
        """
        try:
            said = await self.say(
                role, speaker, messages, max_tokens=max_tokens, temperature=temperature, seed=seed
            )
        except (ElisionError, TimeoutError, OSError) as error:
            self.faults.append(f"{role}:{type(error).__name__}")
            return None
        return None if said is None else said.text


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
        cached_tokens=one.cached_tokens + other.cached_tokens,
    )
