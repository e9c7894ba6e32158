"""Several sequences in one forward, each against its own cache and with its own tree.

The tokens of all sequences stand side by side on one row, so every linear layer runs once. Only
attention must tell them apart: for the length of the forward the model's attention is ours, which
takes each sequence's queries to that sequence's own keys and hands them to the model's own
attention function. So soft caps, sinks and grouped heads stay the model's business.

The segments reach our function as the closure that is registered for this forward. A keyword
argument would have to pass through every layer (not all architectures forward theirs), the cache
is not shown to attention functions at all, and a context variable would be state of this module.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from elision.middleware.engines.cache import full_cache
from elision.middleware.speculation.base import NOTHING, Draft
from elision.middleware.speculation.compaction import can_compact, tree_slots
from elision.middleware.speculation.masks import Masks, Windows, tree_masks, tree_positions

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


@dataclass(frozen=True, slots=True)
class Segment:
    """One sequence's share of a forward.

    Attributes:
        tokens: The root and what is proposed below it: one more than *draft* has.
        draft: How they hang together.
        cache: Keys and values of what lies before the root; every layer has them all.
        n_past: How many those are.
    """

    tokens: tuple[int, ...]
    draft: Draft
    cache: DynamicCache
    n_past: int


def score_trees(
    model: PreTrainedModel, segments: Sequence[Segment], *, grouped: bool = False
) -> list[Tensor]:
    """Score every token of every segment's tree; several segments share one forward.

    Afterwards each cache holds the segment's tokens too, in the order of *tokens*. If the forward
    fails, each holds what it held before.

    Args:
        model: The model. Several segments ask for one that `can_be_ragged`; a tree asks for one
            that is tree-capable; a lone root asks for nothing, not even a cache of full length.
        segments: What to score; no two of them share a cache.
        grouped: Have a lone tree read each key once for all heads that share it, too, instead of
            copying the keys for every head. Only for a model that `can_be_ragged`.

    Returns:
        The model's own scores behind each token, shape ``(n_i, vocab)`` and of the model's type,
        per segment.
    """
    with torch.inference_mode(), _undone(segments):
        if len(segments) > 1 or (grouped and segments and segments[0].draft.tokens):
            return _score_together(model, segments)
        return [_score_alone(model, segment) for segment in segments]


@contextmanager
def _undone(segments: Iterable[Segment]) -> Iterator[None]:
    """Leave the caches as they were if what happens inside fails, as far as they can be cut."""
    with ExitStack() as stack:
        for segment in segments:
            if can_compact(segment.cache):
                stack.enter_context(tree_slots(segment.cache, segment.n_past))
        yield


# --- one segment ---------------------------------------------------------------------------------


def _score_alone(model: Any, segment: Segment) -> Tensor:
    ids = torch.tensor([segment.tokens], device=model.device)
    tree: dict[str, Any] = {}
    if segment.draft.tokens:  # a root alone is what the model expects of itself
        config = model.config.get_text_config()
        tree["attention_mask"] = _masks(model, Windows.of(config), config, segment)
        tree["position_ids"] = tree_positions(segment.n_past, segment.draft, model.device)
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
    )


# --- several segments ----------------------------------------------------------------------------


def _score_together(model: Any, segments: Sequence[Segment]) -> list[Tensor]:
    rows = _Rows(model, segments)
    tokens = [token for s in segments for token in s.tokens]
    positions = [s.n_past + depth for s in segments for depth in s.draft.depths]
    with _attending(model.config.get_text_config(), rows.attend):
        out = model(
            input_ids=torch.tensor([tokens], device=model.device),
            position_ids=torch.tensor([positions], device=model.device),
            past_key_values=rows,
            use_cache=True,
        )
    return list(out.logits[0].split([len(s.tokens) for s in segments]))


@contextmanager
def _attending(config: Any, attend: Any) -> Iterator[None]:
    """Have models of *config* attend by *attend*; of masks they then make none of their own."""
    functions = cast("MutableMapping[str, Any]", ALL_ATTENTION_FUNCTIONS)
    name, usual = f"elision_ragged_{id(attend):x}", config._attn_implementation
    functions[name] = attend
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = usual
        del functions[name]


@dataclass(slots=True)
class _Part:
    """A segment, where it stands on the row, and whom its tokens may look at."""

    cache: DynamicCache
    span: slice
    masks: Masks | None
    _stacked: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def mask(self, kind: str) -> Tensor | None:
        """Return the mask of a layer of *kind*."""
        return self.masks[kind] if isinstance(self.masks, dict) else self.masks

    def stacked(self, kind: str, n_heads: int) -> Tensor | None:
        """Return the mask of a layer of *kind* *n_heads* times, one below the other."""
        mask = self.mask(kind)
        if mask is None or n_heads == 1:
            return mask
        if (kind, n_heads) not in self._stacked:
            self._stacked[kind, n_heads] = mask.repeat(1, 1, n_heads, 1)
        return self._stacked[kind, n_heads]


class _Rows(Cache):
    """Stands in for a cache during one forward; new states go to their segment's own."""

    def __init__(self, model: Any, segments: Sequence[Segment]) -> None:
        super().__init__(layers=[])
        config = model.config.get_text_config()
        self._usual = config._attn_implementation
        windows = Windows.of(config)
        self._kinds: Sequence[str] = config.layer_types if windows.kinds else ()
        self._parts = list(_parts(model, windows, config, segments))

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append each segment's states to its own cache; return the new states alone."""
        for part in self._parts:
            keys, values = key_states[:, :, part.span], value_states[:, :, part.span]
            part.cache.update(keys, values, layer_idx, *args, **kwargs)
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Raise: whoever asks would take the answer for every segment's.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("the rows of several sequences have no length in common")

    def attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Attend segment by segment; what transformers calls an attention function.

        Args:
            module: The attention layer.
            query: Queries of all segments, shape ``(1, heads, T, width)``.
            key: The new keys; not needed, each segment's cache has them.
            value: The new values, likewise.
            attention_mask: None.
            kwargs: What the layer tells its attention function.

        Returns:
            What each token has read, shape ``(1, T, heads, width)``, and no weights.
        """
        index = module.layer_idx
        kind = str(self._kinds[index]) if self._kinds else ""
        usual = _function(module, self._usual)
        plain = usual is sdpa_attention_forward and _is_plain(query, kwargs)
        read = []
        for part in self._parts:
            layer, asked = cast("Any", part.cache.layers[index]), query[:, :, part.span]
            if plain:
                read.append(_attend_in_groups(asked, layer, part, kind, kwargs.get("scaling")))
            else:
                mask = part.mask(kind)
                read.append(usual(module, asked, layer.keys, layer.values, mask, **kwargs)[0])
        return torch.cat(read, dim=1), None


def _parts(
    model: Any, windows: Windows, config: Any, segments: Sequence[Segment]
) -> Iterator[_Part]:
    start = 0
    for segment in segments:
        end = start + len(segment.tokens)
        sees_all = not segment.draft.tokens and not windows.binds(segment.n_past + 1)
        masks = None if sees_all else _masks(model, windows, config, segment)
        yield _Part(segment.cache, slice(start, end), masks)
        start = end


def _function(module: Any, name: str) -> Any:
    """Return the function that *module* would attend by: its own file's, as it looks it up."""
    names = vars(sys.modules[type(module).__module__])
    return names["ALL_ATTENTION_FUNCTIONS"].get_interface(name, names["eager_attention_forward"])


