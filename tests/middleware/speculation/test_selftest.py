"""A model that is wrong on trees is found out when it is loaded, however quiet about it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from elision.middleware.engines.cache import full_cache, growing_cache
from elision.middleware.speculation import selftest
from elision.middleware.speculation.base import Draft
from elision.middleware.speculation.masks import Windows, tree_masks, tree_positions
from elision.middleware.speculation.selftest import TreeCheck, check_trees, is_tree_capable

Make = Callable[[str], Any]


def check(model: Any, **more: Any) -> TreeCheck:
    return check_trees(model, new_cache=lambda: full_cache(model.config), **more)


@dataclass
class Meddling:
    """A model to which something happens on the way."""

    model: Any
    meddle: Callable[[dict[str, Any]], None]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, **kwargs: Any) -> Any:
        if kwargs.get("attention_mask") is not None:
            self.meddle(kwargs)
        return self.model(**kwargs)


def as_booleans(kwargs: dict[str, Any]) -> None:
    mask = kwargs["attention_mask"]
    each = {k: m == 0 for k, m in mask.items()} if isinstance(mask, dict) else mask == 0
    kwargs["attention_mask"] = each


def without_mask(kwargs: dict[str, Any]) -> None:
    del kwargs["attention_mask"]


def without_positions(kwargs: dict[str, Any]) -> None:
    del kwargs["position_ids"]


def one_for_all(kwargs: dict[str, Any]) -> None:
    kwargs["attention_mask"] = kwargs["attention_mask"]["full_attention"]


def raising(kwargs: dict[str, Any]) -> None:
    raise RuntimeError("token 17 of the prompt")


def poisoned(kwargs: dict[str, Any]) -> None:
    kwargs["attention_mask"] = kwargs["attention_mask"] * math.nan


def test_models_that_can_are_found_capable(make: Make, capable: str) -> None:
    found = check(make(capable))
    assert found == TreeCheck(True, True, "", found.error, True)
    assert 0 < found.error < 1e-4
    assert is_tree_capable(make(capable), new_cache=lambda: full_cache(make(capable).config))


def test_models_that_cannot_are_refused_with_a_reason(make: Make, incapable: str) -> None:
    found = check(make(incapable))
    assert not found.trees
    assert found.reason
    assert found.chains == (incapable in {"bloom", "gpt-neo"})


@pytest.mark.parametrize(
    ("name", "meddle"),
    [
        ("llama-eager", as_booleans),
        ("gemma2", as_booleans),
        ("llama", without_mask),
        ("llama", without_positions),
        ("gemma2", one_for_all),
        ("cohere2", one_for_all),
        ("gpt-oss", one_for_all),
        ("llama4", one_for_all),
        ("llama", poisoned),
    ],
)
def test_silently_wrong_scores_are_found_out(
    make: Make, name: str, meddle: Callable[[dict[str, Any]], None]
) -> None:
    found = check(Meddling(make(name), meddle))
    assert not found.trees
    assert found.error > 10 * selftest.BOUND
    assert "off by" in found.reason


@pytest.mark.parametrize("name", ["lfm2", "qwen3-next"])
def test_states_that_siblings_share_are_found_out_by_the_scores_too(
    make: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = tuple(sorted(set(make(name).config.layer_types)))
    monkeypatch.setattr(selftest.Windows, "of", lambda config: Windows(kinds=kinds))
    monkeypatch.setattr(selftest, "can_compact", lambda cache: True)
    monkeypatch.setattr(selftest, "compact", lambda cache, path, n: None)
    assert check(make(name)).error > 10 * selftest.BOUND


def test_a_broken_compaction_is_found_out(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "compact", lambda cache, path, n: cache.crop(len(path) - n))
    found = check(make("llama"))
    assert not found.trees
    assert found.error > 10 * selftest.BOUND


def test_what_a_model_raises_is_a_no_and_is_not_repeated(make: Make) -> None:
    found = check(Meddling(make("llama"), raising))
    assert found == TreeCheck(False, True, found.reason, math.inf, True)
    assert "RuntimeError" in found.reason
    assert "17" not in found.reason


def test_a_cache_that_forgets_is_a_no(make: Make) -> None:
    model = make("mistral")
    found = check_trees(model, new_cache=lambda: growing_cache(model.config))
    assert (found.trees, found.chains) == (False, False)


def test_an_attention_function_without_masks_is_a_no(make: Make) -> None:
    assert "flash_attention_2" in check(make("llama"), backend="flash_attention_2").reason


def test_a_window_too_long_to_outrun_is_owned_up_to(make: Make) -> None:
    model = Meddling(make("mistral"), lambda kwargs: None)
    model.config = type(model.config)(**{**model.config.to_dict(), "sliding_window": 128})
    model.config._attn_implementation = "sdpa"
    assert not check(model).outran


def test_half_precision_passes_within_its_wider_bound(make: Make) -> None:
    import copy

    found = check(copy.deepcopy(make("qwen3")).bfloat16())
    assert found.trees
    assert 1e-4 < found.error < selftest.HALF_BOUND


# --- the real model ------------------------------------------------------------------------------


def load(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


@pytest.mark.model
def test_the_default_model_is_capable_and_says_so_within_seconds(smollm2_dir: Path) -> None:
    model = load(smollm2_dir, torch.float32)
    check(model)
    start = time.thread_time()  # one compute thread, so others' load does not count
    found = check(model)
    took = time.thread_time() - start
    assert found.trees
    assert found.error < 1e-4
    assert took < 5  # one on a quiet machine


@pytest.mark.model
@pytest.mark.parametrize(
    ("dtype", "bound"),
    [(torch.float32, 1e-4), pytest.param(torch.bfloat16, 4e-2, marks=pytest.mark.slow)],
)
def test_rows_of_a_tree_differ_from_plain_rows_in_the_last_bits_only(
    smollm2_dir: Path, dtype: torch.dtype, bound: float
) -> None:
    model = load(smollm2_dir, dtype)
    worst, n_flips, n_rows = numerics(model)
    assert worst < bound
    # Random tokens, the usual kernels: half precision flips some rows; see exactness.py for ours.
    assert n_flips <= n_rows * (0 if dtype == torch.float32 else 1 / 3)


def numerics(model: Any) -> tuple[float, int, int]:
    """Return the largest relative error of a tree's rows, how many argmaxes flip, of how many."""
    draw, worst, n_flips, n_rows = torch.Generator().manual_seed(0), 0.0, 0, 0
    parents = tuple(max(0, i - 1 - i % 3) for i in range(11))
    for n_past in (24, 60):
        ids = torch.randint(49152, (n_past + 12,), generator=draw)
        draft = Draft(tuple(ids[n_past + 1 :].tolist()), parents)
        rows, plain = tree_rows(model, ids, draft), plain_rows(model, ids, draft)
        error = ((rows - plain).abs().amax(-1) / plain.abs().amax(-1)).max()
        worst = max(worst, float(error))
        n_flips += int((rows.argmax(-1) != plain.argmax(-1)).sum())
        n_rows += len(rows)
    return worst, n_flips, n_rows


