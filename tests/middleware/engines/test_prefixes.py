"""The prefix cache: what is taken is what a fresh reading gives, within bounds, for one tenant."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from transformers import DynamicCache

from elision.contract import Erasable, Request
from elision.middleware.engines import prefixes
from elision.middleware.engines.cache import GrowingLayer, full_cache, growing_cache
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.prefixes import FEWEST_TOKENS, PrefixCache
from elision.middleware.speculation.masks import chain_masks
from elision.testing.models import ARCHITECTURES, Architecture, tiny_model

Ids = tuple[int, ...]

# --- a model without a model ---------------------------------------------------------------------
# Keys and values that tell what they were read from: slot i holds a number made of ids[: i + 1],
# a multiple of it by layer. Whatever mixes up slots, layers or requests shows.

WIDTH, LAYERS = 2, 2
TOKEN_BYTES = LAYERS * 2 * WIDTH * 4 + 4


def _marks(ids: Sequence[int]) -> torch.Tensor:
    marks, mark = [], 7
    for token in ids:
        mark = (mark * 31 + token + 1) % 65_521  # exact in float32
        marks.append(mark)
    return torch.tensor(marks, dtype=torch.float32)[None, None, :, None].expand(1, 1, -1, WIDTH)


def read(ids: Sequence[int]) -> DynamicCache:
    layers = []
    for layer in range(LAYERS):
        made = cast("Any", GrowingLayer)()
        made.update(_marks(ids) * (layer + 1), -_marks(ids) * (layer + 1))
        layers.append(made)
    return of_layers(layers)


def of_layers(layers: list[Any]) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = layers
    return cache


def assert_holds(cache: DynamicCache, ids: Sequence[int]) -> None:
    for ours, theirs in zip(cache.layers, read(ids).layers, strict=True):
        assert torch.equal(cast("Any", ours).keys, cast("Any", theirs).keys)
        assert torch.equal(cast("Any", ours).values, cast("Any", theirs).values)


def numbered(n: int, *, seed: int = 0, vocab: int = 259) -> Ids:
    draw = np.random.default_rng(seed)
    return tuple(int(i) for i in draw.integers(0, vocab, n))


def kept(cache: PrefixCache, ids: Ids, who: str = "t", profile: str = "p", epoch: int = 0) -> int:
    """Return how many of *ids* are kept, all but for the last."""
    found = cache.take(who, profile, epoch, (*ids, 0))
    return 0 if found is None else found[1]


def put(cache: PrefixCache, ids: Ids, who: str = "t", profile: str = "p", epoch: int = 0) -> bool:
    return cache.put(who, profile, epoch, ids, read(ids))


# --- laws ----------------------------------------------------------------------------------------

runs = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 19)).map(lambda run: (run[0],) * run[1]),
    min_size=1,
    max_size=5,
)
texts = runs.map(lambda parts: tuple(token for part in parts for token in part))


def n_alike(a: Ids, b: Ids) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


class Storehouse(RuleBasedStateMachine):
    """Puts, takes and erasures in any order, beside a list of all that was put."""

    tenants = st.sampled_from(["ann", "bob"])
    profiles = st.sampled_from(["plain", "guarded"])
    limit = 10**9
    known = Bundle("known")

    def __init__(self) -> None:
        super().__init__()
        self.cache = PrefixCache(self.limit)
        self.put_so_far: dict[tuple[str, str], list[Ids]] = {}

    @rule(target=known, ids=texts)
    def another_text(self, ids: Ids) -> Ids:
        return ids

    @rule(target=known, before=known, ids=texts)
    def a_text_that_goes_on(self, before: Ids, ids: Ids) -> Ids:
        return before + ids

    @rule(target=known, before=known, n=st.integers(1, 60), ids=texts)
    def a_text_that_parts(self, before: Ids, n: int, ids: Ids) -> Ids:
        return before[:n] + ids

    @rule(tenant=tenants, profile=profiles, ids=known)
    def is_put(self, tenant: str, profile: str, ids: Ids) -> None:
        before = self.cache.stats()["prefix_evictions"]
        fits = len(ids) >= FEWEST_TOKENS and len(ids) * TOKEN_BYTES <= self.limit
        assert put(self.cache, ids, tenant, profile) == fits
        if fits:
            self.put_so_far.setdefault((tenant, profile), []).append(ids)
            assert self.is_taken(tenant, profile, (*ids, 0)) == len(ids)
        else:
            assert self.cache.stats()["prefix_evictions"] == before

    @rule(tenant=tenants, profile=profiles, ids=known)
    def is_asked_for(self, tenant: str, profile: str, ids: Ids) -> None:
        self.is_taken(tenant, profile, ids)

    def is_taken(self, tenant: str, profile: str, ids: Ids) -> int:
        others = self.put_so_far.get((tenant, profile), [])
        most = max((n_alike(ids[:-1], other) for other in others), default=0)
        found = self.cache.take(tenant, profile, 0, ids)
        if found is None:
            assert most < FEWEST_TOKENS or self.cache.stats()["prefix_evictions"]
            return 0
        cache, n = found
        assert FEWEST_TOKENS <= n <= most
        assert n == most or self.cache.stats()["prefix_evictions"]
        assert_holds(cache, ids[:n])
        scribble_(cache)
        return n

    @rule(tenant=tenants)
    def is_erased(self, tenant: str) -> None:
        self.cache.erase(tenant)
        for key in [key for key in self.put_so_far if key[0] == tenant]:
            del self.put_so_far[key]

    def teardown(self) -> None:
        for (tenant, profile), several in self.put_so_far.items():
            for ids in several:
                self.is_taken(tenant, profile, (*ids, 0))

    @invariant()
    def the_bound_holds_and_the_sum_is_right(self) -> None:
        roots = self.cache._roots.values()
        segments = [segment for root in roots for segment in root.below()]
        assert sum(s.n_bytes for s in segments) == self.cache._n_bytes <= self.limit
        assert set(segments) == set(self.cache._line)
        assert all(s.n_bytes == len(s.ids) * TOKEN_BYTES for s in segments)


class SmallStorehouse(Storehouse):
    """The same, where hardly two texts fit."""

    limit = 90 * TOKEN_BYTES


def scribble_(cache: DynamicCache) -> None:
    """Do to *cache* the worst that a request may do."""
    for layer in cast("list[Any]", cache.layers):
        layer.keys.fill_(-1)
        layer.crop(-1)
        layer.update(torch.ones(1, 1, 3, WIDTH), torch.ones(1, 1, 3, WIDTH))
        layer.values.fill_(-1)


TestStorehouse = Storehouse.TestCase
TestSmallStorehouse = SmallStorehouse.TestCase
TestStorehouse.settings = settings(max_examples=30, stateful_step_count=30)
TestSmallStorehouse.settings = settings(max_examples=30, stateful_step_count=30)


def assert_scores_agree(ours: torch.Tensor, fresh: torch.Tensor) -> None:
    distance = float((ours - fresh).abs().max())
    assert distance <= 1e-3 * float(fresh.abs().max())
    best = fresh.topk(2, dim=-1)
    clear = best.values[..., 0] - best.values[..., 1] > 2 * distance
    assert clear.any()
    assert torch.equal(ours.argmax(-1)[clear], best.indices[..., 0][clear])


MODELS = {name: tiny_model(name) for name in ARCHITECTURES}


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@given(
    n_alike=st.integers(FEWEST_TOKENS, 120),
    n_first=st.integers(0, 60),
    n_second=st.integers(1, 60),
    chunk=st.integers(1, 80),
)
@settings(max_examples=15)
def test_scores_on_a_taken_prefix_are_those_of_a_fresh_reading(
    architecture: Architecture, n_alike: int, n_first: int, n_second: int, chunk: int
) -> None:
    model, cache = MODELS[architecture], PrefixCache()
    start = numbered(n_alike, seed=1)
    first, second = start + numbered(n_first, seed=2), (*start, 3, *numbered(n_second, seed=3))
    with torch.inference_mode():
        donor = growing_cache(model.config)
        for at in range(0, len(first), chunk):
            model(torch.tensor([first[at : at + chunk]]), past_key_values=donor)
        assert cache.put("t", "p", 0, first, donor)
        found = cache.take("t", "p", 0, second)
        assert found is not None
        own, n = found
        assert n >= n_alike
        ours = model(torch.tensor([second[n:]]), past_key_values=own).logits
        fresh = model(torch.tensor([second])).logits[:, n:]
    assert_scores_agree(ours, fresh)


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3"])
@pytest.mark.parametrize("n_alike", [40, 200])  # a window is 128 tokens
def test_windows_see_no_more_of_a_taken_prefix_than_of_a_fresh_one(
    architecture: Architecture, n_alike: int
) -> None:
    model, cache = MODELS[architecture], PrefixCache()
    start, end = numbered(n_alike, seed=1), numbered(30, seed=2)

    def score(ids: Ids, own: DynamicCache) -> torch.Tensor:
        masks = chain_masks(
            model.config,
            backend=model.config._attn_implementation,
            dtype=model.dtype,
            device=model.device,
            n_past=own.get_seq_length(),
            n_new=len(ids),
        )
        out = model(torch.tensor([ids]), past_key_values=own, attention_mask=masks)
        return cast("torch.Tensor", out.logits)

    with torch.inference_mode():
        donor = full_cache(model.config)
        score(start, donor)
        assert cache.put("t", "p", 0, start, donor)
        found = cache.take("t", "p", 0, start + end)
        assert found is not None
        assert found[1] == n_alike
        fresh = model(torch.tensor([start + end])).logits[:, n_alike:]
        assert_scores_agree(score(end, found[0]), fresh)


def test_what_one_request_writes_never_reaches_another() -> None:
    model, cache = MODELS["llama"], PrefixCache()
    ids = numbered(80)
    with torch.inference_mode():
        donor = growing_cache(model.config)
        model(torch.tensor([ids[:70]]), past_key_values=donor)
        assert cache.put("t", "p", 0, ids[:70], donor)
        taken = [cache.take("t", "p", 0, ids) for _ in range(2)]
        ends = [None] * 2
        for end, found in enumerate(taken):
            assert found is not None
            own, n = found
            for layer in cast("list[Any]", donor.layers):
                layer.keys.zero_(), layer.values.zero_()
            ends[end] = model(torch.tensor([ids[n:]]), past_key_values=own).logits
            model(torch.tensor([numbered(40, seed=9)]), past_key_values=own)
            for layer in cast("list[Any]", own.layers):
                layer.keys.zero_(), layer.values.zero_()
        later = cache.take("t", "p", 0, ids)
        assert later is not None
        last = model(torch.tensor([ids[later[1] :]]), past_key_values=later[0]).logits
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], last)


@given(ids=texts, other=st.sampled_from([("u", "p"), ("t", "q"), ("p", "t")]))
def test_tenants_and_profiles_share_nothing(ids: Ids, other: tuple[str, str]) -> None:
    cache = PrefixCache()
    ids = (*ids, *numbered(FEWEST_TOKENS))
    assert put(cache, ids)
    assert kept(cache, ids, *other) == 0
    assert put(cache, ids, *other)
    assert cache.stats()["prefix_bytes"] == 2 * len(ids) * TOKEN_BYTES
    assert put(cache, (*ids, 1), *other)
    assert kept(cache, (*ids, 1)) == len(ids)


# --- what is kept --------------------------------------------------------------------------------


def test_the_last_token_of_a_prompt_is_always_left_to_score() -> None:
    cache, ids = PrefixCache(), numbered(40)
    assert put(cache, ids)
    found = cache.take("t", "p", 0, ids)
    assert found is not None
    assert found[1] == 39


def test_what_many_begin_with_is_kept_once() -> None:
    cache, system = PrefixCache(), numbered(100)
    chats = [(*system, 300 + chat, *numbered(20, seed=chat)) for chat in range(8)]
    assert all(put(cache, chat) for chat in chats)
    assert cache.stats()["prefix_bytes"] == (100 + 8 * 21) * TOKEN_BYTES
    assert all(kept(cache, chat) == len(chat) for chat in chats)


def test_what_parts_and_goes_on_is_put_together_again() -> None:
    cache, start = PrefixCache(), numbered(60, seed=1)
    several = [start, start[:20] + numbered(30, seed=2), start + numbered(30, seed=3)]
    assert all(put(cache, ids) for ids in several)
    for ids in several:
        found = cache.take("t", "p", 0, (*ids, 0))
        assert found is not None
        assert_holds(found[0], ids)


def test_a_next_turn_copies_only_what_is_new() -> None:
    cache, ids = PrefixCache(), numbered(200)
    assert put(cache, ids[:100])
    (first,) = cache._line
    states = first.states
    assert put(cache, ids)
    assert first.states is states
    assert cache.stats()["prefix_bytes"] == 200 * TOKEN_BYTES


def test_nothing_is_kept_with_room_to_spare() -> None:
    cache, ids = PrefixCache(), numbered(300)
    assert put(cache, ids)
    assert put(cache, (*ids[:50], 299, *ids[:50]))
    for segment in cache._line:
        for keys, values in filter(None, segment.states):
            for tensor in (keys, values):
                assert tensor.untyped_storage().nbytes() == tensor.nbytes
        assert segment.ids.base is None


def test_tokens_without_a_slot_are_left_out() -> None:
    cache, ids = PrefixCache(), numbered(40)
    assert cache.put("t", "p", 0, ids, read(ids[:30]))
    assert kept(cache, ids) == 30


def test_slots_behind_the_tokens_are_left_out() -> None:
    cache, ids = PrefixCache(), numbered(40)
    assert cache.put("t", "p", 0, ids[:30], read(ids))
    assert kept(cache, ids) == 30
    assert cache.stats()["prefix_bytes"] == 30 * TOKEN_BYTES


def test_a_layer_that_keeps_nothing_of_its_own_keeps_nothing_here() -> None:
    cache, ids = PrefixCache(), numbered(40)
    donor = read(ids)
    donor.layers.append(cast("Any", GrowingLayer)())
    assert cache.put("t", "p", 0, ids, donor)
    found = cache.take("t", "p", 0, ids)
    assert found is not None
    assert [layer.get_seq_length() for layer in found[0].layers] == [39, 39, 0]


def test_a_taken_cache_is_what_a_new_one_becomes() -> None:
    model, cache, ids = MODELS["llama"], PrefixCache(), numbered(40)
    donor = growing_cache(model.config)
    with torch.inference_mode():
        model(torch.tensor([ids]), past_key_values=donor)
        assert cache.put("t", "p", 0, ids, donor)
        found = cache.take("t", "p", 0, ids)
    assert found is not None
    assert vars(found[0]).keys() == vars(donor).keys()
    assert {k: v for k, v in vars(found[0]).items() if k != "layers"} == {
        k: v for k, v in vars(donor).items() if k != "layers"
    }
    for ours, theirs in zip(found[0].layers, donor.layers, strict=True):
        assert vars(ours).keys() == vars(theirs).keys()


# --- what is not kept ----------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3"])
def test_a_cache_that_forgets_is_not_kept(architecture: Architecture) -> None:
    model, cache, ids = MODELS[architecture], PrefixCache(), numbered(40)
    donor = growing_cache(model.config)
    with torch.inference_mode():
        model(torch.tensor([ids]), past_key_values=donor)
    assert not cache.put("t", "p", 0, ids, donor)
    assert cache.stats()["prefix_bytes"] == 0


def test_a_batch_is_not_kept() -> None:
    cache, ids = PrefixCache(), numbered(40)
    donor = read(ids)
    donor.batch_repeat_interleave(2)
    assert not cache.put("t", "p", 0, ids, donor)


def test_an_empty_cache_is_not_kept() -> None:
    cache = PrefixCache()
    assert not cache.put("t", "p", 0, numbered(40), of_layers([]))
    assert not cache.put("t", "p", 0, numbered(40), growing_cache(MODELS["llama"].config))


def test_what_would_not_fit_is_not_kept_and_drives_nothing_out() -> None:
    cache = PrefixCache(50 * TOKEN_BYTES)
    small, large = numbered(50, seed=1), numbered(51, seed=2)
    assert put(cache, small)
    assert not put(cache, large)
    assert kept(cache, small) == 50


def test_a_limit_of_zero_keeps_nothing() -> None:
    assert not put(PrefixCache(0), numbered(40))


def test_what_was_unused_longest_goes_first() -> None:
    cache = PrefixCache(120 * TOKEN_BYTES)
    old, used, new = (numbered(40, seed=seed) for seed in (1, 2, 3))
    for ids in (used, old, new):
        assert put(cache, ids)
    assert kept(cache, used) == 40
    assert put(cache, numbered(40, seed=4))
    assert [kept(cache, ids) for ids in (old, used, new)] == [0, 40, 40]


def test_leaves_go_before_what_they_stand_on() -> None:
    cache, start = PrefixCache(100 * TOKEN_BYTES), numbered(40)
    ends = [start + (300 + end,) * 20 for end in range(3)]
    for ids in ends:
        assert put(cache, ids)
    assert put(cache, numbered(30, seed=5))
    assert [kept(cache, ids) for ids in ends] == [40, 40, 60]


def test_no_tenant_is_robbed_of_what_he_uses_more_often() -> None:
    cache, mine = PrefixCache(100 * TOKEN_BYTES), numbered(40)
    assert put(cache, mine, "ann")
    for seed in range(6):
        assert put(cache, numbered(30, seed=seed), "bob")
        assert kept(cache, mine, "ann") == 40


# --- what makes it go ----------------------------------------------------------------------------


def test_it_is_erasable_and_counts_what_it_drops() -> None:
    cache, ids = PrefixCache(), numbered(40)
    assert isinstance(cache, Erasable)
    assert put(cache, ids)
    assert put(cache, ids, profile="q")
    assert put(cache, ids, "u")
    assert cache.erase("t", texts=("anything",)) == 2
    assert (kept(cache, ids), kept(cache, ids, "u")) == (0, 40)
    assert cache.erase("t") == 0


def test_what_is_erased_is_gone_from_memory() -> None:
    cache, ids = PrefixCache(), numbered(40)
    assert put(cache, ids)
    assert put(cache, ids[:20] + numbered(20, seed=1))
    left = [
        weakref.ref(side) for s in cache._line for pair in filter(None, s.states) for side in pair
    ]
    left_ids = [weakref.ref(s.ids) for s in cache._line]
    cache.erase("t")
    gc.collect()
    assert [ref() for ref in (*left, *left_ids) if ref() is not None] == []


def test_what_is_driven_out_is_gone_from_memory() -> None:
    cache = PrefixCache(50 * TOKEN_BYTES)
    assert put(cache, numbered(40, seed=1), "ann")
    (segment,) = cache._line
    refs = [weakref.ref(segment.ids), weakref.ref(segment.states[0][0])]  # type: ignore[index]
    del segment
    assert put(cache, numbered(40, seed=2), "bob")
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
    assert all(root.ids.base is None for root in cache._roots.values())


@pytest.mark.parametrize("act", [kept, put])
def test_a_newer_epoch_drops_what_older_targets_let_through(act: Callable[..., Any]) -> None:
    cache, ids = PrefixCache(), numbered(40)
    assert put(cache, ids, epoch=3)
    assert put(cache, ids, profile="q", epoch=3)
    assert put(cache, ids, "u", epoch=3)
    act(cache, numbered(40, seed=1), epoch=4)
    for profile in "pq":
        assert kept(cache, ids, profile=profile, epoch=4) == 0
    assert kept(cache, ids, "u", epoch=3) == 40


def test_a_request_that_began_under_older_targets_gives_and_gets_nothing() -> None:
    cache, ids = PrefixCache(), numbered(40)
    assert put(cache, ids, epoch=4)
    assert kept(cache, ids, epoch=3) == 0
    assert not put(cache, numbered(40, seed=1), epoch=3)
    assert kept(cache, ids, epoch=4) == 40


def test_a_request_that_ran_through_an_erasure_leaves_nothing() -> None:
    cache, ids = PrefixCache(), numbered(40)
    generation = cache.generation("t")
    cache.erase("u")
    assert cache.put("t", "p", 0, ids, read(ids), generation=generation)
    cache.erase("t")
    assert not cache.put("t", "p", 0, ids, read(ids), generation=generation)
    assert cache.put("t", "p", 0, ids, read(ids), generation=cache.generation("t"))


@pytest.mark.parametrize("meanwhile", ["erased", "newer"])
@pytest.mark.parametrize("before", [0, 20])
def test_what_changes_while_it_copies_is_heeded(
    monkeypatch: pytest.MonkeyPatch, meanwhile: str, before: int
) -> None:
    cache, ids = PrefixCache(), numbered(40)
    if before:
        assert put(cache, ids[:before])
    real = prefixes.cut

    def slow(*args: Any) -> Any:
        made = real(*args)
        if meanwhile == "erased":
            cache.erase("t")
        else:
            cache.take("t", "p", 1, ids)
        return made

    monkeypatch.setattr(prefixes, "cut", slow)
    assert not put(cache, ids)
    assert cache.stats()["prefix_bytes"] == 0


def test_threads_do_not_disturb_one_another() -> None:
    cache = PrefixCache(200 * TOKEN_BYTES)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        draw = np.random.default_rng(seed)
        try:
            for turn in range(60):
                who = f"tenant{draw.integers(2)}"
                ids = numbered(30, seed=1)[: int(draw.integers(16, 31))]
                ids += numbered(int(draw.integers(1, 40)), seed=int(draw.integers(9)))
                put(cache, ids, who)
                found = cache.take(who, "p", 0, ids)
                if found is not None:
                    assert_holds(found[0], ids[: found[1]])
                if turn % 10 == 0:
                    cache.erase(who)
                assert cache.stats()["prefix_bytes"] <= 200 * TOKEN_BYTES
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# --- what it tells -------------------------------------------------------------------------------


def test_it_shows_no_content_and_cannot_be_carried_off() -> None:
    cache = PrefixCache()
    assert put(cache, (4711,) * 40, "a-tenant-by-name")
    shown = repr(cache) + str(cache) + repr(cache.stats()) + "".join(map(repr, cache._line))
    assert "4711" not in shown
    assert "a-tenant-by-name" not in shown
    for carry in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never leaves the process"):
            carry(cache)


def test_it_counts_what_it_saved() -> None:
    cache, ids = PrefixCache(60 * TOKEN_BYTES), numbered(40)
    kept(cache, ids)
    put(cache, ids)
    kept(cache, ids)
    put(cache, numbered(40, seed=1))
    assert cache.stats() == {
        "prefix_bytes": 40 * TOKEN_BYTES,
        "prefix_segments": 1,
        "prefix_hits": 1,
        "prefix_misses": 1,
        "prefix_tokens": 40,
        "prefix_evictions": 1,
    }


def test_finding_one_of_64_long_prompts_takes_no_time() -> None:
    cache = PrefixCache()
    prompts = [numbered(1000) + numbered(1000, seed=seed) for seed in range(1, 65)]
    assert all(put(cache, ids) for ids in prompts)
    root, times = cache._roots["t", "p"], []
    for ids in prompts:
        start = time.perf_counter()
        path = prefixes.follow(root, np.array(ids, dtype=np.int32))
        times.append(time.perf_counter() - start)
        assert sum(n for _, n in path) == 2000
    assert min(times) < 1e-3  # 0.05 ms where nothing else runs


# --- the real model ------------------------------------------------------------------------------


def greedy(model: CausalModel, row: torch.Tensor, cache: DynamicCache, n: int) -> list[int]:
    """Return the reply, and leave in *cache* all of it but the last token."""
    reply = [int(row.argmax())]
    while len(reply) < n and reply[-1] not in model.eos:
        reply.append(int(model.score((reply[-1],), cache).argmax()))
    return reply


@pytest.mark.model
def test_a_chat_of_three_turns_reads_only_what_is_new(smollm2_dir: Path) -> None:
    model = CausalModel.load(smollm2_dir, name="smollm2", dtype=torch.float32)
    cache = PrefixCache()
    system = "You are a guide of the town museum. " * 8 + "Answer in one short sentence."
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}]
    n_new = []
    with torch.inference_mode():
        for question in ("What is a clock?", "Who made the first one?", "And where was that?"):
            messages.append({"role": "user", "content": question})
            ids = model.render(Request(kind="chat", messages=tuple(messages), max_tokens=12)).ids
            alone = model.new_cache()
            fresh = model.score(ids, alone)
            own, n = cache.take("t", "p", 0, ids) or (model.new_cache(), 0)
            row = model.score(ids[n:], own)
            assert_scores_agree(row, fresh)
            reply = greedy(model, row, own, 12)
            assert reply == greedy(model, fresh, alone, 12)
            assert cache.put("t", "p", 0, (*ids, *reply[:-1]), own)
            n_new.append(len(ids) - n)
            text = model.tokenizer.decode(reply, skip_special_tokens=True)
            messages.append({"role": "assistant", "content": text})
    assert n_new[0] > 80
    assert all(n < 40 for n in n_new[1:])
