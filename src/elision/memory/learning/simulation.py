"""The lifecycle on made-up entries whose true effect is known: how often it decides rightly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from elision.errors import ConfigError
from elision.memory.learning.evidence import Evidence, draw
from elision.memory.learning.lifecycle import Policy, step
from elision.memory.learning.states import State

Shares = dict[int, dict[State, float]]
"""Share of the entries in each state, after so many eligible episodes."""


def simulate(
    effect: float,
    *,
    policy: Policy,
    looks: Sequence[int] = (50, 100, 200),
    runs: int = 2000,
    base: float = 0.4,
    tokens: tuple[int, int] = (999, 1000),
    seed: int = 0,
) -> Shares:
    """Return where entries of a true *effect* stand after each of *looks* eligible episodes.

    Each starts provisional and meets one episode after another: drawn for by `draw` at the
    propensity of its state, rewarded 0 or 1, then moved by `step`. A state is for good where
    its propensity is nought. The figures are those of the true code path, not of a copy.

    Args:
        effect: Added to the chance of success where the entry is applied.
        policy: The thresholds.
        looks: Numbers of episodes to report after.
        runs: Entries.
        base: Chance of success where it is withheld.
        tokens: Of an episode where it is applied, and where it is withheld. By default it saves
            one, so that no entry is demoted as neutral: the spec's table is without that rule.
        seed: The same seed gives the same shares.

    Raises:
        ConfigError: If the effect leaves no probability, or there is nothing to simulate.
    """
    if not (0 <= base <= 1 and 0 <= base + effect <= 1) or runs < 1 or not looks:
        raise ConfigError(f"{runs} runs at {base} with an effect of {effect} cannot be simulated")
    counts: dict[int, Counter[State]] = {look: Counter() for look in looks}
    for run in range(runs):
        states = _live(f"entry-{run}", (base, base + effect), tokens, policy=policy, seed=seed)
        for n, state in zip(range(1, max(looks) + 1), states, strict=False):
            if n in counts:
                counts[n][state] += 1
    return {look: {s: counts[look][s] / runs for s in State} for look in looks}


def _live(
    entry: str, chance: tuple[float, float], tokens: tuple[int, int], *, policy: Policy, seed: int
) -> Iterator[State]:
    """Yield the state of one entry after each episode, without end."""
    state, evidence, n = State.PROVISIONAL, Evidence(), 0
    while True:
        n += 1
        propensity = policy.propensity(state)
        if propensity > 0:
            applied = draw(seed, f"episode-{n}", entry, propensity)
            won = draw(seed, f"reward-{n}", entry, chance[applied])
            spent = tokens[0] if applied else tokens[1]
            evidence = evidence.after(propensity, applied=applied, reward=won, tokens=spent)
            move = step(state, evidence, policy=policy)
            state = state if move is None else move.target
        yield state
