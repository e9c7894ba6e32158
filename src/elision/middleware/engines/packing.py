"""Linear layers whose weights lie as the processor's matrix kernels want them.

A plain linear layer hands its weight over row by row, and oneDNN re-orders it, or runs a slower
kernel, in every forward. Here the re-ordering is done once, at load. Two things are gained: a step
over a few rows costs two thirds, and a row's result no longer depends on how many rows it is
computed with, so that no linear layer tells a drafted token from a plain one. (In bfloat16 on a
processor with AMX that holds up to 32 rows, which its kernels take at once.)
"""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from elision.middleware.engines.turns import fastest_s

LAYOUT: Final = "packed-2"
"""Names how weights are packed; a timing taken under another name no longer holds."""
N_ROWS: Final = (1, 4, 16, 256)
"""Row counts the two forms are compared at: a token, a small and a large draft, a prefill chunk."""
MAX_FLOOR: Final = 4
"""Most rows that a smaller product is padded to."""
BATCH_HINT: Final = 16
"""Rows the kernels are told to expect. None, 1, 16 and 256 give the same layout in bfloat16; in
float32 a hint of 1 costs up to 1.7x from four rows on (measured, AVX-512)."""
MARGIN: Final = 1.25
"""How much slower the packed form may measure and still be taken: on a busy machine timing is noise
up to here, and what is chosen should not change with the load (it rounds differently)."""
SAMPLE_WEIGHTS: Final = 2**22
"""Weights of a sample: small matrices are tried in several copies, large ones in part."""
LARGEST_TWIN: Final = 2**24
"""Most weights of a layer made up to find out how a shape is summed."""

