"""Lone tokens that attend together read, to the last bit, what each reads by itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from elision.middleware.engines import attention, packing, rows
from elision.middleware.engines.attention import CHUNK, Seen, attend
from elision.middleware.engines.cache import full_cache
from elision.middleware.engines.exactness import make_independent_
from elision.middleware.engines.packing import can_pack, pack_
from elision.middleware.engines.ragged import Segment, score_trees
from elision.middleware.engines.roots import Roots, alike
from elision.middleware.speculation.base import NOTHING, Draft

FORMATS = [torch.float32, torch.bfloat16]
HEADS = [(9, 3, 64), (4, 4, 64), (8, 1, 128), (14, 2, 64)]
"""Heads, key heads, width."""
ROUNDING = {torch.float32: 2e-5, torch.bfloat16: 2e-2}

lengths = st.one_of(st.integers(1, 70), st.sampled_from([CHUNK - 1, CHUNK, CHUNK + 1, 250, 640]))
rows_of = st.lists(lengths, min_size=2, max_size=8)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def drawn(heads: tuple[int, int, int], dtype: torch.dtype, sizes: list[int]) -> tuple[Any, Any]:
    """Return a query for each of *sizes*, on one row, and what lies before each."""
    n_heads, n_key_heads, width = heads
    noise = torch.Generator().manual_seed(sum(sizes))

    def of(*shape: int) -> Tensor:
        return torch.randn(1, *shape, width, generator=noise).to(dtype)

    layers = [SimpleNamespace(keys=of(n_key_heads, n), values=of(n_key_heads, n)) for n in sizes]
    return 2 * of(n_heads, len(sizes)), layers


def alone(query: Tensor, layer: Any) -> Tensor:
    seen = Seen(layer.keys.shape[2] - 1, None, None)
    return attend(query, layer.keys, layer.values, seen)[0, 0]


def _adds_up_in_order(heads: tuple[int, int, int]) -> bool:
    """Whether products of these shapes round alike, also where one key is left over."""
    with torch.inference_mode():
        for sizes in ([41, 100], [CHUNK + 1, 300]):
            query, layers = drawn(heads, torch.float32, sizes)
            together = Roots(range(2), layers).attend(query, layers, None)
            if not torch.equal(together[0], alone(query[:, :, :1], layers[0])):
                return False
        return True


EXACT = [heads for heads in HEADS if _adds_up_in_order(heads)]
exact = pytest.mark.skipif(
    not EXACT, reason="matrix products round by what stands beside them here"
)


@exact
@settings(max_examples=40)
@given(heads=st.sampled_from(EXACT or HEADS), dtype=st.sampled_from(FORMATS), sizes=rows_of)
def test_a_token_reads_to_the_last_bit_what_it_reads_by_itself(
    heads: tuple[int, int, int], dtype: torch.dtype, sizes: list[int]
) -> None:
    query, layers = drawn(heads, dtype, sizes)
    read = Roots(range(len(sizes)), layers).attend(query, layers, None)
    for i, layer in enumerate(layers):
        assert torch.equal(read[i], alone(query[:, :, i : i + 1], layer)), sizes[i]


@settings(max_examples=20)
@given(heads=st.sampled_from(HEADS), dtype=st.sampled_from(FORMATS), sizes=rows_of)
def test_it_reads_what_attention_reads_by_definition(
    heads: tuple[int, int, int], dtype: torch.dtype, sizes: list[int]
) -> None:
    query, layers = drawn(heads, dtype, sizes)
    read = Roots(range(len(sizes)), layers).attend(query, layers, 0.25)
    for i, layer in enumerate(layers):
        keys, values = (t.double().repeat_interleave(heads[0] // heads[1], 1)[0]
                        for t in (layer.keys, layer.values))  # fmt: skip
        scores = 0.25 * (query[0, :, i, None].double() @ keys.transpose(1, 2))
        want = (scores.softmax(-1) @ values)[:, 0]
        bound = ROUNDING[dtype]
        torch.testing.assert_close(read[i].double(), want, atol=bound, rtol=bound)


def test_the_next_layer_finds_nothing_of_the_one_before() -> None:
    query, first = drawn((9, 3, 64), torch.bfloat16, [5, 90])
    _, second = drawn((9, 3, 64), torch.bfloat16, [5, 90])
    for layer in second:
        layer.keys, layer.values = -layer.keys, layer.values * 3
    used = Roots(range(2), first)
    used.attend(query, first, None)
    again = used.attend(query, second, None)
    assert torch.equal(again, Roots(range(2), second).attend(query, second, None))


@given(sizes=st.lists(st.integers(1, 5000), max_size=12))
def test_none_is_filled_up_to_more_than_about_twice_its_length(sizes: list[int]) -> None:
    parts: Any = [SimpleNamespace(start=i) for i in range(len(sizes))]
    groups = list(alike(zip(parts, sizes, strict=True)))
    assert sorted(part.start for group in groups for part in group) == list(range(len(sizes)))
    for group in groups:
        own = [sizes[part.start] for part in group]
        assert max(own) <= 2 * (min(own) + CHUNK)


# --- whole models --------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether packing pays is no matter here."""
    monkeypatch.setattr(packing, "_try", lambda *_: packing.Trial(pays=True, floor=1))


def packed(dtype: torch.dtype) -> Any:
    config = LlamaConfig(
        vocab_size=259, hidden_size=256, intermediate_size=512, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.1,
    )  # fmt: skip
    with torch.inference_mode(mode=False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM(config).to(dtype).eval()
    if not can_pack(model):
        pytest.skip("plain linear layers do depend on the rows beside")
    pack_(model)
    if not make_independent_(model):
        pytest.skip("rows depend on each other here")
    return model


def behind(model: Any, n_past: int) -> Any:
    ids = torch.randint(259, (1, n_past), generator=torch.Generator().manual_seed(n_past))
    cache = full_cache(model.config)
    model(input_ids=ids, past_key_values=cache, use_cache=True)
    return cache


PASTS = (CHUNK - 1, 9, 300, 40, 11, 260)
BUSH = Draft((5, 6, 7), (0, 0, 1))


def company(model: Any) -> list[Segment]:
    """Return lone tokens of three groups, and between them a tree."""
    drafts = (NOTHING, NOTHING, BUSH, NOTHING, NOTHING, NOTHING)
    return [
        Segment((n % 7, *draft.tokens), draft, behind(model, n), n)
        for n, draft in zip(PASTS, drafts, strict=True)
    ]


@exact
@pytest.mark.parametrize("dtype", FORMATS)
def test_who_shares_a_forward_leaves_no_trace(dtype: torch.dtype) -> None:
    model = packed(dtype)
    shared = score_trees(model, company(model))
    for got, segment in zip(shared, company(model), strict=True):
        assert torch.equal(got, score_trees(model, [segment])[0])


def test_lone_tokens_attend_together_and_only_they(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = packed(torch.float32), list[int]()
    ours = attention.attend
    monkeypatch.setattr(
        attention, "attend", lambda *args: (asked.append(args[0].shape[2]), ours(*args))[1]
    )
    made = list[list[int]]()

    def noting(starts: list[int], layers: Any) -> Roots:
        made.append(list(starts))
        return Roots(starts, layers)

    monkeypatch.setattr(rows, "Roots", noting)
    segments = company(model)
    starts = [0, *accumulate(len(s.tokens) for s in segments)]
    score_trees(model, segments)
    assert made == [[starts[0], starts[1], starts[3], starts[4]]]
    assert asked == 3 * [4, 1]  # in every layer the tree, and the one that is twice as long
