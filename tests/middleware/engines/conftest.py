"""A tiny Llama as a GGUF file, written by llama.cpp's own package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}{% endfor %}"


@dataclass(frozen=True, kw_only=True)
class TinyGguf:
    """What a tiny GGUF holds; `write` writes it."""

    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    inner: int = 96
    kind: str = "F32"
    tied: bool = True
    seed: int = 0
    architecture: str = "llama"
    pre: str = "smollm"
    merges: tuple[str, ...] = ("t h", "th e", "Ġ Ġ", "1 2")
    token_type: int = 1
    adds_bos: bool = False
    extra_field: str | None = None
    extra_tensor: str | None = None

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    @property
    def tokens(self) -> list[str]:
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        letters = [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]
        joined = [merge.replace(" ", "") for merge in self.merges]
        return [*CONTROL, *letters, *joined]

    def weights(self) -> dict[str, np.ndarray]:
        """Return the weights by transformers' names, in transformers' row order."""
        random = np.random.default_rng(self.seed)

        def draw(*shape: int) -> np.ndarray:
            return random.standard_normal(shape, dtype=np.float32) / 8

        kv = self.kv_heads * self.head_dim
        made = {"model.embed_tokens.weight": draw(len(self.tokens), self.width)}
        for layer in range(self.layers):
            made |= {
                f"model.layers.{layer}.{name}.weight": draw(*shape)
                for name, shape in {
                    "input_layernorm": (self.width,),
                    "self_attn.q_proj": (self.width, self.width),
                    "self_attn.k_proj": (kv, self.width),
                    "self_attn.v_proj": (kv, self.width),
                    "self_attn.o_proj": (self.width, self.width),
                    "post_attention_layernorm": (self.width,),
                    "mlp.gate_proj": (self.inner, self.width),
                    "mlp.up_proj": (self.inner, self.width),
                    "mlp.down_proj": (self.width, self.inner),
                }.items()
            }
        made["model.norm.weight"] = draw(self.width)
        if not self.tied:
            made["lm_head.weight"] = draw(len(self.tokens), self.width)
        return made

    def write(self, path: Path) -> Path:
        writer = gguf.GGUFWriter(path, self.architecture)
        writer.add_block_count(self.layers)
        writer.add_context_length(256)
        writer.add_embedding_length(self.width)
        writer.add_feed_forward_length(self.inner)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_rope_dimension_count(self.head_dim)
        writer.add_rope_freq_base(50_000.0)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_vocab_size(len(self.tokens))
        self._add_tokenizer(writer)
        if self.extra_field:
            writer.add_uint32(self.extra_field, 1)
        for name, values in self.weights().items():
            self._add_tensor(writer, _llama_cpp_name(name), self._permuted(name, values))
        if self.extra_tensor:
            writer.add_tensor(self.extra_tensor, np.ones(4, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def _add_tokenizer(self, writer: gguf.GGUFWriter) -> None:
        tokens = self.tokens
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(tokens)
        writer.add_token_types([3 if t in CONTROL else self.token_type for t in tokens])
        writer.add_token_merges(list(self.merges))
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_pad_token_id(2)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_chat_template(TEMPLATE)

    def _add_tensor(self, writer: gguf.GGUFWriter, name: str, values: np.ndarray) -> None:
        kind = gguf.GGMLQuantizationType[self.kind if values.ndim > 1 else "F32"]
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    def _permuted(self, name: str, values: np.ndarray) -> np.ndarray:
        """Interleave the halves of each head, row by row, as llama.cpp wants queries and keys."""
        if "q_proj" not in name and "k_proj" not in name:
            return values
        half = self.head_dim // 2
        rows = []
        for head in range(values.shape[0] // self.head_dim):
            for n in range(half):
                rows += [head * self.head_dim + n, head * self.head_dim + half + n]
        return values[rows]


def _llama_cpp_name(name: str) -> str:
    named: Mapping[str, str] = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    stem = name.removesuffix(".weight")
    if stem in named:
        return f"{named[stem]}.weight"
    _, _, layer, inner = stem.split(".", 3)
    return f"blk.{layer}.{named[inner]}.weight"


@pytest.fixture(scope="session")
def tiny_gguf() -> Callable[..., TinyGguf]:
    """Return the maker of tiny GGUF files, `TinyGguf`."""

    def make(**what: Any) -> TinyGguf:
        return TinyGguf(**what)

    return make
