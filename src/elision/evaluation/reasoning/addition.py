"""Made-up sums in a chain: each step adds to what the step before came to, so errors add up.

Ground truth is exact, nothing can have been learnt by heart, and a model of 135M parameters goes
wrong now and then rather than always. The chain is right only if every step is: what drawing from
the whole distribution costs per step is paid at each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

N_ITEMS: Final = 1_000
N_SHOTS: Final = 3
N_GIVEN: Final = 3
N_STEPS: Final = 8
STEPS: Final = (1, 2)
"""What is added."""
_SEED: Final = 20_210


@dataclass(frozen=True, slots=True)
class ChainSum:
    """One chain.

    Attributes:
        prompt: Solved examples, the same for every chain, and the chain's first terms.
        answer: The terms that follow, with blanks between.
    """

    prompt: str = field(repr=False)
    answer: str = field(repr=False)


def chains() -> Iterator[ChainSum]:
    """Yield the suite's chains, the same in every process."""
    draw = Random(_SEED)  # noqa: S311 -- test items, not secrets
    examples = "".join(f"{asked} {answer}\n\n" for asked, answer in _lines(draw, N_SHOTS))
    for asked, answer in _lines(draw, N_ITEMS):
        yield ChainSum(examples + asked, answer)


def _lines(draw: Random, n: int) -> Iterator[tuple[str, str]]:
    for _ in range(n):
        step, start = draw.choice(STEPS), draw.randint(1, 60)
        terms = [str(start + step * at) for at in range(N_GIVEN + N_STEPS)]
        yield f"+{step}: {' '.join(terms[:N_GIVEN])}", " ".join(terms[N_GIVEN:])
