"""A runner that calls a proposer as vLLM's first one does: tiny real model, greedy, no cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elision.middleware.engines.plugin.orders import KEY, Order
from elision.middleware.engines.plugin.proposer import ElisionProposer
from elision.testing.models import tiny_model
from elision.testing.tokenizers import byte_tokenizer

N_CONTEXT = 96
STOP = 256
_OWN = ("allowed_token_ids", "bad_words_token_ids")
EOS = 257


class TinyModel:
    """What the runner loads: hidden states in, scores out."""

    def __init__(self, *, seed: int = 0) -> None:
        self.inner = tiny_model(vocab_size=259, seed=seed, hidden_size=32, sharpness=3.0)

    def hidden(self, tokens: Sequence[int]) -> Tensor:
        with torch.inference_mode():
            states: Tensor = self.inner.model(
                torch.tensor([[*tokens]]).clamp(min=0)
            ).last_hidden_state[0]
        return states

    def compute_logits(self, hidden: Tensor) -> Tensor | None:
        with torch.inference_mode():
            scores: Tensor = self.inner.lm_head(hidden)
        return scores


@dataclass(eq=False)
class State:
    """What vLLM's runner keeps of a request."""

    prompt_token_ids: list[int] | None
    sampling_params: Any
    output_token_ids: list[int] = field(default_factory=list)


@dataclass
class Batch:
    """What it keeps of the batch."""

    req_ids: list[str] = field(default_factory=list)
    spec_token_ids: list[list[int]] = field(default_factory=list)


def params(order: Order | None, *, max_tokens: int = 64, **extra: Any) -> SimpleNamespace:
    own = {name: extra.pop(name) for name in _OWN if name in extra}
    given = extra if order is None else {KEY: order.dumps(), **extra}
    return SimpleNamespace(
        **own,
        extra_args=given or None,
        max_tokens=max_tokens,
        temperature=0.0,
        logprobs=None,
        logprob_token_ids=None,
        frequency_penalty=0.0,
        presence_penalty=0.0,
        repetition_penalty=1.0,
    )


class ScriptedRunner:
    """Scores, rejects and drafts as vLLM 0.32's V1 runner and scheduler do.

    Attributes:
        n_steps: Steps so far.
        n_accepted: Drafted tokens that stayed.
        cut: How many of its drafts the scheduler keeps of a request in a step; None: all.
        pads: Whether a request without drafts is made as wide as others, by -1.
    """

    def __init__(self, *, n_drafts: int = 4, seed: int = 0) -> None:
        self.model: Any = TinyModel(seed=seed)
        self.max_model_len = N_CONTEXT
        self.effective_drafter_max_model_len = N_CONTEXT
        self.requests: dict[str, State] = {}
        self.input_batch = Batch()
        self.n_steps = self.n_accepted = 0
        self.cut: dict[str, int] = {}
        self.pads = False
        self._n_drafts = n_drafts
        self._drafts: dict[str, list[int]] = {}
        self.drafter = ElisionProposer(config(n_drafts))

    def load_model(self) -> None:
        self.drafter.load_model(self.model)

    def add(self, name: str, prompt: Sequence[int], order: Order | None, **fields: Any) -> State:
        self.requests[name] = State([*prompt], params(order, **fields))
        return self.requests[name]

    def end(self, name: str) -> list[int]:
        return self.requests.pop(name).output_token_ids

    def schedule(self, names: Sequence[str] | None = None) -> None:
        """Put requests in the batch, with what of their drafts is kept."""
        chosen = [*self.requests] if names is None else [*names]
        kept = {name: self._drafts.pop(name, [])[: self.cut.get(name)] for name in chosen}
        padding = [-1] * self._n_drafts if self.pads else []
        self.input_batch = Batch(chosen, [kept[name] or [*padding] for name in chosen])

    @torch.inference_mode()
    def execute_model(self) -> Tensor:
        rows = []
        for name, drafts in zip(*self._batch, strict=True):
            state = self.requests[name]
            tokens = [*(state.prompt_token_ids or [0]), *state.output_token_ids, *drafts]
            rows.append(self.model.hidden(tokens)[-len(drafts) - 1 :])
        logits = self.model.compute_logits(torch.cat(rows))
        assert logits is not None
        return logits

    @torch.inference_mode()
    def _get_prompt_logprobs_dict(self, n_rows: int) -> Tensor:
        scores: Tensor = self.model.compute_logits(self.model.hidden(range(n_rows)))
        return scores

    @torch.inference_mode()
    def _dummy_sampler_run(self, n_rows: int) -> Tensor:
        scores: Tensor = self.model.compute_logits(self.model.hidden(range(n_rows)))
        return scores

    @torch.inference_mode()
    def elsewhere(self, n_rows: int) -> Tensor:
        """Compute scores at a place that nobody knows."""
        scores: Tensor = self.model.compute_logits(self.model.hidden(range(n_rows)))
        return scores

    @property
    def _batch(self) -> tuple[list[str], list[list[int]]]:
        return self.input_batch.req_ids, self.input_batch.spec_token_ids

    def step(self, names: Sequence[str] | None = None) -> Tensor:
        """Score, accept, draft: one step of the engine; return the scores."""
        self.schedule(names)
        logits = self.execute_model()
        best, start, sampled = logits.argmax(-1).tolist(), 0, []
        for name, drafts in zip(*self._batch, strict=True):
            n = 0
            while n < len(drafts) and best[start + n] == drafts[n]:
                n += 1
            sampled.append(best[start : start + n + 1])
            self.requests[name].output_token_ids.extend(sampled[-1])
            self.n_accepted += n
            start += len(drafts) + 1
        self._propose(sampled)
        self.n_steps += 1
        return logits

    def _propose(self, sampled: list[list[int]]) -> None:
        names = self.input_batch.req_ids
        lengths = [self.n_tokens(name) for name in names]
        table = np.zeros((len(names), N_CONTEXT), np.int32)
        found = self.drafter.propose(sampled, np.array(lengths, np.int32), table)
        self._drafts |= dict(zip(names, found, strict=True))

    def n_tokens(self, name: str) -> int:
        state = self.requests[name]
        return len(state.prompt_token_ids or [0]) + len(state.output_token_ids)

    def run(self, name: str, n_tokens: int, names: Sequence[str] | None = None) -> list[int]:
        """Step until a request has *n_tokens* of its reply; return them."""
        state = self.requests[name]
        while len(state.output_token_ids) < n_tokens:
            self.step(names)
        return state.output_token_ids[:n_tokens]


def config(n_drafts: int) -> SimpleNamespace:
    """Return what of vLLM's configuration is read."""
    model = SimpleNamespace(
        get_vocab_size=lambda: 259,
        try_get_generation_config=lambda: {"eos_token_id": EOS},
        hf_text_config=SimpleNamespace(eos_token_id=EOS),
        logprobs_mode="raw_logprobs",
    )
    drafting = SimpleNamespace(num_speculative_tokens=n_drafts)
    return SimpleNamespace(model_config=model, speculative_config=drafting)


def vllm_modules(version: str = "0.32.0") -> dict[str, Any]:
    """Return what of vLLM is imported: its version, and its tokenizer."""
    tokenizers = SimpleNamespace(cached_tokenizer_from_config=lambda _: byte_tokenizer())
    return {"vllm": SimpleNamespace(__version__=version), "vllm.tokenizers": tokenizers}