@torch.inference_mode()
def tree_rows(model: Any, ids: Tensor, draft: Draft) -> Tensor:
    n, cache = len(ids) - len(draft) - 1, full_cache(model.config)
    model(ids[None, :n], past_key_values=cache)
    how: dict[str, Any] = {"backend": "sdpa", "dtype": model.dtype, "device": "cpu"}
    out = model(
        ids[None, n:],
        past_key_values=cache,
        attention_mask=tree_masks(model.config, n_past=n, draft=draft, **how),
        position_ids=tree_positions(n, draft),
    )
    return out.logits[0].float()  # type: ignore[no-any-return]


@torch.inference_mode()
def plain_rows(model: Any, ids: Tensor, draft: Draft) -> Tensor:
    """Score every node as plain decoding does: its path token by token over a cache."""
    n, prefix = len(ids) - len(draft) - 1, full_cache(model.config)
    model(ids[None, :n], past_key_values=prefix)
    rows: dict[int, Tensor] = {}

    def visit(node: int, cache: DynamicCache) -> None:
        out = model(ids[None, n + node : n + node + 1], past_key_values=cache)
        rows[node] = out.logits[0, -1].float()
        for child in (i + 1 for i, parent in enumerate(draft.parents) if parent == node):
            visit(child, cache)
        cache.crop(-1)

    visit(0, prefix)
    return torch.stack([rows[node] for node in range(len(draft) + 1)])
