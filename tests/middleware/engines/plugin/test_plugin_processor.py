"""The processor that vLLM loads, over both of its interfaces: whatever breaks, replies end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from elision.middleware.engines.plugin.orders import KEY, Order
from elision.middleware.engines.vllm_plugin import ElisionProcessor

from .scripted_orders import MASKS
from .scripted_runner import EOS, STOP, config, params, vllm_modules

V = 259
GUARDED = Order(guard=MASKS.digest, learn=MASKS.body, stop=STOP)


@pytest.fixture(autouse=True)
def _vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELISION_VLLM_SECRET", raising=False)
    monkeypatch.setenv("ELISION_VLLM_UNTESTED", "1")
    for name, module in vllm_modules().items():
        monkeypatch.setitem(sys.modules, name, module)


def scores(n: int) -> Tensor:
    return torch.randn(n, V, generator=torch.Generator().manual_seed(n))


def only(row: Tensor) -> list[int]:
    return row.isfinite().nonzero().flatten().tolist()


# --- the first runner ----------------------------------------------------------------------------


def first(*added: tuple[int, Order | None, list[int]]) -> ElisionProcessor:
    made = ElisionProcessor(config(4), torch.device("cpu"), False)
    rows = [(index, params(order), [*b"abc"], output) for index, order, output in added]
    made.update_state(SimpleNamespace(removed=[], added=rows, moved=[]))
    return made


def test_rows_with_orders_are_adjusted_and_others_left_alone() -> None:
    made, raw = first((0, GUARDED, []), (2, None, [])), scores(3)
    got = made.apply(raw.clone())
    assert got[0, STOP] == -torch.inf
    assert torch.equal(got[1:], raw[1:])


@pytest.mark.parametrize("breaks", ["worker", "rows", "index"])
def test_a_step_that_breaks_ends_the_replies_under_orders_and_not_the_server(
    breaks: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made, raw = first((0, GUARDED, []), (2, GUARDED, []), (1, None, [])), scores(3)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the sea")

    with monkeypatch.context() as patch:
        if breaks == "worker":
            patch.setattr(type(made._worker), "reserved", broken)
        elif breaks == "rows":
            patch.setattr("elision.middleware.engines.plugin.visits.adjust_rows", broken)
        else:
            made._rows[7] = made._rows[0]
        got = made.apply(raw.clone())
    assert [only(got[n]) for n in (0, 2)] == [[STOP], [STOP]]
    assert torch.equal(got[1], raw[1])
    assert "RuntimeError" in caplog.text or breaks == "index"
    assert "the sea" not in caplog.text
    made._rows.pop(7, None)
    assert [only(row) for row in made.apply(scores(3))[[0, 2]]] == [[STOP], [STOP]]


def test_where_not_even_a_stop_can_be_forced_nothing_comes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = first((0, GUARDED, []))

    def broken(*_: Any) -> Any:
        raise RuntimeError("the sea")

    monkeypatch.setattr(type(made._worker), "ends", broken)
    monkeypatch.setattr(type(made._worker), "reserved", broken)
    caplog.set_level(logging.DEBUG)
    assert only(made.apply(scores(1))[0]) == []


def test_parameters_that_nobody_knows_stop_their_row_alone() -> None:
    made, raw = first((0, None, [])), scores(2)
    odd = SimpleNamespace(extra_args={KEY: GUARDED.dumps()})  # no temperature, nothing
    added = [(1, odd, [5], [])]
    made.update_state(SimpleNamespace(removed=[], added=added, moved=[]))
    got = made.apply(raw.clone())
    assert torch.equal(got[0], raw[0])
    assert only(got[1]) == [EOS]


# --- the second ----------------------------------------------------------------------------------


class Watched:
    """A table of tokens that counts what is read of it."""

    def __init__(self, n: int, length: int) -> None:
        self.inner = torch.zeros(n, length, dtype=torch.int32)
        self.n_read = 0

    def __getitem__(self, where: tuple[int, slice]) -> Tensor:
        found = self.inner[where]
        self.n_read += found.numel()
        return found


class Slotted:
    """The second runner's requests, in tensors on the CPU."""

    def __init__(self) -> None:
        self.table = Watched(4, 128)
        self.states = SimpleNamespace(
            all_token_ids=SimpleNamespace(gpu=self.table),
            prompt_len=SimpleNamespace(np=np.zeros(4, dtype=np.int32)),
            total_len=SimpleNamespace(gpu=torch.zeros(4, dtype=torch.int32)),
        )
        self.processor = ElisionProcessor(config(4), self.states)

    def write(self, slot: int, prompt: Sequence[int], output: Sequence[int]) -> None:
        ids = [*prompt, *output]
        self.table.inner[slot, : len(ids)] = torch.tensor(ids, dtype=torch.int32)
        self.states.prompt_len.np[slot] = len(prompt)
        self.states.total_len.gpu[slot] = len(ids)

    def apply(self, raw: Tensor, *rows: tuple[int, int, int, int]) -> Tensor:
        """Tell the processor rows as slot, offset, token fed and position."""
        slots, local, fed, pos = (torch.tensor(column) for column in zip(*rows, strict=True))
        context = SimpleNamespace(
            expanded_idx_mapping=slots.int(),
            idx_mapping_np=slots.numpy(),
            expanded_local_pos=local.int(),
            input_ids=fed.int(),
            pos=pos,
        )
        return self.processor.apply(raw, context)


