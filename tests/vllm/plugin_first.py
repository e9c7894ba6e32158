"""The first runner's interface, told by vLLM's own batch what comes, goes and moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plugin_replay import CPU, Oracle, Talk, params_of, same
from vllm.v1.sample import logits_processor as first
from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch

from elision.middleware.engines.plugin.orders import Order
from elision.middleware.engines.vllm_plugin import ElisionProcessor


class Batch:
    """vLLM's own batch of the first runner, and requests that come, go, pause and move."""

    def __init__(self, processors: Sequence[ElisionProcessor], talk: Talk, n: int = 6) -> None:
        size = processors[0]._worker.vocab_size
        self.inner = InputBatch(
            max_num_reqs=n,
            max_model_len=256,
            max_num_batched_tokens=256,
            device=CPU,
            vocab_size=size,
            block_sizes=[16],
            max_num_blocks_per_req=[16],
            logitsprocs=first.LogitsProcessors(processors),
            logitsprocs_need_output_token_ids=True,
        )
        self.orders: dict[str, Order | None] = {}
        self.ends: dict[str, int] = {}  # where the stop token was forced
        self.waiting: list[CachedRequestState] = []
        self.states: dict[str, CachedRequestState] = {}
        self.talk = talk
        self.most = n
        self.born = 0

    def new(self, order: Order | None) -> CachedRequestState:
        name, self.born = f"request-{self.born}", self.born + 1
        self.orders[name] = order
        prompt = [self.talk.token() for _ in range(3)]
        return CachedRequestState(
            name, prompt, [], params_of(order), None, block_ids=([0],), num_computed_tokens=0,
            output_token_ids=[],
        )  # fmt: skip

    def turn_over(self, orders: Sequence[Order | None]) -> None:
        """Let requests end, pause, begin and go on, as the runner does it before a step."""
        pick = self.talk.random
        for name in [n for n in self.inner.req_ids if pick.random() < 0.25]:
            self.inner.remove_request(name)
            self.ends.pop(name, None)
            state = self.states.pop(name)
            if pick.random() < 0.5:
                # Of a request that was preempted the runner keeps the tokens, in a list of its own.
                state.output_token_ids = [*state.output_token_ids]
                self.waiting.append(state)
        while self.inner.num_reqs < self.most and pick.random() < 0.7:
            resumes = self.waiting and pick.random() < 0.5
            state = self.waiting.pop() if resumes else self.new(pick.choice(orders))
            self.states[state.req_id] = state
            self.inner.add_request(state)
        self.inner.condense()
        for _ in range(pick.randrange(3) if self.inner.num_reqs > 1 else 0):
            self.inner.swap_states(*pick.sample(range(self.inner.num_reqs), 2))

    def step(self, is_ahead: bool) -> None:
        """Tell the processors; where vLLM schedules ahead, that is when the last token comes."""
        newest = {n: s.output_token_ids[-1:] for n, s in self.states.items()}
        if is_ahead:
            for state in self.states.values():
                state.output_token_ids[-1:] = [-1] * len(state.output_token_ids[-1:])
        self.inner.refresh_metadata()
        for name, state in self.states.items() if is_ahead else ():
            is_late = self.talk.random.random() < 0.1
            state.output_token_ids[-1:] = [-1] * len(newest[name]) if is_late else newest[name]

    def empty(self) -> None:
        """Let every request end."""
        for name in [*self.inner.req_ids]:
            self.inner.remove_request(name)
        self.inner.condense()
        self.inner.refresh_metadata()

    def settle(self) -> None:
        """Write the tokens that came late, and one more for each request."""
        for state in self.states.values():
            known = [self.talk.token() if t == -1 else t for t in state.output_token_ids]
            state.output_token_ids[:] = [*known, self.talk.token()]


def check_first(
    config: Any, orders: Sequence[Order | None], words: Sequence[int]
) -> dict[str, int]:
    """Compare the first runner's rows with the oracle's, whatever comes, goes and moves."""
    processors = [ElisionProcessor(config, CPU, False) for _ in range(2)]  # loaded twice
    oracle, counts = Oracle(processors[0]), {"rows": 0, "dead": 0, "untouched": 0}
    for seed in range(4):
        batch = Batch(processors, Talk(oracle.worker.vocab_size, words, seed))
        for _ in range(15):
            batch.turn_over(orders)
            batch.step(is_ahead=bool(seed % 2))
            raw = batch.talk.scores(batch.inner.num_reqs)
            got = raw.clone()
            for processor in batch.inner.logitsprocs.non_argmax_invariant:
                assert processor.apply(got) is got
            for n, name in enumerate(batch.inner.req_ids):
                state, order = batch.states[name], batch.orders[name]
                want = oracle.row(raw[n], order, state.prompt_token_ids, state.output_token_ids)
                n_said = len(state.output_token_ids)
                if n_said > batch.ends.get(name, n_said):
                    want = oracle.stopped(raw[n])  # vLLM would have ended it
                elif want.isfinite().sum() == 1:
                    batch.ends[name] = n_said
                assert same(got[n], want), (seed, name, order, state.output_token_ids)
                counts["rows"] += 1
                counts["dead"] += int(want.isfinite().sum() == 1)
                counts["untouched"] += int(order is None)
            batch.settle()
        assert processors[0]._rows
        batch.empty()
        assert not processors[0]._rows
    assert processors[1]._acts is False
    return counts
