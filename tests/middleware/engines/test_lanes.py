"""Several threads read a prompt as one does, to the last bit, and end with what ends one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.errors import EngineError
from elision.middleware.engines import lanes as module
from elision.middleware.engines.causal import PREFILL_CHUNK, CausalModel
from elision.middleware.engines.lanes import LEAST_TOKENS, Lanes, agrees, n_lanes, stretches
from elision.middleware.engines.station import Station
from elision.testing.models import ARCHITECTURES, tiny_model
from elision.testing.tokenizers import byte_tokenizer

IDS = tuple((7 * n) % 250 for n in range(400))


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


@pytest.fixture
def three() -> Iterator[Lanes]:
    lanes = Lanes(3, 1)
    yield lanes
    lanes.close()


def model_of(architecture: Any = "llama", **shape: Any) -> CausalModel:
    return CausalModel(tiny_model(architecture, **shape), byte_tokenizer(), name="tiny")


def one_by_one(model: CausalModel, parts: list[tuple[int, ...]]) -> tuple[Any, Any]:
    cache = model.new_cache(full=True)
    return [model.score(part, cache) for part in parts][-1], cache


def same(cache: Any, other: Any) -> bool:
    return all(
        torch.equal(a.keys, b.keys) and torch.equal(a.values, b.values)
        for a, b in zip(cache.layers, other.layers, strict=True)
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("held", [0, 30])
def test_lanes_read_what_one_thread_reads_to_the_last_bit(
    three: Lanes, architecture: Any, held: int
) -> None:
    model = model_of(architecture, n_layers=4)  # Gemma's windows, 128 tokens, bind
    before, parts = IDS[:held], [IDS[held:140], IDS[140:150], IDS[150:290]]
    cache = model.new_cache(full=True)
    if before:
        model.score(before, cache)
    got = three.read(model, parts, cache)
    want, other = one_by_one(model, [part for part in (before, *parts) if part])
    assert torch.equal(got, want)
    assert same(cache, other)
    assert agrees(model, three)


@settings(max_examples=200)
@given(n=st.integers(1, 3000), lanes=st.integers(1, 8))
def test_stretches_begin_the_prompt_in_order_and_keep_nobody_waiting(n: int, lanes: int) -> None:
    tokens, turns = tuple(range(n)), 0
    while tokens:
        parts = stretches(tokens, lanes)
        joined = tuple(token for part in parts for token in part)
        assert 1 <= len(parts) <= lanes
        assert joined == tokens[: len(joined)] != ()
        assert max(map(len, parts)) <= PREFILL_CHUNK
        assert len(parts) == 1 or min(map(len, parts)) > 1
        tokens, turns = tokens[len(joined) :], turns + 1
    assert turns <= -(-n // (PREFILL_CHUNK * lanes)) + 1


def test_a_short_prompt_is_read_in_one_go() -> None:
    assert stretches(IDS[: 2 * LEAST_TOKENS - 1], 8) == [IDS[: 2 * LEAST_TOKENS - 1]]


def test_both_halves_are_read_at_once(three: Lanes) -> None:
    """No stretch waits for the end of another: each sees the others' forwards begun."""
    model, met = model_of(), threading.Barrier(3, timeout=20)
    model.model.model.layers[0].register_forward_pre_hook(lambda *_: (met.wait(), None)[1])
    three.read(model, [IDS[:60], IDS[60:120], IDS[120:180]], model.new_cache(full=True))


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_stretch_that_breaks_ends_the_reading_and_the_lanes_go_on(
    three: Lanes, broken: int
) -> None:
    model = model_of()
    parts = [IDS[:60], IDS[60:120], IDS[120:180]]
    layer = model.model.model.layers[1]

    def fail(_: Any, args: Any) -> None:
        if args[0].shape[1] == len(parts[broken]) + broken:
            raise RuntimeError("broken")

    sized = [part + part[:n] for n, part in enumerate(parts)]  # 60, 61 and 62 tokens
    hook = layer.register_forward_pre_hook(fail)
    with pytest.raises((RuntimeError, EngineError)):
        three.read(model, sized, model.new_cache(full=True))
    hook.remove()
    got = three.read(model, parts, model.new_cache(full=True))
    assert torch.equal(got, one_by_one(model, parts)[0])


def test_a_model_with_a_state_of_its_own_is_found_out(three: Lanes) -> None:
    model = model_of()
    seen = list[float]()

    def shift(_: Any, args: Any) -> Any:
        time.sleep(0.01)
        seen.append(float(args[0].shape[1]))
        return (args[0] + len(seen), *args[1:])

    model.model.model.layers[1].register_forward_pre_hook(shift)
    assert not agrees(model, three)


def test_there_are_as_many_lanes_as_cores_without_a_compute_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert [n_lanes(n) for n in (1, 2, 3, 4, 6, 12)] == [6, 3, 2, 1, 1, 1]
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert n_lanes(1) == module.MOST


def test_a_station_reads_as_one_lane_does_whatever_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(context=1024)
    cores: Any = lambda _: {0, 1}  # noqa: E731 -- a stand-in
    monkeypatch.setattr(module.os, "sched_getaffinity", cores, raising=False)
    station, cache = Station(model), model.new_cache(full=True)
    assert station.lanes.n == 2
    n, row = station.read(IDS, cache)
    want, other = one_by_one(model, stretches(IDS, 2))
    assert n == len(IDS)
    assert torch.equal(row, want)
    assert same(cache, other)
    sliding = model.new_cache()
    assert station.read(IDS[:5], sliding)[0] == 5
    station.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("elision-lane")]
