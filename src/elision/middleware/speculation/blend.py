"""How likely a candidate is, given what several sources say of it."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from typing import Final, NamedTuple, TypeAlias

from elision.middleware.speculation.spine import Successor
from elision.middleware.speculation.stats import RankStats

Row: TypeAlias = tuple[Sequence[int], Sequence[float]]
"""Tokens, best first, and their stored probabilities; empty if the row was never written."""

RATE: Final = 0.02
"""Step of the mixing weights per trial, in units of error times stretched probability."""

_SINGLE, _PAIR, _SPINE = 1, 2, 4
_BOUND: Final = 8.0  # in nats of log-odds: as far from certainty as tokens are worth telling apart
_N_SETS: Final = 64


class Evidence(NamedTuple):
    """What the sources say may follow at one node, before it is known what does.

    Attributes:
        single: The recycled row of the last token.
        pair: That of the last two.
        successors: What followed in the text, the longest match first.
        depth: Of the nodes that are candidates; 1 below the root.
    """

    single: Row
    pair: Row
    successors: Sequence[Successor]
    depth: int


class Candidacy(NamedTuple):
    """One token's case.

    Attributes:
        token: The candidate.
        weight: The estimated probability that it comes, if the node is reached.
        odds: Log-odds by each source, 0 where a source does not name it.
        lot: Which sources there are, and which name it: the index of its mixing weights.
    """

    token: int
    weight: float
    odds: tuple[float, float, float]
    lot: int


class SuffixStats:
    """Hit rates of successors in the text, by length of match, place in line and sightings.

    Lives as long as its blend. A cell counts as if it had seen `_PRIOR_WEIGHT` trials before the
    first, and remembers about `_MEMORY` of them.
    """

    _PRIOR: Final = (0.1, 0.3, 0.5, 0.6, 0.7, 0.78, 0.84, 0.88, 0.92, 0.94)
    _PRIOR_WEIGHT: Final = 6.0
    _MEMORY: Final = 400.0
    _LEAST, _MOST = 1e-3, 0.99

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int, int, int], list[float]] = {}

    def weights(self, successors: Sequence[Successor]) -> list[float]:
        """Return the estimated probability of each of *successors*."""
        return [cell[0] for cell in self._cells_of(successors)]

    def observe(self, successors: Sequence[Successor], token: int) -> None:
        """Count one trial of every one of *successors*: *token* came."""
        pairs = zip(successors, self._cells_of(successors), strict=True)
        for successor, cell in pairs:
            cell[1] = min(self._MEMORY, cell[1] + 1.0)
            rate = cell[0] + (float(successor.token == token) - cell[0]) / cell[1]
            cell[0] = min(self._MOST, max(self._LEAST, rate))

    def _cells_of(self, successors: Sequence[Successor]) -> list[list[float]]:
        n = min(3, len(successors))
        found = []
        for place, (_, length, n_seen) in enumerate(successors):
            grade = length if length <= 6 else 7 if length <= 8 else 8 if length <= 11 else 9
            key = grade, min(place, 3), min(n_seen, 4), n
            cell = self._cells.get(key)
            if cell is None:
                prior = self._PRIOR[grade - 1 if grade <= 9 else 9]
                cell = self._cells[key] = [prior * (0.3 if place else 1.0), self._PRIOR_WEIGHT]
            found.append(cell)
        return found


class Blend:
    """Weighs the candidates of a node; learns how far to trust each source, alone and together.

    Lives as long as its matrix, on the engine's thread. It knows rates, no tokens.

    Every source's calibrated hit rate is stretched to log-odds; the candidate's are their weighted
    sum, with weights, and a constant, of their own for every combination of sources that there are
    and that name it: agreement is worth more than either, and silence says something too. After
    every token the weights take a step down the coding cost of what came.

    Attributes:
        single: Hit rates of rows by one token.
        pair: Of rows by two.
        suffix: Of the text's successors.

    Source: logistic mixing after Mahoney 2005 (PAQ8), "Adaptive Weighing of Context Models";
    that draft sources are mixed so is our own.
    """

    def __init__(self, k: int = 8) -> None:
        self.single = RankStats(k)
        self.pair = RankStats(k)
        self.suffix = SuffixStats()
        self._mixing = [_equal_say(lot) for lot in range(_N_SETS)]

    def weigh(self, evidence: Evidence) -> list[Candidacy]:
        """Return every token that a source names, with its weight; in no order."""
        odds: dict[int, list[float]] = {}
        single, pair, successors, depth = evidence
        lots: dict[int, int] = {}
        there = 0
        if single[0]:
            there |= _SINGLE
            for token, p in zip(single[0], self.single.weights(single[1], depth), strict=True):
                odds[token] = [log(p / (1.0 - p)), 0.0, 0.0]
                lots[token] = _SINGLE
        if pair[0]:
            there |= _PAIR
            for token, p in zip(pair[0], self.pair.weights(pair[1], depth), strict=True):
                odds.setdefault(token, [0.0, 0.0, 0.0])[1] = log(p / (1.0 - p))
                lots[token] = lots.get(token, 0) | _PAIR
        if successors:
            there |= _SPINE
            for found, p in zip(successors, self.suffix.weights(successors), strict=True):
                odds.setdefault(found[0], [0.0, 0.0, 0.0])[2] = log(p / (1.0 - p))
                lots[found[0]] = lots.get(found[0], 0) | _SPINE
        return [self._mixed(token, said, there << 3 | lots[token]) for token, said in odds.items()]

    def _mixed(self, token: int, odds: list[float], lot: int) -> Candidacy:
        a, b, c, constant = self._mixing[lot]
        sum_ = a * odds[0] + b * odds[1] + c * odds[2] + constant
        weight = 1.0 / (1.0 + exp(-max(-_BOUND, min(_BOUND, sum_))))
        return Candidacy(token, weight, (odds[0], odds[1], odds[2]), lot)

    def observe(self, evidence: Evidence, candidates: Sequence[Candidacy], token: int) -> None:
        """Learn that *token* came where *evidence* made *candidates*."""
        for candidate, weight, odds, lot in candidates:
            step = RATE * (float(candidate == token) - weight)
            mixing = self._mixing[lot]
            for source, said in enumerate(odds):
                mixing[source] += step * said
            mixing[3] += step
        self.single.observe(*evidence.single, token, evidence.depth)
        self.pair.observe(*evidence.pair, token, evidence.depth)
        self.suffix.observe(evidence.successors, token)

    def __repr__(self) -> str:
        return f"Blend(n_trials={self.single.n_trials})"


def _equal_say(lot: int) -> list[float]:
    """Return mixing weights under which the sources that name a token have an equal say."""
    n = max(1, (lot & 7).bit_count())
    return [1.0 / n, 1.0 / n, 1.0 / n, 0.0]
