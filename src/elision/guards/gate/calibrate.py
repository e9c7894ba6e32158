"""Where to put the gate's threshold for an encoder and a domain, and how sure that is."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, nextafter
from typing import Final

from elision.errors import ConfigError
from elision.guards.evidence.rates import Rate
from elision.guards.gate.gate import Gate, GatePolicy
from elision.guards.gate.views import Turn

ENOUGH: Final = 1_000
"""Negatives below which the rate that was reached is known to no more than a factor of two."""
_AHEAD: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A threshold, and what it does to prompts that it was not chosen on.

    Attributes:
        policy: The gate's policy with ``t_hi`` set; for `Gate.under`.
        target_fpr: The share of harmless prompts that was to open the gate.
        n_calibration: Prompts that the threshold was chosen on.
        held_out: How many of the prompts that were held out open the gate under it, with the
            interval in which the true share may lie.
        warnings: What to know before relying on it: ``few_negatives``, ``target_unresolved`` (so
            few prompts that not one of them may open the gate), ``below_watch`` (the quantile lay
            below ``t_lo``, which was taken instead).
    """

    policy: GatePolicy
    target_fpr: float
    n_calibration: int
    held_out: Rate
    warnings: tuple[str, ...] = ()


def calibrate(
    gate: Gate,
    prompts: Sequence[Sequence[Turn]],
    *,
    target_fpr: float = 0.01,
    groups: Sequence[Hashable] | None = None,
    share: float = 0.5,
    seed: int = 0,
) -> Calibration:
    """Choose ``t_hi`` so that about *target_fpr* of harmless prompts open the gate.

    It becomes the (1 - target) quantile of their scores, taken over the same views as at run time,
    on a part of the prompts; the rest tells the rate. Blocks.

    Args:
        gate: Compiled for the targets in question.
        prompts: Harmless prompts of the domain, each as its messages.
        target_fpr: In (0, 1).
        groups: What belongs together, such as the author that a question is about: no group is
            in both parts. None: every prompt is its own.
        share: Of groups that the threshold is chosen on.
        seed: Of the split.

    Raises:
        ConfigError: If there are no two groups, or a share is not in (0, 1).
        GuardError: If the encoder breaks.
    """
    if not (0 < target_fpr < 1 and 0 < share < 1):
        raise ConfigError(f"target_fpr is {target_fpr} and share {share}; both lie between 0 and 1")
    chosen = _split(groups if groups is not None else range(len(prompts)), share, seed)
    if len(chosen) != len(prompts):
        raise ConfigError(f"there are {len(chosen)} groups for {len(prompts)} prompts")
    scores = list(_scores(gate, prompts))
    own = [score for score, here in zip(scores, chosen, strict=True) if here]
    held_out = [score for score, here in zip(scores, chosen, strict=True) if not here]
    quantile = _above(own, target_fpr)
    policy = replace(gate.policy, t_hi=max(quantile, gate.policy.t_lo))
    n_open = sum(score >= policy.t_hi for score in held_out)
    warnings = {
        "few_negatives": len(prompts) < ENOUGH,
        "target_unresolved": target_fpr * len(own) < 1,
        "below_watch": quantile < gate.policy.t_lo,
    }
    return Calibration(
        policy=policy,
        target_fpr=target_fpr,
        n_calibration=len(own),
        held_out=Rate(n_open, len(held_out)),
        warnings=tuple(name for name, holds in warnings.items() if holds),
    )


def _split(groups: Sequence[Hashable], share: float, seed: int) -> list[bool]:
    """Return, for every prompt, whether the threshold is chosen on it."""
    kinds = list(dict.fromkeys(groups))
    if len(kinds) < 2:
        raise ConfigError(f"there are {len(kinds)} groups of prompts; a part must be held out")
    random.Random(seed).shuffle(kinds)  # noqa: S311 -- a split, not a secret
    n_chosen = min(max(round(share * len(kinds)), 1), len(kinds) - 1)
    chosen = set(kinds[:n_chosen])
    return [group in chosen for group in groups]


def _scores(gate: Gate, prompts: Sequence[Sequence[Turn]]) -> Iterator[float]:
    for start in range(0, len(prompts), _AHEAD):  # so that their views share forwards
        waiting = [gate.assess(turns) for turns in prompts[start : start + _AHEAD]]
        for future in waiting:
            yield future.result().score


def _above(scores: Sequence[float], share: float) -> float:
    """Return the least threshold that at most *share* of *scores* reach."""
    ordered = sorted(scores, reverse=True)
    return nextafter(ordered[int(share * len(ordered))], inf)