def test_of_a_slot_only_what_is_new_is_read() -> None:
    slotted, order, output = Slotted(), Order(stop=STOP, guard=MASKS.digest), [*b"the vqovqovq"]
    first((0, GUARDED, []))
    slotted.processor._worker.kept.learn(MASKS.body)
    slotted.processor.add_request(1, params(order))
    for n in range(len(output) + 1):
        slotted.write(1, b"abc", output[:n])
        slotted.table.n_read = 0
        got = slotted.apply(scores(1), (1, 0, 5, 2 + n))
        assert slotted.table.n_read == (3 if n == 0 else 1)
    assert got[0, ord("o")] == -torch.inf
    slotted.write(1, b"abc", output[:5])  # what was read is not what is there
    assert slotted.apply(scores(1), (1, 0, 5, 7))[0, ord("o")].isfinite()


def test_parts_of_a_prompt_are_dead_as_often_as_they_come_and_its_reply_is_not() -> None:
    slotted = Slotted()
    slotted.write(0, b"abcdef", b"")
    slotted.processor.add_request(0, params(Order(stop=STOP)))
    for position in (1, 3):
        assert only(slotted.apply(scores(1), (0, 0, 97, position))[0]) == [STOP]
    for n in range(3):
        slotted.write(0, b"abcdef", b"xyz"[:n])
        assert len(only(slotted.apply(scores(1), (0, 0, 97, 5 + n))[0])) == V - 1


def test_a_token_that_was_fed_and_cannot_be_read_stops_its_row_for_good() -> None:
    slotted = Slotted()
    slotted.write(0, b"abc", b"x")
    slotted.processor.add_request(0, params(Order(stop=STOP)))
    assert only(slotted.apply(scores(1), (0, 0, 97, 4))[0]) == [STOP]
    slotted.write(0, b"abc", b"xyz")
    assert only(slotted.apply(scores(1), (0, 0, 97, 5))[0]) == [STOP]


@pytest.mark.parametrize("is_told", [True, False])
def test_a_step_of_slots_that_breaks_ends_theirs_or_else_all(is_told: bool) -> None:
    slotted, raw = Slotted(), scores(2)
    slotted.write(0, b"abc", b"")
    slotted.processor.add_request(0, params(Order(stop=STOP)))
    slotted.states.total_len.gpu, kept = None, slotted.states.total_len.gpu
    rows = [(0, 0, 97, 2), (1, 0, 97, 2)][: 2 if is_told else 1]
    got = slotted.apply(raw.clone(), *rows)
    assert only(got[0]) == ([STOP] if is_told else [EOS])
    assert torch.equal(got[1], raw[1]) is is_told
    slotted.states.total_len.gpu = kept
    assert len(only(slotted.apply(raw.clone(), (0, 0, 97, 2), (1, 0, 97, 2))[0])) == 1
