"""A packed model says what the plain one says, and a row says the same in any company."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from elision.middleware.engines import packing
from elision.middleware.engines.cache import growing_cache
from elision.middleware.engines.packing import PackedLinear, can_pack, pack_
from elision.testing.models import ARCHITECTURES, Architecture, tiny_model

FORMATS = [torch.float32, torch.bfloat16]
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2e-2}

needs_kernels = pytest.mark.skipif(
    not can_pack(nn.Sequential(nn.Linear(16, 16))), reason="this build of torch packs no weights"
)
pytestmark = needs_kernels


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pack whatever can be packed: tiny layers are faster plain, and timing is not under test."""
    monkeypatch.setattr(packing, "_try", lambda *shape: packing.Trial(pays=True, floor=1))


def linear(n_in: int, n_out: int, dtype: torch.dtype, *, bias: bool = True) -> nn.Linear:
    made = nn.Linear(n_in, n_out, bias=bias, dtype=dtype)
    with torch.no_grad():
        for seed, part in enumerate(made.parameters()):
            part.copy_(noise(tuple(part.shape), seed) * n_in**-0.5)
    return made


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tokens(n: int) -> Tensor:
    return torch.randint(0, 259, (1, n), generator=torch.Generator().manual_seed(n))


def packed_of(model: nn.Module) -> list[PackedLinear]:
    return [module for module in model.modules() if isinstance(module, PackedLinear)]


# --- one layer -----------------------------------------------------------------------------------


@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple),
    n_in=st.sampled_from([1, 7, 64, 96]),
    n_out=st.sampled_from([1, 5, 64]),
    dtype=st.sampled_from(FORMATS),
    bias=st.booleans(),
    floor=st.integers(1, 4),
)
def test_a_packed_layer_computes_what_its_plain_layer_computes(
    shape: tuple[int, ...], n_in: int, n_out: int, dtype: torch.dtype, bias: bool, floor: int
) -> None:
    plain = linear(n_in, n_out, dtype, bias=bias)
    packed = PackedLinear(plain)
    packed.floor = floor
    hidden = noise((*shape, n_in), 2).to(dtype)
    before = hidden.clone()
    with torch.inference_mode():
        mine, theirs = packed(hidden), plain(hidden)
    assert mine.shape == theirs.shape
    assert mine.dtype is dtype
    torch.testing.assert_close(mine, theirs, atol=ROUNDING[dtype], rtol=ROUNDING[dtype])
    assert torch.equal(hidden, before)


def rounds_alike(layer: PackedLinear, n_rows: int) -> bool:
    """Whether this processor's kernels for *n_rows* rows sum up in the order of those for six.

    Opposite numbers show it; of other sums, half precision would once in thousands.
    """
    rows = noise((n_rows, layer.in_features), 4).to(layer.dtype)
    twin, rows = packing._cancelling(layer, rows, torch.Generator().manual_seed(0))
    return torch.equal(twin(rows[:6]), twin(rows)[:6])


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize(("n_in", "n_out"), [(576, 192), (1536, 576), (2048, 512)])
def test_a_row_does_not_depend_on_the_rows_beside_it(
    n_in: int, n_out: int, dtype: torch.dtype
) -> None:
    """Plain layers fail this in float32 for one to three rows."""
    layer = nn.Sequential(linear(n_in, n_out, dtype))
    floor = packing._own_from(PackedLinear(layer[0]))
    packed = PackedLinear(layer[0])
    packed.floor = floor
    with torch.inference_mode():
        most = next((n for n in (40, 32) if rounds_alike(packed, n)), 0)  # AMX takes 32 at once
        if not most:
            pytest.skip("this processor's kernels round by the number of rows, even of many")
        rows = noise((most, n_in), 3).to(dtype)
        whole = packed(rows)
        for n in (1, 2, 3, 4, 5, 8, 15, 16, 17, 31, most - 7):
            assert torch.equal(packed(rows[:n]), whole[:n]), n
            assert torch.equal(packed(rows[-n:]), whole[-n:]), n


@pytest.mark.parametrize("dtype", FORMATS)
def test_the_plain_weight_can_be_had_back_to_the_last_bit(dtype: torch.dtype) -> None:
    plain = linear(48, 20, dtype)
    packed = PackedLinear(plain)
    assert torch.equal(packed.weight, plain.weight)
    assert packed.dtype is dtype
    state = packed.state_dict()
    assert set(state) == {"weight", "bias"}
    assert torch.equal(state["weight"], plain.weight)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = packed.nothing_of_the_kind