_FORMATS: Final = (torch.float32, torch.bfloat16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What `pack_` did.

    Attributes:
        n_packed: Layers that hold a packed weight now.
        n_plain: Linear layers left as they were.
        n_bytes: Size of the packed weights.
        took_s: Seconds it took, measuring included.
    """

    n_packed: int = 0
    n_plain: int = 0
    n_bytes: int = 0
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What measuring one shape of linear layer has shown.

    Attributes:
        pays: Whether the packed form is not slower than the plain one.
        floor: Rows below which a product is padded, because kernels for fewer rows round
            otherwise or are slower.
    """

    pays: bool
    floor: int


class PackedLinear(nn.Module):
    """A linear layer for inference whose weight is packed.

    Same results as the layer it is made from up to rounding. No gradients.

    Args:
        linear: Read once; its weight may be freed afterwards.
        keep: Keep the plain weight too, because another module owns it.

    Attributes:
        floor: See `Trial`.
        weight: The plain weight; unpacked anew, at its full size, with every access, unless kept.
    """

    def __init__(self, linear: nn.Linear, *, keep: bool = False) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.floor = 1
        self.bias = linear.bias
        if keep:
            self.weight = linear.weight
        self._packed = _pack(linear.weight)

    def __getattr__(self, name: str) -> Any:
        kept: dict[str, Any] = self.__dict__.get("_parameters", {})
        if name == "weight" and name not in kept:
            return self._packed.to_dense()
        return super().__getattr__(name)

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the weight."""
        return self._packed.dtype

    def forward(self, hidden: Tensor) -> Tensor:
        """Return ``hidden @ weight.T + bias`` for inputs of shape ``(..., in_features)``."""
        n_rows = hidden.numel() // self.in_features
        if 0 < n_rows < self.floor:
            rows = hidden.reshape(n_rows, self.in_features)
            rows = torch.constant_pad_nd(rows, (0, 0, 0, self.floor - n_rows))
            out = _multiply(rows, self._packed, self.bias).narrow(0, 0, n_rows)
            return out.reshape(*hidden.shape[:-1], self.out_features)
        return _multiply(hidden, self._packed, self.bias)

    def extra_repr(self) -> str:
        """Describe the layer for ``print(model)``."""
        return f"in_features={self.in_features}, out_features={self.out_features}"

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.setdefault(f"{prefix}weight", self.weight)


def can_pack(model: nn.Module) -> bool:
    """Return whether *model* lies where and how weights can be packed: processor, build, format."""
    weights = [layer.weight for _, _, layer in _linears(model)]
    suitable = all(w.device.type == "cpu" and w.dtype in _FORMATS for w in weights)
    return bool(weights) and suitable and _has_kernels(frozenset(w.dtype for w in weights))


@torch.no_grad()
def pack_(model: nn.Module) -> Packed:
    """Replace the linear layers of *model* by packed ones, where measuring says that it pays.

    Shapes are tried with the number of compute threads that is set. Plain weights are freed one by
    one, so the model does not take twice its room; a head that is tied to the embedding keeps it,
    because looking tokens up needs it. A model that cannot be packed is left alone.

    Args:
        model: One that nobody else uses, for inference alone.
    """
    start, done, n_plain = time.perf_counter(), list[PackedLinear](), 0
    shared, floors = _shared(model), dict[tuple[int, ...], int]()
    for parent, name, linear in _linears(model) if can_pack(model) else ():
        trial, shape = _trial_of(linear), tuple(linear.weight.shape)
        if not trial.pays:
            n_plain += 1
            continue
        done.append(PackedLinear(linear, keep=id(linear.weight) in shared))
        if shape not in floors:
            floors[shape] = max(trial.floor, _own_from(done[-1]))
        done[-1].floor = floors[shape]
        setattr(parent, name, done[-1])
    _trim()
    n_bytes = sum(layer._packed.numel() * layer._packed.element_size() for layer in done)
    took_s = time.perf_counter() - start
    return Packed(n_packed=len(done), n_plain=n_plain, n_bytes=n_bytes, took_s=took_s)


def _linears(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Yield every linear layer with its place; subclasses and hooked ones mean something else.

    No list of them is held, so that one that is replaced meanwhile is freed.
    """
    for parent in [module for module in model.modules() if type(module) is not nn.Linear]:
        for name in [name for name, _ in parent.named_children()]:
            child = getattr(parent, name)
            if type(child) is nn.Linear and not _hooked(child):
                yield parent, name, child


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _shared(model: nn.Module) -> frozenset[int]:
    """Return the identities of the parameters that several modules own."""
    owned = [id(p) for m in model.modules() for p in m._parameters.values() if p is not None]
    return frozenset(key for key in owned if owned.count(key) > 1)


def _pack(weight: Tensor) -> Tensor:
    rows = weight.detach().contiguous()
    return cast("Tensor", torch.ops.mkldnn._reorder_linear_weight(rows, BATCH_HINT))


def _trim() -> None:
    """Give freed weights back to the system; glibc keeps their pages until it is asked."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _multiply(hidden: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    product = torch.ops.mkldnn._linear_pointwise(hidden, packed, bias, "none", [], "")
    return cast("Tensor", product)


# --- measuring -----------------------------------------------------------------------------------


@lru_cache
def _has_kernels(dtypes: frozenset[torch.dtype]) -> bool:
    """Return whether this build and processor pack and multiply weights of *dtypes*."""
    try:
        for dtype in dtypes:
            _multiply(torch.ones(1, 16, dtype=dtype), _pack(torch.ones(16, 16, dtype=dtype)), None)
    except (AttributeError, RuntimeError):  # an operator is missing, or has no such kernel
        return False
    return True


def _trial_of(linear: nn.Linear) -> Trial:
    n_out, n_in = linear.weight.shape
    n_out = min(n_out, max(1, SAMPLE_WEIGHTS // n_in))
    return _try(n_out, n_in, linear.weight.dtype, torch.get_num_threads())


@lru_cache(maxsize=1024)
def _try(n_out: int, n_in: int, dtype: torch.dtype, n_threads: int) -> Trial:
    """Measure one shape. Remembered, so that two engines of a process round alike."""
    draw = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        plain = [_sample(n_out, n_in, dtype, draw) for _ in range(_n_copies(n_out * n_in))]
        rows = torch.randn(max(N_ROWS), n_in, generator=draw).to(dtype)
        packed = [PackedLinear(linear) for linear in plain]
        floor = _floor(packed, rows)
        for layer in packed:
            layer.floor = floor
        ratios = [_ratio(plain, packed, rows[:n]) for n in N_ROWS]
    return Trial(math.prod(ratios) ** (1 / len(ratios)) <= MARGIN, floor)


def _n_copies(n_weights: int) -> int:
    """Return how many layers a sample takes: one alone would stay in the processor's cache."""
    return max(1, SAMPLE_WEIGHTS // n_weights)


def _sample(n_out: int, n_in: int, dtype: torch.dtype, draw: torch.Generator) -> nn.Linear:
    linear = nn.Linear(n_in, n_out, bias=False, dtype=dtype)
    linear.weight.copy_(torch.randn(n_out, n_in, generator=draw) * n_in**-0.5)
    return linear


def _floor(packed: Sequence[PackedLinear], rows: Tensor) -> int:
    """Return the row count that one row is best padded to."""
    floors = range(_own_from(packed[0]), MAX_FLOOR + 1)
    took = fastest_s([partial(_run, packed, rows[:n]) for n in floors])
    best = took.index(min(took))
    return floors[best if took[best] < 0.95 * took[0] else 0]


def _own_from(layer: PackedLinear) -> int:
    """Return the row count from which on a row's result does not depend on the rows beside it."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(16, layer.in_features, generator=draw).to(layer.dtype)
    return max(_unlike(layer, rows), _unlike(*_cancelling(layer, rows, draw))) + 1


def _unlike(layer: PackedLinear, rows: Tensor) -> int:
    """Return the largest row count whose results differ from those of all *rows*; 0 if none."""
    whole = _multiply(rows, layer._packed, None)
    alone = [_multiply(rows[:n], layer._packed, None) for n in range(1, MAX_FLOOR)]
    return max((len(few) for few in alone if not torch.equal(few, whole[: len(few)])), default=0)


def _cancelling(
    layer: PackedLinear, rows: Tensor, draw: torch.Generator
) -> tuple[PackedLinear, Tensor]:
    """Return a layer shaped like *layer*, and rows, whose products are sums of opposite numbers.

    Nothing remains of them but what the order of summing leaves. Of other sums, half precision
    shows the order once in thousands.
    """
    half, n_out = layer.in_features // 2, layer.out_features
    n_out = min(n_out, max(1, LARGEST_TWIN // layer.in_features))
    twin = nn.Linear(layer.in_features, n_out, bias=False, dtype=layer.dtype)
    with torch.no_grad():
        weights = torch.randn(n_out, half, generator=draw)
        twin.weight.zero_()[:, : 2 * half].copy_(weights.repeat(1, 2))
    return PackedLinear(twin), torch.cat([rows[:, :half], -rows[:, :half], rows[:, 2 * half :]], 1)


def _ratio(plain: Sequence[nn.Module], packed: Sequence[nn.Module], rows: Tensor) -> float:
    plain_s, packed_s = fastest_s([partial(_run, plain, rows), partial(_run, packed, rows)])
    return packed_s / plain_s


def _run(layers: Sequence[nn.Module], rows: Tensor) -> None:
    for layer in layers:
        layer(rows)
