"""Token Recycling as published: the static tree, greedy, one matrix for all questions.

Apart from the engine, which sizes its trees by what they cost: here only accepted tokens count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from elision.contract import Request
from elision.middleware.engines.causal import PREFILL_CHUNK, CausalModel
from elision.middleware.engines.ragged import Segment, score_trees
from elision.middleware.speculation.base import Draft
from elision.middleware.speculation.compaction import compact
from elision.middleware.speculation.matrix import RecycleMatrix, write_order
from elision.middleware.speculation.topk import top_k
from elision.middleware.speculation.tree import STATIC_80, static_draft

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

K = 8
"""Successors per token."""


def accepted_per_step(model: CausalModel, requests: Sequence[Request]) -> list[list[int]]:
    """Return, per request, the tokens that each forward gave; for the engine's thread.

    The first request is decoded twice, and only its second time is counted: the matrix is hot.

    Source:
        Luo et al. 2024 (Token Recycling), arXiv:2408.08696, section 3; ours: rows are written
        accepted path last, and rows never written propose nothing.
    """
    matrix = RecycleMatrix(model.vocab_size, K)
    found = [_decode(model, matrix, request) for request in (requests[0], *requests)]
    return found[1:]


def _decode(model: CausalModel, matrix: RecycleMatrix, request: Request) -> list[int]:
    ids, cache = model.render(request).ids, model.new_cache(full=True)
    for start in range(0, len(ids) - 1, PREFILL_CHUNK):
        model.score(ids[start : min(start + PREFILL_CHUNK, len(ids) - 1)], cache)
    root, gained, n_left = ids[-1], list[int](), request.max_tokens or 1
    while n_left > 0:
        draft = static_draft(root, matrix, STATIC_80)
        n_past = int(cache.get_seq_length())
        segment = Segment((root, *draft.tokens), draft, cache, n_past)
        (logits,) = score_trees(model.model, [segment])
        written, path = greedy_walk(draft, logits)
        compact(cache, path, len(draft) + 1)
        matrix.update(segment.tokens, *_best(logits), write_order(draft, path))
        gained.append(len(written))
        n_left -= len(written)
        if model.eos.intersection(written):
            break
        root = written[-1]
    return gained


def greedy_walk(draft: Draft, logits: Tensor) -> tuple[list[int], list[int]]:
    """Return the best tokens for as long as the draft has them, and the nodes they were read at."""
    best = logits.argmax(dim=-1).tolist()
    written, path = [best[0]], [0]
    while (child := draft.child(path[-1], written[-1])) is not None:
        path.append(child)
        written.append(best[child])
    return written, path


def _best(logits: Tensor) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    ids, probs = top_k(logits, K)
    return ids.cpu().numpy(), probs.cpu().numpy()
