"""How likely a candidate is, given what several sources say of it."""

from __future__ import annotations

from collections.abc import Container, Sequence
from math import exp, log
from typing import Final, NamedTuple, TypeAlias

from elision.middleware.speculation.spine import Successor
from elision.middleware.speculation.stats import RankStats
from elision.middleware.speculation.tree import Candidate

Row: TypeAlias = tuple[Sequence[int], Sequence[float]]
"""Tokens, best first, and their stored probabilities; empty if the row was never written."""

RATE: Final = 0.02
"""Step of the mixing weights per trial, in units of error times stretched probability."""

_SINGLE, _PAIR, _SPINE = 1, 2, 4
_BOUND: Final = 8.0  # in nats of log-odds: as far from certainty as tokens are worth telling apart
_N_SETS: Final = 64
_GRADES: Final = (0, 0, 1, 2, 3, 4, 5, 6, 6, 7, 7, 7, 8, 8, 8, 8, 8)  # by length of match


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


class Case(NamedTuple):
    """What is said for one token.

    Attributes:
        single: Log-odds by the row of the last token; 0 where a source does not name it.
        pair: By that of the last two.
        text: By the text.
        lot: Which sources there are, and which name it: the index of its mixing weights.
    """

    single: float
    pair: float
    text: float
    lot: int


class Weighed(NamedTuple):
    """The candidates of a node, in no order, and as many cases."""

    candidates: list[Candidate]
    cases: list[Case]


class SuffixStats:
    """Hit rates of successors in the text, by length of match, place in line and sightings.

    Lives as long as its blend. A cell counts as if it had seen `_PRIOR_WEIGHT` trials before the
    first, and remembers about `_MEMORY` of them.
    """

    _PRIOR: Final = (0.1, 0.3, 0.5, 0.6, 0.7, 0.78, 0.84, 0.88, 0.92)
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
            grade = _GRADES[length]
            key = grade, place if place < 3 else 3, n_seen if n_seen < 4 else 4, n
            found.append(self._cells.get(key) or self._open(key))
        return found

    def _open(self, key: tuple[int, int, int, int]) -> list[float]:
        prior = self._PRIOR[key[0]] * (0.3 if key[1] else 1.0)
        cell = self._cells[key] = [prior, self._PRIOR_WEIGHT]
        return cell


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

    def weigh(self, evidence: Evidence, ends: Container[int] = ()) -> Weighed:
        """Return every token that a source names and that is not one of *ends*.

        A candidate's source is its case's lot.
        """
        candidates, cases = [], []
        for token, case in self._cases(evidence).items():
            if token in ends:
                continue
            single, pair, text, lot = case
            a, b, c, constant = self._mixing[lot]
            sum_ = a * single + b * pair + c * text + constant
            sum_ = _BOUND if sum_ > _BOUND else -_BOUND if sum_ < -_BOUND else sum_
            candidates.append((token, 1.0 / (1.0 + exp(-sum_)), lot))
            cases.append(case)
        return Weighed(candidates, cases)

    def _cases(self, evidence: Evidence) -> dict[int, Case]:
        (first, first_probs), (second, second_probs), text, depth = evidence
        there = (_SINGLE if first else 0) | (_PAIR if second else 0) | (_SPINE if text else 0)
        silent = Case(0.0, 0.0, 0.0, there << 3)
        cases: dict[int, Case] = {}
        for token, p in zip(first, self.single.weights(first_probs, depth), strict=True):
            cases[token] = Case(log(p / (1.0 - p)), 0.0, 0.0, there << 3 | _SINGLE)
        for token, p in zip(second, self.pair.weights(second_probs, depth), strict=True):
            single, _, _, lot = cases.get(token, silent)
            cases[token] = Case(single, log(p / (1.0 - p)), 0.0, lot | _PAIR)
        for (token, _, _), p in zip(text, self.suffix.weights(text), strict=True):
            single, pair, _, lot = cases.get(token, silent)
            cases[token] = Case(single, pair, log(p / (1.0 - p)), lot | _SPINE)
        return cases

    def observe(self, evidence: Evidence, weighed: Weighed, token: int) -> None:
        """Learn that *token* came where *evidence* was *weighed*."""
        for (candidate, weight, _), (single, pair, text, lot) in zip(*weighed, strict=True):
            step = RATE * (float(candidate == token) - weight)
            a, b, c, constant = self._mixing[lot]
            self._mixing[lot] = a + step * single, b + step * pair, c + step * text, constant + step
        self.single.observe(*evidence.single, token, evidence.depth)
        self.pair.observe(*evidence.pair, token, evidence.depth)
        self.suffix.observe(evidence.successors, token)

    def __repr__(self) -> str:
        return f"Blend(n_trials={self.single.n_trials})"


def _equal_say(lot: int) -> tuple[float, float, float, float]:
    """Return mixing weights under which the sources that name a token have an equal say."""
    n = max(1, (lot & 7).bit_count())
    return 1.0 / n, 1.0 / n, 1.0 / n, 0.0
