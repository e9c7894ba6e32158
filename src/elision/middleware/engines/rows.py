"""The tokens of several sequences on one row: whose keys are whose, and who attends to whom.

For the length of a forward the model's attention is `Rows.attend`, which takes each sequence's
queries to that sequence's own keys and hands them to the model's own attention function. So soft
caps, sinks and grouped heads stay the model's business.

The sequences reach the attention function as the bound method that is registered for the forward.
A keyword argument would have to pass through every layer (not all architectures forward theirs),
attention functions are not shown the cache, and a context variable would be state of this module.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from elision.middleware.engines import attention
from elision.middleware.engines.part import Part
from elision.middleware.engines.roots import Roots, alike
from elision.middleware.speculation.masks import Windows


class Rows(Cache):
    """Stands in for a cache during one forward; new states go to their sequence's own.

    Args:
        config: The text part of the model's configuration, as it stands outside of the forward.
        parts: The sequences, in the order in which they stand on the row.
        independent: Attend by `attention.attend` where that does the same.
    """

    def __init__(self, config: Any, parts: Sequence[Part], *, independent: bool = False) -> None:
        super().__init__(layers=[])
        self._usual: str = config._attn_implementation
        self._kinds: Sequence[str] = config.layer_types if Windows.of(config).kinds else ()
        self._parts = parts
        self._independent = independent
        self._together: list[tuple[Roots, list[Part]]] | None = None
        self._apart: Sequence[Part] = parts

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append each sequence's states to its own cache; return the new states alone."""
        for part in self._parts:
            keys = key_states.narrow(2, part.start, part.n)
            values = value_states.narrow(2, part.start, part.n)
            part.cache.update(keys, values, layer_idx, *args, **kwargs)
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Raise: whoever asks would take one answer for every sequence's.

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
        """Attend sequence by sequence; what transformers calls an attention function.

        Args:
            module: The attention layer.
            query: Queries of all sequences, shape ``(1, heads, T, width)``.
            key: The new keys; not needed, each sequence's cache has them.
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
        scaling = kwargs.get("scaling")
        if self._together is None:
            self._gather(index, plain=plain)
        read = []
        for part in self._apart:
            layer = cast("Any", part.cache.layers[index])
            asked = query.narrow(2, part.start, part.n)
            if plain and self._independent and part.n <= attention.MAX_ROWS:
                read.append(_attend_alike(asked, layer, part, kind, scaling))
            elif plain:
                read.append(_attend_in_groups(asked, layer, part, kind, scaling))
            else:
                mask = part.mask(kind)
                read.append(usual(module, asked, layer.keys, layer.values, mask, **kwargs)[0])
        if not self._together:
            return (read[0] if len(read) == 1 else torch.cat(read, dim=1)), None
        return self._with_roots(query, read, index, scaling), None

    def _gather(self, index: int, *, plain: bool) -> None:
        """Find the lone tokens that can attend together, once a forward."""
        alone = [p for p in self._parts if p.n == 1 and p.masks is None]
        alone = alone if plain and self._independent else []
        sized = [(p, cast("Any", p.cache.layers[index]).keys.shape[2]) for p in alone]
        groups = [group for group in alike(sized) if len(group) > 1]
        self._together = [
            (Roots([p.start for p in group], _layers(group, index)), group) for group in groups
        ]
        joined = {p.start for group in groups for p in group}
        self._apart = [p for p in self._parts if p.start not in joined]

    def _with_roots(
        self, query: Tensor, read: list[Tensor], index: int, scaling: float | None
    ) -> Tensor:
        """Have the lone tokens attend; return what all tokens have read, in their order."""
        whole = None
        for roots, group in self._together or ():
            mine = roots.attend(query, _layers(group, index), scaling)
            if len(group) == query.shape[2]:
                return mine[None]
            if whole is None:
                whole = mine.new_empty((query.shape[2], *mine.shape[1:]))
            whole[roots.at] = mine
        assert whole is not None, "there is a group"
        for part, others in zip(self._apart, read, strict=True):
            whole[part.start : part.start + part.n] = others[0]
        return whole[None]


def _layers(parts: Sequence[Part], index: int) -> list[Any]:
    return [part.cache.layers[index] for part in parts]


def _function(module: Any, name: str) -> Any:
    """Return the function that *module* would attend by: its own file's, as it looks it up."""
    names = vars(sys.modules[type(module).__module__])
    return names["ALL_ATTENTION_FUNCTIONS"].get_interface(name, names["eager_attention_forward"])


def _is_plain(query: Tensor, kwargs: dict[str, Any]) -> bool:
    """Return whether attention is softmax(QK)V and no more, on a CPU."""
    odd = ("softcap", "position_bias", "cache", "s_aux")
    bare = not kwargs.get("dropout") and all(kwargs.get(name) is None for name in odd)
    return bare and query.device.type == "cpu"


def _attend_alike(
    query: Tensor, layer: Any, part: Part, kind: str, scaling: float | None
) -> Tensor:
    """Attend so that no row depends on its neighbours."""
    keys = layer.keys
    seen = part.seen(kind, query.shape[1] // keys.shape[1])
    return attention.attend(query, keys, layer.values, seen, scaling)


def _attend_in_groups(
    query: Tensor, layer: Any, part: Part, kind: str, scaling: float | None
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


@contextmanager
def attending(config: Any, attend: Any) -> Iterator[None]:
    """Have models of *config* attend by *attend*; masks they then make none of their own.

    Args:
        config: The text part of a model's configuration; the same again afterwards.
        attend: What transformers calls an attention function.
    """
    functions = cast("MutableMapping[str, Any]", ALL_ATTENTION_FUNCTIONS)
    name, usual = f"elision_ragged_{id(attend):x}", config._attn_implementation
    functions[name] = attend
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = usual
        del functions[name]
