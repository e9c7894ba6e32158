"""A BERT sentence encoder run without padding: what short batches on a processor need.

The stock forward spends most of a short text's time between the matrix products, and on padding
where lengths differ. Here the tokens of all texts lie one behind the other, every product is taken
once over all of them, and only attention looks at one text at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its name everywhere

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MAX_TOKENS = 1024
"""Most tokens of one forward: more no longer fit a processor's cache, and gain nothing."""


class _Linear(NamedTuple):
    weight: Tensor
    bias: Tensor

    def __call__(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden.to(self.weight.dtype), self.weight, self.bias)


class _Norm(NamedTuple):
    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, hidden: Tensor) -> Tensor:
        return F.layer_norm(hidden, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    qkv: _Linear
    mixed: _Linear
    mixed_norm: _Norm
    wide: _Linear
    narrow: _Linear
    narrow_norm: _Norm

    def __call__(self, hidden: Tensor, lengths: list[int], n_heads: int) -> Tensor:
        seen = _attend(self.qkv(hidden), lengths, n_heads)
        hidden = self.mixed_norm(self.mixed(seen) + hidden)  # float32: the sum takes the wider
        return self.narrow_norm(self.narrow(F.gelu(self.wide(hidden))) + hidden)


class PackedBert:
    """Mean-pooled, normalised sentence vectors of a BERT.

    In float32 they equal those of ``encode`` up to rounding. In bfloat16 the products alone are
    narrow, sums and norms stay float32: a cosine then moves by up to .003 (measured on TOFU).

    Args:
        model: A sentence-transformers model that `fits`; not needed any more afterwards.
        dtype: Number format of the matrix products.
    """

    def __init__(self, model: SentenceTransformer, *, dtype: torch.dtype = torch.float32) -> None:
        bert: Any = model[0].auto_model
        self._tokenizer: Any = model.tokenizer
        self._max_length = int(model.max_seq_length or bert.config.max_position_embeddings)
        self._n_heads = int(bert.config.num_attention_heads)
        embeddings = bert.embeddings
        self._words: Tensor = embeddings.word_embeddings.weight.detach()
        kind = embeddings.token_type_embeddings.weight[0]
        self._places: Tensor = (embeddings.position_embeddings.weight + kind).detach()
        self._norm = _norm(embeddings.LayerNorm)
        self._layers = tuple(_layer(layer, dtype) for layer in bert.encoder.layer)

    @staticmethod
    def fits(model: SentenceTransformer) -> bool:
        """Return whether *model* is what this file computes: BERT, mean of the tokens, norm."""
        parts: list[Any] = list(model.children())
        bert: Any = getattr(parts[0], "auto_model", None) if parts else None
        if type(bert).__name__ != "BertModel" or len(parts) not in (2, 3):
            return False
        config: Any = bert.config
        return (
            getattr(parts[1], "pooling_mode", None) == "mean"
            and [type(part).__name__ for part in parts[1:]]
            in (["Pooling"], ["Pooling", "Normalize"])
            and config.hidden_act == "gelu"
            and getattr(config, "position_embedding_type", "absolute") in (None, "absolute")
            and not config.is_decoder
            and not model.default_prompt_name
        )

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Return one unit vector per text, shape ``(len(texts), dim)``, float32."""
        encoded = self._tokenizer(
            list(texts), truncation=True, max_length=self._max_length, padding=False
        )["input_ids"]
        with torch.inference_mode():
            return torch.cat([self._forward(batch) for batch in _batches(encoded)])

    def _forward(self, batch: list[list[int]]) -> Tensor:
        lengths = [len(ids) for ids in batch]
        ids = torch.tensor([token for ids in batch for token in ids])
        places = torch.cat([torch.arange(length) for length in lengths])
        hidden = self._norm(self._words[ids] + self._places[places])
        for layer in self._layers:
            hidden = layer(hidden, lengths, self._n_heads)
        means = torch.stack([part.mean(0) for part in torch.split(hidden, lengths)])
        return F.normalize(means, dim=-1)


def _attend(qkv: Tensor, lengths: list[int], n_heads: int) -> Tensor:
    """Return what every token sees of its own text, shape ``(T, D)``, from ``(T, 3 D)``."""
    n_tokens, width = qkv.shape[0], qkv.shape[1] // 3
    heads = qkv.view(n_tokens, 3, n_heads, width // n_heads).permute(1, 2, 0, 3)
    parts = (
        F.scaled_dot_product_attention(part[0][None], part[1][None], part[2][None])[0]
        for part in torch.split(heads, lengths, dim=2)
    )
    return torch.cat(list(parts), dim=1).transpose(0, 1).reshape(n_tokens, width)


def _batches(encoded: list[list[int]]) -> list[list[list[int]]]:
    """Cut *encoded* into runs of at most `MAX_TOKENS` tokens, one text at least."""
    batches: list[list[list[int]]] = []
    room = 0
    for ids in encoded:
        if not batches or len(ids) > room:
            batches.append([])
            room = MAX_TOKENS
        batches[-1].append(ids)
        room -= len(ids)
    return batches


def native_format() -> torch.dtype:
    """Return bfloat16 where this processor multiplies in it, else float32.

    Short texts wait for the weights to arrive from memory: half the bytes are half the time.
    """
    told: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if told.get("avx512_bf16") or told.get("amx_bf16") else torch.float32


def _layer(layer: Any, dtype: torch.dtype) -> _Layer:
    own = layer.attention.self
    return _Layer(
        qkv=_linear(dtype, own.query, own.key, own.value),
        mixed=_linear(dtype, layer.attention.output.dense),
        mixed_norm=_norm(layer.attention.output.LayerNorm),
        wide=_linear(dtype, layer.intermediate.dense),
        narrow=_linear(dtype, layer.output.dense),
        narrow_norm=_norm(layer.output.LayerNorm),
    )


def _linear(dtype: torch.dtype, *modules: Any) -> _Linear:
    weight = torch.cat([module.weight.detach() for module in modules])
    bias = torch.cat([module.bias.detach() for module in modules])
    return _Linear(weight.to(dtype), bias.to(dtype))


def _norm(module: Any) -> _Norm:
    return _Norm(module.weight.detach(), module.bias.detach(), float(module.eps))
