"""A row of attention is the same to the last bit whatever is computed beside it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from elision.middleware.engines import attention, packing
from elision.middleware.engines.attention import CHUNK, Seen, attend, set_independent_
from elision.middleware.engines.cache import full_cache
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.exactness import keeps_bits, make_independent_
from elision.middleware.engines.loading import _pack_
from elision.middleware.engines.packing import can_pack, pack_
from elision.middleware.engines.ragged import Segment, can_be_independent, score_trees
from elision.middleware.speculation.base import NOTHING, Draft
from elision.middleware.speculation.masks import Windows, tree_masks
from elision.testing.models import ARCHITECTURES, tiny_model

FORMATS = [torch.float32, torch.bfloat16]
ROUNDING = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
HEADS = [(9, 3, 64), (4, 4, 64), (8, 1, 128), (14, 2, 64)]
"""Heads, key heads, width."""
BUSH = Draft(tuple(range(13)), (0, 0, 0, 1, 1, 2, 4, 4, 7, 3, 9, 11, 12))


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


# --- material ------------------------------------------------------------------------------------

drafts = st.integers(0, attention.MAX_ROWS - 1).flatmap(
    lambda n: st.tuples(*[st.integers(max(0, i - 4), i) for i in range(n)])
)
pasts = st.one_of(st.integers(0, 40), st.sampled_from([100, CHUNK - 3, CHUNK - 1, CHUNK, 250, 640]))


@dataclass
class Case:
    """Queries of a tree's nodes, and keys and values of what lies before them and of their own."""

    query: Tensor
    keys: Tensor
    values: Tensor
    n_past: int
    draft: Draft
    windows: Windows

    @classmethod
    def draw(
        cls, heads: tuple[int, int, int], dtype: torch.dtype, n_past: int, parents: Any, window: int
    ) -> Case:
        noise = torch.Generator().manual_seed(n_past)
        n, (n_heads, n_key_heads, width) = len(parents) + 1, heads
        sizes = ((n_heads, n), (n_key_heads, n_past + n), (n_key_heads, n_past + n))
        q, k, v = (torch.randn(1, *size, width, generator=noise).to(dtype) for size in sizes)
        return cls(2 * q, k, v, n_past, Draft(parents, parents), Windows(sliding=window))

    @property
    def n_shared(self) -> int:
        return self.query.shape[1] // self.keys.shape[1]

    @property
    def mask(self) -> Any:
        how: Any = {"backend": "sdpa", "dtype": self.query.dtype, "device": "cpu"}
        return tree_masks(self.windows, **how, n_past=self.n_past, draft=self.draft)

    def read(self) -> Tensor:
        seen = Seen.of(self.n_past, self.draft, self.mask, self.n_shared)
        return attend(self.query, self.keys, self.values, seen)

    def alone(self, node: int) -> Case:
        """Return *node* as a token that is decoded by itself behind all that lies before it."""
        path = sorted(self.draft.ancestors[node].nonzero()[0].tolist())
        slots = [*range(self.n_past), *(self.n_past + one for one in path)]
        query = self.query[:, :, node : node + 1]
        keys, values = self.keys[:, :, slots], self.values[:, :, slots]
        return Case(query, keys, values, len(slots) - 1, NOTHING, self.windows)


cases = st.builds(
    Case.draw,
    st.sampled_from(HEADS),
    st.sampled_from(FORMATS),
    pasts,
    drafts,
    st.sampled_from([0, 0, 7, 150]),
)


def by_definition(case: Case) -> Tensor:
    """Return softmax(QK)V in double precision, heads by heads."""
    query, keys, values = (t.double() for t in (case.query, case.keys, case.values))
    keys, values = (t.repeat_interleave(case.n_shared, 1) for t in (keys, values))
    scores = query @ keys.transpose(2, 3) * query.shape[-1] ** -0.5 + case.mask.double()
    return (scores.softmax(-1) @ values).transpose(1, 2)


