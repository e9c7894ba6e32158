"""A node sees the prefix, its ancestors and itself, less what lies outside the window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from elision.errors import ConfigError
from elision.middleware.engines.cache import full_cache
from elision.middleware.speculation.base import NOTHING, Draft
from elision.middleware.speculation.masks import (
    Windows,
    chain_masks,
    chain_positions,
    tree_masks,
    tree_positions,
)

LEVELS = (
    (8,),
    (8, 4, 3, 2, 1, 1, 1, 1),
    (8, 3, 2, 1, 1, 1, 1, 1, 2, 1, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0),
    (5, 2, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0),
    (3, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0),
    (2, 0, 0, 1, 0, 0, 0, 0),
)
HOW: dict[str, Any] = {"backend": "sdpa", "dtype": torch.float32, "device": "cpu"}
KINDS = ("chunked_attention", "full_attention", "sliding_attention")


def eighty(tokens: Tensor) -> Draft:
    """Return the static tree of the paper's code, with *tokens*."""
    parents: list[int] = []
    nodes = [0]
    for counts in LEVELS:
        level = [p for p, n in zip(nodes, counts, strict=True) for _ in range(n)]
        nodes = list(range(len(parents) + 1, len(parents) + 1 + len(level)))
        parents += level
    return Draft(tuple(tokens.tolist()), tuple(parents))


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    n = draw(st.integers(0, 12))
    parents = tuple(draw(st.integers(0, i)) for i in range(n))
    return Draft((0,) * n, parents)


def path_to(draft: Draft, node: int) -> list[int]:
    path = [node]
    while path[0]:
        path.insert(0, draft.parents[path[0] - 1])
    return path


def slow(draft: Draft, n_past: int, kind: str, size: int) -> list[list[bool]]:
    """Say the rule one slot at a time."""
    positions = [*range(n_past), *(n_past + depth for depth in draft.depths)]
    rows = []
    for node in range(len(draft) + 1):
        own, seen = positions[n_past + node], []
        kin = {n_past + other for other in path_to(draft, node)}
        for slot, position in enumerate(positions):
            near = {
                "full_attention": True,
                "sliding_attention": own - position < size,
                "chunked_attention": own // size == position // size,
            }[kind]
            seen.append(near and (slot < n_past or slot in kin))
        rows.append(seen)
    return rows


def opened(mask: Tensor) -> list[list[bool]]:
    assert set(mask.unique().tolist()) <= {0.0, torch.finfo(mask.dtype).min}
    assert mask.shape[:2] == (1, 1)
    rows: list[list[bool]] = (mask[0, 0] == 0).tolist()
    return rows


@given(draft=drafts(), n_past=st.integers(0, 20), size=st.integers(1, 12))
def test_masks_are_those_of_the_rule_said_slowly(draft: Draft, n_past: int, size: int) -> None:
    windows = Windows(sliding=size, chunk=size, kinds=KINDS)
    masks = tree_masks(windows, n_past=n_past, draft=draft, **HOW)
    assert isinstance(masks, dict)
    assert sorted(masks) == list(KINDS)
    for kind, mask in masks.items():
        assert opened(mask) == slow(draft, n_past, kind, size)


@given(draft=drafts(), n_past=st.integers(0, 20), size=st.integers(0, 12), data=st.data())
def test_later_nodes_are_masked_as_in_the_whole_tree(
    draft: Draft, n_past: int, size: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(draft)))
    windows = Windows(sliding=size)
    whole = tree_masks(windows, n_past=n_past, draft=draft, **HOW)
    later = tree_masks(windows, n_past=n_past, draft=draft, first=first, **HOW)
    assert isinstance(whole, Tensor)
    assert isinstance(later, Tensor)
    assert torch.equal(later, whole[:, :, first:])
    everywhere = tree_positions(n_past, draft)
    assert torch.equal(tree_positions(n_past, draft, first=first), everywhere[:, first:])
    assert everywhere.tolist() == [[n_past + depth for depth in draft.depths]]


