"""Does a drafted token get the bits that it gets when decoded alone? Asked at load, by trying."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import torch

from elision.middleware.engines.attention import CHUNK, set_independent_
from elision.middleware.engines.cache import full_cache
from elision.middleware.engines.ragged import Segment, can_be_independent, score_trees
from elision.middleware.speculation.base import NOTHING, Draft

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache

TREE: Final = Draft(tuple(range(1, 8)), (0, 0, 1, 1, 2, 4, 6))
"""Three paths, interleaved, the longest five deep."""
CONTEXTS: Final = (19, CHUNK - 2)
"""Tokens before it: a few, and so many that it runs over the end of a chunk of keys."""


def make_independent_(model: Any) -> bool:
    """Have *model*'s rows not depend on each other, if they can be made so; return whether.

    Args:
        model: One that nobody else uses, its linear layers packed.
    """
    if not can_be_independent(model):
        return False
    set_independent_(model)
    if keeps_bits(model):
        return True
    set_independent_(model, on=False)
    return False


def keeps_bits(model: Any) -> bool:
    """Return whether the nodes of a tree get, to the last bit, the scores of their paths alone.

    And whether lone tokens that share a forward do. That rests on the order in which this
    processor's matrix kernels add up, so it is tried: some twenty-five forwards over a handful of
    tokens.
    """
    with torch.inference_mode():
        return all(_keeps_bits(model, n_past) for n_past in CONTEXTS) and _keeps_company(model)


def _keeps_company(model: Any) -> bool:
    """Return whether lone tokens that share a forward get the scores that each gets alone."""
    roots = [Segment((0,), NOTHING, _behind(model, n_past), n_past) for n_past in CONTEXTS]
    together = score_trees(model, copy.deepcopy(roots))
    return all(
        torch.equal(score_trees(model, [root])[0], shared)
        for root, shared in zip(roots, together, strict=True)
    )


def _behind(model: Any, n_past: int) -> DynamicCache:
    """Return a cache of *n_past* random tokens."""
    draw = torch.Generator().manual_seed(n_past)
    ids = torch.randint(model.config.get_text_config().vocab_size, (1, n_past), generator=draw)
    cache = full_cache(model.config)
    model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def _keeps_bits(model: Any, n_past: int) -> bool:
    cache = _behind(model, n_past)
    tree = Segment((0, *TREE.tokens), TREE, copy.deepcopy(cache), n_past)
    (whole,) = score_trees(model, [tree])
    leaves = set(range(len(TREE) + 1)) - set(TREE.parents)
    return all(_same(model, copy.deepcopy(cache), leaf, n_past, whole) for leaf in leaves)


def _same(model: Any, cache: DynamicCache, leaf: int, n_past: int, whole: Tensor) -> bool:
    """Return whether decoding down to *leaf*, token by token, gives the rows of *whole*."""
    tokens = (0, *TREE.tokens)
    for at, node in enumerate(TREE.ancestors[leaf].nonzero()[0].tolist()):
        root = Segment((tokens[node],), NOTHING, cache, n_past + at)
        if not torch.equal(score_trees(model, [root])[0][0], whole[node]):
            return False
    return True
