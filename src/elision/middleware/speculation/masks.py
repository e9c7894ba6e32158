"""Which slots of a full-length cache every node of a draft may attend to.

A node sees the whole prefix, its ancestors and itself, less what lies outside its layer's window.
Windows are counted in positions, not in slots: siblings share a position, and slots are only
where keys happen to lie. Keys are cached with their position already turned into them, so mask
and positions are all that makes a tree of a row of tokens.

Masks are additive, for both attention functions alike. Torch's own would take booleans too, but
then it converts them in every layer anew; ``eager`` adds what it gets, booleans included, and is
silently wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor

from elision.errors import ConfigError
from elision.middleware.speculation.base import Draft

Masks: TypeAlias = Tensor | dict[str, Tensor]
"""One mask for all layers, or one per layer type; each ``(1, 1, rows, slots)``, 0 or the dtype's
smallest number."""

BACKENDS: Final = ("sdpa", "eager")
"""Attention functions that take a mask of any shape."""

_PARTIAL: Final = (
    "attention_window",
    "attention_window_size",
    "keep_window_size",
    "local_attention",
    "window_size",
)
"""How configurations name windows that the model applies by itself, in slots."""

_Start: TypeAlias = Callable[[Any], Any]
"""Of one position, or of a tensor of them."""


@dataclass(frozen=True, slots=True)
class Windows:
    """How far back each kind of layer of a model attends; read from its configuration once.

    Attributes:
        sliding: Positions a sliding layer sees, its own included; 0 if there is none.
        chunk: Positions per chunk of a chunked layer; 0 if there is none.
        kinds: Layer types, sorted, if the model takes a mask for each; else empty.
    """

    sliding: int = 0
    chunk: int = 0
    kinds: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Any) -> Windows:
        """Read *config*, a model's or its text part's; a `Windows` is handed back as it is.

        Raises:
            ConfigError: If some layer is no attention over all slots that the mask allows.
        """
        if isinstance(config, Windows):
            return config
        text = config.get_text_config()
        if named := [name for name in _PARTIAL if getattr(text, name, None)]:
            raise ConfigError(f"a layer may have a window of its own, {named[0]!r}; no tree masks")
        sliding = int(getattr(text, "sliding_window", None) or 0)
        chunk = int(getattr(text, "attention_chunk_size", None) or 0)
        # The rule by which `transformers.masking_utils.create_masks_for_generate` chooses.
        if getattr(text, "layer_types", None) is None:
            return cls(sliding, 0 if sliding else chunk)
        kinds = tuple(sorted(set(text.layer_types)))
        known = {"full_attention": 1, "sliding_attention": sliding, "chunked_attention": chunk}
        if strange := [kind for kind in kinds if not known.get(kind)]:
            raise ConfigError(f"layers of type {strange[0]!r} cannot take tree masks")
        return cls(sliding, chunk, kinds)

    @property
    def smallest(self) -> int:
        """The shortest window or chunk of any layer; 0 if every layer sees everything."""
        sizes = [self._bound(kind)[0] for kind in self.kinds or ("",)]
        return min((size for size in sizes if size), default=0)

    def binds(self, n_slots: int) -> bool:
        """Return whether some layer does not see all of *n_slots* positions in a row."""
        return 0 < self.smallest < n_slots

    def start(self, kind: str) -> _Start | None:
        """Return what maps positions to the first position that layers of *kind* see from there.

        None if they see everything. With one mask for all layers, *kind* is empty.
        """
        size, in_chunks = self._bound(kind)
        if not size:
            return None
        if in_chunks:
            return lambda positions: positions - positions % size
        return lambda positions: positions - (size - 1)

    def _bound(self, kind: str) -> tuple[int, bool]:
        """Return the window of layers of *kind*, 0 if none, and whether it stands in chunks."""
        if kind == "full_attention":
            return 0, False
        if kind == "chunked_attention" or not (kind or self.sliding):
            return self.chunk, True
        return self.sliding, False


def tree_masks(
    config: Any,
    *,
    backend: str,
    dtype: torch.dtype,
    device: torch.device | str,
    n_past: int,
    draft: Draft,
    first: int = 0,
    n_slots: int | None = None,
) -> Masks:
    """Return the masks of one forward over *draft*'s nodes, the root first.

    Args:
        config: The model's configuration, or its `Windows` (which saves 20 microseconds a call).
        backend: Its attention function: ``sdpa`` or ``eager``.
        dtype: The number format of its queries.
        device: Where its attention runs.
        n_past: Slots in use before the root's, every one a position of its own from 0 on.
        draft: The tree.
        first: Score the nodes from this one on; the earlier ones are in the cache already. So
            tokens can be hung onto a tree that has been scored.
        n_slots: Width of the masks, for a cache that hands back more slots than are in use.

    Returns:
        One mask, or one per layer type; ``(1, 1, n + 1 - first, n_past + n + 1)``.

    Raises:
        ConfigError: If the attention function takes no such masks, or the layers do not.

    Source:
        Luo et al. 2024 (Token Recycling), arXiv:2408.08696, 3.3; ours: windows and chunks by
        position, and the additive form for both attention functions.
    """
    windows, device = _checked(config, backend), torch.device(device)
    block = _block(draft.parents, first, dtype, device)
    nodes = _Nodes(n_past, _depths(draft.parents, device), max(draft.depths))
    return _masks(windows, _open(block, n_past, n_slots), nodes)


def chain_masks(
    config: Any,
    *,
    backend: str,
    dtype: torch.dtype,
    device: torch.device | str,
    n_past: int,
    n_new: int,
) -> Masks | None:
    """Return the masks of one forward over *n_new* tokens in a row, on a full-length cache.

    Returns:
        None where attention without any mask, causal if it can be told to, does the same: no
        window binds, and either one token is new or nothing (``sdpa``) came before.

    Raises:
        ConfigError: As `tree_masks`.
    """
    windows, device = _checked(config, backend), torch.device(device)
    bare = n_new == 1 or (n_past == 0 and backend == "sdpa")
    if bare and not windows.binds(n_past + n_new):
        return None
    if n_new == 1:
        block = _block((), 0, dtype, device)
    else:
        below = torch.full((n_new, n_new), torch.finfo(dtype).min, dtype=dtype, device=device)
        block = below.triu_(1)
    nodes = _Nodes(n_past, torch.arange(n_new, device=device), n_new - 1)
    return _masks(windows, _open(block, n_past, None), nodes)


def tree_positions(
    n_past: int, draft: Draft, device: torch.device | str = "cpu", *, first: int = 0
) -> Tensor:
    """Return the position of every node from *first* on, the root's first; ``(1, n + 1)``."""
    return (_depths(draft.parents, torch.device(device))[first:] + n_past).unsqueeze(0)


