"""From one GGUF file to a folder that transformers loads: Llama weights, byte-level BPE.

Numbers are kept as they dequantise, in float32. A 4-bit value is ``d * q + m`` with 16-bit ``d``
and ``m``: neither bfloat16 nor float16 holds it (3 % to 70 % of SmolLM2's values per tensor would
survive), so a narrower file could not give back the logits of the GGUF. A float32 file also loads
as bfloat16 (``dtype=torch.bfloat16`` rounds while it reads), at twice the disk.

Anything that is not understood is refused: a tokenizer guessed wrong would let a guard look at
another text than the caller receives.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elision.errors import MissingExtraError, PullError
from elision.middleware.models.gguf_tokenizer import byte_level
from elision.middleware.models.progress import Progress, Silence

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader, ReaderTensor
    from tokenizers import Tokenizer

CONVERTER = 1
"""Rises whenever the same GGUF would be converted to something else."""

_LLAMA_KEYS = frozenset(
    {
        "attention.head_count",
        "attention.head_count_kv",
        "attention.layer_norm_rms_epsilon",
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "rope.dimension_count",
        "rope.freq_base",
        "vocab_size",
    }
)
_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.weight")


def require_converter() -> None:
    """Make sure that a conversion could run, before anything is downloaded for it.

    Raises:
        MissingExtraError: If ``gguf``, ``numpy`` or ``tokenizers`` is not installed.
    """
    for package in ("numpy", "gguf", "tokenizers"):
        if find_spec(package) is None:
            raise MissingExtraError(package, extra="local")


def convert(source: Path, folder: Path, *, progress: Progress | None = None) -> None:
    """Write the model in *source* into *folder*, in the form that transformers loads.

    Weights are written tensor by tensor, so memory stays near the largest one.

    Args:
        source: A GGUF file of architecture ``llama`` with a ``smollm`` tokenizer.
        folder: An existing folder; files of the same names are overwritten.
        progress: Hears the bytes written.

    Raises:
        PullError: If the file is damaged or holds something that is not understood.
        MissingExtraError: If the packages that read it are not installed.
        OSError: If the folder cannot be written.

    Source:
        llama.cpp's ``convert_hf_to_gguf.py``, run backwards; ours: the digit splitter of the
        ``smollm`` pre-tokenizer, which transformers 5 leaves out when it reads a GGUF.
    """
    require_converter()
    progress = progress or Silence()
    progress.stage("reading the model's description")
    with _damage_told(source):
        model = _Gguf(_open(source))
        model.check()
        _write_description(folder, model)
        progress.stage("converting the weights", model.n_bytes)
        _write_weights(folder / "model.safetensors", model, progress)


@contextmanager
def _damage_told(source: Path) -> Iterator[None]:
    """Turn what the reader stumbles over into an error that says so."""
    try:
        yield
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as exc:
        raise PullError(f"{source.name!r} is not a whole, readable GGUF file") from exc


@dataclass(frozen=True)
class _Gguf:
    reader: GGUFReader

    @cached_property
    def data(self) -> Mapping[str, Any]:
        return {name: field.contents() for name, field in self.reader.fields.items()}

    def llama(self, key: str) -> Any:
        return self.need(f"llama.{key}")

    def need(self, key: str) -> Any:
        if key not in self.data:
            raise PullError(f"the GGUF lacks the field {key!r}")
        return self.data[key]

    def check(self) -> None:
        """Refuse whatever the conversion would silently get wrong."""
        if (architecture := self.need("general.architecture")) != "llama":
            raise PullError(
                f"the GGUF's architecture is {architecture!r}; only 'llama' is understood"
            )
        for key in self.data:
            if key.startswith("llama.") and key.removeprefix("llama.") not in _LLAMA_KEYS:
                raise PullError(f"the GGUF has the field {key!r}, which is not understood")
        kind = self.need("tokenizer.ggml.model"), self.need("tokenizer.ggml.pre")
        if kind != ("gpt2", "smollm"):
            raise PullError(
                f"the GGUF's tokenizer is {kind}; only ('gpt2', 'smollm') is understood"
            )
        if self.data.get("tokenizer.ggml.add_bos_token") or self.data.get(
            "tokenizer.ggml.add_eos_token"
        ):
            raise PullError("the GGUF's tokenizer adds tokens of its own, which is not understood")

    @cached_property
    def config(self) -> Mapping[str, Any]:
        heads = self.llama("attention.head_count")
        width = self.llama("embedding_length")
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "dtype": "float32",
            "attention_bias": False,
            "mlp_bias": False,
            "hidden_act": "silu",
            "hidden_size": width,
            "intermediate_size": self.llama("feed_forward_length"),
            "num_hidden_layers": self.llama("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self.data.get("llama.attention.head_count_kv", heads),
            "head_dim": self.data.get("llama.rope.dimension_count", width // heads),
            "max_position_embeddings": self.llama("context_length"),
            "rms_norm_eps": self.llama("attention.layer_norm_rms_epsilon"),
            "rope_theta": self.data.get("llama.rope.freq_base", 10_000.0),
            "tie_word_embeddings": all(t.name != "output.weight" for t in self.reader.tensors),
            "vocab_size": len(self.tokens),
            **self.special_ids,
        }

    @cached_property
    def special_ids(self) -> Mapping[str, int]:
        names = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
        ids = {ours: self.data.get(f"tokenizer.ggml.{gg}_token_id") for ours, gg in names.items()}
        return {name: token for name, token in ids.items() if token is not None}

    @cached_property
    def tokens(self) -> list[str]:
        tokens: list[str] = self.need("tokenizer.ggml.tokens")
        return tokens

    @property
    def tokenizer_config(self) -> Mapping[str, Any]:
        ids = {**self.special_ids, "unk_token_id": self.data.get("tokenizer.ggml.unknown_token_id")}
        named = {
            name.removesuffix("_id"): self.tokens[token]
            for name, token in ids.items()
            if token is not None
        }
        return {
            # The one class name that transformers 4 and 5 both load without rebuilding the
            # pre-tokenizer from the architecture's own.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": self.llama("context_length"),
            **named,
        }

    @property
    def tokenizer(self) -> Tokenizer:
        return byte_level(
            self.tokens,
            merges=self.need("tokenizer.ggml.merges"),
            kinds=self.need("tokenizer.ggml.token_type"),
        )

    @property
    def n_bytes(self) -> int:
        return sum(4 * prod(map(int, tensor.shape)) for tensor in self.reader.tensors)

    def weights(self) -> Iterator[tuple[str, ReaderTensor]]:
        for tensor in self.reader.tensors:
            yield _weight_name(tensor.name), tensor

    def numbers(self, tensor: ReaderTensor) -> np.ndarray:
        """Return the dequantised tensor, float32, rows in transformers' order."""
        from gguf import dequantize

        values = dequantize(tensor.data, tensor.tensor_type).astype("<f4", copy=False)
        if tensor.name.endswith("attn_q.weight"):
            return _unpermute(values, self.config["num_attention_heads"])
        if tensor.name.endswith("attn_k.weight"):
            return _unpermute(values, self.config["num_key_value_heads"])
        return values


