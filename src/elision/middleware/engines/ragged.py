"""Several sequences in one forward, each against its own cache and with its own tree.

The tokens of all sequences stand side by side on one row, so every linear layer runs once and
reads its weights once; only attention has to tell them apart, see `rows`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor

from elision.middleware.engines.attention import is_independent, is_usual
from elision.middleware.engines.cache import full_cache, is_whole
from elision.middleware.engines.part import Part
from elision.middleware.engines.rows import Rows, attending
from elision.middleware.speculation.base import NOTHING, Draft
from elision.middleware.speculation.compaction import can_compact, tree_slots
from elision.middleware.speculation.masks import Masks, Windows, tree_masks, tree_positions

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


@dataclass(frozen=True, slots=True)
class Segment:
    """One sequence's share of a forward.

    Attributes:
        tokens: The root and what is proposed below it: one more than *draft* has, less *first*.
        draft: How they hang together.
        cache: Keys and values of what lies before the root, and of the nodes before *first*; every
            layer has them all.
        n_past: How many tokens lie before the root.
        first: The first node to score; those before it are in the cache already.
    """

    tokens: tuple[int, ...] = field(repr=False)
    draft: Draft = field(repr=False)
    cache: DynamicCache = field(repr=False)
    n_past: int
    first: int = 0


def score_trees(model: PreTrainedModel, segments: Sequence[Segment]) -> list[Tensor]:
    """Score every token of every segment's tree; several segments share one forward.

    Afterwards each cache holds the segment's tokens too, in the order of *tokens*. If the forward
    fails, each holds what it held before.

    Args:
        model: The model. Several segments ask for one that `can_be_ragged`; a tree asks for one
            that is tree-capable; a lone root asks for nothing, not even a cache of full length.
        segments: What to score; no two of them share a cache.

    Returns:
        The model's own scores behind each token, shape ``(n_i, vocab)`` and of the model's type,
        per segment.
    """
    with torch.inference_mode(), _undone(segments):
        independent = is_independent(model) and all(is_whole(s.cache) for s in segments)
        if len(segments) > 1 or independent:
            return _score_together(model, segments, independent=independent)
        return [_score_alone(model, segment) for segment in segments]


@contextmanager
def _undone(segments: Iterable[Segment]) -> Iterator[None]:
    """Leave the caches as they were if what happens inside fails, as far as they can be cut."""
    with ExitStack() as stack:
        for segment in segments:
            if can_compact(segment.cache):
                stack.enter_context(tree_slots(segment.cache, segment.n_past + segment.first))
        yield


# --- one segment ---------------------------------------------------------------------------------


def _score_alone(model: Any, segment: Segment) -> Tensor:
    ids = torch.tensor([segment.tokens], device=model.device)
    tree: dict[str, Any] = {}
    if segment.draft.tokens:  # a root alone is what the model expects of itself
        config = model.config.get_text_config()
        tree["attention_mask"] = _masks(model, Windows.of(config), config, segment)
        tree["position_ids"] = tree_positions(
            segment.n_past, segment.draft, model.device, first=segment.first
        )
    out = model(input_ids=ids, past_key_values=segment.cache, use_cache=True, **tree)
    return cast("Tensor", out.logits[0])


def _masks(model: Any, windows: Windows, config: Any, segment: Segment) -> Masks:
    return tree_masks(
        windows,
        backend=config._attn_implementation,
        dtype=model.dtype,
        device=model.device,
        n_past=segment.n_past,
        draft=segment.draft,
        first=segment.first,
    )


# --- several segments ----------------------------------------------------------------------------


def _score_together(model: Any, segments: Sequence[Segment], *, independent: bool) -> list[Tensor]:
    config = model.config.get_text_config()
    rows = Rows(config, list(_parts(model, config, segments)), independent=independent)
    tokens = [token for s in segments for token in s.tokens]
    positions = [s.n_past + depth for s in segments for depth in s.draft.depths[s.first :]]
    with attending(config, rows.attend):
        out = model(
            input_ids=torch.tensor([tokens], device=model.device),
            position_ids=torch.tensor([positions], device=model.device),
            past_key_values=rows,
            use_cache=True,
        )
    return list(out.logits[0].split([len(s.tokens) for s in segments]))


def _parts(model: Any, config: Any, segments: Sequence[Segment]) -> Iterator[Part]:
    start, windows = 0, Windows.of(config)
    for segment in segments:
        sees_all = not segment.draft.tokens and not windows.binds(segment.n_past + 1)
        masks = None if sees_all else _masks(model, windows, config, segment)
        yield Part(segment.cache, start, len(segment.tokens), masks, segment.draft, segment.n_past)
        start += len(segment.tokens)


# --- self-test -----------------------------------------------------------------------------------

_CHAIN: Final = Draft((0, 0, 0), (0, 1, 2))
_BUSH: Final = Draft((0, 0, 0, 0, 0), (0, 0, 1, 1, 2))
_LONGEST_TRIED: Final = 256
"""Longest window, in tokens, for which the self-test reads a prefix that exceeds it."""


def can_be_ragged(model: PreTrainedModel) -> bool:
    """Return whether segments that share a forward get the scores that each gets alone.

    Tries it, on a few random tokens: a root, a chain and a bush behind prefixes of different
    lengths, one of them beyond the shortest window. Takes seven forwards over a handful of tokens.
    Whether a lone tree is scored rightly is another question, see `is_tree_capable`. Never raises:
    a model that breaks is one that cannot.

    No, too, where rotary frequencies follow the longest position of a forward (dynamic and long
    scaling): there a long neighbour would turn a short sequence's keys otherwise.
    """
    try:
        if _stretches(model):
            return False
        with torch.inference_mode():
            alone = _sample_segments(model)
            shared = copy.deepcopy(alone)
            want = [_score_alone(model, segment) for segment in alone]
            return all(map(_agree, score_trees(model, shared), want))
    except Exception:  # whatever breaks inside a model that nobody has tried means no
        return False


def can_be_independent(model: PreTrainedModel) -> bool:
    """Return whether `attention.attend` may take the place of the model's own attention function.

    Tries it, on what `can_be_ragged` tries, one sequence at a time: nine forwards. Never raises.
    """
    try:
        if not is_usual(model):
            return False
        with torch.inference_mode():
            alone = _sample_segments(model)
            ours = copy.deepcopy(alone)
            want = [_score_alone(model, segment) for segment in alone]
            got = [_score_together(model, [segment], independent=True)[0] for segment in ours]
            return all(map(_agree, got, want))
    except Exception:  # whatever breaks inside a model that nobody has tried means no
        return False


def _stretches(model: Any) -> bool:
    """Return whether what a position means depends on the other positions of the forward."""
    found = [getattr(module, "rope_type", "") for module in model.modules()]
    kinds = {kind for one in found for kind in (one.values() if isinstance(one, dict) else [one])}
    return any("dynamic" in kind or kind == "longrope" for kind in kinds if isinstance(kind, str))


def _sample_segments(model: Any) -> list[Segment]:
    config = model.config.get_text_config()
    window = Windows.of(config).smallest
    longest = window + 5 if window <= _LONGEST_TRIED else 7
    draw = torch.Generator().manual_seed(0)
    segments = []
    for n_past, draft in ((3, NOTHING), (11, _CHAIN), (longest, _BUSH)):
        ids = torch.randint(config.vocab_size, (1, n_past + len(draft) + 1), generator=draw)
        cache = full_cache(model.config)
        model(input_ids=ids[:, :n_past].to(model.device), past_key_values=cache, use_cache=True)
        segments.append(Segment(tuple(ids[0, n_past:].tolist()), draft, cache, n_past))
    return segments


def _agree(got: Tensor, want: Tensor) -> bool:
    """Return whether two ways of computing the same scores differ by rounding alone."""
    bound = 1e-3 if want.dtype is torch.float32 else 5e-2
    got, want = got.float(), want.float()
    off = (got - want).abs().amax(dim=-1)
    best, second = want.topk(2, dim=-1).values.unbind(-1)
    same = (got.argmax(dim=-1) == want.argmax(dim=-1)) | (best - second <= 2 * off)
    return bool((off <= bound * want.abs().max()).all() and same.all())