def _adds_up_in_order() -> bool:
    """Return whether this processor's matrix library sums as the laws below rest on; see there."""
    for dtype in FORMATS:
        case = Case.draw((9, 3, 64), dtype, 41, BUSH.parents, 0)
        whole = case.read()
        if not all(torch.equal(case.alone(n).read()[0, 0], whole[0, n]) for n in (0, 6, 13)):
            return False
    return True


exact = pytest.mark.skipif(
    not _adds_up_in_order(), reason="matrix products round by the number of rows here"
)

# --- laws ----------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(case=cases)
def test_it_reads_what_attention_reads_by_definition(case: Case) -> None:
    before = copy.deepcopy((case.query, case.keys, case.values))
    got, want = case.read(), by_definition(case)
    assert got.dtype is case.query.dtype
    rounding = ROUNDING[case.query.dtype]
    torch.testing.assert_close(got.double(), want, atol=rounding, rtol=rounding)
    for now, then in zip((case.query, case.keys, case.values), before, strict=True):
        assert torch.equal(now, then)


@exact
@settings(max_examples=60)
@given(case=cases)
def test_a_node_reads_to_the_last_bit_what_it_reads_when_decoded_by_itself(case: Case) -> None:
    whole = case.read()
    for node in range(len(case.draft) + 1):
        assert torch.equal(case.alone(node).read()[0, 0], whole[0, node]), node


@exact
def test_what_lies_off_the_path_leaves_no_trace() -> None:
    case = Case.draw((9, 3, 64), torch.float32, CHUNK - 2, BUSH.parents, 0)
    whole = case.read()
    case.keys[:, :, CHUNK - 2 + 6] = 1e4  # a leaf's
    case.values[:, :, CHUNK - 2 + 6] = -1e4
    again = case.read()
    off = [node for node in range(14) if node != 6]
    assert torch.equal(again[:, off], whole[:, off])
    assert not torch.equal(again[:, 6], whole[:, 6])


def test_a_chunk_that_drafted_tokens_run_out_of_is_summed_by_positions() -> None:
    """Else the usual order of slots would show; so this test can fail."""
    case = Case.draw((9, 3, 64), torch.float32, CHUNK - 2, BUSH.parents, 0)
    seen = Seen.of(case.n_past, case.draft, case.mask, case.n_shared)
    assert seen.late is not None
    slots = Seen(seen.n_past, seen.hidden, None)
    read = attend(case.query, case.keys, case.values, slots)
    assert not torch.equal(read, case.read())


# --- whole models --------------------------------------------------------------------------------


def wide(dtype: torch.dtype) -> Any:
    """Return a packed model whose heads are as wide as real ones."""
    shape: dict[str, Any] = {
        "vocab_size": 259,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.1,
    }
    with torch.inference_mode(mode=False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**shape, dtype=dtype)
        model: Any = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    if not can_pack(model):
        pytest.skip("plain linear layers do depend on the rows beside")
    pack_(model)
    return model


def node_by_node(model: Any, prefix: Tensor, draft: Draft, node: int) -> Tensor:
    """Return *node*'s scores after decoding its path token by token."""
    path = sorted(draft.ancestors[node].nonzero()[0].tolist())
    tokens, cache = (0, *draft.tokens), read(model, prefix)
    for at, one in enumerate(path):
        root = Segment((tokens[one],), NOTHING, cache, prefix.shape[1] + at)
        (scores,) = score_trees(model, [root])
    return scores[0]


def read(model: Any, ids: Tensor) -> Any:
    cache = full_cache(model.config)
    model(input_ids=ids, past_key_values=cache, use_cache=True)
    return cache


