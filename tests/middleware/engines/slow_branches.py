"""The slow oracle of branches: every score anew, without a cache, padding or neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from elision.contract import BranchKey, Here, OtherModel, OtherPrompt, Recipe, Suffix
from elision.middleware.interventions import Chain

Ids = tuple[int, ...]


def slow_scores(model: Any, text: Ids) -> Tensor:
    """The scores behind *text*, shape ``(V,)``, float32; the whole of it in one forward."""
    with torch.no_grad():
        out = model(input_ids=torch.tensor([text], device=model.device), use_cache=False)
    return out.logits[0, -1].float()


def slow_branch(
    model: Any, prompt: Ids, reply: Ids, key: BranchKey, assistants: Mapping[str, Any] | None = None
) -> Tensor:
    """The scores of *key* behind *prompt* and *reply*: what the contract says, and no more."""
    match key:
        case Suffix(ids):
            return slow_scores(model, prompt + reply + ids)
        case OtherPrompt(ids):
            return slow_scores(model, ids + reply)
        case OtherModel(name):
            return slow_scores((assistants or {})[name], prompt + reply)


def slow_here(
    model: Any, prompt: Ids, reply: Ids, assistants: Mapping[str, Any] | None = None
) -> Here:
    """The position behind *reply*, all of its scores recomputed."""
    return Here(
        slow_scores(model, prompt + reply),
        position=len(reply),
        branch=lambda key: slow_branch(model, prompt, reply, key, assistants),
    )


def slow_adjusted(
    model: Any,
    recipes: tuple[Recipe, ...],
    context: Any,
    reply: Ids,
    assistants: Mapping[str, Any] | None = None,
) -> Tensor:
    """What *recipes* make of the position behind *reply*, shape ``(V,)``; all anew."""
    chain = Chain.begin(recipes, context)
    for token in reply:
        chain = chain.advance(token)
    here = slow_here(model, context.prompt_ids, reply, assistants)
    return chain.adjust(here.raw, here)
