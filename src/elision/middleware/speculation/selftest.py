"""May this model be handed trees? Asked once, when it is loaded, by trying.

Many a model runs on a tree and is silently wrong: recurrent and convolutional layers let siblings
see each other, attention functions misread masks, layers count windows in slots. So the scores of
a small tree are held against plain forwards over each of its paths, before and after compaction.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor
from transformers import Cache

from elision.errors import ConfigError, ElisionError
from elision.middleware.speculation.base import NOTHING, Draft
from elision.middleware.speculation.compaction import can_compact, compact
from elision.middleware.speculation.masks import (
    Masks,
    Windows,
    chain_masks,
    chain_positions,
    tree_masks,
    tree_positions,
)

PARENTS: Final = (0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8)
"""Three branches, interleaved, so that no path lies in a row of slots."""
PATHS: Final = ((0, 1, 4, 7, 10), (0, 1, 3, 6, 9), (0, 2, 5, 8, 11))
"""All paths to a leaf; the first is the one kept."""
N_PREFIX: Final = 24
N_SECOND: Final = 8
"""Tokens of the prefix that are read in a second chunk."""
LARGEST_WINDOW: Final = 64
"""Longer windows are not outrun: reading past them would take seconds at start-up."""
BOUND: Final = 1e-3
"""Largest error allowed in single precision; see `TreeCheck`."""
HALF_BOUND: Final = 5e-2
"""The same in half precision, where rows of a wider forward round differently."""


@dataclass(frozen=True, slots=True)
class TreeCheck:
    """What became of the trial.

    Attributes:
        trees: Whether trees may be scored.
        chains: Whether tokens in a row, with no masks of ours, may be scored and taken back.
        reason: Why not trees; empty if they may.
        error: Largest error of a score, over the largest score (each less its row's mean);
            infinite if it never came to that.
        outran: Whether the trial read further than the shortest window, or there is none.
    """

    trees: bool
    chains: bool
    reason: str
    error: float
    outran: bool


def is_tree_capable(model: Any, *, new_cache: Callable[[], Cache]) -> bool:
    """Return whether *model* scores trees rightly; see `check_trees`."""
    return check_trees(model, new_cache=new_cache).trees


def check_trees(
    model: Any, *, new_cache: Callable[[], Cache], backend: str | None = None
) -> TreeCheck:
    """Score a tree of twelve nodes both ways, keep one path of it, score on; never raises.

    Args:
        model: A transformers model for causal language modelling, in evaluation mode.
        new_cache: Makes an empty cache, full-length in every layer.
        backend: Its attention function; None to ask its configuration.

    Returns:
        The outcome. Whatever the model raises means no.
    """
    bound = BOUND if torch.finfo(model.dtype).bits >= 32 else HALF_BOUND
    window = _shortest_window(model.config)
    trial = _Trial(model, new_cache, backend, _n_prefix(window))
    with torch.inference_mode():
        error, reason = _attempt(trial.tree, bound)
        chains = not reason or not _attempt(trial.chain, bound)[1]
    return TreeCheck(not reason, chains, reason, error, trial.n_prefix > window)


def _attempt(trial: Callable[[], float], bound: float) -> tuple[float, str]:
    """Return the error of *trial*, and why it failed, if it did."""
    try:
        error = trial()
    except ElisionError as exc:
        return math.inf, str(exc)
    except Exception as exc:  # what models of any make may raise has no common base
        return math.inf, f"the model raises {type(exc).__name__} when it is handed a draft"
    if error <= bound:
        return error, ""
    return error, f"scores of a draft are off by {error:.1e} of the largest; allowed is {bound:g}"


@dataclass(frozen=True, slots=True)
class _Trial:
    """One model, and the tokens it is tried on: a prefix, a tree, and one token more."""

    model: Any
    new_cache: Callable[[], Cache]
    backend: str | None
    n_prefix: int

    def tree(self) -> float:
        """Return the largest error of a tree's scores and of those behind the path kept."""
        how, (prefix, nodes, last) = self._how(), self._tokens()
        cache, n, draft = self._cache(), self.n_prefix, Draft(tuple(nodes[1:]), PARENTS)
        for start, stop in ((0, n - N_SECOND), (n - N_SECOND, n)):
            masks = chain_masks(**how, n_past=start, n_new=stop - start)
            where = chain_positions(start, stop - start)
            self._read(prefix[start:stop], cache, masks, where, n_rows=1)
        masks = tree_masks(**how, n_past=n, draft=draft)
        rows = self._read(nodes, cache, masks, tree_positions(n, draft))
        compact(cache, PATHS[0], len(nodes))
        n += len(PATHS[0])
        masks = tree_masks(**how, n_past=n, draft=NOTHING)
        after = self._read([last], cache, masks, tree_positions(n, NOTHING))
        found = [torch.cat([rows[list(PATHS[0])], after]), *(rows[list(p)] for p in PATHS[1:])]
        return max(map(_error, found, self._plain()))

    def chain(self) -> float:
        """Return the largest error of tokens in a row: read, taken back in part, read again."""
        prefix, nodes, last = self._tokens()
        path, cache = [*(nodes[node] for node in PATHS[0]), last], self._cache()
        self._read(prefix, cache, n_rows=1)
        rows = self._read(path, cache)
        compact(cache, range(2), len(path))
        again = torch.cat([rows[:2], self._read(path[2:], cache)])
        wanted = self._plain()[0]
        return max(_error(rows, wanted), _error(again, wanted))

    def _plain(self) -> Tensor:
        """Return the scores behind every node of each path, and the token more, without a cache."""
        prefix, nodes, last = self._tokens()
        rows = [[*prefix, *(nodes[node] for node in path), last] for path in PATHS]
        ids, n = torch.tensor(rows, device=self.model.device), len(PATHS[0]) + 1
        out = self.model(input_ids=ids, use_cache=False, **self._rows(n))
        return cast("Tensor", out.logits)[:, -n:].float()

    def _read(
        self,
        tokens: Sequence[int],
        cache: Cache,
        masks: Masks | None = None,
        positions: Tensor | None = None,
        n_rows: int = 0,
    ) -> Tensor:
        """Append *tokens* to *cache*; return the scores behind the last *n_rows*, or all."""
        ids = torch.tensor([tokens], device=self.model.device)
        more: dict[str, Any] = self._rows(n_rows)
        if positions is not None:
            more["position_ids"] = positions.to(ids.device)
        out = self.model(
            input_ids=ids, attention_mask=masks, past_key_values=cache, use_cache=True, **more
        )
        return cast("Tensor", out.logits)[0].float()

    def _rows(self, n: int) -> dict[str, int]:
        """Return what asks for the last *n* rows of scores only, where the model can be asked."""
        names = inspect.signature(self.model.forward).parameters
        return {"logits_to_keep": n} if "logits_to_keep" in names else {}

    def _tokens(self) -> tuple[list[int], list[int], int]:
        """Return prefix, nodes and the token more; the same at every call."""
        draw, n_nodes = torch.Generator().manual_seed(0), len(PARENTS) + 1
        n_vocab = int(self.model.config.get_text_config().vocab_size)
        tokens = torch.randint(n_vocab, (self.n_prefix + n_nodes + 1,), generator=draw).tolist()
        return tokens[: self.n_prefix], tokens[self.n_prefix : -1], tokens[-1]

    def _cache(self) -> Cache:
        cache = self.new_cache()
        if not can_compact(cache):
            raise ConfigError("a layer remembers more than keys and values, or less")
        return cache

    def _how(self) -> dict[str, Any]:
        """Return the arguments that every mask takes."""
        config = self.model.config.get_text_config()
        return {
            "config": Windows.of(config),
            "backend": self.backend or str(config._attn_implementation),
            "dtype": self.model.dtype,
            "device": self.model.device,
        }


def _error(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference over the largest score; infinite if some score is no number.

    Scores count less their row's mean, on which no choice depends.
    """
    wanted = wanted[: len(found)]
    found, wanted = (rows - rows.mean(-1, keepdim=True) for rows in (found, wanted))
    error = float((found - wanted).abs().max() / wanted.abs().max())
    return error if math.isfinite(error) else math.inf


def _shortest_window(config: Any) -> int:
    try:
        return Windows.of(config).smallest
    except ConfigError:
        return 0  # the trial will say so


def _n_prefix(window: int) -> int:
    """Return how much to read first: more than the window, the tree across the end of a chunk."""
    if not window or window > LARGEST_WINDOW:
        return N_PREFIX
    return -(-max(N_PREFIX + 2, window + 3) // window) * window - 2
