"""Sequences that share a forward get what each would get alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from elision.middleware.engines import rows
from elision.middleware.engines.cache import full_cache
from elision.middleware.engines.ragged import Segment, can_be_ragged, score_trees
from elision.middleware.speculation.base import NOTHING, Draft
from elision.middleware.speculation.compaction import compact
from elision.testing.models import ARCHITECTURES, Architecture, tiny_model

WINDOW = 16
VOCAB = 64

SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.25,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
KINDS = ["sliding_attention", "full_attention"]

OTHERS: dict[str, dict[str, Any]] = {
    "Mistral": {"sliding_window": WINDOW},
    "Qwen2": {
        "sliding_window": WINDOW,
        "use_sliding_window": True,
        "max_window_layers": 0,
        "layer_types": KINDS,
    },
    "Mixtral": {"num_local_experts": 4, "sliding_window": WINDOW},
    "Phi3": {"sliding_window": WINDOW},
    "GPTNeoX": {"num_key_value_heads": None},
    "Olmo2": {},
    "Granite": {},
    "SmolLM3": {"no_rope_layers": [1, 0]},
    "Cohere2": {"sliding_window": WINDOW, "layer_types": KINDS},
    "GptOss": {
        "sliding_window": WINDOW,
        "layer_types": KINDS,
        "num_local_experts": 4,
        "head_dim": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "attn_implementation": "eager",
    },
    "GPT2": {"n_positions": 256},
    "Llama4Text": {
        "head_dim": 8,
        "intermediate_size_mlp": 48,
        "num_local_experts": 2,
        "attention_chunk_size": WINDOW,
        "no_rope_layers": [1, 0],
        "attn_temperature_tuning": False,
    },
}


def built(name: str, **more: Any) -> Any:
    settings = {**SHAPE, **more, "dtype": torch.float32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**settings)
        return transformers.AutoModelForCausalLM.from_config(config).float().eval()


def tiny(architecture: Architecture) -> Any:
    model: Any = tiny_model(architecture, vocab_size=VOCAB, context=4 * WINDOW)
    if architecture == "gemma2":  # the only attention of it that caps scores
        model.config._attn_implementation = "eager"
    return model


MODELS: dict[str, Callable[[], Any]] = {
    **{name: lambda name=name: tiny(name) for name in ARCHITECTURES},
    **{f"{name}Model": lambda n=name, more=more: built(n, **more) for name, more in OTHERS.items()},
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]()


@lru_cache(maxsize=1)
def llama() -> Any:
    return tiny("llama")


# --- material ------------------------------------------------------------------------------------

CHAIN = Draft((5, 6, 7), (0, 1, 2))
BUSH = Draft((8, 9, 10, 11, 12, 13), (0, 0, 1, 1, 2, 5))


def ids_of(n: int, seed: int) -> tuple[int, ...]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(VOCAB, (n,), generator=draw).tolist())


def read(model: Any, ids: Sequence[int]) -> Any:
    cache = full_cache(model.config)
    with torch.inference_mode():
        model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True)
    return cache


def segment(model: Any, ids: Sequence[int], draft: Draft) -> Segment:
    """Return a segment whose root is the last of *ids*."""
    past = tuple(ids[:-1])
    return Segment((ids[-1], *draft.tokens), draft, read(model, past), len(past))


def path_to(draft: Draft, node: int) -> list[int]:
    path: list[int] = []
    while node:
        path.insert(0, draft.tokens[node - 1])
        node = draft.parents[node - 1]
    return path


def by_definition(model: Any, ids: Sequence[int], draft: Draft) -> Tensor:
    """Score every node by reading everything before it, without any cache."""
    with torch.inference_mode():
        rows = [
            model(input_ids=torch.tensor([[*ids, *path_to(draft, node)]])).logits[0, -1]
            for node in range(len(draft) + 1)
        ]
    return torch.stack(rows)


def assert_same(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= 1e-4 * max(1.0, float(want.abs().max()))


def assert_same_caches(got: Any, want: Any) -> None:
    assert len(got.layers) == len(want.layers)
    for mine, other in zip(got.layers, want.layers, strict=True):
        assert_same(mine.keys, other.keys)
        assert_same(mine.values, other.values)


# --- laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(3, 9, 6), (WINDOW + 9, 2, 3 * WINDOW)])
def test_every_token_gets_the_scores_that_reading_everything_before_it_gives(
    model: Any, lengths: tuple[int, ...]
) -> None:
    shapes = list(zip((ids_of(n, n) for n in lengths), (NOTHING, BUSH, CHAIN), strict=True))
    got = score_trees(model, [segment(model, ids, draft) for ids, draft in shapes])
    for scores, (ids, draft) in zip(got, shapes, strict=True):
        assert_same(scores, by_definition(model, ids, draft))


def test_afterwards_every_cache_is_what_a_forward_of_its_own_leaves(model: Any) -> None:
    shapes = [(ids_of(WINDOW + 4, 1), BUSH), (ids_of(5, 2), NOTHING), (ids_of(9, 3), CHAIN)]
    together = [segment(model, ids, draft) for ids, draft in shapes]
    alone = [segment(model, ids, draft) for ids, draft in shapes]
    score_trees(model, together)
    for one, other in zip(together, alone, strict=True):
        score_trees(model, [other])
        assert int(one.cache.get_seq_length()) == one.n_past + len(one.tokens)
        assert_same_caches(one.cache, other.cache)


def test_models_of_which_this_is_so_say_so(model: Any) -> None:
    assert can_be_ragged(model)


trees = st.integers(0, 6).flatmap(
    lambda n: st.tuples(
        st.tuples(*[st.integers(0, VOCAB - 1)] * n),
        st.tuples(*[st.integers(0, i) for i in range(n)]),
    )
)
shapes = st.lists(st.tuples(st.integers(2, 30), trees), min_size=1, max_size=5)


@settings(max_examples=15)
@given(wanted=shapes)
def test_neighbours_change_nothing(wanted: list[tuple[int, Any]]) -> None:
    model = llama()
    segments = [segment(model, ids_of(n, n), Draft(*tree)) for n, tree in wanted]
    with torch.inference_mode():
        alone = copy.deepcopy(segments)
    for mine, other in zip(score_trees(model, segments), alone, strict=True):
        assert_same(mine, score_trees(model, [other])[0])


# --- decoding ------------------------------------------------------------------------------------


def plain(model: Any, prompt: Sequence[int], n: int) -> list[int]:
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(n):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def half_right(text: Sequence[int], at: int) -> Draft:
    """Return a tree in which the next tokens are, to a depth that varies, among wrong ones."""
    n = at % 4
    true = tuple(text[at : at + n])
    wrong = tuple((token + 1) % VOCAB for token in true)
    return Draft(wrong + true, tuple(range(len(wrong))) + (0, *range(n + 1, 2 * n))[:n])


def walk(scores: Tensor, draft: Draft) -> tuple[list[int], list[int]]:
    """Return the nodes visited, the root first, and the token drawn at each."""
    path, drawn, node = [], [], 0
    chosen = scores.argmax(dim=-1).tolist()
    found: int | None = 0
    while found is not None:
        node = found
        path.append(node)
        drawn.append(chosen[node])
        found = draft.child(node, drawn[-1])
    return path, drawn


@pytest.mark.parametrize("name", ["llama", "gemma3", "MistralModel", "GPT2Model"])
def test_three_replies_of_unequal_length_are_written_together_as_alone(name: str) -> None:
    model, n = MODELS[name](), 60
    prompts = [ids_of(length, length) for length in (7, 23, 41)]
    texts = [plain(model, prompt, n + 4) for prompt in prompts]
    written: list[list[int]] = [text[:1] for text in texts]
    caches = [read(model, prompt) for prompt in prompts]
    n_forwards = 0
    while min(map(len, written)) < n:
        segments = [
            Segment((done[-1], *draft.tokens), draft, cache, len(prompt) + len(done) - 1)
            for prompt, done, cache, draft in zip(
                prompts,
                written,
                caches,
                [half_right(text, len(done)) for text, done in zip(texts, written, strict=True)],
                strict=True,
            )
        ]
        for one, scores, done in zip(segments, score_trees(model, segments), written, strict=True):
            path, drawn = walk(scores, one.draft)
            compact(one.cache, path, len(one.tokens))
            done.extend(drawn)
        n_forwards += 1
    for done, text in zip(written, texts, strict=True):
        assert done[:n] == text[:n]
    assert n_forwards < n - 10  # drafts were taken up


# --- what goes wrong -----------------------------------------------------------------------------


class BrokenError(RuntimeError):
    pass


@pytest.mark.parametrize("layer", [0, 1])
def test_a_forward_that_fails_leaves_caches_and_model_as_they_were(layer: int) -> None:
    model = tiny("llama")
    segments = [segment(model, ids_of(n, n), BUSH) for n in (4, 11)]
    with torch.inference_mode():
        before = copy.deepcopy(segments)
    names, usual = set(ALL_ATTENTION_FUNCTIONS), model.config._attn_implementation

    def fail(*_: Any) -> None:
        raise BrokenError

    hook = model.model.layers[layer].mlp.register_forward_hook(fail)
    with pytest.raises(BrokenError):
        score_trees(model, segments)
    hook.remove()
    assert set(ALL_ATTENTION_FUNCTIONS) == names
    assert model.config._attn_implementation == usual
    for one, other in zip(segments, before, strict=True):
        assert int(one.cache.get_seq_length()) == one.n_past
        assert_same_caches(one.cache, other.cache)
    for mine, want in zip(score_trees(model, segments), score_trees(model, before), strict=True):
        assert_same(mine, want)


def test_after_a_forward_the_model_is_as_it_was() -> None:
    model = llama()
    names, usual = set(ALL_ATTENTION_FUNCTIONS), model.config._attn_implementation
    score_trees(model, [segment(model, ids_of(n, n), CHAIN) for n in (4, 11)])
    assert set(ALL_ATTENTION_FUNCTIONS) == names
    assert model.config._attn_implementation == usual


def test_a_lone_root_may_have_a_cache_that_forgets() -> None:
    model, ids = tiny("gemma3"), ids_of(3 * WINDOW, 4)
    cache = transformers.DynamicCache(config=model.config)
    with torch.inference_mode():
        model(input_ids=torch.tensor([ids[:-1]]), past_key_values=cache, use_cache=True)
    (got,) = score_trees(model, [Segment(ids[-1:], NOTHING, cache, len(ids) - 1)])
    assert_same(got, by_definition(model, ids, NOTHING))


def test_nothing_is_scored_of_nothing() -> None:
    assert score_trees(llama(), []) == []


class Neighbourly(torch.nn.Module):
    """What convolutions do: it lets each token see the one before it on the row."""

    def __init__(self, usual: torch.nn.Module) -> None:
        super().__init__()
        self.usual = usual

    def forward(self, states: Tensor) -> Tensor:
        return self.usual(states + torch.nn.functional.pad(states, (0, 0, 1, 0))[:, :-1])


def test_a_model_in_which_tokens_meet_outside_attention_is_found_out() -> None:
    model = tiny("llama")
    assert can_be_ragged(model)
    model.model.layers[1].mlp = Neighbourly(model.model.layers[1].mlp)
    assert not can_be_ragged(model)


def test_a_mask_of_the_wrong_kind_of_layer_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("gemma3")
    usual = rows.Rows.__init__

    def turned(self: Any, config: Any, parts: Any) -> None:
        usual(self, config, parts)
        self._kinds = self._kinds[::-1]

    monkeypatch.setattr(rows.Rows, "__init__", turned)
    assert not can_be_ragged(model)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("Bloom", {"n_layer": 2, "n_head": 4}),  # biases by slot instead of positions
        ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32}),  # asks for the length in common
        ("Llama4Text", {**OTHERS["Llama4Text"], "attn_temperature_tuning": True}),  # likewise
    ],
)
def test_a_model_that_cannot_says_so_and_stays_as_it_was(name: str, more: dict[str, Any]) -> None:
    model = built(name, **more)
    usual = model.config._attn_implementation
    assert not can_be_ragged(model)
    assert model.config._attn_implementation == usual
    assert_same(
        score_trees(model, [segment(model, ids_of(5, 5), NOTHING)])[0],
        by_definition(model, ids_of(5, 5), NOTHING),
    )


def test_where_a_long_neighbour_would_turn_short_ones_keys_the_answer_is_no() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    model = built("Llama", rope_parameters=rope, max_position_embeddings=48)
    want = by_definition(model, ids_of(9, 9), NOTHING)
    short, long = segment(model, ids_of(9, 9), NOTHING), segment(model, ids_of(90, 2), NOTHING)
    got, _ = score_trees(model, [short, long])
    assert float((got - want).abs().max()) > 1e-2
    assert not can_be_ragged(model)


# --- the real model ------------------------------------------------------------------------------


@pytest.mark.model
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_smollm2_shares_forwards(smollm2_dir: Any, dtype: torch.dtype) -> None:
    real: Any = transformers.AutoModelForCausalLM.from_pretrained(smollm2_dir, dtype=dtype).eval()
    assert can_be_ragged(real)