def chain_positions(n_past: int, n_new: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the positions of *n_new* tokens in a row, ``(1, n_new)``."""
    return torch.arange(n_past, n_past + n_new, device=device).unsqueeze(0)


def _checked(config: Any, backend: str) -> Windows:
    if backend not in BACKENDS:
        raise ConfigError(
            f"the attention function is {backend!r}; tree masks need one of {BACKENDS}: "
            "load the model with attn_implementation='sdpa'"
        )
    return Windows.of(config)


@dataclass(frozen=True, slots=True)
class _Nodes:
    """Where the nodes stand: their depths, behind so many positions, and the largest depth."""

    n_past: int
    depths: Tensor
    deepest: int


def _masks(windows: Windows, full: Tensor, nodes: _Nodes) -> Masks:
    if not windows.kinds:
        return _narrowed(full, windows.start(""), nodes)
    return {kind: _narrowed(full, windows.start(kind), nodes) for kind in windows.kinds}


def _open(block: Tensor, n_past: int, n_slots: int | None) -> Tensor:
    """Return the mask of a layer that sees everything: the prefix, and *block* behind it."""
    n_rows, n_nodes = block.shape
    n_used = n_past + n_nodes
    mask = block.new_zeros((1, 1, n_rows, n_used if n_slots is None else n_slots))
    mask[..., n_past:n_used] = block
    if n_slots is not None:
        mask[..., n_used:] = torch.finfo(block.dtype).min
    return mask


def _narrowed(full: Tensor, start: _Start | None, nodes: _Nodes) -> Tensor:
    """Return *full* without the positions before each row's *start*; *full* itself if none is."""
    if start is None or start(nodes.n_past + nodes.deepest) <= 0:
        return full
    own = nodes.depths + nodes.n_past
    positions = torch.cat([torch.arange(nodes.n_past, device=own.device), own])
    mask = full.clone()
    outside = positions < start(own[-full.shape[-2] :])[:, None]
    mask[..., : len(positions)].masked_fill_(outside, torch.finfo(full.dtype).min)
    return mask


@lru_cache(maxsize=256)
def _block(
    parents: tuple[int, ...], first: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return what the nodes from *first* on add for every node: 0 for ancestors and itself."""
    ancestors = torch.from_numpy(Draft(parents, parents).ancestors[first:].copy()).to(device)
    block = torch.zeros(ancestors.shape, dtype=dtype, device=device)
    return block.masked_fill_(~ancestors, torch.finfo(dtype).min)


@lru_cache(maxsize=256)
def _depths(parents: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(Draft(parents, parents).depths, device=device)
