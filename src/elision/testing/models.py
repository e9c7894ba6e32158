"""Tiny causal models with random weights: real architectures, milliseconds per forward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from elision.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Architecture: TypeAlias = Literal["llama", "qwen2", "qwen3", "gemma2", "gemma3"]
ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")
"""What `tiny_model` can build: grouped-query attention throughout, with bias in the projections
(Qwen2), normed queries (Qwen3), sliding windows and capped scores (Gemma 2), both (Gemma 3)."""


def tiny_model(
    architecture: Architecture = "llama",
    *,
    vocab_size: int = 259,
    seed: int = 0,
    eos: int | tuple[int, ...] | None = None,
    n_layers: int = 2,
    hidden_size: int = 64,
    context: int = 512,
    sharpness: float = 3.0,
) -> PreTrainedModel:
    """Build a causal model with random weights, float32, in evaluation mode.

    The weights depend on the arguments alone; torch's global random state is left as it was. The
    head is scaled so that scores spread by about *sharpness* nats: greedy replies wander over
    many tokens, and sampled ones differ by seed.

    Args:
        architecture: One of `ARCHITECTURES`.
        vocab_size: Scores per position.
        seed: Chooses the weights.
        eos: Tokens that end a reply; None lets every reply run to its limit.
        n_layers: Decoder layers.
        hidden_size: Width; a multiple of 8.
        context: Longest sequence; the sliding window of Gemma is a quarter of it.
        sharpness: Standard deviation of the scores in nats, before Gemma 2's cap.

    Raises:
        ConfigError: If the architecture is not known.
        MissingExtraError: If torch or transformers is not installed.
    """
    if architecture not in ARCHITECTURES:
        raise ConfigError(f"{architecture!r} is not a tiny model; there are {ARCHITECTURES}")
    shape = _shape(vocab_size, n_layers, hidden_size, context)
    ends = {"bos_token_id": None, "eos_token_id": eos, "pad_token_id": None}
    model = _build(architecture, {**shape, **ends})
    _fill_(model, seed=seed, sharpness=sharpness)
    return cast("PreTrainedModel", model.eval())


def _shape(vocab_size: int, n_layers: int, hidden_size: int, context: int) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": hidden_size // 4,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
    }


def _build(architecture: Architecture, settings: Mapping[str, Any]) -> Any:
    try:
        import transformers
        from torch import float32, random
    except ImportError as exc:
        raise MissingExtraError("transformers", extra="local") from exc
    classes: dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM, {}),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM, {}),
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM, {}),
        "gemma2": (transformers.Gemma2Config, transformers.Gemma2ForCausalLM, _window(settings)),
        "gemma3": (
            transformers.Gemma3TextConfig,
            transformers.Gemma3ForCausalLM,
            _window(settings),
        ),
    }
    configure, make, more = classes[architecture]
    if architecture == "qwen2":
        settings = {k: v for k, v in settings.items() if k != "head_dim"}
    with random.fork_rng(devices=[]):
        return make(configure(**settings, **more, dtype=float32)).float()


def _window(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return Gemma's own settings: layers that alternate between a window and the whole."""
    kinds = ("sliding_attention", "full_attention")
    return {
        "sliding_window": settings["max_position_embeddings"] // 4,
        "layer_types": [kinds[layer % 2] for layer in range(settings["num_hidden_layers"])],
        "query_pre_attn_scalar": settings["head_dim"],
    }


def _fill_(model: Any, *, seed: int, sharpness: float) -> None:
    """Draw every matrix so that each layer keeps its input's scale; norms stay."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    head, table = model.lm_head, model.model.embed_tokens
    gain = _embedding_gain(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.normal_(0.0, weight.shape[1] ** -0.5, generator=draw)
            elif name.endswith("bias"):
                weight.normal_(0.0, 0.3, generator=draw)
        head.weight.mul_(sharpness)
        table.weight.normal_(0.0, 1.0 / gain, generator=draw)


def _embedding_gain(model: Any) -> float:
    """Return what the model multiplies its embeddings by."""
    gemma = model.config.model_type.startswith("gemma")
    return float(model.config.hidden_size) ** 0.5 if gemma else 1.0
