"""EM-INF over many rows at once: what one row's descent does, at a fraction of its cost.

On a CPU a row costs what its passes over the vocabulary cost, and one row's descent takes some
fifty. Here it takes three, compiled (`kernel`). Where a row is drawn from at a low temperature,
tokens far below the best have no probability left, so only the *head* must be moved: the scores
within some nats of the best. The *tail* counts through its mass and its mean at each step. What a
step does to a score depends on that score and on sums over the row, so the tail is stood for by a
few made-up tokens, the *nodes* of a quadrature, which descend along with the head.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from math import log
from typing import TYPE_CHECKING, Final

from elision.middleware.interventions.entropy.minimisation import (
    EntropyMinimisation,
    minimise_entropy,
)
from elision.middleware.interventions.entropy.whole import minimised

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor

_log = logging.getLogger(__name__)
_NARROWEST, _WIDEST = 7.0, 14.0
"""Nats from the best score to the cut: less is not accurate, more is not worth it."""
_FORGOTTEN: Final = 1e-12
"""Share of the tail, at its row's temperature, that counts as none."""
_DEVICE_SCORES: Final = 1 << 24
"""Scores that are sharpened at once elsewhere than on a CPU; each takes some 40 bytes meanwhile."""


def minimise_entropies_(
    logits: Tensor,
    rows: Sequence[int],
    recipe: EntropyMinimisation,
    *,
    temperature: float | None = None,
) -> dict[int, bool | None]:
    r"""Sharpen the hesitant ones of some rows, in place.

    Each row becomes what `minimise_entropy` makes of it, up to rounding, whatever stands in the
    others. With a *temperature* :math:`\tau` up to some 0.35, scores more than :math:`c` nats below
    the row's best stay as they are. A step of Adam's moves no score by more than 1.05 *lr*, so with
    or without it their share at :math:`\tau` is at most
    :math:`V \exp((2.1\,\mathrm{lr}\,\mathrm{steps} - c) / \tau) \le 10^{-12}`: so :math:`c` is
    chosen. The others depend on them by mass and mean: exact at the first step; behind it by a
    quadrature, exact for 1 and z and, up to the error of a sample of 1,024 tokens, for s and zs
    with :math:`s = \epsilon / (|g| + \epsilon)` of the first step. On a real model's rows, by the
    profile's settings, 99 scores in 100 come within 2e-7 nats of a descent in float64, and all
    within 1e-5: the worst stand next to the mean, where Adam divides one small number by another.

    Args:
        logits: Scores, float32, shape ``(R, V)``, any device.
        rows: Which; each once.
        recipe: What is done to them.
        temperature: What the rows are divided by before a token is drawn, where nothing else is
            made of them, and no probability is told; the highest of theirs. None: not known.

    Returns:
        For each of *rows*, in their order, whether it was sharpened. None: it was not, and nobody
        has seen that its best score is a number; of the others that is known.
    """
    if not recipe.lr or not recipe.steps or not rows:
        return dict.fromkeys(rows)
    if logits.device.type != "cpu":
        return _on_device(logits, rows, recipe)
    cut = _cut(logits, recipe, temperature)
    kernel = None if cut is None else prepare()
    if cut is None or kernel is None:
        return {row: _alone(logits, row, recipe) for row in rows}
    terms = (recipe.threshold, recipe.kl_weight, recipe.lr, recipe.steps)
    lines, found = logits.numpy(), dict[int, bool | None]()
    for row in rows:
        status = kernel.sharpen_(lines[row], cut, _WIDEST, *terms)
        found[row] = (None, False, True, None)[status]
        if status == kernel.WHOLE:
            found[row] = _alone(logits, row, recipe)
    return found


@cache
def prepare() -> ModuleType | None:
    """Compile what rows on a CPU are sharpened by, so that no request waits for it.

    Returns:
        `kernel`; None where numba is missing or does not work: rows are sharpened one by one
        then, every score of them, which takes longer.
    """
    try:
        from elision.middleware.interventions.entropy import compiling, kernel
    except Exception as exc:  # ImportError, or whatever a machine has against compiling
        _log.warning("EM-INF is not compiled, and slower: %s: %s", type(exc).__name__, exc)
        return None
    if compiling.IS_OFF:
        _log.warning("EM-INF is not compiled, and slower: NUMBA_DISABLE_JIT is set")
        return None
    return kernel


def _cut(logits: Tensor, recipe: EntropyMinimisation, temperature: float | None) -> float | None:
    """Return how far below the best score the tail begins; None if every score is to be moved."""
    gentle = recipe.lr <= 0.2 and recipe.steps <= 5 and recipe.kl_weight <= 0.2
    if temperature is None or recipe.method != "adam" or not gentle:
        return None
    if logits.stride(1) != 1:
        return None
    nats = log(logits.shape[1]) - log(_FORGOTTEN)
    cut = 2.1 * recipe.lr * recipe.steps + temperature * nats
    return max(cut, _NARROWEST) if cut <= _WIDEST else None


def _on_device(
    logits: Tensor, rows: Sequence[int], recipe: EntropyMinimisation
) -> dict[int, bool | None]:
    """Sharpen every score, many rows in one go: there passes are cheap, and waiting is not."""
    import torch

    found: list[Tensor] = []
    at_once = max(1, _DEVICE_SCORES // logits.shape[1])
    for lines in torch.split(torch.tensor(rows, device=logits.device), at_once):
        sharper, hesitant = minimised(logits[lines], recipe)
        logits[lines] = sharper
        found.append(hesitant)
    return {row: acted or None for row, acted in zip(rows, torch.cat(found).tolist(), strict=True)}


def _alone(logits: Tensor, row: int, recipe: EntropyMinimisation) -> bool | None:
    """Sharpen one row, every score of it, in place; see `minimise_entropies_`."""
    here = logits[row]
    sharper = minimise_entropy(
        here,
        threshold=recipe.threshold,
        kl_weight=recipe.kl_weight,
        lr=recipe.lr,
        steps=recipe.steps,
        method=recipe.method,
    )
    if sharper is here:
        return None
    here.copy_(sharper)
    return True
