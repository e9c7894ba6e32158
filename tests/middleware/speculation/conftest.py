"""Tiny random models of many makes, each with weights that make its scores depend on everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import pytest
import torch
import transformers

SHAPE: Final = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.25,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
MIXED: Final = ["sliding_attention", "full_attention"] * 2
CHUNKED: Final = ["chunked_attention", "full_attention"] * 2
EXPERTS: Final = {"num_local_experts": 4, "num_experts_per_tok": 2}

TREES: Final[Mapping[str, tuple[str, str, Mapping[str, Any]]]] = {
    "llama": ("Llama", "sdpa", {}),
    "llama-eager": ("Llama", "eager", {}),
    "qwen2": (
        "Qwen2",
        "sdpa",
        {"use_sliding_window": True, "sliding_window": 16, "layer_types": MIXED, "head_dim": None},
    ),
    "mistral": ("Mistral", "sdpa", {"sliding_window": 16}),
    "mistral-eager": ("Mistral", "eager", {"sliding_window": 16}),
    "gemma2": (
        "Gemma2",
        "eager",
        {"sliding_window": 16, "layer_types": MIXED, "query_pre_attn_scalar": 8},
    ),
    "gemma3": (
        "Gemma3Text",
        "sdpa",
        {"sliding_window": 16, "layer_types": MIXED, "query_pre_attn_scalar": 8},
    ),
    "qwen3": ("Qwen3", "sdpa", {}),
    "phi3": ("Phi3", "sdpa", {"sliding_window": 16}),
    "llama4": (
        "Llama4Text",
        "sdpa",
        {
            "attention_chunk_size": 16,
            "layer_types": CHUNKED,
            "intermediate_size_mlp": 48,
            "moe_layers": [1],
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
        },
    ),
    "cohere2": ("Cohere2", "sdpa", {"sliding_window": 16, "layer_types": MIXED}),
    "gpt-oss": (
        "GptOss",
        "eager",
        {"sliding_window": 16, "layer_types": MIXED, **EXPERTS},
    ),
    "gpt2": ("GPT2", "sdpa", {"n_positions": 256}),
    "opt": ("OPT", "sdpa", {"ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.25}),
    "gpt-neox": ("GPTNeoX", "sdpa", {}),
    "olmo2": ("Olmo2", "sdpa", {}),
    "granite": ("Granite", "sdpa", {}),
    "smollm3": ("SmolLM3", "sdpa", {}),
    "mixtral": ("Mixtral", "sdpa", EXPERTS),
}
"""Name: class, attention function, what differs from `SHAPE`."""

NO_TREES: Final[Mapping[str, tuple[str, str, Mapping[str, Any]]]] = {
    "bloom": ("Bloom", "eager", {"n_layer": 4, "n_head": 4}),
    "lfm2": ("Lfm2", "sdpa", {"layer_types": ["conv", "full_attention"] * 2}),
    "qwen3-next": (
        "Qwen3Next",
        "sdpa",
        {
            "layer_types": ["linear_attention", "full_attention"] * 2,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "num_experts": 0,
        },
    ),
    "gpt-neo": (
        "GPTNeo",
        "eager",
        {
            "num_layers": 4,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 2]],
            "window_size": 16,
        },
    ),
}


def build(name: str) -> Any:
    """Return a new model of the make called *name*, float32, in evaluation mode."""
    kind, backend, more = {**TREES, **NO_TREES}[name]
    names = {
        "Gemma3Text": "Gemma3ForCausalLM",
        "Llama4Text": "Llama4ForCausalLM",
        "GPT2": "GPT2LMHeadModel",
    }
    maker = getattr(transformers, names.get(kind, f"{kind}ForCausalLM"))
    shape = {k: v for k, v in {**SHAPE, **more}.items() if v is not None or "token" in k}
    config = getattr(transformers, f"{kind}Config")(**shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return maker._from_config(config, attn_implementation=backend, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def make() -> Callable[[str], Any]:
    """Return what gives the model of a make; the same at every call."""
    return lru_cache(build)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes a ``capable`` or an ``incapable`` make over all of them."""
    for fixture, makes in (("capable", TREES), ("incapable", NO_TREES)):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, list(makes))
