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
"""Steps that count. The examples are twice as long: a small model ends where they end, or before,
and whether it can count to eight is not the question."""
STEP: Final = 2
"""What is added: adding 1 is reciting, adding 3 is beyond a model of 135M parameters."""
MOST_TOKENS: Final = 4 * N_STEPS
"""Room for the answer, whatever digits a tokenizer keeps together."""
_HIGHEST: Final = 99
_SEED: Final = 20_210


@dataclass(frozen=True, slots=True)
class ChainSum:
    """One chain.

    Attributes:
        prompt: Three examples of its own, and the chain's first terms.
        answer: The terms that follow, with blanks between.
    """

    prompt: str = field(repr=False)
    answer: str = field(repr=False)


def chains() -> Iterator[ChainSum]:
    """Yield the suite's chains, the same in every process."""
    draw = Random(_SEED)  # noqa: S311 -- test items, not secrets
    for _ in range(N_ITEMS):
        examples = [_line(draw, 2 * N_STEPS) for _ in range(N_SHOTS)]
        asked, answer = _line(draw, N_STEPS)
        told = "".join(f"{first} {rest}\n\n" for first, rest in examples)
        yield ChainSum(told + asked, answer)


def _line(draw: Random, n_steps: int) -> tuple[str, str]:
    start = draw.randint(1, _HIGHEST)
    terms = [str(start + STEP * at) for at in range(N_GIVEN + n_steps)]
    return f"+{STEP}: {' '.join(terms[:N_GIVEN])}", " ".join(terms[N_GIVEN:])
