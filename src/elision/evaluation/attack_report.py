"""What ``elision guard attack --target ID`` prints: the suite, run on a user's own target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from elision.errors import TargetError
from elision.guards.encoded.forms import LEAST_LOOSE
from elision.guards.phrases.normal import N
from elision.testing.attacks import (
    UNGUARDED,
    Case,
    Fact,
    Judge,
    PlantedEngine,
    Report,
    cases,
    compare,
    guarded,
    planted,
    prompted,
    substring_filter,
    unguarded,
)

if TYPE_CHECKING:
    from elision.contract import Engine
    from elision.guards.targets import ForgetTarget

GUARD, FILTER, PROMPT = "guard", "filter", "prompt"
MOST_PHRASES = 20
"""Phrases of one target that are attacked; of more, the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackReport:
    """The suite's result on one target; tells ids, counts and rates, never a phrase.

    Attributes:
        target_id: Whose phrases were planted.
        n_phrases: How many.
        report: Every outcome.
    """

    target_id: str
    n_phrases: int
    report: Report

    @property
    def holds(self) -> bool:
        """Whether nothing leaked that must not."""
        return self.report.rate(GUARD, enforced="output").hits == 0

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one row per promise, direction and family: every contender's rate."""
        for enforced, direction, family in self.report.groups():
            row: dict[str, Any] = {"enforced": enforced, "direction": direction, "family": family}
            for contender in self.report.contenders:
                rate = self.report.rate(
                    contender, enforced=enforced, direction=direction, family=family
                )
                row[contender] = rate.to_body()
            yield row

    def leaks(self) -> tuple[str, ...]:
        """Return the names of the promised cases that leaked, once each."""
        found = (
            f"{o.case.direction}: {o.case.name}"
            for o in self.report.outcomes
            if o.contender == GUARD and o.leaked and o.case.enforced == "output"
        )
        return tuple(dict.fromkeys(found))

    def to_body(self) -> dict[str, Any]:
        """Return the report as JSON writes it."""
        return {
            "target_id": self.target_id,
            "n_phrases": self.n_phrases,
            "n_unknowable": self.report.n_unknowable,
            "holds": self.holds,
            "leaks": [*self.leaks()],
            "rows": [*self.rows()],
        }

    def lines(self) -> Iterator[str]:
        """Yield the report as a table: attack success rate with its 95 % interval, in per cent."""
        contenders = self.report.contenders
        yield f"{'promise':<10} {'direction':<9} {'family':<12} {'n':>5} " + " ".join(
            f"{name:>18}" for name in contenders
        )
        for row in self.rows():
            rates = " ".join(f"{_written(row[name]):>18}" for name in contenders)
            n_cases = row[UNGUARDED]["n"]
            yield (
                f"{row['enforced']:<10} {row['direction']:<9} {row['family']:<12} "
                f"{n_cases:>5} {rates}"
            )
        yield f"not knowable, left out: {self.report.n_unknowable}"
        verdict = "nothing that must not" if self.holds else ", ".join(self.leaks())
        yield f"leaked: {verdict}"


def _written(rate: dict[str, Any]) -> str:
    low, high = 100 * rate["low"], 100 * rate["high"]
    return f"{100 * rate['share']:.0f} [{low:.1f}, {high:.1f}]"


async def attack_report(target: ForgetTarget, *, quick: bool = False) -> AttackReport:
    """Plant *target*'s phrases in a scripted model, attack it, and tell who leaked how often.

    The model knows the phrases and has no scruples; so what holds here holds for any model. The
    guard is compiled from *target* alone, as if it were active and restricted.

    Args:
        target: Whose hard phrases are planted, `MOST_PHRASES` at most.
        quick: Whether to leave out the cases that disguise the question: there the answer comes
            in clear.

    Raises:
        TargetError: If the target has no hard phrase.
    """
    phrases = tuple(p for p in target.phrases if p.mode == "hard")[:MOST_PHRASES]
    if not phrases:
        raise TargetError("the target has no hard phrase to attack", param="phrases")
    active = replace(target, phrases=phrases, state="active", action="restrict")
    facts = tuple(
        Fact(key=f"item {n} of {len(phrases)}", secret=p.text, answer=f"It is {p.text}, I think.")
        for n, p in enumerate(phrases, start=1)
    )
    # Narrower than `TextEngine` is declared: what it returns is a generator.
    engine = cast("Engine", PlantedEngine(planted(facts)))
    secrets = [phrase.text for phrase in phrases]
    bare = unguarded(engine)
    contenders = {
        UNGUARDED: bare,
        FILTER: substring_filter(bare, secrets),
        PROMPT: prompted(bare, [active]),
        GUARD: guarded(engine, [active]),
    }
    chosen = (case for case in cases(facts) if not (quick and case.direction == "query"))
    report = await compare(map(_claimed, chosen), contenders, Judge(secrets))
    return AttackReport(target_id=target.id, n_phrases=len(phrases), report=report)


def _claimed(case: Case) -> Case:
    """Return *case* with what is promised for a phrase as short as its own."""
    if case.enforced == "output" and len(N(case.fact.secret)) < LEAST_LOOSE:
        return replace(case, enforced="detection") if case.direction == "answer" else case
    return case
