"""The second runner's interface, over vLLM's own dataclasses with tensors on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from plugin_replay import CPU, STOP, Talk, made_config, params_of
from vllm.v1.sample import logits_processor as first
from vllm.v1.worker.gpu.sample import logits_processor as second

from elision.middleware.engines import vllm_plugin
from elision.middleware.engines.plugin.orders import Order
from elision.middleware.engines.vllm_plugin import ElisionProcessor


class Slotted:
    """The state of the second runner's requests, in tensors on the CPU.

    vLLM's own buffers want pinned memory; what is read of them are these tensors.
    """

    def __init__(self, vocab_size: int, n: int = 6, length: int = 64) -> None:
        self.state = second.LogitsProcRequestState(
            device=CPU,
            max_num_reqs=n,
            vocab_size=vocab_size,
            all_token_ids=SimpleNamespace(gpu=torch.zeros(n, length, dtype=torch.int32)),
            prompt_len=SimpleNamespace(np=np.zeros(n, dtype=np.int32)),
            prefill_len=SimpleNamespace(np=np.zeros(n, dtype=np.int32)),
            total_len=SimpleNamespace(gpu=torch.zeros(n, dtype=torch.int32)),
        )

    def write(self, slot: int, prompt: Sequence[int], output: Sequence[int]) -> None:
        ids = [*prompt, *output]
        self.state.all_token_ids.gpu[slot, : len(ids)] = torch.tensor(ids, dtype=torch.int32)
        self.state.prompt_len.np[slot] = len(prompt)
        self.state.total_len.gpu[slot] = len(ids)

    def context(self, rows: Sequence[tuple[int, int, int, int]]) -> Any:
        """Return the layout of rows given as slot, offset, input token and position."""
        slots, local, ids, pos = (torch.tensor(column) for column in zip(*rows, strict=True))
        each = torch.tensor([row[0] for row in rows if row[1] == 0])
        return second.LogitsContext(
            expanded_idx_mapping=slots,
            idx_mapping=each,
            idx_mapping_np=each.numpy(),
            expanded_local_pos=local,
            input_ids=ids,
            pos=pos,
            seq_lens_upper_bound_np=each.numpy(),
        )


def layout(
    slots: Sequence[int], tokens: dict[int, tuple[list[int], list[int], list[int]]]
) -> Iterator[tuple[int, int, int, int]]:
    for slot in slots:
        prompt, output, drafts = tokens[slot]
        whole = [*prompt, *output]
        fed = [whole[-1], *drafts]
        yield from ((slot, n, fed[n], len(whole) - 1 + n) for n in range(len(fed)))


def check_second(
    config: Any, orders: Sequence[Order | None], words: Sequence[int]
) -> dict[str, int]:
    """Compare the second runner's rows with those of the first, drafts taken as if committed."""
    one = ElisionProcessor(config, CPU, False)
    slotted, other = Slotted(one._worker.vocab_size), made_config(config.model_config.model)
    two = ElisionProcessor(other, slotted.state)
    talk, n_rows = Talk(one._worker.vocab_size, words, 9), 0
    for order in orders:
        one._opened(params_of(order), [])  # so that both have learned the same
    for _ in range(12):
        tokens, held = {}, {}
        for slot in range(6):
            order = talk.random.choice(orders)
            drawn = [[talk.token() for _ in range(talk.random.randrange(k, 5))] for k in (1, 0, 0)]
            tokens[slot], held[slot] = tuple(drawn), order
            slotted.write(slot, drawn[0], drawn[1])
            assert two.add_request(slot, params_of(order)) is (order is not None)
        order_of_slots = talk.random.sample(range(6), talk.random.randrange(1, 7))
        rows = list(layout(order_of_slots, tokens))
        raw = talk.scores(len(rows))
        got = two.apply(raw.clone(), slotted.context(rows))
        for n, (slot, offset, *_) in enumerate(rows):
            prompt, output, drafts = tokens[slot]
            added = (0, params_of(held[slot]), prompt, [*output, *drafts[:offset]])
            one.update_state(first.BatchUpdate(1, removed=[], added=[added], moved=[]))
            assert torch.equal(got[n], one.apply(raw[n : n + 1].clone())[0]), (slot, offset)
            n_rows += 1
    check_parts(two, slotted, talk, words)
    return {"rows": n_rows}


def check_parts(two: ElisionProcessor, slotted: Slotted, talk: Talk, words: Sequence[int]) -> None:
    """See that the rows of a prompt read in parts are dead, and a slot forgets who held it."""
    slotted.write(0, words[:4], [])
    two.add_request(0, params_of(Order(stop=STOP)))
    got = two.apply(talk.scores(1), slotted.context([(0, 0, words[1], 1)]))
    assert got.isfinite().nonzero().tolist() == [[0, STOP]]
    got = two.apply(talk.scores(1), slotted.context([(0, 0, words[3], 3)]))
    assert got.isfinite().sum() > 1
    assert not two.add_request(0, params_of(None))
    raw = talk.scores(1)
    assert two.apply(raw, slotted.context([(0, 0, words[3], 3)])) is raw
    assert two._slots is not None
    assert 0 not in two._slots._slots


def check_untested(folder: str) -> None:
    """See that what nobody has tested carries no order out, unless it is told to."""
    os.environ.pop(vllm_plugin.UNTESTED, None)
    config, slotted = made_config(folder), Slotted(49152)
    two = ElisionProcessor(config, slotted.state)
    slotted.write(0, [5, 6], [])
    assert two.add_request(0, params_of(Order(stop=STOP)))
    got = two.apply(torch.zeros(1, 49152), slotted.context([(0, 0, 6, 1)]))
    assert got.isfinite().nonzero().tolist() == [[0, STOP]]
    assert vllm_plugin.unfit(is_second_runner=False) == ""
    vllm_plugin.vllm_version, kept = "0.99.0", vllm_plugin.vllm_version
    assert "0.99.0" in vllm_plugin.unfit(is_second_runner=False)
    vllm_plugin.vllm_version = kept
