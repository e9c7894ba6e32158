"""A cache after compaction is one that has read the kept path alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import Cache, DynamicCache, StaticCache

from elision.errors import ConfigError
from elision.middleware.engines.cache import FIRST_TOKENS, GrowingLayer, full_cache, growing_cache
from elision.middleware.speculation.base import NOTHING, Draft
from elision.middleware.speculation.compaction import can_compact, compact, tree_slots, truncate
from elision.middleware.speculation.masks import chain_masks, tree_masks, tree_positions

WIDTH = 4


def growing(n_layers: int) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = [GrowingLayer() for _ in range(n_layers)]  # type: ignore[no-untyped-call]
    return cache


def states(n: int, seed: int) -> Tensor:
    return torch.randn(2, 3, n, WIDTH, generator=torch.Generator().manual_seed(seed))


def append(cache: Cache, rows: Tensor) -> None:
    for layer in range(2):
        cache.update(rows + layer, -rows, layer)


@st.composite
def walks(draw: st.DrawFn) -> tuple[int, list[int]]:
    n = draw(st.integers(1, 12))
    return n, sorted(draw(st.sets(st.integers(0, n - 1))))


@pytest.mark.parametrize("make_cache", [lambda: growing(2), DynamicCache], ids=["ours", "theirs"])
@given(walk=walks(), n_past=st.sampled_from([0, 1, 9, FIRST_TOKENS - 3]))
def test_what_is_left_is_what_the_path_alone_would_have_left(
    make_cache: Callable[[], DynamicCache], walk: tuple[int, list[int]], n_past: int
) -> None:
    n, path = walk
    prefix, tried, later = states(n_past, 0), states(n, 1), states(3, 2)
    ours, alone = make_cache(), make_cache()
    append(ours, torch.cat([prefix, tried], dim=-2))
    compact(ours, path, n)
    append(alone, torch.cat([prefix, tried[:, :, path]], dim=-2))
    for _ in range(2):
        for mine, wanted in zip(ours.layers, alone.layers, strict=True):
            assert torch.equal(mine.keys, wanted.keys)
            assert torch.equal(mine.values, wanted.values)
        append(ours, later)
        append(alone, later)


def test_keys_stay_where_they_lie() -> None:
    cache = growing(2)
    append(cache, states(20, 0))
    places = [layer.keys.data_ptr() for layer in cache.layers]
    for path in ([0, 1], [0, 3, 5], [0], []):
        append(cache, states(8, 1))
        compact(cache, path, 8)
        append(cache, states(1, 2))
        assert [layer.keys.data_ptr() for layer in cache.layers] == places


def test_a_copy_is_not_compacted_along() -> None:
    cache = growing(2)
    append(cache, states(9, 0))
    other = copy.deepcopy(cache)
    kept = [layer.keys.clone() for layer in other.layers]
    compact(cache, [0, 2, 4], 5)
    assert all(torch.equal(a.keys, b) for a, b in zip(other.layers, kept, strict=True))


@pytest.mark.parametrize("path", [[1, 0], [0, 0], [0, 5], [-1]])
def test_a_path_that_does_not_rise_within_the_tree_is_a_mistake(path: list[int]) -> None:
    cache = growing(2)
    append(cache, states(9, 0))
    with pytest.raises(AssertionError):
        compact(cache, path, 5)


def test_an_error_leaves_nothing_behind() -> None:  # I4
    cache = growing(2)
    append(cache, states(9, 0))
    kept = [layer.keys.clone() for layer in cache.layers]

    def fail_half_way() -> None:
        with tree_slots(cache, 9):
            append(cache, states(5, 1))
            cache.layers[0].update(states(2, 2), states(2, 2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert all(torch.equal(a.keys, b) for a, b in zip(cache.layers, kept, strict=True))


def test_an_error_in_the_first_forward_leaves_an_empty_cache() -> None:
    cache = growing(2)

    def fail() -> None:
        with tree_slots(cache, 0):
            cache.layers[0].update(states(2, 2), states(2, 2))
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert cache.get_seq_length() == 0
    append(cache, states(3, 0))
    assert torch.equal(cache.layers[0].keys, states(3, 0))


def test_without_an_error_nothing_is_taken_back() -> None:
    cache = growing(2)
    with tree_slots(cache, 0):
        append(cache, states(4, 0))
    truncate(cache, 7)
    assert cache.get_seq_length() == 4


def test_caches_that_forget_are_refused(make: Callable[[str], Any]) -> None:
    for name in ("mistral", "gemma3", "lfm2", "qwen3-next"):
        model = make(name)
        cache = growing_cache(model.config)
        assert not can_compact(cache)
        with torch.inference_mode():
            model(torch.arange(5)[None], past_key_values=cache)
        with pytest.raises(ConfigError, match="cannot be compacted"):
            compact(cache, [0], 2)
    assert can_compact(full_cache(make("gemma3").config))
    assert not can_compact(full_cache(make("lfm2").config))


def test_transformers_own_crop_takes_no_length(make: Callable[[str], Any]) -> None:  # T8
    model = make("llama")
    cache = full_cache(model.config)
    model(torch.arange(5)[None], past_key_values=cache)
    with pytest.raises(ValueError, match="positive"):
        cache.crop(3)


class Guesses:
    """Drafts from what greedy decoding has said, with wrong siblings around it."""

    def __init__(self, model: Any, prompt: list[int], n: int) -> None:
        self.tokens, how = list(prompt), how_of(model)
        cache, rest = full_cache(model.config), list(prompt)
        while len(self.tokens) < len(prompt) + n + 8:
            masks = chain_masks(model.config, n_past=cache.get_seq_length(), n_new=len(rest), **how)
            out = model(torch.tensor([rest]), past_key_values=cache, attention_mask=masks)
            rest = [int(out.logits[0, -1].argmax())]
            self.tokens += rest

    def draft(self, at: int) -> Draft:
        """Return a tree below the token at *at*: right to a depth that changes, in odd places."""
        right = self.tokens[at + 1 : at + 2 + at % 5]
        tokens, parents, last = [], [], 0
        for depth, token in enumerate(right):
            tokens += [(token + 1) % 97, token, (token + 2) % 97]
            parents += [last, last, max(0, last - 1)]
            last = 3 * depth + 2
        return Draft(tuple(tokens), tuple(parents))


def how_of(model: Any) -> dict[str, Any]:
    backend = model.config._attn_implementation
    return {"backend": backend, "dtype": torch.float32, "device": "cpu"}


def tree_loop(
    model: Any, prompt: list[int], n: int, cache: Cache, guesses: Guesses, n_slots: int | None
) -> tuple[list[int], int]:
    """Decode greedily by trees; return all tokens and the number of forwards."""
    tokens, how, n_forwards = list(prompt), how_of(model), 0

    def score(draft: Draft, ids: list[int], n_past: int) -> Tensor:
        masks = tree_masks(model.config, n_past=n_past, draft=draft, n_slots=n_slots, **how)
        where = tree_positions(n_past, draft)
        out = model(
            torch.tensor([ids]), attention_mask=masks, position_ids=where, past_key_values=cache
        )
        return out.logits[0]  # type: ignore[no-any-return]

    chain = Draft(tuple(prompt[1:-1]), tuple(range(len(prompt) - 2)))
    score(chain, prompt[:-1], 0)
    while len(tokens) < len(prompt) + n:
        draft = guesses.draft(len(tokens) - 1)
        n_forwards += 1
        with tree_slots(cache, len(tokens) - 1):
            rows = score(draft, [tokens[-1], *draft.tokens], len(tokens) - 1)
            node: int | None = 0
            path = []
            while node is not None:
                path.append(node)
                tokens.append(int(rows[node].argmax()))
                node = draft.child(node, tokens[-1])
            compact(cache, path, len(draft) + 1)
        assert int(cache.get_seq_length()) == len(tokens) - 1  # I3
    return tokens[: len(prompt) + n], n_forwards


def check_greedy(model: Any, n_prompt: int) -> None:
    prompt = torch.randint(97, (n_prompt,), generator=torch.Generator().manual_seed(1)).tolist()
    with torch.inference_mode():
        guesses = Guesses(model, prompt, 60)
        cache = full_cache(model.config)
        tokens, n_forwards = tree_loop(model, prompt, 60, cache, guesses, None)
    assert tokens == guesses.tokens[: n_prompt + 60]
    assert n_forwards < 30


def test_greedy_text_is_that_of_plain_decoding(make: Callable[[str], Any], capable: str) -> None:
    check_greedy(make(capable), n_prompt=8)  # T3: within the window, and out of it


@pytest.mark.parametrize("name", ["mistral", "gemma3", "llama4"])
def test_greedy_text_is_the_same_behind_a_prompt_longer_than_the_window(
    make: Callable[[str], Any], name: str
) -> None:
    check_greedy(make(name), n_prompt=40)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt-neox"])
def test_greedy_text_is_the_same_over_a_static_cache(  # T6
    make: Callable[[str], Any], name: str
) -> None:
    model, prompt = make(name), list(range(9, 30))
    with torch.inference_mode():
        guesses = Guesses(model, prompt, 60)
        cache = StaticCache(config=model.config, max_cache_len=128)
        assert can_compact(cache)
        tokens, n_forwards = tree_loop(model, prompt, 60, cache, guesses, 128)
        assert n_forwards < 30
        assert tokens == guesses.tokens[:81]
        truncate(cache, 4)
        assert int(cache.get_seq_length()) == 4
        fresh = full_cache(model.config)
        model(torch.tensor([prompt[:4]]), past_key_values=fresh)
        where, how = tree_positions(4, NOTHING), how_of(model)
        masks = tree_masks(model.config, n_past=4, draft=NOTHING, n_slots=128, **how)
        one = torch.tensor([[prompt[4]]])
        mine = model(one, attention_mask=masks, position_ids=where, past_key_values=cache).logits
        torch.testing.assert_close(mine, model(one, past_key_values=fresh).logits)
