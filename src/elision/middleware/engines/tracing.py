"""What happened at a position: between the model's own scores and the token.

A `Tracer` runs a choice's chain like anybody else, and keeps the row behind every session until the
token is known. It changes nothing and names no token but the one that was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import torch

from elision.contract import (
    BranchKey,
    Here,
    OtherModel,
    OtherPrompt,
    Recipe,
    Stage,
    Suffix,
    TokenTrace,
    in_order,
)
from elision.guards.phrases.mask import NOTICEABLE
from elision.middleware.interventions.base import Chain, StandsFor

if TYPE_CHECKING:
    from torch import Tensor

    from elision.contract import Lexicon

_KINDS: Final = {Suffix: "suffix", OtherPrompt: "prompt", OtherModel: "model"}
_EVERYWHERE: Final = frozenset({Stage.SOFT_BIAS, Stage.HARD_MASK})
"""Stages whose recipes touch some score at every position; there, what shows counts as acting."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One position as a chain saw it. Lives until its token is committed.

    Attributes:
        here: The position.
        rows: The scores before the first session and behind each, shape ``(vocab,)`` each.
        n_early: Sessions in front of the reported row.
    """

    here: Here
    rows: tuple[Tensor, ...]
    n_early: int

    @property
    def reported(self) -> Tensor:
        """The masked and shaped scores, before temperature."""
        return self.rows[self.n_early]

    @property
    def final(self) -> Tensor:
        """The scores that the token is drawn from."""
        return self.rows[-1]


@dataclass(frozen=True, slots=True)
class Tracer:
    """Tells what a chain does at each position. One per choice; remembers nothing.

    Attributes:
        names: Of the recipes, in the order of the chain's sessions.
        stages: Theirs.
    """

    names: tuple[str, ...]
    stages: tuple[Stage, ...]

    @classmethod
    def of(cls, recipes: Iterable[Recipe]) -> Self:
        """Return the tracer of a chain that was begun with *recipes*."""
        ordered = in_order(recipes)
        return cls(tuple(map(_name, ordered)), tuple(recipe.stage for recipe in ordered))

    def watch(self, chain: Chain, row: Tensor, here: Here) -> Watched:
        """Run *chain* on *row*, each session once and in order, and keep every row.

        Args:
            chain: The sessions of this tracer's recipes.
            row: The model's scores without what going back has banned, shape ``(vocab,)``.
            here: The position; its raw row is the model's own.
        """
        return Watched(here, chain.rows(row, here), len(chain.early))

    def entry(self, seen: Watched, token: int, lexicon: Lexicon) -> TokenTrace:
        """Return what happened where *token* was drawn.

        Sums are taken in float64: what a reply comes to is a sum of thousands of them.
        """
        before = seen.here.raw.double().log_softmax(dim=-1)
        after = seen.reported.double().log_softmax(dim=-1)
        return TokenTrace(
            token=lexicon.bytes_of(token).decode("utf-8", "replace"),
            acted=self._acted(seen.rows),
            branches=kinds_of(seen.here.read),
            entropy_before=entropy(before),
            entropy_after=entropy(after),
            kl=divergence(after, before),
            prob_before=float(before[token].exp()),
            prob_after=float(after[token].exp()),
            banned=float(before[self._banned(seen)].exp().sum()),
        )

    def _acted(self, rows: Sequence[Tensor]) -> tuple[str, ...]:
        steps = zip(self.names, self.stages, rows, rows[1:], strict=False)
        return tuple(name for name, stage, old, new in steps if _has_acted(stage, old, new))

    def _banned(self, seen: Watched) -> Tensor:
        """Return which tokens going back, or a hard mask, took out; bool, shape ``(vocab,)``."""
        first = sum(stage < Stage.HARD_MASK for stage in self.stages)
        last = sum(stage <= Stage.HARD_MASK for stage in self.stages)
        rows = seen.rows
        return _lost(seen.here.raw, rows[0]) | _lost(rows[first], rows[last])


def entropy(logp: Tensor) -> float:
    """Return the entropy in nats of log-probabilities *logp*; ``-inf`` contributes nothing."""
    return -float((logp.exp() * logp.clamp_min(-1e4)).sum())


def divergence(logq: Tensor, logp: Tensor) -> float:
    r"""Return :math:`KL(q\,\|\,p) = \sum_{q_j > 0} q_j (\log q_j - \log p_j)` in nats.

    Never negative: rounding below 0 counts as 0.

    Args:
        logq: Log-probabilities, shape ``(vocab,)``.
        logp: Likewise; finite wherever *logq* is, or the divergence is infinite.
    """
    kept = logq > -torch.inf
    return max(0.0, float((logq[kept].exp() * (logq[kept] - logp[kept])).sum()))


def kinds_of(keys: Iterable[BranchKey]) -> tuple[str, ...]:
    """Return the kind of every branch among *keys*, each branch once, in order."""
    return tuple(_KINDS[type(key)] for key in dict.fromkeys(keys))


def _name(recipe: Recipe) -> str:
    while isinstance(recipe, StandsFor):
        recipe = recipe.inner
    return type(recipe).__name__


def _has_acted(stage: Stage, old: Tensor, new: Tensor) -> bool:
    if new is old:
        return False
    return stage not in _EVERYWHERE or _moved(old, new) >= NOTICEABLE


def _moved(old: Tensor, new: Tensor) -> float:
    """Return the total variation between two rows: of a mask, the mass that it takes out."""
    return float((old.double().softmax(dim=-1) - new.double().softmax(dim=-1)).abs().sum()) / 2


def _lost(old: Tensor, new: Tensor) -> Tensor:
    return (new == -torch.inf) & (old > -torch.inf)
