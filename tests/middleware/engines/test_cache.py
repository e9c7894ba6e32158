"""The growing cache holds what transformers' holds, to the last bit."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import DynamicCache

from elision.middleware.engines.cache import FIRST_TOKENS, GrowingLayer, growing_cache
from elision.testing.models import ARCHITECTURES, Architecture, tiny_model

LENGTHS = [5, 1, 1, FIRST_TOKENS, 1, 7, 2 * FIRST_TOKENS, 1]


def tokens(n: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 259, (2, n), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_are_those_over_a_concatenating_cache(architecture: Architecture) -> None:
    model = tiny_model(architecture, context=2048)
    ours, theirs = growing_cache(model.config), DynamicCache(config=model.config)
    with torch.inference_mode():
        for seed, n in enumerate(LENGTHS):
            ids = tokens(n, seed)
            mine = model(ids, past_key_values=ours, use_cache=True).logits
            assert torch.equal(mine, model(ids, past_key_values=theirs, use_cache=True).logits)
            assert ours.get_seq_length() == theirs.get_seq_length()


def test_what_is_cropped_is_written_over() -> None:
    model = tiny_model("llama")
    ours, theirs = growing_cache(model.config), DynamicCache(config=model.config)
    with torch.inference_mode():
        for cache in (ours, theirs):
            model(tokens(9, 0), past_key_values=cache)
            cache.crop(-4)
        mine = model(tokens(3, 1), past_key_values=ours).logits
        assert torch.equal(mine, model(tokens(3, 1), past_key_values=theirs).logits)


def test_a_copy_shares_nothing() -> None:
    model = tiny_model("llama")
    cache = growing_cache(model.config)
    with torch.inference_mode():
        model(tokens(9, 0), past_key_values=cache)
        other = copy.deepcopy(cache)
        before = model(tokens(1, 1), past_key_values=copy.deepcopy(cache)).logits
        model(tokens(5, 2), past_key_values=other)
        assert torch.equal(model(tokens(1, 1), past_key_values=cache).logits, before)


def test_states_that_were_put_in_from_outside_are_kept() -> None:
    layer, states = GrowingLayer(), torch.randn(1, 2, 3, 4)
    layer.update(states, states)
    layer.keys, layer.values = states.clone(), 2 * states
    keys, values = layer.update(states, states)
    assert torch.equal(keys, torch.cat([states, states], dim=-2))
    assert torch.equal(values, torch.cat([2 * states, states], dim=-2))


def test_a_step_copies_no_prefix() -> None:
    layer, one = GrowingLayer(), torch.randn(1, 2, 1, 4)
    places = set()
    for _ in range(FIRST_TOKENS):
        keys, _ = layer.update(one, one)
        places.add(keys.data_ptr())
    assert len(places) == 1