def _is_plain(query: Tensor, kwargs: dict[str, Any]) -> bool:
    """Return whether attention is softmax(QK)V and no more, on a CPU."""
    odd = ("softcap", "position_bias", "cache", "s_aux")
    return query.device.type == "cpu" and all(kwargs.get(name) is None for name in odd)


def _attend_in_groups(
    query: Tensor, layer: Any, part: _Part, kind: str, scaling: float | None
) -> Tensor:
    """Attend with the heads that share keys stacked as if they were more queries.

    transformers copies keys and values for every head instead, prefix included, in every layer.
    """
    heads, n, width = query.shape[1:]
    n_shared = heads // layer.keys.shape[1]
    read = scaled_dot_product_attention(
        query.reshape(1, -1, n_shared * n, width),
        layer.keys,
        layer.values,
        attn_mask=part.stacked(kind, n_shared),
        scale=scaling,
    )
    return read.reshape(1, heads, n, -1).transpose(1, 2)


# --- self-test -----------------------------------------------------------------------------------

_CHAIN: Final = Draft((0, 0, 0), (0, 1, 2))
_BUSH: Final = Draft((0, 0, 0, 0, 0), (0, 0, 1, 1, 2))
_LONGEST_TRIED: Final = 256
"""Longest window, in tokens, for which the self-test reads a prefix that exceeds it."""


def can_be_ragged(model: PreTrainedModel) -> bool:
    """Return whether segments that share a forward get the scores that each gets alone.

    Tries it, on a few random tokens: a root, a chain and a bush behind prefixes of different
    lengths, one of them beyond the shortest window. Takes ten forwards over a handful of tokens,
    and answers for `score_trees` with *grouped* as well. Whether a lone tree is scored rightly is
    another question, see `is_tree_capable`. Never raises: a model that breaks is one that cannot.
    """
    try:
        with torch.inference_mode():
            alone = _sample_segments(model)
            shared = copy.deepcopy(alone)
            grouped = copy.deepcopy(alone[-1:])
            want = [_score_alone(model, segment) for segment in alone]
            got = score_trees(model, shared)
            got_grouped = score_trees(model, grouped, grouped=True)
            return all(map(_agree, [*got, *got_grouped], [*want, want[-1]]))
    except Exception:  # whatever breaks inside a model that nobody has tried means no
        return False


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
