"""From what was read and written to values per item, one method at a time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from statistics import fmean
from typing import Any, TypeAlias

from elision.evaluation.reasoning.data import Choice, Problem, Suite
from elision.evaluation.reasoning.writing import Reply, is_right, is_valid, repeats
from elision.middleware.interventions.mti import usage

Values: TypeAlias = dict[int, float]
"""A value per item; of sampled replies, the mean over the seeds."""


@dataclass(slots=True, kw_only=True)
class Outcomes:
    """What one method came to.

    Attributes:
        values: By metric: ``accuracy`` always; of a cloze also ``expected``, the probability of
            the right answer; of given answers ``entropy_nats``; of written ones ``n_tokens``,
            ``repeats`` and ``valid``.
        notes: Sums of what the sessions noted.
        n_tokens: Tokens that were read or written in all.
        temperature: Of the draw, where it was chosen by tuning.
    """

    values: dict[str, Values]
    notes: Mapping[str, float] = field(default_factory=dict)
    n_tokens: int = 0
    temperature: float | None = None

    @property
    def usage(self) -> float | None:
        """Share of positions that were guided: of MTI's gate, else of all; None if nobody did."""
        gated = usage(self.notes)
        if gated is not None:
            return gated
        guided = [n for name, n in self.notes.items() if name.endswith("_guided")]
        return max(guided) / self.n_tokens if guided and self.n_tokens else None


def of_choices(
    chosen: Sequence[Choice], rows: Mapping[int, Mapping[str, Any]], suite: Suite
) -> Outcomes:
    """Return what given answers come to.

    Args:
        chosen: The items.
        rows: What was read of each; see `elision.evaluation.reasoning.given.look`.
        suite: Decides what is right: of a cloze, that greedy decoding writes it; else that the
            right option is the likelier one: per character in ``piqa``, as a whole in
            ``memo-trap``. Equally likely options are wrong.
    """
    values: defaultdict[str, Values] = defaultdict(dict)
    notes, n_tokens = Counter[str](), 0
    for item in chosen:
        row = rows[item.index]
        values["accuracy"][item.index] = float(_is_right(item, row, suite))
        if len(item.options) == 1:
            values["expected"][item.index] = exp(row["logps"][0])
        values["entropy_nats"][item.index] = row["entropy_nats"]
        notes.update(row["notes"])
        n_tokens += sum(row["n_tokens"])
    return Outcomes(values=dict(values), notes=notes, n_tokens=n_tokens)


def _is_right(item: Choice, row: Mapping[str, Any], suite: Suite) -> bool:
    if len(item.options) == 1:
        return bool(row["greedy"])
    lengths = [len(option) if suite == "piqa" else 1 for option in item.options]
    scores = [logp / length for logp, length in zip(row["logps"], lengths, strict=True)]
    others = (score for n, score in enumerate(scores) if n != item.gold)
    return bool(scores[item.gold] > max(others))


def of_replies(replies: Iterable[tuple[Problem, Reply]]) -> Outcomes:
    """Return what written answers come to; an item that was answered several times, the means."""
    samples: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    notes, n_tokens = Counter[str](), 0
    for problem, reply in replies:
        for name, value in _judged(problem, reply).items():
            samples[name][problem.index].append(value)
        notes.update(reply.notes)
        n_tokens += reply.n_tokens
    values = {
        name: {index: fmean(found) for index, found in by_item.items()}
        for name, by_item in samples.items()
    }
    return Outcomes(values=values, notes=notes, n_tokens=n_tokens)


def _judged(problem: Problem, reply: Reply) -> dict[str, float]:
    return {
        "accuracy": float(is_right(problem, reply.text)),
        "valid": float(is_valid(problem, reply.text)),
        "repeats": float(repeats(reply.text)),
        "n_tokens": float(reply.n_tokens),
    }
