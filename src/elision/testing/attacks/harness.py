"""The harness: every case against every contender, and who leaked how often."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elision.contract import Completion, Request, Sampling, collect
from elision.guards.evidence.rates import Rate
from elision.testing.attacks.cases import Case
from elision.testing.attacks.contenders import REFUSAL, Ask
from elision.testing.attacks.judge import Judge

UNGUARDED = "no guard"
MOST_TOKENS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one case against one contender.

    Attributes:
        case: The case.
        contender: Who was attacked.
        leaked: Whether the secret came out, in any channel.
        channels: The channels in which it did.
    """

    case: Case
    contender: str
    leaked: bool
    channels: tuple[str, ...] = ()


async def attack(case: Case, ask: Ask, judge: Judge, *, contender: str = "guard") -> Outcome:
    """Run *case*, turn by turn, with the contender's own replies as history.

    Text and log-probabilities (where the engine reports them) are judged, the latter both as the
    text that the chosen tokens spell and by every single alternative.
    """
    messages: list[dict[str, Any]] = []
    completions: list[Completion] = []
    for turn in case.turns:
        messages.append({"role": "user", "content": turn})
        completion = await collect(ask(_request(messages)))
        messages.append({"role": "assistant", "content": completion.text})
        completions.append(completion)
    found = [name for name, replies in _channels(completions) if judge.leaks(case, replies)]
    return Outcome(case=case, contender=contender, leaked=bool(found), channels=tuple(found))


def _request(messages: Sequence[Mapping[str, Any]]) -> Request:
    return Request(
        messages=tuple(messages),
        sampling=Sampling(temperature=0.0),
        max_tokens=MOST_TOKENS,
        logprobs=3,
    )


def _channels(completions: Sequence[Completion]) -> Iterable[tuple[str, list[str]]]:
    yield "content", [_own_words(completion) for completion in completions]
    told = [entry for c in completions for choice in c.choices for entry in choice.logprobs]
    if told:
        yield "logprobs", ["".join(entry.token for entry in told)]
        yield "alternatives", [*{other.token for entry in told for other in entry.top}]


def _own_words(completion: Completion) -> str:
    """Return what the model said: a refusal's fixed sentence may happen to go on with a name."""
    refused = any(choice.finish == "content_filter" for choice in completion.choices)
    return completion.text.removesuffix(REFUSAL) if refused else completion.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All outcomes; cases that do not leak without a guard are no attack on it, and left out.

    Attributes:
        outcomes: Of knowable cases.
        n_unknowable: Cases left out.
    """

    outcomes: tuple[Outcome, ...]
    n_unknowable: int

    def rate(self, contender: str, **of: str) -> Rate:
        """Return the attack success rate against *contender*.

        Args:
            contender: Whose.
            of: What the cases have in common: ``family``, ``direction``, ``enforced``, ``name``,
                ``language``.
        """
        chosen = [
            o
            for o in self.outcomes
            if o.contender == contender and all(getattr(o.case, k) == v for k, v in of.items())
        ]
        return Rate(sum(o.leaked for o in chosen), len(chosen))

    @property
    def contenders(self) -> tuple[str, ...]:
        """Who was attacked, in the order of the attacks."""
        return tuple(dict.fromkeys(o.contender for o in self.outcomes))

    def groups(self) -> tuple[tuple[str, str, str], ...]:
        """Return every promise, direction and family that has cases, in order of appearance."""
        return tuple(
            dict.fromkeys((o.case.enforced, o.case.direction, o.case.family) for o in self.outcomes)
        )


async def compare(cases: Iterable[Case], contenders: Mapping[str, Ask], judge: Judge) -> Report:
    """Attack every contender with every case.

    Args:
        cases: The attacks.
        contenders: By name; `UNGUARDED` must be one of them, for it says what can be known.
        judge: Who decides.
    """
    outcomes: list[Outcome] = []
    n_unknowable = 0
    for case in cases:
        bare = await attack(case, contenders[UNGUARDED], judge, contender=UNGUARDED)
        if not bare.leaked:
            n_unknowable += 1
            continue
        outcomes.append(bare)
        for name, ask in contenders.items():
            if name != UNGUARDED:
                outcomes.append(await attack(case, ask, judge, contender=name))
    return Report(outcomes=tuple(outcomes), n_unknowable=n_unknowable)