@given(n_past=st.integers(0, 20), n_new=st.integers(1, 9), size=st.integers(0, 12))
def test_a_chain_is_masked_as_a_tree_without_branches(n_past: int, n_new: int, size: int) -> None:
    chain = Draft((0,) * (n_new - 1), tuple(range(n_new - 1)))
    for windows in (Windows(sliding=size), Windows(chunk=size)):
        mask = chain_masks(windows, n_past=n_past, n_new=n_new, **HOW)
        wanted = tree_masks(windows, n_past=n_past, draft=chain, **HOW)
        assert isinstance(wanted, Tensor)
        if mask is None:
            causal = torch.ones(n_new, n_past + n_new).tril(n_past) > 0
            assert opened(wanted) == causal.tolist()
            assert n_new == 1 or n_past == 0
        else:
            assert torch.equal(mask, wanted)
    assert torch.equal(chain_positions(n_past, n_new), tree_positions(n_past, chain))


def test_slots_that_are_not_in_use_are_closed() -> None:
    mask = tree_masks(Windows(sliding=3), n_past=4, draft=NOTHING, n_slots=8, **HOW)
    assert isinstance(mask, Tensor)
    assert opened(mask) == [[False, False, True, True, True, False, False, False]]


def test_masks_are_made_anew_so_that_no_one_writes_into_anothers() -> None:
    draft = Draft((1, 2), (0, 0))
    first = tree_masks(Windows(), n_past=3, draft=draft, **HOW)
    assert isinstance(first, Tensor)
    kept = first.clone()
    first.fill_(7)
    assert torch.equal(tree_masks(Windows(), n_past=3, draft=draft, **HOW), kept)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["flash_attention_2", "flex_attention", "paged|sdpa"])
def test_other_attention_functions_are_refused_by_name(backend: str) -> None:
    how = {**HOW, "backend": backend}
    with pytest.raises(ConfigError, match=backend.replace("|", r"\|")):
        tree_masks(Windows(), n_past=3, draft=NOTHING, **how)


def test_eager_attention_is_not_left_without_a_mask_at_the_start() -> None:
    how = {**HOW, "backend": "eager"}
    assert chain_masks(Windows(), n_past=0, n_new=3, **how) is not None
    assert chain_masks(Windows(), n_past=7, n_new=1, **how) is None


def check_eighty(model: Any, n_past: int) -> None:
    draw = torch.Generator().manual_seed(n_past)
    tokens = torch.randint(97, (n_past + 81,), generator=draw)
    draft, ids = eighty(tokens[n_past + 1 :]), tokens[n_past:]
    how = {**HOW, "backend": model.config._attn_implementation}
    cache = full_cache(model.config)
    with torch.inference_mode():
        masks = chain_masks(model.config, n_past=0, n_new=n_past, **how)
        model(tokens[None, :n_past], past_key_values=cache, attention_mask=masks)
        rows = model(
            ids[None],
            past_key_values=cache,
            attention_mask=tree_masks(model.config, n_past=n_past, draft=draft, **how),
            position_ids=tree_positions(n_past, draft),
        ).logits[0]
        paths = [path_to(draft, leaf) for leaf in set(range(81)) - set(draft.parents)]
        padded = torch.tensor([path + [0] * (7 - len(path)) for path in paths])
        before = tokens[:n_past].expand(len(paths), -1)
        plain = model(torch.cat([before, ids[padded]], dim=1)).logits[:, n_past:]
    for path, wanted in zip(paths, plain, strict=True):
        torch.testing.assert_close(rows[path], wanted[: len(path)], rtol=0, atol=2e-4)


def test_every_node_of_eighty_scores_as_its_path_alone(  # T2
    make: Callable[[str], Any], capable: str
) -> None:
    check_eighty(make(capable), n_past=30)


@pytest.mark.parametrize("name", ["mistral", "gemma3", "llama4"])
@pytest.mark.parametrize("n_past", [1, 12])
def test_nodes_score_rightly_where_a_tree_outgrows_the_window(
    make: Callable[[str], Any], name: str, n_past: int
) -> None:
    check_eighty(make(name), n_past)