# --- a model -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_are_those_of_the_plain_model(architecture: Architecture) -> None:
    plain, packed = tiny_model(architecture), tiny_model(architecture)
    assert pack_(packed).n_packed == sum(type(m) is nn.Linear for m in plain.modules())
    ours, theirs = growing_cache(packed.config), growing_cache(plain.config)
    with torch.inference_mode():
        for n in (9, 1, 3, 1):
            mine = packed(tokens(n), past_key_values=ours, use_cache=True).logits
            wanted = plain(tokens(n), past_key_values=theirs, use_cache=True).logits
            torch.testing.assert_close(mine, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("always")
def test_the_plain_weights_are_freed_but_for_a_head_that_is_tied() -> None:
    model: Any = tiny_model("llama")
    model.lm_head.weight = model.model.embed_tokens.weight
    weights = [weakref.ref(m.weight) for m in model.modules() if type(m) is nn.Linear]
    done = pack_(model)
    gc.collect()
    assert [ref() for ref in weights if ref() is not None] == [model.model.embed_tokens.weight]
    assert model.get_output_embeddings().weight is model.model.embed_tokens.weight
    assert done.n_bytes == 4 * sum(m.in_features * m.out_features for m in packed_of(model))
    assert model.dtype is torch.float32
    assert model.device.type == "cpu"


@pytest.mark.usefixtures("always")
def test_a_packed_model_still_saves_every_weight() -> None:
    plain, packed = tiny_model("qwen2"), tiny_model("qwen2")
    pack_(packed)
    wanted, state = plain.state_dict(), packed.state_dict()
    assert set(state) == set(wanted)
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)


@pytest.mark.usefixtures("always")
def test_what_is_no_mere_linear_layer_stays() -> None:
    class Own(nn.Linear):
        """A layer that means something else by its forward."""

    hooked = linear(16, 16, torch.float32)
    hooked.register_forward_hook(lambda *call: None)
    model = nn.Sequential(Own(16, 16), hooked, linear(16, 16, torch.float32))
    assert pack_(model).n_packed == 1
    assert [type(module) for module in model] == [Own, nn.Linear, PackedLinear]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_model_in_another_format_is_left_alone(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(16, 16, dtype=dtype))
    assert not can_pack(model)
    assert pack_(model).n_packed == 0
    assert type(model[0]) is nn.Linear


def test_a_model_elsewhere_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(16, 16, device="meta"))
    assert not can_pack(model)
    assert pack_(model).n_packed == 0


def test_a_build_without_the_kernels_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(weight: Tensor) -> Tensor:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute")

    monkeypatch.setattr(packing, "_pack", missing)
    packing._has_kernels.cache_clear()
    try:
        assert pack_(nn.Sequential(nn.Linear(16, 16))).n_packed == 0
    finally:
        packing._has_kernels.cache_clear()


@pytest.mark.parametrize(("slow", "n_packed"), [(PackedLinear, 0), (nn.Linear, 1)])
def test_the_slower_form_is_not_taken(
    slow: type[nn.Module], n_packed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handicapped(layers: Any, rows: Tensor) -> None:
        for layer in layers:
            for _ in range(20 if isinstance(layer, slow) else 1):
                layer(rows)

    monkeypatch.setattr(packing, "_run", handicapped)
    monkeypatch.setattr(packing, "SAMPLE_WEIGHTS", 2**16)
    packing._try.cache_clear()
    done = pack_(nn.Sequential(linear(128, 128, torch.float32)))
    packing._try.cache_clear()
    assert (done.n_packed, done.n_plain) == (n_packed, 1 - n_packed)


def test_a_second_engine_of_a_process_is_packed_alike() -> None:
    packing._try.cache_clear()
    one, two = (nn.Sequential(linear(576, 192, torch.float32)) for _ in range(2))
    assert pack_(one).n_packed == pack_(two).n_packed
    assert packing._try.cache_info().misses == 1


@pytest.mark.model
@pytest.mark.parametrize(
    ("dtype", "most"),
    [(torch.float32, 5e-4), pytest.param(torch.bfloat16, 0.5, marks=pytest.mark.slow)],
)
def test_smollm2_decides_as_its_plain_form_does(
    smollm2_dir: Path, dtype: torch.dtype, most: float
) -> None:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(smollm2_dir, dtype=dtype).eval()
    ids = torch.arange(1000, 1048)[None]
    with torch.inference_mode():
        wanted = model(ids).logits.float()
        pack_(model)
        mine = model(ids).logits.float()
    assert (mine - wanted).abs().max() < most
    shapes = {(m.in_features, m.out_features): m for m in packed_of(model)}
    assert shapes, "nothing was packed"
    for layer in shapes.values():
        rows = noise((17, layer.in_features), 0).to(dtype)
        with torch.inference_mode():
            whole = layer(rows)
            assert all(torch.equal(layer(rows[:n]), whole[:n]) for n in range(1, 17))