def _open(source: Path) -> GGUFReader:
    from gguf import GGUFReader

    return GGUFReader(source)


def _write_description(folder: Path, model: _Gguf) -> None:
    _write_json(folder / "config.json", model.config)
    _write_json(folder / "generation_config.json", model.special_ids)
    _write_json(folder / "tokenizer_config.json", model.tokenizer_config)
    if template := model.data.get("tokenizer.chat_template"):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "tokenizer.json").write_text(model.tokenizer.to_str(pretty=True), encoding="utf-8")


def _weight_name(name: str) -> str:
    if name in _OUTER:
        return _OUTER[name]
    if (found := _BLOCK.fullmatch(name)) and found[2] in _INNER:
        return f"model.layers.{found[1]}.{_INNER[found[2]]}.weight"
    raise PullError(f"the GGUF holds the tensor {name!r}, which is not understood")


def _unpermute(values: np.ndarray, n_heads: int) -> np.ndarray:
    """Undo llama.cpp's interleaving of the two halves that a rotary head turns together."""
    pairs = values.reshape(n_heads, values.shape[0] // n_heads // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _write_weights(path: Path, model: _Gguf, progress: Progress) -> None:
    """Write a safetensors file: header length (u64, little-endian), JSON header, raw tensors.

    By hand, because the library wants every tensor in memory at once and turns a full disk into a
    message without an errno.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in model.weights():
        shape = [int(n) for n in reversed(tensor.shape)]
        start, end = end, end + 4 * prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in model.weights():
            progress.advance(file.write(model.numbers(tensor).tobytes()))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
