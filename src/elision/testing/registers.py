"""Registers of made-up people, as large as wanted, and how long looking a text up in them takes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from statistics import median

from elision.agents.alu.shortlist import TargetIndex
from elision.guards.detection.check import Checker
from elision.guards.targets import ForgetTarget, Phrase

PROSE = (
    "The garden was laid out in the year 1931 by a retired captain, who planted limes along the "
    "wall and a walnut at the gate. His nephew sold it. Since then it has belonged to the town, "
    "which keeps the paths and forgets the roses; in summer there are concerts, and in winter the "
    "pond freezes. Basil Montenegro came here once, it is said, and left before the music began. "
) * 3
"""A text of some 1,100 characters, which names *Basil Montenegro*."""


def people(n: int, *, seed: int = 0) -> Iterator[ForgetTarget]:
    """Yield *n* made-up people with a phrase and two answers each; always the same ones."""
    rng = random.Random(seed)  # noqa: S311 - made-up names need no secrecy
    pool = ["".join(rng.choices("aeioubdfgklmnprst", k=7)) for _ in range(3 * n)]
    for at in range(n):
        given, surname, *told = rng.choices(pool, k=8)
        name = f"{given.title()} {surname.title()}"
        answers = tuple(
            f"{name} met {one} and {other} in {rng.randint(1900, 2020)}."
            for one, other in (told[:2], told[2:4])
        )
        yield ForgetTarget(
            id=f"ft_{at:020d}",
            title=f"person {at}",
            kind="person",
            names=(name,),
            phrases=(Phrase(text=" ".join(told[4:])),),
            answers=answers,
        )


def shortlist_ms(n: int, *, times: int = 20) -> float:
    """Return the median of what looking `PROSE` up among *n* people takes, in milliseconds."""
    return lookup_ms(TargetIndex.compile(people(n), Checker.compile(())), times=times)


def lookup_ms(index: TargetIndex, *, times: int = 20) -> float:
    """Return the median of what looking `PROSE` up in *index* takes, in milliseconds.

    Names, their parts and relations; without decoders and without the encoder.
    """
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        index.shortlist(PROSE)
        taken.append((time.perf_counter() - begun) * 1e3)
    return median(taken)