@exact
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("n_past", [9, CHUNK - 2, 300])
def test_a_tree_gets_the_scores_of_its_paths_decoded_token_by_token(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, n_past: int
) -> None:
    monkeypatch.setattr(packing, "_try", lambda *_: packing.Trial(pays=True, floor=1))
    model = wide(dtype)
    if not make_independent_(model):
        pytest.skip("linear layers round by the number of rows here")
    ids = torch.randint(259, (1, n_past), generator=torch.Generator().manual_seed(1))
    tree = Segment((0, *BUSH.tokens), BUSH, read(model, ids), n_past)
    other = Segment((0,), NOTHING, read(model, ids[:, :7]), 7)
    (alone,) = score_trees(model, [copy.deepcopy(tree)])
    shared = score_trees(model, [other, tree])[1]
    assert torch.equal(alone, shared)
    for node in range(len(BUSH) + 1):
        assert torch.equal(node_by_node(model, ids, BUSH, node), alone[node]), node


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3"])
def test_models_of_plain_attention_take_it_and_score_as_before(architecture: Any) -> None:
    model: Any = tiny_model(architecture, context=64)
    ids = torch.arange(40)[None]
    trees = [Segment((0, *BUSH.tokens), BUSH, read(model, ids), 40) for _ in range(2)]
    (want,) = score_trees(model, trees[:1])
    assert can_be_independent(model)
    set_independent_(model)
    (got,) = score_trees(model, trees[1:])
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_models_that_attend_otherwise_do_not(architecture: Any) -> None:
    model: Any = tiny_model(architecture)
    model.config._attn_implementation = "eager"
    assert not can_be_independent(model)
    model.config._attn_implementation = "sdpa"
    assert can_be_independent(model) == (architecture != "gemma2")
    assert not can_be_independent(model.train())
    assert not can_be_independent(model.eval().to(torch.float16))


def test_a_model_that_is_trained_again_attends_as_it_did() -> None:
    model: Any = tiny_model("llama")
    set_independent_(model)
    assert attention.is_independent(model)
    assert not attention.is_independent(model.train())


@pytest.mark.parametrize("layer", [0, 1])
def test_a_forward_that_fails_leaves_cache_and_model_as_they_were(layer: int) -> None:
    model: Any = tiny_model("llama")
    set_independent_(model)
    cache = read(model, torch.arange(9)[None])
    names, usual = set(ALL_ATTENTION_FUNCTIONS), model.config._attn_implementation

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    hook = model.model.layers[layer].mlp.register_forward_hook(fail)
    with pytest.raises(ZeroDivisionError):
        score_trees(model, [Segment((0,), NOTHING, cache, 9)])
    hook.remove()
    assert set(ALL_ATTENTION_FUNCTIONS) == names
    assert model.config._attn_implementation == usual
    assert int(cache.get_seq_length()) == 9


@pytest.mark.model
@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)]
)
def test_the_default_model_scores_drafted_tokens_as_plain_ones(
    smollm2_dir: Path, dtype: torch.dtype
) -> None:
    model = CausalModel.load(smollm2_dir, name="smollm2-135m", dtype=dtype)
    _pack_(model, 1)
    if not attention.is_independent(model.model):
        assert not keeps_bits(model.model)
        pytest.skip("this processor's kernels round by the number of rows")
    ids = torch.randint(40_000, (1, CHUNK + 14), generator=torch.Generator().manual_seed(1))
    tokens, n_past = tuple(ids[0, CHUNK - 2 :].tolist()), CHUNK - 2
    draft = Draft(tokens[1:14], BUSH.parents)
    cache = read(model.model, ids[:, :n_past])
    tree = Segment(tokens[:14], draft, copy.deepcopy(cache), n_past)
    (scores,) = score_trees(model.model, [tree])
    for node in sorted(draft.ancestors[13].nonzero()[0].tolist()):
        assert torch.equal(model.score((tokens[node],), cache), scores[node])


def test_a_model_whose_rows_do_depend_is_found_out_and_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = wide(torch.float32)

    def shaken(module: Any, args: Any, output: Tensor) -> Tensor:
        return output * (1 + 1e-6 * output.shape[-2])

    model.model.layers[1].mlp.register_forward_hook(shaken)
    assert not keeps_bits(model)
    assert not make_independent_(model)
    assert not attention.is_independent(model)
